"""The maps that another tool may have given an axis, and the samples of tensors that they are tried on.

A map is an order of the copies times a factor of the writers:

    tiles          x1 x2 x1 x2         HyperCloning, Net2Net's first layers
    side by side   x1 x1 x2 x2         Su Jianlin's repeat
    then zeros     x1 x2 0 0
    nested         rotary pair j at pair k j, zeros between (repeated: each pair k times, not lossless)

The kind of the axis lists them. The weight of each reader is open: it may have noise. Only the sum over the copies
counts, and that follows from the writers' factors.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import SAME, Maps, kind_of
from modelsurgeon.maps import dimension, orders
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.signature import Signature
from modelsurgeon.proof.places.arranged import Order
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.remapped import Remapped

MOST = 64  # candidates of one axis
RUN = 8  # consecutive fold groups of a sample, which are read together


@dataclass(frozen=True, eq=False)
class Candidate:
    """One map of an axis, and the name of its order of copies."""

    order: str
    axis_map: AxisMap

    @property
    def description(self) -> str:
        """The order, and the factors of both sides."""
        m = self.axis_map
        if m.is_identity:
            return "as it was"
        return f"{self.order}, writers {_factor(m.scale[m.copied])}, readers {_factor(m.share[m.copied])}"


def candidates(growth: Growth, name: str, maps: Maps, order: Order | None = None) -> list[Candidate]:
    """The candidates of an axis, the likeliest first; `maps` has those of the axes that it depends on.

    order  one that the weights have shown, beside the usual ones
    """
    axis, size, target = growth.axis(name), growth.sizes[name], growth.targets[name]
    stays = size == target and growth.gain(name) == 1.0 and not growth.reads_tied(name)
    found = [Candidate("as it was", orders.identity(size))] if stays else []
    if axis.grows:
        if order is not None:
            with contextlib.suppress(PlanError):
                found = [*_of_order(growth, name, maps, order), *found]
        with contextlib.suppress(PlanError):
            found += [Candidate(*pair) for pair in kind_of(axis).candidates(growth, name, maps)]
    norms = [signature for _, signature in growth.architecture.norms]
    placed = [c for c in found if all(keeps_places(norm, {**maps, name: c.axis_map}) for norm in norms)]
    distinct: dict[tuple[bytes, ...], Candidate] = {}
    for candidate in placed or found:
        m = candidate.axis_map
        key = m.source.tobytes(), np.round(m.scale, 12).tobytes(), np.round(m.share, 12).tobytes(), m.split.encode()
        distinct.setdefault(key, candidate)
    if distinct:
        return list(distinct.values())[:MOST]
    if target < size or not axis.grows:
        return [Candidate("cut short", orders.identity(size))]
    source, _, count = orders.tiled(size, target)  # a map without meaning: the proof then names what is wrong
    return [Candidate("cut short", AxisMap(size, source, np.ones(len(source)), 1 / count))]


def _of_order(growth: Growth, name: str, maps: Maps, order: Order) -> list[Candidate]:
    """The candidates of one order of copies, with its signs and without."""
    kind, source, gain, found = kind_of(growth.axis(name)), order.source, growth.gain(name), list[Candidate]()
    if growth.reads_tied(name) or len(source) != growth.targets[name]:
        return []
    size, copied = growth.sizes[name], source >= 0
    says = "reordered" if len(source) == size else "copies in an order of their own"
    for factors in kind.factors(growth, name, source, maps):
        for signs in (order.signs, None) if order.signs is not None else (None,):
            scale = factors if signs is None else np.where(copied, factors * signs, factors)
            energy = np.bincount(source[copied], weights=scale[copied] ** 2, minlength=size)
            share = np.zeros(len(source))
            share[copied] = gain * scale[copied] / np.where(energy == 0, 1.0, energy)[source[copied]]
            share = np.where(np.abs(share - scale) < SAME * np.abs(scale), scale, share)
            words = says if signs is None else f"{says} and with other signs"
            found.append(Candidate(words, orders.gathered(size, source, scale, share, gain)))
    return found


def keeps_places(norm: Signature, maps: Maps) -> bool:
    """Whether a norm leaves each coordinate in its place, as far as the maps of its axes are decided."""
    read = norm.normalises.axes() if norm.normalises else ()
    decided = [(maps[a], maps[b]) for a, b in zip(read, norm.gains, strict=False) if a in maps and b in maps]
    return all(np.array_equal(a.behind_norm, b.source) for a, b in decided)


def sampled(expected: LazyTensor, found: LazyTensor, count: int) -> tuple[LazyTensor, LazyTensor]:
    """At most `count` fold groups of rows of both tensors, enough to show that a map is wrong without reading the rest.

    They are runs of consecutive groups, spread over the tensor, and are folded as whole tensors are.
    """
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


def _factor(values: np.ndarray) -> str:
    """A factor as people write it: x1/2, x√2; several of them: the smallest and the largest."""
    ascending = [_number(float(value)) for value in np.unique(np.round(values, 12))]
    return f"x{ascending[0]}" + (f" to x{ascending[-1]}" if len(ascending) > 1 else "")


def _number(value: float) -> str:
    if value < 0:
        return f"-{_number(-value)}"
    for root, sign in ((1, ""), (2, "√"), (4, "∜")):
        power = Fraction(value**root).limit_denominator(4096)
        if power and abs(float(power) - value**root) < 1e-10 * value**root:
            return str(power) if root == 1 else f"{sign}{power}" if power.denominator == 1 else f"{sign}({power})"
    return f"{value:.6g}"
