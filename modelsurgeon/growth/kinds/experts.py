"""More experts: copies that the router chooses together, or further ones that it never chooses.

A router gives every token its `active` best experts. Where each expert has k copies with equal scores and a token gets
k times as many experts, it gets all copies of the same ones, each with a k-th of the weight, because the weights are a
softmax over all experts or are divided by their sum. Copies lie side by side, so that groups of consecutive experts
stay groups.

Where a bias is added to the scores for the choice alone, further experts can be added that are never chosen: they copy
old ones of their group, and the bias has a gap there, filled with a number that no score reaches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Axis, Config
from modelsurgeon.architectures.config import lookup
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import gathered, ranks, tiled


@register
class Experts(Kind):
    word = "experts"
    unit_scale = True
    is_expert = True
    only_order = "copies side by side"

    def reach(self, table: Architecture, name: str) -> str:
        axis = table.axes[name]
        if _choices(table, name):
            return f"x{axis.groups}" if axis.groups else "any"
        return "xk" if axis.active else "fixed"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Copies side by side; or, where no more experts are active, further ones that are never chosen."""
        axis, size, target = growth.axis(name), growth.sizes[name], growth.targets[name]
        configs = growth.config, growth.target
        old, new = (int(growth.architecture.value(c, axis.active)) if axis.active else 1 for c in configs)
        if _choices(growth.architecture, name) and old == new:
            count = _groups(axis, growth.config)
            if target % count:
                near = (target // count * count, (target // count + 1) * count)
                raise growth.refusal(name, f"the {count} groups of experts must stay equal", near)
            inside = tiled(size // count, target // count)[0]
            source = (np.arange(count)[:, None] * (size // count) + inside).ravel()
            return gathered(size, source, np.ones(target), np.where(ranks(source)[0] > 0, 0.0, 1.0), 1.0)
        if target % size:
            raise growth.refusal(name, "experts are copied as often as each other", growth.multiples(name))
        copies = target // size
        if new != copies * old:
            raise PlanError(
                f"{axis.key}: {copies} copies of every expert are the same function where {axis.active} is "
                f"{copies * old}, not {new}: the router chooses among them by their scores alone"
            )
        source = np.repeat(np.arange(size), copies)
        return gathered(size, source, np.ones(target), np.full(target, size / target), 1.0)

    def reasons_against(self, table: Architecture, config: Config, maps: Maps, name: str) -> tuple[str, ...]:
        """Raise PlanError for maps after which the router chooses other experts."""
        axis_map, awake = maps[name], np.ones(maps[name].new_size, dtype=bool)
        for choice in _choices(table, name):
            awake = maps[choice].copied
            if not np.array_equal(maps[choice].source[awake], axis_map.source[awake]):
                raise PlanError(f"axis {choice!r}: the router's biases are those of other experts")
        count = _groups(table.axes[name], config)
        copies, rest = divmod(int(awake.sum()), axis_map.size)
        if rest or not np.array_equal(axis_map.source[awake], np.repeat(np.arange(axis_map.size), copies)):
            raise PlanError(f"axis {name!r}: experts are copied as often as each other, side by side and in order")
        if axis_map.size % count or axis_map.new_size % count:
            raise PlanError(f"axis {name!r}: {axis_map.new_size} experts in {count} groups")
        before, after = axis_map.size // count, axis_map.new_size // count
        if not np.array_equal(axis_map.source[awake] // before, np.flatnonzero(awake) // after):
            raise PlanError(f"axis {name!r}: an expert is in a group that was another")
        return ()

    def settings(self, table: Architecture, config: Config, maps: Maps, name: str) -> dict[str, Any]:
        """The number of active experts, times the copies of each that the router can choose."""
        key = table.axes[name].active
        awake = [int(maps[choice].copied.sum()) for choice in _choices(table, name)]
        copies = min([maps[name].new_size, *awake]) // maps[name].size
        return {key: int(table.value(config, key)) * copies} if key and copies != 1 else {}


def _groups(axis: Axis, config: Config) -> int:
    """The number of groups of consecutive experts among which a router chooses."""
    return int(lookup(config, axis.groups) or 1) if axis.groups else 1


def _choices(table: Architecture, name: str) -> list[str]:
    """The axes of the biases that are added to the router's scores for the choice alone."""
    return [other for other, axis in table.axes.items() if axis.follows == name]
