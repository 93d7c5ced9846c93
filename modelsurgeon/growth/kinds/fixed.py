"""Axes that never grow: the vocabulary, stored positions, labels."""

from __future__ import annotations

from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import identity


@register
class Fixed(Kind):
    word = "fixed"
    sizes = "fixed"
    keeps_size = True
    is_examined = False

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """The identity; raises PlanError, with the table's reason, for any other size."""
        size = growth.sizes[name]
        if growth.targets[name] != size:
            raise growth.refusal(name, growth.axis(name).why or "this axis does not grow", (size,))
        return identity(size)

    def check(self, name: str, axis_map: AxisMap) -> None:
        raise PlanError(f"axis {name!r} does not grow")
