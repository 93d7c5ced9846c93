"""What happens to one dimension of one stored tensor, and how it is folded back.

A dimension is made of axes (`(kv group head)`, `heads head~ + heads head + heads value`); its `Dimension` is made of
their maps in the same way. Growing is gather x multiply:   new[j] = old[source[j]] * factor[j].
Folding back is its inverse:   sum of new[j] * dual[j] over a fold group  ==  old[group_source] * group_factor.
Copies that must be equal are fold groups of one member each; parts of a sum share a group. A source from `size` on is
no old coordinate but the mean of some: source size + i is the mean of old[means[i]].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from typing import NamedTuple

import numpy as np

from modelsurgeon.errors import PlanError
from modelsurgeon.maps.axis_map import GAP, AxisMap, occurrence


class GatherRun(NamedTuple):
    """new[start:stop] = old[source : source + stop - start] * factor (source GAP: nothing is copied)."""

    start: int
    stop: int
    source: int
    factor: float


@dataclass(frozen=True, eq=False)
class Dimension:
    """One dimension's growth from `size` (n) to `len(source)` (m), with g fold groups.

    source [m] int64, factor [m] float64          how it is grown
    means                                         for each mean, [k] int64: the old coordinates that it is taken of
    free   [m] bool                               gaps that may hold anything, since the numbers written there are zero
    group [m] int64, dual [m] float64             which group each new coordinate folds into, and its weight there
    group_source [g] int64, group_factor [g]      the old coordinate that each group folds to, and its factor
    """

    size: int
    source: np.ndarray
    factor: np.ndarray
    group: np.ndarray
    dual: np.ndarray
    group_source: np.ndarray
    group_factor: np.ndarray
    free: np.ndarray
    means: tuple[np.ndarray, ...] = ()

    @property
    def new_size(self) -> int:
        """How many new coordinates there are."""
        return len(self.source)

    def rearranged(self, before: np.ndarray, after: np.ndarray) -> Dimension:
        """Reorder both sides: place p holds what was at before[p] among the old, at after[p] among the new."""
        place = np.full(self.extended_size + 1, GAP)  # the last one is that of GAP, index -1
        place[np.r_[before, np.arange(self.size, self.extended_size)]] = np.arange(self.extended_size)
        return replace(
            self,
            source=place[self.source[after]],
            factor=self.factor[after],
            group=self.group[after],
            dual=self.dual[after],
            group_source=place[self.group_source],
            free=self.free[after],
            means=tuple(place[mean] for mean in self.means),
        )

    @cached_property
    def is_identity(self) -> bool:
        """Whether the dimension stays as it is."""
        return (
            self.new_size == self.size
            and bool(np.all(self.factor == 1))
            and np.array_equal(self.source, np.arange(self.size))
        )

    @property
    def emptied(self) -> Dimension:
        """A dimension of the new size that has only gaps."""
        nothing, none = np.full(self.new_size, GAP), np.zeros(self.new_size)
        every, ones = np.arange(self.new_size), np.ones(self.new_size)
        return Dimension(self.size, nothing, none, every, ones, nothing, none, np.zeros(self.new_size, dtype=bool))

    @cached_property
    def group_free(self) -> np.ndarray:
        """[g] bool: which fold groups consist of free gaps."""
        return np.bincount(self.group, weights=self.free, minlength=len(self.group_source)) > 0

    def then(self, later: Dimension) -> Dimension | None:
        """The one growth that has the effect of this one followed by a later one.

        None where either has means, or where the later one copies some parts of a sum more often than others. A group
        of the later growth folds to one coordinate of the middle; the groups of all parts of a sum fold together.
        """
        if self.means or later.means or np.any(later.group_factor[later.group_source != GAP] == 0):
            return None
        gap = later.source == GAP
        middle = np.where(gap, 0, later.source)
        copied = np.flatnonzero(later.group_source != GAP)
        at = later.group_source[copied]  # the middle coordinate that each group folds to
        turn = occurrence(at)
        times = np.bincount(at, minlength=self.new_size)
        if any(len(set(times[self.group == group])) > 1 for group in np.flatnonzero(np.bincount(self.group) > 1)):
            return None
        width = int(times.max(initial=1))
        names = np.full(len(later.group_source), -1)  # of the groups that fold together
        names[copied] = self.group[at] * width + turn
        names[later.group_source == GAP] = len(self.group_source) * width + np.arange(np.sum(later.group_source == GAP))
        every, number = np.unique(names, return_inverse=True)
        old = every // width
        new = old >= len(self.group_source)
        old = np.where(new, 0, old)
        through = np.ones(len(later.group_source))
        through[copied] = self.dual[at] / later.group_factor[copied]
        source = np.where(gap, GAP, self.source[middle])
        return Dimension(
            self.size,
            source,
            np.where(source == GAP, 0.0, later.factor * self.factor[middle]),
            number[later.group],
            later.dual * through[later.group],
            np.where(new, GAP, self.group_source[old]),
            np.where(new, 0.0, self.group_factor[old]),
            later.free | (~gap & self.free[middle]),
        )

    @property
    def extended_size(self) -> int:
        """How many coordinates a source may name: the old ones and the means."""
        return self.size + len(self.means)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(lead [m] int64, sign [m] int8): pairs of equal parts of one sum, and the first part of each pair.

        sign  1 for the first part, -1 for the second, 0 for a coordinate without a twin
        """
        lead, sign = np.arange(self.new_size), np.zeros(self.new_size, dtype=np.int8)
        live = np.flatnonzero((self.source != GAP) & (self.factor != 0) & ~self.free)
        kinds = np.stack([self.group, self.factor, self.dual])[:, live]
        order = np.lexsort(kinds)
        same = np.r_[False, (kinds[:, order[1:]] == kinds[:, order[:-1]]).all(0)][: len(order)]
        order = live[order]
        at = np.arange(len(order))
        rank = at - np.maximum.accumulate(np.where(same, 0, at))
        second = np.flatnonzero(same & (rank % 2 == 1))
        lead[order[second]] = order[second - 1]
        sign[order[second]], sign[order[second - 1]] = -1, 1
        return lead, sign

    @cached_property
    def filled(self) -> Dimension:
        """Free gaps filled with old coordinates, one after another."""
        live, gaps = np.flatnonzero((self.source != GAP) & (self.factor != 0)), np.flatnonzero(self.free)
        source, factor = self.source.copy(), self.factor.copy()
        taken = live[np.arange(len(gaps)) % max(1, len(live))]
        source[gaps], factor[gaps] = source[taken], factor[taken]
        return replace(self, source=source, factor=factor)

    @cached_property
    def runs(self) -> tuple[GatherRun, ...]:
        """The fewest runs that make up the dimension, in order."""
        if not self.new_size:
            return ()
        gap = self.source == GAP
        step = np.where(gap[1:] | gap[:-1], gap[1:] & gap[:-1], np.diff(self.source) == 1)
        starts = np.flatnonzero(np.r_[True, ~(step & (np.diff(self.factor) == 0))])
        stops = np.r_[starts[1:], self.new_size]
        columns = starts, stops, self.source[starts], self.factor[starts]
        return tuple(map(GatherRun, *(column.tolist() for column in columns)))

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """The distinct factors, gaps left out."""
        return tuple(float(f) for f in np.unique(self.factor[self.source != GAP]))

    @cached_property
    def without_factors(self) -> Dimension:
        """The gather alone, for factors that are applied elsewhere."""
        return replace(self, factor=np.where(self.source == GAP, 0.0, 1.0), dual=np.zeros_like(self.dual))

    @cached_property
    def rests(self) -> tuple[np.ndarray, np.ndarray]:
        """(leads [l] int64, rests [l, r] float64): the first part of each sum, and the factors of its other parts.

        A first part that is the whole less the other parts, as they are stored, makes the sum exact even where a part
        is too small for its dtype.
        """
        unit = (self.dual == 1) & (self.source != GAP)
        groups = len(self.group_source)
        count = np.bincount(self.group[unit], minlength=groups)
        total = np.bincount(self.group[unit], weights=self.factor[unit], minlength=groups)
        several = unit & (count[self.group] > 1) & (total[self.group] == 1)
        order = np.flatnonzero(several)[np.argsort(self.group[several], kind="stable")]
        if not len(order):
            return order, np.zeros((0, 0))
        rank = occurrence(self.group[order])
        row = np.cumsum(rank == 0) - 1
        rests = np.zeros((row[-1] + 1, rank.max() + 1))
        rests[row, rank] = self.factor[order]
        return order[rank == 0], rests[:, 1:]


@lru_cache(maxsize=8)
def ungrown(size: int) -> Dimension:
    """A dimension that stays as it is."""
    every, ones = np.arange(size), np.ones(size)
    return Dimension(size, every, ones, every, ones, every, ones, np.zeros(size, dtype=bool))


def along(axis: AxisMap, side: str) -> Dimension:
    """The dimension of one axis, for the "writers" or the "readers" of that axis."""
    factor, dual = (axis.scale, axis.share) if side == "writers" else (axis.share, axis.scale)
    every = np.arange(axis.new_size)
    free = axis.gaps & (side == "readers")
    if side != axis.split:
        mean = axis.size if side == "writers" else GAP  # readers ignore a mean
        source = np.where(axis.means, mean, axis.source)
        means = (np.arange(axis.size),) if side == "writers" and axis.means.any() else ()
        return Dimension(axis.size, source, factor, every, np.ones(axis.new_size), source, factor, free, means)
    if side == "writers" and axis.means.any():
        raise PlanError("an axis that is split among its writers cannot hold a mean")
    source = np.where(axis.copied, axis.source, GAP)
    gaps = np.flatnonzero(source == GAP)
    group = source.copy()
    group[gaps] = axis.size + np.arange(len(gaps))
    even = np.unique(dual[axis.copied])
    unit = float(even[0]) if len(even) == 1 else 1.0  # copies that weigh alike fold as a plain sum
    dual = np.where(axis.copied, dual / unit, 1.0)
    group_source = np.r_[np.arange(axis.size), np.full(len(gaps), GAP)]
    group_factor = np.r_[np.full(axis.size, axis.gain / unit), np.zeros(len(gaps))]
    return Dimension(axis.size, source, factor, group, dual, group_source, group_factor, free)


def product(parts: list[Dimension]) -> Dimension:
    """The row-major product of dimensions."""
    return reduce(_product, parts)


def _product(a: Dimension, b: Dimension) -> Dimension:
    if a.means and b.means:
        raise PlanError("a dimension cannot hold means of two axes")
    size = a.size * b.size
    width = b.size + len(b.means)  # of a row in the product's own numbering; then means move behind all coordinates
    means = [*(x * b.size + mean for x in range(a.size) for mean in b.means)]
    means += [mean * b.size + y for mean in a.means for y in range(b.size)]
    rows, columns = np.divmod(np.arange((a.size + len(a.means)) * width), width)
    place = np.where(columns < b.size, rows * b.size + columns, size + rows * len(b.means) + columns - b.size)
    place = np.where(rows < a.size, place, size + a.size * len(b.means) + (rows - a.size) * b.size + columns)

    def indices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        gap = (x[:, None] == GAP) | (y == GAP)
        return np.where(gap, GAP, place[np.where(gap, 0, x[:, None] * width + y)]).ravel()

    return Dimension(
        size,
        indices(a.source, b.source),
        np.outer(a.factor, b.factor).ravel(),
        (a.group[:, None] * len(b.group_source) + b.group).ravel(),
        np.outer(a.dual, b.dual).ravel(),
        indices(a.group_source, b.group_source),
        np.outer(a.group_factor, b.group_factor).ravel(),
        np.logical_or.outer(a.free, b.free).ravel(),
        tuple(means),
    )


def concatenation(parts: list[Dimension]) -> Dimension:
    """Dimensions one after another."""
    return reduce(_concatenation, parts)


def _concatenation(a: Dimension, b: Dimension) -> Dimension:
    size, means = a.size + b.size, a.size + b.size + len(a.means)
    place_a = np.r_[np.arange(a.size), np.arange(size, means), GAP]  # the last one is that of GAP, index -1
    place_b = np.r_[np.arange(a.size, size), np.arange(means, means + len(b.means)), GAP]
    return Dimension(
        size,
        np.r_[place_a[a.source], place_b[b.source]],
        np.r_[a.factor, b.factor],
        np.r_[a.group, len(a.group_source) + b.group],
        np.r_[a.dual, b.dual],
        np.r_[place_a[a.group_source], place_b[b.group_source]],
        np.r_[a.group_factor, b.group_factor],
        np.r_[a.free, b.free],
        (*a.means, *(a.size + mean for mean in b.means)),
    )
