"""The maps that another tool may have given an axis: an order of the copies times a factor of the writers.

    tiles          x1 x2 x1 x2         HyperCloning, Net2Net's first layers
    side by side   x1 x1 x2 x2         Su Jianlin's repeat
    then zeros     x1 x2 0 0
    nested         rotary pair j at pair k j, zeros between (repeated: each pair k times, not lossless)

What readers of a copy weigh is not told: they may carry noise, only their sum over the copies counts, and that follows
from the writers' factors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import sqrt

import numpy as np

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.architectures.norms import is_normalised
from modelsurgeon.architectures.scalars import multiplier, width_gain
from modelsurgeon.architectures.words import Axis
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds import heads
from modelsurgeon.growth.kinds.attention import angles_map
from modelsurgeon.growth.kinds.experts import choice_map, experts_map
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.signature import Signature, gain_factors

Maps = Mapping[str, AxisMap]
MOST = 64  # candidates of one axis
SAME = 1e-14  # factors nearer to each other than this are one: a few float64 operations


@dataclass(frozen=True, eq=False)
class Candidate:
    """One map of an axis, and how it is said."""

    order: str
    axis_map: AxisMap

    @property
    def said(self) -> str:
        """The order, and the factors of both sides."""
        m = self.axis_map
        if m.is_identity:
            return "as it was"
        return f"{self.order}, writers {_factor(m.scale[m.copied])}, readers {_factor(m.share[m.copied])}"


@dataclass(frozen=True)
class Candidates:
    """The candidates of every axis between two configs (resolved) of one family.

    tied   the head is the embedding, in source and result
    """

    architecture: Architecture
    config: Config
    target: Config
    tied: bool

    @cached_property
    def growth(self) -> Growth:
        return Growth(self.architecture, self.config, self.target, "exact", tied=self.tied)

    @property
    def sizes(self) -> dict[str, int]:
        return self.growth.sizes

    @cached_property
    def targets(self) -> dict[str, int]:
        return self.architecture.sizes(self.target)

    def of(self, name: str, maps: Maps) -> list[Candidate]:
        """The candidates of an axis, the likeliest first; `maps` has what it follows, and what norms write it from."""
        axis = self.architecture.axes[name]
        found = [Candidate("as it was", orders.identity(self.sizes[name]))] if self._stays(name) else []
        if axis.through != "fixed" and not (found and axis.through in ("pointwise", "linear", "experts")):
            found += self._of(name, axis, maps)
        norms = [signature for _, signature in self.architecture.norms]
        placed = [c for c in found if all(keeps_places(norm, {**maps, name: c.axis_map}) for norm in norms)]
        return _distinct(placed or found)[:MOST] or [Candidate("cut short", self._nothing_fits(name))]

    def _stays(self, name: str) -> bool:
        gain = width_gain(self.architecture, self.config, name, self.sizes, self.targets)
        return self.sizes[name] == self.targets[name] and gain == 1.0 and not (self.tied and self._reads_tied(name))

    def _reads_tied(self, name: str) -> bool:
        tie = self.architecture.tie
        return bool(tie and tie.axis == name)

    def _nothing_fits(self, name: str) -> AxisMap:
        """A map without meaning, where no other is known: the proof says what is wrong."""
        if self.targets[name] < self.sizes[name] or self.architecture.axes[name].through == "fixed":
            return orders.identity(self.sizes[name])
        source, _, count = orders.tiled(self.sizes[name], self.targets[name])
        return AxisMap(self.sizes[name], source, np.ones(len(source)), 1 / count)

    def _of(self, name: str, axis: Axis, maps: Maps) -> list[Candidate]:
        try:
            if axis.through == "heads":
                return self._heads(name, axis, maps)
            if axis.through == "inner":
                return list(self._inner(name))
            if axis.through == "normed":
                return list(self._normed(name, maps[str(axis.follows)]))
            if axis.through == "experts":
                return [Candidate("copies side by side", experts_map(self.growth, name))]
            if axis.through == "choice":
                return [Candidate("as the experts", choice_map(maps[str(axis.follows)]))]
            if axis.through == "angles":
                return [Candidate("nested pairs", angles_map(self.growth, name))]
            if self.tied and self._reads_tied(name):
                return list(self._tied(name, maps))
            return list(self._sums(name, axis, maps))
        except (PlanError, heads.NoHeadsError):
            return []

    def _orders(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        """(what it is called, sources) of every order of copies."""
        size, target = self.sizes[name], self.targets[name]
        if target < size:
            return
        if target == size:
            yield "in place", np.arange(size)
            return
        yield "copies in tiles", orders.tiled(size, target)[0]
        yield "copies side by side", np.arange(target) * size // target
        yield "then zeros", np.r_[np.arange(size), np.full(target - size, GAP)]
        if target % size and self.architecture.norm == "layer" and is_normalised(self.architecture, name):
            whole = target // size
            tail = np.full(target - whole * size, MEAN)
            yield "copies in tiles, then their mean", np.r_[np.tile(np.arange(size), whole), tail]

    def _sums(self, name: str, axis: Axis, maps: Maps) -> Iterator[Candidate]:
        """Axes of sums, norms, activations, and those that pass nothing."""
        for said, source in self._orders(name):
            rank, count = orders.ranks(source)
            mean_count = np.where(source == MEAN, count.max(initial=1), count)
            yield self._with(name, said, source, np.ones(len(source)))
            if "pointwise" in axis.through:
                continue
            yield self._with(name, said, source, np.sqrt(1 / mean_count))
            yield self._with(name, said, source, 1 / mean_count)
            if axis.through == "linear" and self.architecture.clip:  # one clamp, so one factor, as on what is clamped
                inner = [n for n, other in self.architecture.axes.items() if other.through == "inner"]
                gain = width_gain(self.architecture, self.config, inner[0], self.sizes, self.targets)
                yield self._with(name, said, source, np.full(len(source), sqrt(gain)))
            if axis.through in ("residual", "rank"):
                yield from self._of_gains(name, said, source, maps)
                stretch = sqrt(self.targets[name] / self.sizes[name])
                yield self._with(name, said, source, stretch / np.sqrt(mean_count))
                if not is_normalised(self.architecture, name):  # a norm would see parts of a sum, not copies
                    yield self._with(name, said, source, orders.shares(rank, count))
                    yield self._with(name, said, source, np.where(rank == 0, 1.0, 0.0))

    def _of_gains(self, name: str, said: str, source: np.ndarray, maps: Maps) -> Iterator[Candidate]:
        """Where a norm's gain writes the axis: the gain copied as it stands."""
        for _, signature in self.architecture.norms:
            read = maps.get(signature.normalises.axes()[0]) if signature.normalises else None
            if read is not None and signature.gains == (name,) and np.array_equal(_behind(read), source):
                yield self._with(name, said, source, np.where(source == GAP, 0.0, gain_factors(read)))

    def _tied(self, name: str, maps: Maps) -> Iterator[Candidate]:
        """What a tied head reads with: what the embedding is written with. The gains before it are parts of a sum."""
        table, tie = self.architecture, self.architecture.tie
        assert tie is not None
        templates = {template.name: template for template in table.templates}
        written = maps[templates[tie.embedding].signature.axes[-1]]
        source = np.where(written.means, GAP, written.source)
        share = written.scale * multiplier(table, self.config, tie.embedding, self.sizes, self.targets)
        gain = width_gain(table, self.config, name, self.sizes, self.targets)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(source == GAP, 0.0, gain / (orders.ranks(source)[1] * share))
        if np.isfinite(scale).all():
            found = orders.gathered(self.sizes[name], source, scale, share, gain, split="writers")
            yield Candidate("as the embedding", found)

    def _inner(self, name: str) -> Iterator[Candidate]:
        """The axis of queries times keys. Keys tell the factor; queries are folded with it."""
        gain = width_gain(self.architecture, self.config, name, self.sizes, self.targets)
        for said, source in self._inner_orders(name):
            count = orders.ranks(source)[1]
            for scale in (np.ones(len(source)), np.full(len(source), gain), np.sqrt(gain / count), 1 / count):
                yield self._with(name, said, source, scale)

    def _inner_orders(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        rotary, size, target = self.architecture.rotary, self.sizes[name], self.targets[name]
        if rotary is None or rotary.axis != name or target < size:
            yield from self._orders(name)
            return
        rotated = rope.rotated_size(self.config, size, rotary.partial, rotary.size_key)
        wanted = rope.rotated_size(self.target, target, rotary.partial, rotary.size_key)
        turned = [("rotary pairs kept", np.arange(rotated))]
        if rotated and wanted > rotated and not wanted % rotated:
            count, layout = wanted // rotated, rotary.pairs(self.config)
            turned.insert(0, ("nested rotary pairs", orders.nested_pairs(rotated, count, layout)))
            turned.append(("repeated rotary pairs", orders.repeated_pairs(rotated, count, layout)))
        for said, source in turned:
            rest, places = size - rotated, target - len(source)
            if rest and places >= rest:
                yield f"{said}, then copies in tiles", np.r_[source, rotated + orders.tiled(rest, places)[0]]
            zeros = np.full(max(0, places - rest), GAP)
            yield f"{said}, then zeros" if len(zeros) else said, np.r_[source, np.arange(rotated, size), zeros]

    def _normed(self, name: str, leader: AxisMap) -> Iterator[Candidate]:
        """What stands before a norm of its own: each coordinate in the place that it has behind it."""
        source = np.where(leader.gaps, MEAN, leader.source) if self.architecture.norm == "layer" else leader.source
        count = orders.ranks(source)[1]
        eps = [self.architecture.value(config, str(self.architecture.eps)) for config in (self.config, self.target)]
        known = self.architecture.eps and all(isinstance(value, float) and value > 0 for value in eps)
        ratio = eps[1] / eps[0] if known else 1.0
        for wanted in dict.fromkeys((ratio, 1.0)):
            yield self._with(
                name, "as behind its norm", source, np.sqrt(wanted * leader.new_size / (leader.size * count))
            )
        yield self._with(name, "as behind its norm", source, np.ones(len(source)))

    def _heads(self, name: str, axis: Axis, maps: Maps) -> list[Candidate]:
        """Query heads in any order that leaves each with its key-value head; key-value heads follow."""
        if axis.follows:
            return self._served(name, maps[axis.follows])
        before, after = self.sizes[name], self.targets[name]
        orders = [(said, source) for said, source in self._orders(name) if not np.any(source < 0)]
        slopes, wanted = (axis.slopes(self.config, count) if axis.slopes else None for count in (before, after))
        if slopes is not None:
            orders = [("copies by their slopes", heads.alone(before, after, slopes, wanted))]
        serving = [n for n, a in self.architecture.axes.items() if a.through == "heads" and a.follows == name]
        for kv in serving if slopes is None else ():
            orders += self._grouped(before, after, self.sizes[kv], self.targets[kv])
        return [
            self._with(name, said, source, np.ones(after))
            for said, source in orders
            if len(source) == after
            and len(np.unique(source[source >= 0])) == before
            and all(_key_heads(source, before, self.sizes[kv], self.targets[kv]) is not None for kv in serving)
        ]

    def _grouped(self, before: int, after: int, kv: int, kv_after: int) -> Iterator[tuple[str, np.ndarray]]:
        """Orders of query heads that share key-value heads."""
        group, slots = before // kv, after // kv_after
        keys = np.arange(kv_after)[:, None] * kv // kv_after
        yield "copies side by side in each group", (keys * group + np.arange(slots) * group // slots).ravel()
        with contextlib.suppress(heads.NoHeadsError):
            yield "copies in tiles in each group", heads.shared(before, after, kv, kv_after)[0]

    def _served(self, name: str, queries: AxisMap) -> list[Candidate]:
        source = _key_heads(queries.source, queries.size, self.sizes[name], self.targets[name])
        if source is None or len(np.unique(source)) < self.sizes[name]:
            return []
        return [self._with(name, "as their query heads", source, np.ones(len(source)))]

    def _with(self, name: str, said: str, source: np.ndarray, scale: np.ndarray) -> Candidate:
        """The map of these sources and writers' factors; readers weigh each copy by what it was given."""
        size = self.sizes[name]
        gain = width_gain(self.architecture, self.config, name, self.sizes, self.targets)
        kept = source >= 0
        energy = np.bincount(source[kept], weights=scale[kept] ** 2, minlength=size)
        share = np.zeros(len(source))
        share[kept] = gain * scale[kept] / np.where(energy == 0, 1.0, energy)[source[kept]]
        share = np.where(np.abs(share - scale) < SAME * np.abs(scale), scale, share)  # a clamp wants them equal
        return Candidate(said, orders.gathered(size, source, scale, share, gain))


def keeps_places(norm: Signature, maps: Maps) -> bool:
    """Whether a norm leaves each coordinate in its place, as far as the maps of its axes are decided."""
    read = norm.normalises.axes() if norm.normalises else ()
    decided = [(maps[a], maps[b]) for a, b in zip(read, norm.gains, strict=False) if a in maps and b in maps]
    return all(np.array_equal(_behind(a), b.source) for a, b in decided)


def _behind(read: AxisMap) -> np.ndarray:
    """[m] int64: the sources behind a norm that reads this map; means come out as zero."""
    return np.where(read.means, GAP, read.source)


def _key_heads(source: np.ndarray, heads_before: int, before: int, after: int) -> np.ndarray | None:
    """[after] int64: the key-value heads that serve these query heads; None where two of one group want others."""
    if len(source) % after or heads_before % before:
        return None
    wanted = (source // (heads_before // before)).reshape(after, -1)
    return wanted[:, 0] if np.all(wanted == wanted[:, :1]) else None


def _distinct(found: list[Candidate]) -> list[Candidate]:
    seen: dict[tuple[bytes, ...], Candidate] = {}
    for candidate in found:
        m = candidate.axis_map
        key = m.source.tobytes(), np.round(m.scale, 12).tobytes(), np.round(m.share, 12).tobytes(), m.split.encode()
        seen.setdefault(key, candidate)
    return list(seen.values())


def _factor(values: np.ndarray) -> str:
    """A factor as people write it: x1/2, x√2; several of them: the smallest and the largest."""
    found = [_number(float(value)) for value in np.unique(np.round(values, 12))]
    return f"x{found[0]}" if len(found) == 1 else f"x{found[0]} to x{found[-1]}"


def _number(value: float) -> str:
    for root, sign in ((1, ""), (2, "√"), (4, "∜")):
        power = Fraction(value**root).limit_denominator(4096)
        if power and abs(float(power) - value**root) < 1e-10 * value**root:
            return str(power) if root == 1 else f"{sign}{power}" if power.denominator == 1 else f"{sign}({power})"
    return f"{value:.6g}"
