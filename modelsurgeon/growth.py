"""Which map each axis gets, from the config that is there to the config that is wanted.

    orthogonal   repeat k times and divide by sqrt(k), on both sides: lengths of vectors are kept (Su Jianlin,
                 https://www.kexue.fm/archives/8444)
    exact        repeat; readers take shares that are powers of two: no stored number is rounded

What an axis passes through decides which copies commute with it (`Axis.through`); the rule only decides how the factor
is shared between its writers and its readers. Sizes that are no multiple get a tail: more copies where nothing minds;
behind an RMSNorm zeros, or copies that weigh less; behind a LayerNorm the mean of the old coordinates, which comes out
of the norm as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from modelsurgeon import axis_map, experts, heads, rope
from modelsurgeon.architecture import Architecture, Axis, Config
from modelsurgeon.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.config_keys import lookup
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.norms import is_normalised, is_written_by_norm, whole_multiples_only
from modelsurgeon.scalars import multiplier, width_gain
from modelsurgeon.signature import gain_factors

RULES = ("orthogonal", "exact")
ROPES = ("nested", "repeat")


@dataclass(frozen=True)
class Growth:
    """One growth: a family, what its config says now, and what it shall say.

    config, target  resolved configs; only sizes differ
    tied            the head is the embedding
    narrow          the numbers are stored in 16 bits
    """

    architecture: Architecture
    config: Config
    target: Config
    rule: str
    rope: str = "nested"
    tied: bool = False
    narrow: bool = False

    @cached_property
    def sizes(self) -> dict[str, int]:
        return self.architecture.sizes(self.config)

    @cached_property
    def targets(self) -> dict[str, int]:
        try:
            return self.architecture.sizes(self.target)
        except SourceError as error:
            raise PlanError(f"there is no such model: {str(error).removeprefix('config.json: ')}") from None

    def maps(self) -> dict[str, AxisMap]:
        """The map of every axis. Raises PlanError, naming the axis and the nearest sizes, where there is none."""
        maps: dict[str, AxisMap] = {}
        for name in sorted(self.architecture.axes, key=self._turn):
            maps[name] = self._map(name, maps)
        return maps

    def _turn(self, name: str) -> int:
        """Leaders first; what a weightless norm writes after what it reads; what a tied head reads last."""
        tie = self.architecture.tie
        if self.tied and tie and name == tie.axis:
            return 3
        if self._weightless(name):
            return 2
        return int(self._axis(name).follows is not None)

    def _axis(self, name: str) -> Axis:
        return self.architecture.axes[name]

    def _map(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        axis, size, target = self._axis(name), self.sizes[name], self.targets[name]
        if target < size:
            why = "" if axis.key else ", and other sizes of the config make it so"
            raise self._refusal(name, f"growth never takes away{why}", ())
        if axis.through == "fixed":
            if target != size:
                raise self._refusal(name, axis.why or "this axis does not grow", (size,))
            return axis_map.identity(size)
        if axis.through in ("residual", "rank", "pointwise residual"):
            return self._residual(name, maps)
        if axis.through == "pointwise":
            return self._pointwise(name)
        if axis.through == "linear":
            return self._linear(name)
        if axis.through == "heads":
            return self._heads(name)
        if axis.through == "inner":
            return self._inner(name)
        if axis.through == "normed":
            return self._normed(name, maps[str(axis.follows)])
        if axis.through == "experts":
            return self._experts(name)
        if axis.through == "choice":
            return self._choice(maps[str(axis.follows)])
        return self._angles(name)

    def _refusal(self, name: str, reason: str, nearest: tuple[int, ...]) -> PlanError:
        key = self._axis(name).key
        said = f"axis {name!r}" + (f" ({key})" if key else "")
        near = f"; sizes that work: {' or '.join(map(str, nearest))}" if nearest else ""
        return PlanError(f"{said} cannot go from {self.sizes[name]} to {self.targets[name]}: {reason}{near}")

    def _multiples(self, name: str) -> tuple[int, ...]:
        size, below = self.sizes[name], self.targets[name] // self.sizes[name]
        return tuple(size * k for k in (below, below + 1) if k)

    # --- sums and norms ----------------------------------------------------------------------------------------------

    def _residual(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        source = self._spread(name)
        rank, count = axis_map.ranks(source)
        count = np.where(source == MEAN, count[0], count)
        gain, size = self._gain(name), self.sizes[name]
        parts = axis_map.shares(rank, count) if self.rule == "exact" else 1 / count
        tie = self.architecture.tie
        if self.tied and tie and name == tie.axis:
            share = self._tied_share(name, maps)
            total = gain / share
            scale = total * self._tied_parts(total[source >= 0], parts, rank, count)
            return axis_map.gathered(size, source, scale, share, gain, split="writers")
        writers = self._writers(name, source, count, maps)
        share = gain / np.where(writers == 0, 1.0, writers) * parts
        return axis_map.gathered(size, source, writers, share, gain)

    def _spread(self, name: str) -> np.ndarray:
        """[m] int64: the sources of an axis of sums and norms."""
        size, target = self.sizes[name], self.targets[name]
        whole, rest = divmod(target, size)
        if not rest:
            return axis_map.tiled(size, target)[0]
        reason = whole_multiples_only(self.architecture, name)
        if reason:
            raise self._refusal(name, reason, self._multiples(name))
        if self._meets_no_norm(name) or (self.architecture.norm == "rms" and self.rule == "orthogonal"):
            return axis_map.tiled(size, target)[0]
        mean = self.architecture.norm == "layer" and is_normalised(self.architecture, name)
        return np.concatenate([np.tile(np.arange(size), whole), np.full(rest, MEAN if mean else GAP)])

    def _meets_no_norm(self, name: str) -> bool:
        return not is_normalised(self.architecture, name) and not is_written_by_norm(self.architecture, name)

    def _writers(self, name: str, source: np.ndarray, count: np.ndarray, maps: Mapping[str, AxisMap]) -> np.ndarray:
        """[m] float64: what the writers of an axis of sums and norms are multiplied by."""
        axis, gain = self._axis(name), self._gain(name)
        read = self._weightless(name)
        if read:
            return np.asarray(gain_factors(maps[read]))
        if is_normalised(self.architecture, name) and (
            axis.through == "rank" or (self.rule == "exact" and self.architecture.eps is None)
        ):  # the norm sees the mean square that it saw: its eps need not change
            return np.sqrt(self.targets[name] / (self.sizes[name] * count))
        if self.rule == "exact" or axis.through != "residual":
            return np.ones(len(source))
        return np.sqrt(gain / count)

    def _weightless(self, name: str) -> str | None:
        """The axis that a norm without tensors reads where it writes this one."""
        for text, signature in self.architecture.norms:
            if text in self.architecture.weightless and signature.gains == (name,) and signature.normalises:
                return signature.normalises.axes()[0]
        return None

    def _tied_share(self, name: str, maps: Mapping[str, AxisMap]) -> np.ndarray:
        """[m] float64: what the embedding will hold of each old number, with which a tied head reads (1 in gaps)."""
        tie = self.architecture.tie
        assert tie is not None
        if self._weightless(name) and self.sizes[name] != self.targets[name]:
            raise PlanError(f"{tie.head} is tied, and the norm before it has no weight to take a factor: untie first")
        templates = {template.name: template for template in self.architecture.templates}
        written = maps[templates[tie.embedding].signature.axes[-1]]
        share = written.scale * multiplier(self.architecture, self.config, tie.embedding, self.sizes, self.targets)
        return np.asarray(np.where(written.gaps, 1.0, share))

    def _tied_parts(self, total: np.ndarray, parts: np.ndarray, rank: np.ndarray, count: np.ndarray) -> np.ndarray:
        """[m] float64 that sum to 1 over the copies of each source, for the gains of the norm before a tied head.

        Gains of the form (1 + w) in 16 bits hold 0 and 1 exactly and nothing between: whole copies, then, if the total
        is a whole number.
        """
        copies = round(float(total[0]))
        whole = bool(np.all(total == copies)) and copies <= int(count.min())
        if not (self.rule == "exact" and self.architecture.offset and self.narrow and whole):
            return parts
        return np.asarray(np.where(rank < copies, 1 / copies, 0.0))

    def _gain(self, name: str) -> float:
        return width_gain(self.architecture, self.config, name, self.sizes, self.targets)

    # --- activations and projections ---------------------------------------------------------------------------------

    def _pointwise(self, name: str) -> AxisMap:
        size, target = self.sizes[name], self.targets[name]
        if target % size and is_normalised(self.architecture, name):
            raise self._refusal(name, "a norm reads what an activation writes", self._multiples(name))
        source, rank, count = axis_map.tiled(size, target)
        parts = axis_map.shares(rank, count) if self.rule == "exact" else 1 / count
        return axis_map.gathered(size, source, np.ones(target), parts, 1.0)

    def _linear(self, name: str) -> AxisMap:
        size, target = self.sizes[name], self.targets[name]
        source, rank, count = axis_map.tiled(size, target)
        if self._is_clipped:
            scale = np.full(target, self._clip_factor)
        else:
            scale = np.ones(target) if self.rule == "exact" else np.sqrt(1 / count)
        parts = axis_map.shares(rank, count) if self.rule == "exact" else 1 / count
        return axis_map.gathered(size, source, scale, parts / scale, 1.0)

    @property
    def _is_clipped(self) -> bool:
        """Whether queries, keys and values are clamped: all three must then be multiplied alike."""
        return bool(self.architecture.clip and lookup(self.config, self.architecture.clip) is not None)

    @property
    def _clip_factor(self) -> float:
        inner = [name for name, axis in self.architecture.axes.items() if axis.through == "inner"]
        return sqrt(self._gain(inner[0]))

    # --- attention ---------------------------------------------------------------------------------------------------

    def _heads(self, name: str) -> AxisMap:
        """Query heads, or the key-value heads that follow them: whole copies, each with what it attends with."""
        leader = self._axis(name).follows or name
        follower = next((n for n, axis in self.architecture.axes.items() if self._serves(axis, leader)), None)
        before, after = self.sizes[leader], self.targets[leader]
        try:
            if follower is None:
                placed = heads.alone(before, after, self._slopes(leader, before), self._slopes(leader, after))
            else:
                shared = heads.shared(before, after, self.sizes[follower], self.targets[follower])
                placed = shared[1] if name == follower else shared[0]
                if self._slopes(leader, before) is not None:
                    heads.check_slopes(shared[0], self._slopes(leader, before), self._slopes(leader, after))
        except heads.NoHeadsError as error:
            raise self._refusal(leader, error.reason, error.nearest) from None
        rank, count = axis_map.ranks(placed)
        parts = axis_map.shares(rank, count) if self.rule == "exact" else 1 / count
        return axis_map.gathered(self.sizes[name], placed, np.ones(len(placed)), parts, 1.0)

    def _serves(self, axis: Axis, leader: str) -> bool:
        return axis.through == "heads" and axis.follows == leader

    def _slopes(self, name: str, count: int) -> np.ndarray | None:
        slopes = self._axis(name).slopes
        return slopes(self.config, count) if slopes else None

    def _inner(self, name: str) -> AxisMap:
        """The axis of an inner product: rotary pairs first, then what is not rotated."""
        size, target, gain = self.sizes[name], self.targets[name], self._gain(name)
        turned, rotated = self._turned(name)
        rest = target - len(turned)
        if self._is_clipped or self._is_centred(name):  # one factor for all: nothing is copied
            still = np.r_[np.arange(rotated, size), np.full(rest - (size - rotated), GAP)]
        elif size == rotated:
            still = np.full(rest, GAP)
        else:
            still = rotated + axis_map.tiled(size - rotated, rest)[0]
        source = np.r_[turned, still]
        rank, copies = axis_map.ranks(source)
        if self.rule == "exact" and not self._is_clipped:
            return axis_map.gathered(size, source, np.full(target, gain), axis_map.shares(rank, copies), gain)
        even = np.sqrt(gain / copies)
        return axis_map.gathered(size, source, even, even, gain)

    def _turned(self, name: str) -> tuple[np.ndarray, int]:
        """(sources of the coordinates that will be rotated, how many were)."""
        rotary, size, target = self.architecture.rotary, self.sizes[name], self.targets[name]
        if rotary is None or rotary.axis != name:
            return np.zeros(0, dtype=np.int64), 0
        rotated = rope.rotated_size(self.config, size, rotary.partial, rotary.size_key)
        wanted = rope.rotated_size(self.target, target, rotary.partial, rotary.size_key)
        reason = rope.reasons_against_nesting(self.config)
        count, whole = target // size, target % size == 0
        partly = rotary.partial is not None or rotary.size_key is not None
        if target == size or (partly and (reason or not whole or wanted != count * rotated)):
            if rotary.size_key and wanted != rotated:
                raise PlanError(f"{rotary.size_key} cannot be {wanted}: it stays {rotated}, or grows with the head")
            return np.arange(rotated), rotated
        if reason:
            raise self._refusal(name, f"{reason}; whole heads can be copied", (size,))
        if not whole:
            raise self._refusal(name, "rotary pairs keep their frequencies at whole multiples", self._multiples(name))
        pairs = axis_map.nested_pairs if self.rope == "nested" else axis_map.repeated_pairs
        return pairs(rotated, count, rotary.pairs(self.config)), rotated

    def _is_centred(self, name: str) -> bool:
        """Whether a LayerNorm of its own reads this inner product's axis."""
        normed = [axis for axis in self.architecture.axes.values() if axis.through == "normed"]
        return self.architecture.norm == "layer" and any(axis.follows == name for axis in normed)

    def _normed(self, name: str, leader: AxisMap) -> AxisMap:
        """The axis that a norm of its own reads, stretched so that the norm wants the same eps as all others.

        That holds where the leader itself does not grow, too.
        """
        source = np.where(leader.gaps, MEAN, leader.source) if self.architecture.norm == "layer" else leader.source
        inner = self._axis(str(self._axis(name).follows)).through == "inner"
        wanted = self._eps_ratio() if inner else 1.0
        count = axis_map.ranks(source)[1]
        scale = np.sqrt(wanted * leader.new_size / (leader.size * count))
        return axis_map.gathered(leader.size, source, scale, 1 / (count * scale), 1.0)

    def _eps_ratio(self) -> float:
        """By what the mean square of the residual changes, and so the eps of the config."""
        name = next(n for n, axis in self.architecture.axes.items() if axis.through == "residual")
        if self.architecture.eps is None:
            return 1.0
        ratio = self.sizes[name] / self.targets[name]
        return ratio * (self.targets[name] // self.sizes[name]) if self.rule == "exact" else ratio

    def _angles(self, name: str) -> AxisMap:
        size, target = self.sizes[name], self.targets[name]
        if target % size:
            raise self._refusal(name, "rotary pairs keep their frequencies at whole multiples", self._multiples(name))
        source = axis_map.nested_pairs(size, target // size, "half")
        return axis_map.gathered(size, source, np.ones(len(source)), np.ones(len(source)), 1.0)

    # --- experts -----------------------------------------------------------------------------------------------------

    def _experts(self, name: str) -> AxisMap:
        """Copies of every expert next to it, so that groups stay; or further ones that are never chosen."""
        axis, size, target = self._axis(name), self.sizes[name], self.targets[name]
        if target == size:
            self._check_active(axis, 1)
            return axis_map.identity(size)
        old, new = self._active(axis)
        choice = any(other.through == "choice" for other in self.architecture.axes.values())
        if choice and old == new:
            count = experts.groups(axis, self.config)
            if target % count:
                near = (target // count * count, (target // count + 1) * count)
                raise self._refusal(name, f"the {count} groups of experts must stay equal", near)
            source, asleep = experts.sleeping(size, target, count)
            return axis_map.gathered(size, source, np.ones(target), np.where(asleep, 0.0, 1.0), 1.0)
        if target % size:
            raise self._refusal(name, "experts are copied as often as each other", self._multiples(name))
        self._check_active(axis, target // size)
        source = np.repeat(np.arange(size), target // size)
        return axis_map.gathered(size, source, np.ones(target), np.full(target, size / target), 1.0)

    def _active(self, axis: Axis) -> tuple[int, int]:
        """How many experts a token gets, before and after; (1, 1) where it is no matter of the config."""
        if axis.active is None:
            return 1, 1
        old, new = (self.architecture.value(config, axis.active) for config in (self.config, self.target))
        return int(old), int(new)

    def _check_active(self, axis: Axis, count: int) -> None:
        old, new = self._active(axis)
        if new != count * old:
            raise PlanError(
                f"{axis.key}: {count} copies of every expert are the same function where {axis.active} is "
                f"{count * old}, not {new}: the router chooses among them by their scores alone"
            )

    def _choice(self, leader: AxisMap) -> AxisMap:
        source = np.where(leader.share == 0, GAP, leader.source)  # asleep
        return axis_map.gathered(leader.size, source, leader.scale, leader.share, 1.0)
