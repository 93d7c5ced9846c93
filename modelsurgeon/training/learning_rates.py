"""Recommended learning rates: the multipliers of each group of tensors, as modelsurgeon.json lists them.

    {"tensors": ["lm_head.weight"], "lr": 0.5, "weight_decay": 2.0, "eps": 1.0, "reason": "..."}

Each number multiplies what the source was trained with; AdamW and its kin, whose step does not depend on the size of
the gradient, are meant. The law is that of `trajectory.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.training.trajectory import Scaling, Trajectory


def recommended(before: Checkpoint, after: Checkpoint) -> Checkpoint:
    """A growth of `before`, with the learning rates for it on record."""
    step = after.steps[-1]
    return replace(after, steps=(*after.steps[:-1], replace(step, learning_rates=learning_rates(before, step.maps))))


def learning_rates(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> tuple[dict[str, Any], ...]:
    """Groups of templates that want the same, in the order of the table.

    maps  {axis: map} of a growth of `checkpoint`
    """
    law = Trajectory(checkpoint.architecture, checkpoint.resolved, maps, checkpoint.is_tied)
    groups: dict[tuple[Any, ...], tuple[list[str], Scaling]] = {}
    for template in checkpoint.architecture.templates:
        if template.name in checkpoint.templates:
            found = law.scaling(template)
            key = (found.lr, found.weight_decay, found.eps, found.reasons)
            groups.setdefault(key, ([], found))[0].append(template.name)
    return tuple(_entry(names, found) for names, found in groups.values())


def _entry(names: list[str], found: Scaling) -> dict[str, Any]:
    entry: dict[str, Any] = {"tensors": names, "lr": found.lr, "weight_decay": found.weight_decay, "eps": found.eps}
    return {**entry, "reason": _reason(found)}


def _reason(found: Scaling) -> str:
    lr, eps = f"{found.lr:.4g}", f"{found.eps:.4g}"
    said = "weights are as large as they were, and so are the steps that follow the source"
    if found.lr != 1:
        said = f"weights are {lr} of the source's, and so must the steps be that follow it; decay stays what it was"
    if found.eps != 1:
        said += f"; gradients are {eps} of the source's, and eps with them"
    return f"{said}; nearly: {_joined(found.reasons)}" if found.reasons else said


def _joined(reasons: Iterable[str]) -> str:
    return ", and ".join(reasons)
