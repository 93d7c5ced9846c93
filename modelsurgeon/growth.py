"""Which map each axis gets, from the config that is there to the config that is wanted.

    orthogonal   repeat k times and divide by sqrt(k), on both sides: lengths of vectors are kept (Su Jianlin,
                 https://www.kexue.fm/archives/8444)
    exact        repeat; readers take shares that are powers of two: no stored number is rounded

What an axis passes through decides which copies commute with it (`Axis.through`); the rule only decides how the factor
is shared between its writers and its readers. Sizes that are no multiple get a tail: more copies where nothing minds;
behind an RMSNorm zeros, or copies that weigh less; behind a LayerNorm the mean of the old coordinates, which comes out
of the norm as zero. Sums, norms and activations are here; `attention.py` and `experts.py` have the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from modelsurgeon import attention, axis_map, experts
from modelsurgeon.architecture import Architecture, Axis, Config
from modelsurgeon.axis_map import GAP, MEAN, AxisMap
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
        return int(self.axis(name).follows is not None)

    def axis(self, name: str) -> Axis:
        """The axis of this name."""
        return self.architecture.axes[name]

    def _map(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        axis, size, target = self.axis(name), self.sizes[name], self.targets[name]
        if target < size:
            why = "" if axis.key else ", and other sizes of the config make it so"
            raise self.refusal(name, f"growth never takes away{why}", ())
        if axis.through == "fixed":
            if target != size:
                raise self.refusal(name, axis.why or "this axis does not grow", (size,))
            return axis_map.identity(size)
        if axis.through in ("residual", "rank", "pointwise residual"):
            return self._residual(name, maps)
        if axis.through == "pointwise":
            return self._pointwise(name)
        if axis.through == "linear":
            return attention.value_map(self, name)
        if axis.through == "heads":
            return attention.heads_map(self, name)
        if axis.through == "inner":
            return attention.inner_map(self, name)
        if axis.through == "normed":
            return attention.normed_map(self, name, maps[str(axis.follows)])
        if axis.through == "experts":
            return experts.experts_map(self, name)
        if axis.through == "choice":
            return experts.choice_map(maps[str(axis.follows)])
        return attention.angles_map(self, name)

    def refusal(self, name: str, reason: str, nearest: tuple[int, ...]) -> PlanError:
        """The error for a size that cannot be, with the sizes next to it that can."""
        key = self.axis(name).key
        said = f"axis {name!r}" + (f" ({key})" if key else "")
        near = f"; sizes that work: {' or '.join(map(str, nearest))}" if nearest else ""
        return PlanError(f"{said} cannot go from {self.sizes[name]} to {self.targets[name]}: {reason}{near}")

    def multiples(self, name: str) -> tuple[int, ...]:
        """The whole multiples of an axis' size that are next to what was asked for."""
        size, below = self.sizes[name], self.targets[name] // self.sizes[name]
        return tuple(size * k for k in (below, below + 1) if k)

    def _residual(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        source = self._spread(name)
        rank, count = axis_map.ranks(source)
        count = np.where(source == MEAN, count[0], count)
        gain, size = self.gain(name), self.sizes[name]
        parts = self.parts(rank, count)
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
            raise self.refusal(name, reason, self.multiples(name))
        if self._meets_no_norm(name) or (self.architecture.norm == "rms" and self.rule == "orthogonal"):
            return axis_map.tiled(size, target)[0]
        mean = self.architecture.norm == "layer" and is_normalised(self.architecture, name)
        return np.concatenate([np.tile(np.arange(size), whole), np.full(rest, MEAN if mean else GAP)])

    def _meets_no_norm(self, name: str) -> bool:
        return not is_normalised(self.architecture, name) and not is_written_by_norm(self.architecture, name)

    def _writers(self, name: str, source: np.ndarray, count: np.ndarray, maps: Mapping[str, AxisMap]) -> np.ndarray:
        """[m] float64: what the writers of an axis of sums and norms are multiplied by."""
        axis, gain = self.axis(name), self.gain(name)
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

    def gain(self, name: str) -> float:
        """What D E must be on this axis."""
        return width_gain(self.architecture, self.config, name, self.sizes, self.targets)

    def parts(self, rank: np.ndarray, count: np.ndarray) -> np.ndarray:
        """[m] float64 that sum to 1 over the copies of each source: powers of two under the rule `exact`, else even."""
        return axis_map.shares(rank, count) if self.rule == "exact" else np.asarray(1 / count)

    def _pointwise(self, name: str) -> AxisMap:
        size, target = self.sizes[name], self.targets[name]
        if target % size and is_normalised(self.architecture, name):
            raise self.refusal(name, "a norm reads what an activation writes", self.multiples(name))
        source, rank, count = axis_map.tiled(size, target)
        parts = self.parts(rank, count)
        return axis_map.gathered(size, source, np.ones(target), parts, 1.0)
