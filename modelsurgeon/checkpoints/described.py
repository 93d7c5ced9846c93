"""What the documents of commands say of a checkpoint."""

from __future__ import annotations

from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint's revision, model, dtype and sizes, by its headers."""
    return {
        "revision": checkpoint.origin.revision,
        "model_type": checkpoint.config.get("model_type"),
        "model": (checkpoint.config.get("architectures") or [None])[0],
        "dtype": checkpoint.dtype,
        "parameters": checkpoint.parameters,
        "bytes": checkpoint.nbytes,
        "sizes": dict(checkpoint.sizes),
    }
