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
import math
import warnings
from collections.abc import Mapping
from typing import Any


def as_read(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """All settings of the library's config object for this config.json; None where the library cannot build it."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return dict(CONFIG_MAPPING[kind].from_dict(copy.deepcopy(dict(config))).to_dict())
    except Exception:  # a class may raise anything when it checks its fields; the caller then compares the files
        return None


def same(a: Any, b: Any) -> bool:
    """Whether two values of a config are equal; floats up to a few roundings, as the order of products may differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-14)
    return bool(a == b)
