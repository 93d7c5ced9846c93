"""Which map each axis gets: the rules of growth by a whole factor.

    orthogonal   repeat k times and divide by sqrt(k), on both sides: lengths of vectors are kept (Su Jianlin,
                 https://www.kexue.fm/archives/8444)
    exact        repeat; readers take shares that are powers of two: no stored number is rounded

What an axis passes through decides which copies commute with it (`Axis.through`); the rule only decides how the factor
is shared between its writers and its readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from modelsurgeon import axis_map
from modelsurgeon.architecture import Architecture, Axis, Config
from modelsurgeon.axis_map import AxisMap, power_of_two_shares
from modelsurgeon.errors import PlanError

RULES = ("orthogonal", "exact")
ATTENTIONS = ("head-dim", "heads")
ROPES = ("nested", "repeat")
NESTING_ROPE_TYPES = ("default", "linear", "llama3", "proportional", "dynamic")


@dataclass(frozen=True)
class Growth:
    """One growth: an architecture, a config, and how each axis is to change.

    sizes, targets  {axis: size}, before and after
    tied            the head is the embedding
    narrow          the numbers are stored in 16 bits
    """

    architecture: Architecture
    config: Config
    sizes: Mapping[str, int]
    targets: Mapping[str, int]
    rule: str
    rope: str = "nested"
    tied: bool = False
    narrow: bool = False

    def maps(self) -> dict[str, AxisMap]:
        """The map of every axis. Raises PlanError, naming the axis, where there is none."""
        order = sorted(self.architecture.axes, key=lambda name: self._axis(name).follows is not None)
        maps: dict[str, AxisMap] = {}
        for name in order:
            maps[name] = self._map(name, maps)
        return maps

    def _axis(self, name: str) -> Axis:
        return self.architecture.axes[name]

    def _map(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        axis, size, target = self._axis(name), self.sizes[name], self.targets[name]
        if axis.through == "normed":
            return self._normed(maps[str(axis.follows)])
        if target == size:
            return axis_map.identity(size)
        if axis.through == "fixed" or target % size:
            raise PlanError(f"axis {name!r} cannot go from {size} to {target}: only whole multiples of grown axes")
        count = target // size
        if axis.through == "residual":
            return self._residual(name, size, count)
        if axis.through in ("pointwise", "heads"):
            return self._copies(size, count, writers=1.0)
        if axis.through == "linear":
            return self._copies(size, count, writers=None)
        if axis.through == "inner":
            return self._inner(name, size, count)
        return self._angles(size, count)

    def _copies(self, size: int, count: int, writers: float | None, gain: float = 1.0) -> AxisMap:
        """Whole tiles; `writers` is their scale, None where the rule may choose it."""
        if self.rule == "exact":
            scale = writers or gain
            return axis_map.copies(size, count, scale, [gain / scale * s for s in power_of_two_shares(count)], gain)
        even = sqrt(gain / count)
        return axis_map.copies(size, count, writers or even, [gain / count / (writers or even)] * count, gain)

    def _residual(self, name: str, size: int, count: int) -> AxisMap:
        tie = self.architecture.tie
        gain = self._gain(name)
        if not (self.tied and tie and name == tie.axis):
            return self._copies(size, count, writers=1.0 if self.rule == "exact" else None, gain=gain)
        writers = 1.0 if self.rule == "exact" else sqrt(1 / count)
        share = writers * self.multiplier(tie.embedding)  # what the embedding will hold of each old number
        parts = np.repeat(self._tied_parts(gain / share, count), size)
        return AxisMap(
            size, np.tile(np.arange(size), count), parts, np.full(size * count, share), gain, split="writers"
        )

    def _tied_parts(self, total: float, count: int) -> list[float]:
        """`count` factors that sum to `total`, for the gains of the norm that feeds a tied head.

        Gains of the form (1 + w) in 16 bits hold 0 and 1 exactly and nothing between: whole copies, then, if the total
        is a whole number.
        """
        if self.rule != "exact":
            return [total / count] * count
        if self.architecture.offset and self.narrow and total == round(total) <= count:
            return [1.0] * round(total) + [0.0] * (count - round(total))
        return [total * share for share in power_of_two_shares(count)]

    def multiplier(self, template: str) -> float:
        """What a tensor must be multiplied by because the model multiplies its product by a power of a size."""
        axis, power = self.architecture.multiplied.get(template, ("", 0.0))
        return (self.sizes[axis] / self.targets[axis]) ** power if power else 1.0

    def _gain(self, name: str) -> float:
        return width_gain(self.architecture, self.config, name, self.sizes[name], self.targets[name])

    def _inner(self, name: str, size: int, count: int) -> AxisMap:
        gain = self._gain(name)
        rotary = self.architecture.rotary
        if rotary is None:
            return self._copies(size, count, writers=None, gain=gain)
        rotated = rotated_size(self.architecture, self.config, size)
        if rotated_size(self.architecture, self.config, size * count) != rotated * count:
            raise PlanError(f"axis {name!r}: the rotated part of the head does not grow by {count}; use heads instead")
        kind = rope_type(self.config)
        if kind not in NESTING_ROPE_TYPES:
            raise PlanError(f"axis {name!r}: rope type {kind!r} changes with the head's size; use --attention heads")
        if self.rope == "nested":
            source = axis_map.nested_pairs(rotated, count, rotary.layout)
            rank = np.zeros(len(source), dtype=np.int64)
            of = np.ones(len(source))
        else:
            source = axis_map.repeated_pairs(rotated, count, rotary.layout)
            rank = _ranks(source)
            of = np.full(len(source), float(count))
        plain = size - rotated
        source = np.r_[source, np.tile(np.arange(rotated, size), count)]
        rank = np.r_[rank, np.repeat(np.arange(count), plain)]
        of = np.r_[of, np.full(plain * count, float(count))]
        if self.rule == "exact":
            parts = np.where(of == 1, 1.0, np.asarray(power_of_two_shares(count))[rank])
            return axis_map.gathered(size, source, np.full(len(source), gain), parts, gain)
        even = np.sqrt(gain / of)
        return axis_map.gathered(size, source, even, even, gain)

    def _normed(self, leader: AxisMap) -> AxisMap:
        """The axis that a norm of its own reads, stretched so that the norm wants the same eps as all others.

        That holds where the head itself does not grow, too.
        """
        kept = ~leader.gaps
        count = np.bincount(leader.source[kept], minlength=leader.size)[leader.source].astype(np.float64)
        wanted = 1.0 if self.rule == "exact" else self._residual_ratio()
        scale = np.sqrt(wanted * leader.new_size / (leader.size * count))
        return axis_map.gathered(leader.size, leader.source, scale, 1 / (count * scale), 1.0)

    def _residual_ratio(self) -> float:
        names = [name for name, axis in self.architecture.axes.items() if axis.through == "residual"]
        return self.sizes[names[0]] / self.targets[names[0]]

    def _angles(self, size: int, count: int) -> AxisMap:
        source = axis_map.nested_pairs(size, count, "half")
        return axis_map.gathered(size, source, np.ones(len(source)), np.ones(len(source)), 1.0)


def width_gain(architecture: Architecture, config: Config, name: str, size: int, target: int) -> float:
    """What D E must be on this axis: the inverse of what the model changes because it multiplies by a power of size."""
    axis = architecture.axes[name]
    if not axis.scaled or (axis.when and not architecture.value(config, axis.when)):
        return 1.0
    return float((size / target) ** axis.scaled)


def rope_type(config: Config) -> str:
    """The rotary scaling type that a config names, in any of its spellings."""
    for key in ("rope_parameters", "rope_scaling"):
        record = config.get(key)
        if isinstance(record, Mapping):
            return str(record.get("rope_type") or record.get("type") or "default")
    return "default"


def rotated_size(architecture: Architecture, config: Config, size: int) -> int:
    """How many coordinates of a head of `size` are rotated."""
    rotary = architecture.rotary
    if rotary is None or rotary.partial is None:
        return size
    record = config.get("rope_parameters")
    named = record.get("partial_rotary_factor") if isinstance(record, Mapping) else None
    for key in ("partial_rotary_factor", "rotary_pct"):
        named = config.get(key) if named is None else named
    return int(size * float(rotary.partial if named is None else named))


def _ranks(source: np.ndarray) -> np.ndarray:
    """For each new coordinate, which copy of its source it is."""
    seen: dict[int, int] = {}
    ranks = []
    for old in source.tolist():
        ranks.append(seen.get(old, 0))
        seen[old] = ranks[-1] + 1
    return np.asarray(ranks, dtype=np.int64)
