"""A few fold groups of a tensor: enough to show that a map is wrong, without reading the rest.

    expected, found = sampled(expected, found, 64)
    fold(name, expected, found)

Both are lazy tensors of fewer rows, which are folded as whole ones are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelsurgeon.maps import dimension
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.remapped import Remapped

RUN = 8  # consecutive fold groups, which are read together


def sampled(expected: LazyTensor, found: LazyTensor, count: int) -> tuple[LazyTensor, LazyTensor]:
    """Runs of fold groups, spread over the first dimension of both tensors; at most `count` groups."""
    dim = expected.dimensions[0] if expected.dimensions else dimension.ungrown(1)
    groups = len(dim.group_source)
    if groups <= count or callable(expected.fill):
        return expected, found
    starts = np.linspace(0, groups - RUN, max(4, count // RUN)).astype(np.int64)
    chosen = np.unique(np.minimum(groups - 1, starts[:, None] + np.arange(min(RUN, count // 4))))
    place = np.full(groups, -1)
    place[chosen] = np.arange(len(chosen))
    members = np.flatnonzero(place[dim.group] >= 0)
    some = replace(
        dim,
        source=dim.source[members],
        factor=dim.factor[members],
        group=place[dim.group[members]],
        dual=dim.dual[members],
        group_source=dim.group_source[chosen],
        group_factor=dim.group_factor[chosen],
        free=dim.free[members],
    )
    dimensions = some, *expected.dimensions[1:]
    how = expected.constant, expected.offset, expected.fill, expected.free
    picked = _picked(members, found.shape[0]), *map(dimension.ungrown, found.shape[1:])
    return Remapped(expected.base, dimensions, expected.dtype, *how), Remapped(found, picked, found.dtype)


def _picked(members: np.ndarray, size: int) -> Dimension:
    """The dimension that picks some coordinates of `size`."""
    every = dimension.ungrown(len(members))
    return replace(every, size=size, source=members, group_source=members)
