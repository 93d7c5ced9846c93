"""The columns of a stored table of rotations: they follow the rotary pairs of the axis that is rotated."""

from __future__ import annotations

import numpy as np

from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.inner import WHOLE_PAIRS
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import AxisMap


@register
class Angles(Kind):
    word = "angles"
    sizes = "xk"
    grown_by = ("head-dim",)
    unit_scale = True
    is_examined = False
    only_order = "nested pairs"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Nested pairs, at whole multiples only."""
        size, target = growth.sizes[name], growth.targets[name]
        if target % size:
            raise growth.refusal(name, WHOLE_PAIRS, growth.multiples(name))
        source = orders.nested_pairs(size, target // size, "half")
        return orders.gathered(size, source, np.ones(target), np.ones(target), 1.0)

    def check(self, name: str, axis_map: AxisMap) -> None:
        super().check(name, axis_map)
        nested = orders.nested_pairs(axis_map.size, axis_map.new_size // axis_map.size, "half")
        if not np.array_equal(axis_map.source, nested):
            raise PlanError(f"axis {name!r}: the table's columns do not follow the rotary pairs")
