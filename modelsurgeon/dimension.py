"""What happens to one dimension of one stored tensor, and how it is folded back.

A dimension is made of axes (`(kv group head)`, `heads head~ + heads head + heads value`); its `Dimension` is made of
their maps in the same way. Growing is gather x multiply:   new[j] = old[source[j]] * factor[j].
Folding back is its inverse:   sum of new[j] * dual[j] over a fold group  ==  old[group_source] * group_factor.
Copies that must be equal are fold groups of one member each; parts of a sum share a group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

from modelsurgeon.axis_map import GAP, AxisMap


class Run(NamedTuple):
    """new[start:stop] = old[source : source + stop - start] * factor (source GAP: nothing is copied)."""

    start: int
    stop: int
    source: int
    factor: float


@dataclass(frozen=True, eq=False)
class Dimension:
    """One dimension's growth from `size` (n) to `len(source)` (m), with g fold groups.

    source [m] int64, factor [m] float64          how it is grown
    group [m] int64, dual [m] float64             which group each new coordinate folds into, and its weight there
    group_source [g] int64, group_factor [g]      what each group folds to
    """

    size: int
    source: np.ndarray
    factor: np.ndarray
    group: np.ndarray
    dual: np.ndarray
    group_source: np.ndarray
    group_factor: np.ndarray

    @property
    def new_size(self) -> int:
        return len(self.source)

    @cached_property
    def is_identity(self) -> bool:
        return (
            self.new_size == self.size
            and bool(np.all(self.factor == 1))
            and np.array_equal(self.source, np.arange(self.size))
        )

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The fewest runs that make up the dimension, in order."""
        if not self.new_size:
            return ()
        gap = self.source == GAP
        step = np.where(gap[1:] | gap[:-1], gap[1:] & gap[:-1], np.diff(self.source) == 1)
        starts = np.flatnonzero(np.r_[True, ~(step & (np.diff(self.factor) == 0))])
        stops = np.r_[starts[1:], self.new_size]
        return tuple(
            Run(int(a), int(b), int(self.source[a]), float(self.factor[a])) for a, b in zip(starts, stops, strict=True)
        )

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """The distinct factors, gaps left out."""
        return tuple(float(f) for f in np.unique(self.factor[self.source != GAP]))

    @cached_property
    def without_factors(self) -> Dimension:
        """The same gather, multiplied by nothing: for factors that are applied elsewhere."""
        factor = np.where(self.source == GAP, 0.0, 1.0)
        return replace(self, factor=factor, dual=np.zeros_like(self.dual))

    @cached_property
    def rests(self) -> tuple[np.ndarray, np.ndarray]:
        """(leads [l] int64, rests [l, r] float64): the first part of each sum, and the factors of its other parts.

        Subtracting the other parts as they were stored makes a sum exact even where a part is too small for its dtype.
        """
        unit = (self.dual == 1) & (self.source != GAP)
        groups = len(self.group_source)
        count = np.bincount(self.group[unit], minlength=groups)
        total = np.bincount(self.group[unit], weights=self.factor[unit], minlength=groups)
        several = unit & (count[self.group] > 1) & (total[self.group] == 1)
        order = np.flatnonzero(several)[np.argsort(self.group[several], kind="stable")]
        if not len(order):
            return order, np.zeros((0, 0))
        first = np.r_[True, np.diff(self.group[order]) != 0]
        rank = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        row = np.cumsum(first) - 1
        rests = np.zeros((row[-1] + 1, rank.max() + 1))
        rests[row, rank] = self.factor[order]
        return order[first], rests[:, 1:]


def plain(size: int) -> Dimension:
    """A dimension that stays as it is."""
    every, ones = np.arange(size), np.ones(size)
    return Dimension(size, every, ones, every, ones, every, ones)


def along(axis: AxisMap, side: str) -> Dimension:
    """The dimension that one axis makes, seen from its "writers" or its "readers"."""
    factor, dual = (axis.scale, axis.share) if side == "writers" else (axis.share, axis.scale)
    every = np.arange(axis.new_size)
    if side != axis.split:
        return Dimension(axis.size, axis.source, factor, every, np.ones(axis.new_size), axis.source, factor)
    gaps = np.flatnonzero(axis.gaps)
    group = axis.source.copy()
    group[gaps] = axis.size + np.arange(len(gaps))
    even = np.unique(dual[~axis.gaps])
    unit = float(even[0]) if len(even) == 1 else 1.0  # copies that weigh alike fold as a plain sum
    dual = np.where(axis.gaps, 1.0, dual / unit)
    group_source = np.r_[np.arange(axis.size), np.full(len(gaps), GAP)]
    group_factor = np.r_[np.full(axis.size, axis.gain / unit), np.zeros(len(gaps))]
    return Dimension(axis.size, axis.source, factor, group, dual, group_source, group_factor)


def product(parts: list[Dimension]) -> Dimension:
    """The row-major product of dimensions."""
    return reduce(_product, parts)


def _product(a: Dimension, b: Dimension) -> Dimension:
    def indices(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
        return np.where((x[:, None] == GAP) | (y == GAP), GAP, x[:, None] * size + y).ravel()

    return Dimension(
        a.size * b.size,
        indices(a.source, b.source, b.size),
        np.outer(a.factor, b.factor).ravel(),
        (a.group[:, None] * len(b.group_source) + b.group).ravel(),
        np.outer(a.dual, b.dual).ravel(),
        indices(a.group_source, b.group_source, b.size),
        np.outer(a.group_factor, b.group_factor).ravel(),
    )


def concatenation(parts: list[Dimension]) -> Dimension:
    """Dimensions one after another."""

    def shifted(values: list[np.ndarray], by: list[int]) -> np.ndarray:
        return np.concatenate([np.where(v == GAP, GAP, v + s) for v, s in zip(values, by, strict=True)])

    starts = [sum(part.size for part in parts[:i]) for i in range(len(parts))]
    groups = [sum(len(part.group_source) for part in parts[:i]) for i in range(len(parts))]
    return Dimension(
        sum(part.size for part in parts),
        shifted([part.source for part in parts], starts),
        np.concatenate([part.factor for part in parts]),
        shifted([part.group for part in parts], groups),
        np.concatenate([part.dual for part in parts]),
        shifted([part.group_source for part in parts], starts),
        np.concatenate([part.group_factor for part in parts]),
    )
