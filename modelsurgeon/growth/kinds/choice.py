"""Biases that a router adds to its scores for the choice alone: one number for each expert."""

from __future__ import annotations

import numpy as np

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps.axis_map import GAP, AxisMap
from modelsurgeon.maps.orders import gathered


@register
class Choice(Kind):
    word = "choice"
    unit_scale = True
    is_examined = False
    joins_leader = True
    only_order = "as the experts"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """The map of the experts, planned before, with a gap for each expert that is never chosen."""
        experts = maps[str(growth.axis(name).follows)]
        source = np.where(experts.share == 0, GAP, experts.source)
        return gathered(experts.size, source, experts.scale, experts.share, 1.0)
