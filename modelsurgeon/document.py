"""What the documents of commands have in common: numbers that JSON knows, no passwords, and what a checkpoint is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.remap import parameters

PASSWORD = re.compile(r"(?<=://)[^/\s@]*@")  # of a URL: user:password@host


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint is, by its headers."""
    return {
        "revision": checkpoint.origin.revision,
        "model_type": checkpoint.config.get("model_type"),
        "model": (checkpoint.config.get("architectures") or [None])[0],
        "dtype": checkpoint.dtype,
        "parameters": parameters(checkpoint),
        "bytes": sum(tensor.nbytes for tensor in checkpoint.tensors.values()),
        "sizes": dict(checkpoint.sizes),
    }


def printable(value: Any) -> Any:
    """The same with the numbers that JSON does not know as texts ("nan", "inf"), and without passwords in URLs."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: printable(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return PASSWORD.sub("", value)
    return [printable(inner) for inner in value] if isinstance(value, list | tuple) else value
