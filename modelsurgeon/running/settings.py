"""The settings of a config.json as the library reads it: defaults filled in, old spellings translated.

Other tools write keys that the source leaves out, and leave out defaults. These two are equal:

    {"rope_theta": 10000.0}
    {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}

The library's own config class decides that; no model is built.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

ROUNDINGS = 1e-14  # of two floats that are products of the same numbers in another order


def as_read(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """All settings of the library's config object for this config.json; None where the library cannot build it."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    made = CONFIG_MAPPING[kind]
    try:
        with _silent():
            decoded = made._decode_special_floats(copy.deepcopy(dict(config)))  # {"__float__": "Infinity"}
            return dict(made.from_dict(decoded).to_dict())
    except Exception:  # a class may raise anything when it checks its fields; the caller then compares the files
        return None


@cache
def class_defaults(model_type: str) -> Mapping[str, Any]:
    """{key: default} of the library's config class of a model type; under other names of keys, too. Empty: unknown."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return {}
    made = CONFIG_MAPPING[model_type]
    with _silent():
        known = made().to_dict()
    return {**{alias: known.get(native) for alias, native in made.attribute_map.items()}, **known}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No warnings of `transformers`, which it prints through a logger or onto the terminal."""
    library = logging.getLogger("transformers")
    before = library.level
    library.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        library.setLevel(before)


def same(a: Any, b: Any) -> bool:
    """Whether two values of a config are equal.

    Floats are, up to a few roundings, as the order of products may differ; so are 10000 and 1e4, a list and a tuple,
    NaN and NaN. A bool is no number: code may ask which of both it has.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and _close(a, b)
    return bool(a == b)


def _close(a: float, b: float) -> bool:
    """Whether two numbers, one of them a float, are equal up to ROUNDINGS; NaN equals NaN."""
    try:
        return math.isclose(a, b, rel_tol=ROUNDINGS) or (math.isnan(a) and math.isnan(b))
    except OverflowError:  # an integer that no float holds
        return False


def flat(settings: Mapping[str, Any], prefix: str = "", whole: frozenset[str] = frozenset()) -> dict[str, Any]:
    """{dotted key: value} of every value that is no object; an empty object is a value, and so are those of `whole`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and key not in whole:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
