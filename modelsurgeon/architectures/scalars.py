"""Scalars of a model that depend on a width: growth has to undo what they change.

Attention divides by sqrt(head); Gemma multiplies its embedding by sqrt(hidden), T5 what reaches its tied head.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelsurgeon.architectures.architecture import Architecture, Config


def width_gain(
    architecture: Architecture, config: Config, name: str, sizes: Mapping[str, int], targets: Mapping[str, int]
) -> float:
    """The product D E that this axis needs: it undoes the power of the axis' size by which the model multiplies."""
    axis = architecture.axes[name]
    if not axis.scaled or not architecture.holds(config, axis.when):
        return 1.0
    over = axis.over or (name,)
    return float((sum(sizes[n] for n in over) / sum(targets[n] for n in over)) ** axis.scaled)


def multiplier(
    architecture: Architecture, config: Config, template: str, sizes: Mapping[str, int], targets: Mapping[str, int]
) -> float:
    """The factor of a tensor that undoes the power of a size by which the model multiplies the tensor's product."""
    axis, power, *when = architecture.multiplied.get(template, ("", 0.0))
    if not power or not architecture.holds(config, when[0] if when else None):
        return 1.0
    return float((sizes[axis] / targets[axis]) ** power)
