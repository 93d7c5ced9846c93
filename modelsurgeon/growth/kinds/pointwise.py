"""Axes that pass through an activation alone: copies of scale 1, to any size where no norm reads them."""

from __future__ import annotations

import numpy as np

from modelsurgeon.architectures.norms import is_normalised
from modelsurgeon.growth.growth import Growth
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import AxisMap


def pointwise_map(growth: Growth, name: str) -> AxisMap:
    """Tiles of the axis; the last one may be cut short."""
    size, target = growth.sizes[name], growth.targets[name]
    if target % size and is_normalised(growth.architecture, name):
        raise growth.refusal(name, "a norm reads what an activation writes", growth.multiples(name))
    source, rank, count = orders.tiled(size, target)
    parts = growth.parts(rank, count)
    return orders.gathered(size, source, np.ones(target), parts, 1.0)
