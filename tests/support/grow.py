"""Widening without noise unless a test asks for it, so that copies can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.operations.widen import Widen


def widen(
    checkpoint: Checkpoint, factor: int | None = None, settings: Mapping[str, Any] | None = None, **options: Any
) -> Checkpoint:
    """The checkpoint at other widths, lazily; `options` are those of `Widen`."""
    if factor is None and settings:
        options.pop("attention", None)
    return applied(Widen(factor=factor, set=settings or {}, **{"noise": 0.0, **options}), checkpoint)
