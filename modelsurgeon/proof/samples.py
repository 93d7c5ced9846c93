"""A few fold groups of a tensor: enough to show that a map is wrong, without reading the rest.

    expected, found = sampled(expected, found, 64)
    fold(name, expected, found)

Both are lazy tensors of fewer rows, folded as whole ones are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelsurgeon.maps import dimension
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.remapped import Remapped

RUN = 8  # consecutive fold groups that are read together


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
    rules = expected.constant, expected.offset, expected.fill, expected.free
    rows = replace(dimension.ungrown(len(members)), size=found.shape[0], source=members, group_source=members)
    picked = rows, *map(dimension.ungrown, found.shape[1:])
    wanted = Remapped(expected.base, (some, *expected.dimensions[1:]), expected.dtype, *rules)
    return wanted, Remapped(found, picked, found.dtype)
