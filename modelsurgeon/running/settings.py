"""The settings of a config.json as the library reads it: defaults filled in, old spellings translated.

Other tools write keys that the source leaves out, and leave out what is a default:

    {"rope_theta": 10000.0}  and  {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}

say the same. The library's own config class decides that; no model is built.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import warnings
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def as_read(config: Config) -> dict[str, Any] | None:
    """All settings that the library's class makes of a config; None where it cannot be made."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            found: dict[str, Any] = CONFIG_MAPPING[kind].from_dict(copy.deepcopy(dict(config))).to_dict()
    except Exception:  # whatever a class that checks its fields raises: the file's own words are compared then
        return None
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two values of a config are equal; floats to a few roundings, for products are taken in other orders."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-14)
    return bool(a == b)
