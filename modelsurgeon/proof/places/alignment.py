"""Undoes, place by place, an order that each layer, expert or head of a result has its coordinates in.

A model whose MLP neurons are reordered, in each layer in another way, is the same function; so it is with heads and
their key-value heads, experts and their router's rows, coordinates of values. No map of an axis says that, since a map
holds for all layers. So each place of the result is matched with the source's (`sketches.py`) and reordered lazily
(`reordered.py`), until one map per axis tells the rest. Only what the architecture allows is done, and every tensor of
the place is reordered alike: the reordered result is the same function as the result, whatever was matched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import torch

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ArchitectureError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Maps
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.proof.places.arranged import Settled
from modelsurgeon.proof.places.model_parts import Held
from modelsurgeon.proof.places.reordered import Reordered, Seat
from modelsurgeon.proof.places.sketches import Match, at_seat, directions, lens, match, project
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.lazy import LazyTensor


@dataclass
class Alignment:
    """Aligns a result with a source, axis by axis, each after those that its tensors have beside it.

    base    the source, untied and deepened as the result is
    new     names of tensors in `base` that are of new layers
    paired  {name in `base`: name in the result}
    found   {axis: what was done to it}
    own     {tensor of the result: {axis: map}} where places have different numbers of copies
    """

    base: Checkpoint
    result: Checkpoint
    growth: Growth
    paired: dict[str, str]
    new: frozenset[str]
    found: dict[str, Settled] = field(default_factory=dict)
    own: dict[str, dict[str, AxisMap]] = field(default_factory=dict)
    views: dict[str, Reordered] = field(init=False)
    _sketched: dict[tuple[str, bool, int, int | None], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.views = {name: Reordered(tensor) for name, tensor in self.result.tensors.items()}

    @cached_property
    def narrow(self) -> Held:
        """What the source holds."""
        names = [name for name in self.base.tensors if name in self.paired and name not in self.new]
        return Held(self.base.architecture, self.growth.sizes, names)

    @cached_property
    def wide(self) -> Held:
        """What the result holds."""
        hidden = {self.paired[name] for name in self.new if name in self.paired}
        table = self.result.architecture
        names = [name for name in self.result.tensors if name not in hidden and _template(table, name)]
        return Held(table, self.growth.targets, names)

    @property
    def aligned(self) -> Checkpoint:
        """The result, reordered so far."""
        return replace(self.result, tensors={name: view.tensor for name, view in self.views.items()})

    @property
    def tied(self) -> frozenset[str]:
        """The axes that a tied embedding writes and reads: one order must serve both."""
        tie = self.growth.architecture.tie
        if not (self.growth.tied and tie):
            return frozenset()
        embedding = next(t for t in self.growth.architecture.templates if t.name == tie.embedding)
        return frozenset({embedding.signature.axes[-1], tie.axis})

    @cached_property
    def precision(self) -> float:
        """The relative spacing of the result's numbers."""
        return float(torch.finfo(DTYPES[self.result.dtype]).eps)

    # --- sketches of coordinates ---

    def sketch(self, seat: Seat, maps: Maps | None) -> np.ndarray | None:
        """[positions, WIDTH] float64: sketches along a seat's dimension; None where an axis beside it is not known.

        maps  of the axes beside it, for a tensor of the result; None: a tensor of the source
        """
        held = self.narrow if maps is None else self.wide
        signature = held.templates[seat.name].signature
        beside = [
            pair
            for d, pair in enumerate(signature.dimensions)
            if d != seat.dimension and not (seat.slice is not None and d == 0)
        ]
        axes = {axis for expression, _ in beside for axis in expression.axes()}
        if signature.normalises is not None or (maps is not None and not axes <= maps.keys()):
            return None
        key = seat.name, maps is None, seat.dimension, seat.slice
        if key not in self._sketched:
            size = prod(expression.size(self.growth.sizes) for expression, _ in beside)
            ways = directions(f"{held.key(seat.name)[0]} {seat.dimension}", size)
            if maps is not None and beside:
                ways = lens(dimension.product([one.grow(maps, side) for one, side in beside]), ways)
            tensor = self.tensor(seat.name, maps is None)
            self._sketched[key] = project(tensor, seat.dimension, seat.slice, ways)
        return self._sketched[key]

    def tensor(self, name: str, is_source: bool) -> LazyTensor:
        """A tensor of the source, or of the reordered result."""
        return self.base.tensors[name] if is_source else self.views[name].tensor

    def original(self, name: str, maps: Maps) -> str | None:
        """The source's tensor that one of the result copies; None where there is none."""
        held, numbers = self.wide, self.wide.numbers(name)
        spread = {axis: int(maps[axis].source[number]) for axis, number in numbers.items() if axis in maps}
        return self.narrow.by_key.get(held.key(name, **spread))

    def pairs(self, names: Iterable[str], maps: Maps) -> list[tuple[str, str]]:
        """(the result's name, the source's) of tensors."""
        found = [(name, self.original(name, maps)) for name in names]
        return [(name, before) for name, before in found if before is not None]

    def matched(self, seats: Sequence[tuple[Seat, Seat]], maps: Maps, scales: str) -> Match | None:
        """Match coordinates by what writes them; those that are written alike by what reads them.

        seats  (in the result, in the source) of one place
        """
        written = self._sums([pair for pair in seats if not pair[0].reads], maps)
        read = self._sums([pair for pair in seats if pair[0].reads], maps)
        return match(*written, scales, read or ()) if written else None

    def _sums(self, seats: Sequence[tuple[Seat, Seat]], maps: Maps) -> tuple[np.ndarray, np.ndarray] | None:
        """The sums of the sketches at seats that can be compared, in the result and in the source."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for after, before in seats:
            sketches = self.sketch(after, maps), self.sketch(before, None)
            if sketches[0] is not None and sketches[1] is not None and len(after.at) == len(before.at):
                found.append((at_seat(sketches[0], after), at_seat(sketches[1], before)))
        if not found:
            return None
        return sum((after for after, _ in found), np.zeros(1)), sum((before for _, before in found), np.zeros(1))

    def move(self, seats: Iterable[Seat], order: np.ndarray, factor: np.ndarray | None = None) -> None:
        """Reorder coordinates at all seats of a place; writers are multiplied by `factor`, readers divided by it."""
        for seat in seats:
            own = factor if factor is None or not seat.reads else 1 / factor
            self.views[seat.name].move(seat, order, own)
            self.forget([seat.name])

    def carried_out(self, settled: Settled) -> Settled:
        """Move what is settled."""
        for place, order, factor in settled.moves:
            self.move(place.seats, order, factor)
        return settled

    def forget(self, names: Iterable[str]) -> None:
        """Sketch these tensors of the result anew."""
        for key in [key for key in self._sketched if key[0] in {*names} and not key[1]]:
            del self._sketched[key]


def _template(table: Architecture, name: str) -> Template | None:
    """The line of the table for a name; None where there is none."""
    with contextlib.suppress(ArchitectureError):
        return table.template(name)
    return None
