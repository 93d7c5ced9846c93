"""Recommended learning rates: the multipliers of each group of tensors, as modelsurgeon.json lists them.

    {"tensors": ["lm_head.weight"], "lr": 0.5, "weight_decay": 2.0, "eps": 1.0, "reason": "..."}

Each number multiplies the one that the source was trained with. They hold for AdamW and optimizers like it, whose steps
do not depend on the size of the gradient. `trajectory.py` has the law.
"""

from __future__ import annotations

from dataclasses import replace

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.training.trajectory import Trajectory


def recommended(before: Checkpoint, after: Checkpoint) -> Checkpoint:
    """`after`, which is `before` with one more growth, with learning rates for that growth on record.

    Templates with equal multipliers and reasons are one group.
    """
    step = after.steps[-1]
    law = Trajectory(before.architecture, before.resolved, step.maps, before.is_tied)
    groups: dict[tuple[float, float, float, tuple[str, ...]], list[str]] = {}
    for template in before.architecture.templates:
        if template.name in before.templates:
            scaling = law.scaling(template)
            key = (scaling.lr, scaling.weight_decay, scaling.eps, scaling.reasons)
            groups.setdefault(key, []).append(template.name)
    entries = [
        {"tensors": names, "lr": lr, "weight_decay": decay, "eps": eps, "reason": _reason(lr, eps, reasons)}
        for (lr, decay, eps, reasons), names in groups.items()
    ]
    return replace(after, steps=(*after.steps[:-1], replace(step, learning_rates=tuple(entries))))


def _reason(lr: float, eps: float, reasons: tuple[str, ...]) -> str:
    text = "weights are as large as they were, and so are the steps that follow the source"
    if lr != 1:
        text = f"weights are {lr:.4g} of the source's, and so must the steps be that follow it; decay stays what it was"
    if eps != 1:
        text += f"; gradients are {eps:.4g} of the source's, and eps with them"
    return f"{text}; nearly: {', and '.join(reasons)}" if reasons else text
