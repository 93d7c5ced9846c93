"""One dimension of a block: consecutive fold groups and their members, both read and moved run by run.

If whole tiles double a dimension of 16, the members of groups 8 to 11 are coordinates 8 to 11 and 24 to 27: two runs of
four, so that folding adds two slices instead of eight coordinates one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.lazy import LazyTensor

SHORT = 16  # coordinates: runs that are shorter on average are moved by index

Get = Callable[[int, int], torch.Tensor]  # consecutive coordinates start:stop


class FoldedRun(NamedTuple):
    """Coordinates at:at + length: one member each of groups target:target + length, all of one weight."""

    at: int
    target: int
    length: int
    weight: float


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive fold groups along one dimension.

    groups   [g] int64
    members  [m] int64, ascending: their new coordinates
    """

    dimension: Dimension
    groups: np.ndarray
    members: np.ndarray

    @cached_property
    def source(self) -> np.ndarray:
        """[g] int64: the old coordinate that each group folds to; GAP: none."""
        return np.asarray(self.dimension.group_source[self.groups])

    @cached_property
    def old(self) -> np.ndarray:
        """[g] int64: `source` with 0 in gaps."""
        return np.where(self.source == GAP, 0, self.source)

    @cached_property
    def old_runs(self) -> list[tuple[int, int]]:
        """(start, length) of the runs of `old`."""
        return _consecutive(self.old)

    @cached_property
    def gaps(self) -> torch.Tensor:
        """Int64: the places of groups that copy no coordinate."""
        return torch.from_numpy(np.flatnonzero(self.source == GAP))

    @cached_property
    def free(self) -> torch.Tensor:
        """Int64: the places of groups that nothing reads, or that read zeros."""
        return torch.from_numpy(np.flatnonzero(self.dimension.group_free[self.groups]))

    @cached_property
    def target(self) -> np.ndarray:
        """[m] int64: the place of each member's group."""
        return np.asarray(self.dimension.group[self.members] - (self.groups[0] if len(self.groups) else 0))

    @cached_property
    def dual(self) -> np.ndarray:
        """[m] float64: the weight of each member in its group's sum."""
        return np.asarray(self.dimension.dual[self.members])

    @cached_property
    def is_plain(self) -> bool:
        """Whether each member is a group of its own, with weight 1."""
        return np.array_equal(self.target, np.arange(len(self.groups))) and bool(np.all(self.dual == 1))

    @cached_property
    def runs(self) -> tuple[FoldedRun, ...]:
        """The fewest runs of members that belong to consecutive groups."""
        starts = np.flatnonzero(np.r_[True, (np.diff(self.target) != 1) | (np.diff(self.dual) != 0)])
        lengths = np.diff(np.r_[starts, len(self.target)])
        columns = (starts, self.target[starts], lengths, self.dual[starts])
        return tuple(map(FoldedRun, *(column.tolist() for column in columns)))


def read_rows(
    tensor: LazyTensor, rows: np.ndarray, columns: tuple[int, int] | None = None, empty: Empty = fresh
) -> torch.Tensor:
    """Rows in this order, read run by run; of dimension 1 the columns first:last, or all."""
    first, last = columns or (0, None)
    return by_runs(lambda a, b: tensor.read(a, b, empty, first, last), rows, 0, empty)


def by_runs(get: Get, wanted: np.ndarray, axis: int, empty: Empty = fresh) -> torch.Tensor:
    """Coordinates along an axis in this order, each read once by get(start, stop), run by run."""
    if not len(wanted):
        return get(0, 0)
    ordered = wanted if bool(np.all(np.diff(wanted) > 0)) else np.unique(wanted)
    found = [get(at, at + length) for at, length in _consecutive(ordered)]
    block = found[0]
    if len(found) > 1:
        shape = [*block.shape[:axis], len(ordered), *block.shape[axis + 1 :]]
        block = torch.cat(found, axis, out=empty(shape, block.dtype))
    if ordered is wanted:
        return block
    places = np.searchsorted(ordered, wanted)
    return taken(block, axis, places, _consecutive(places), empty)


def taken(
    values: torch.Tensor, axis: int, wanted: np.ndarray, runs: list[tuple[int, int]], empty: Empty
) -> torch.Tensor:
    """Coordinates of `values` along an axis in this order; `runs`: (start, length) of their runs."""
    if runs == [(0, values.shape[axis])]:
        return values
    if SHORT * len(runs) > len(wanted):
        return values.index_select(axis, torch.from_numpy(wanted))
    shape = [*values.shape[:axis], len(wanted), *values.shape[axis + 1 :]]
    return torch.cat([values.narrow(axis, *run) for run in runs], axis, out=empty(shape, values.dtype))


def _consecutive(wanted: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of runs of consecutive numbers."""
    starts = np.flatnonzero(np.r_[True, np.diff(wanted) != 1][: len(wanted)])
    lengths = np.diff(np.r_[starts, len(wanted)])
    return list(zip(wanted[starts].tolist(), lengths.tolist(), strict=True))


def broadcast(axis: int, ndim: int) -> list[int]:
    """The shape that broadcasts a vector along one axis."""
    return [1] * axis + [-1] + [1] * (ndim - axis - 1)
