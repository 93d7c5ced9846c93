"""What the documents of commands have in common: numbers that JSON knows, no passwords, and what a checkpoint is."""

from __future__ import annotations

from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint is, by its headers."""
    return {
        "revision": checkpoint.origin.revision,
        "model_type": checkpoint.config.get("model_type"),
        "model": (checkpoint.config.get("architectures") or [None])[0],
        "dtype": checkpoint.dtype,
        "parameters": checkpoint.parameters,
        "bytes": sum(tensor.nbytes for tensor in checkpoint.tensors.values()),
        "sizes": dict(checkpoint.sizes),
    }
