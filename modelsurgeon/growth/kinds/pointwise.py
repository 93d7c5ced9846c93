"""Axes that pass through an activation alone: copies of scale 1, to any size where no norm reads them."""

from __future__ import annotations

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.norms import is_normalised
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps.axis_map import AxisMap


@register
class Pointwise(Kind):
    word = "pointwise"
    grown_by = ("head-dim", "heads")
    unit_scale = True

    def reach(self, table: Architecture, name: str) -> str:
        return "xk" if is_normalised(table, name) else "any"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Tiles. Raises PlanError for a part of a tile where a norm would see it."""
        if growth.targets[name] % growth.sizes[name] and is_normalised(growth.architecture, name):
            raise growth.refusal(name, "a norm reads what an activation writes", growth.multiples(name))
        return super().map(growth, name, maps)
