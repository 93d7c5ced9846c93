"""One growth as a value: a family, its present config, and the one that is wanted.

    orthogonal   repeat k times and divide by sqrt(k), on both sides: lengths of vectors stay the same (Su Jianlin,
                 https://www.kexue.fm/archives/8444)
    exact        repeat; readers take shares that are powers of two: no stored number is rounded

The kind of an axis (`kinds/`) makes its map; `planning.py` asks all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Axis, Config
from modelsurgeon.architectures.scalars import width_gain
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.maps import orders

RULES = ("orthogonal", "exact")
ROPES = ("nested", "repeat")


@dataclass(frozen=True)
class Growth:
    """One growth: `config` and `target` are resolved, and differ in sizes only."""

    architecture: Architecture
    config: Config
    target: Config
    rule: str
    rope: str = "nested"
    tied: bool = False  # whether the head is the embedding
    narrow: bool = False  # whether numbers are stored in 16 bits

    @cached_property
    def sizes(self) -> dict[str, int]:
        return self.architecture.sizes(self.config)

    @cached_property
    def targets(self) -> dict[str, int]:
        try:
            return self.architecture.sizes(self.target)
        except SourceError as error:
            raise PlanError(f"there is no such model: {str(error).removeprefix('config.json: ')}") from None

    def axis(self, name: str) -> Axis:
        """The axis of this name."""
        return self.architecture.axes[name]

    def refusal(self, name: str, reason: str, nearest: tuple[int, ...]) -> PlanError:
        """The error for an impossible size, with the nearest possible ones."""
        size, target, key = self.sizes[name], self.targets[name], self.axis(name).key
        near = f"; sizes that work: {' or '.join(map(str, nearest))}" if nearest else ""
        axis = f"axis {name!r} ({key})" if key else f"axis {name!r}"
        return PlanError(f"{axis} cannot go from {size} to {target}: {reason}{near}")

    def multiples(self, name: str) -> tuple[int, ...]:
        """The whole multiples of an axis' size next to its target."""
        size, below = self.sizes[name], self.targets[name] // self.sizes[name]
        return tuple(size * k for k in (below, below + 1) if k)

    def gain(self, name: str) -> float:
        """The factor g in D E = g I on this axis."""
        return width_gain(self.architecture, self.config, name, self.sizes, self.targets)

    def parts(self, rank: np.ndarray, count: np.ndarray) -> np.ndarray:
        """[m] float64 that sum to 1 over the copies of each source: powers of two under the rule `exact`, else even."""
        return orders.shares(rank, count) if self.rule == "exact" else np.asarray(1 / count)

    def weightless(self, name: str) -> str | None:
        """The axis that a norm without tensors reads where it writes this one."""
        norms = [norm for text, norm in self.architecture.norms if text in self.architecture.weightless]
        return next((n.normalises.axes()[0] for n in norms if n.gains == (name,) and n.normalises), None)

    def reads_tied(self, name: str) -> bool:
        """Whether a head that is the embedding reads this axis."""
        return self.tied and self.architecture.tie is not None and name == self.architecture.tie.axis


def written_by_embedding(table: Architecture) -> str:
    """The axis that a tied embedding writes."""
    assert table.tie is not None
    return next(t.signature.axes[-1] for t in table.templates if t.name == table.tie.embedding)
