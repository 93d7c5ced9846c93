"""Undoes, place by place, an order that each layer, expert or head of a result has its coordinates in.

A model whose MLP neurons are reordered, in each layer in another way, is the same function; so it is with heads and
their key-value heads, experts and their router's rows, coordinates of values. No map of an axis says that, since a map
holds for all layers. So each place of the result is matched with the source's (`sketches.py`) and reordered lazily
(`reordered.py`), until one map per axis tells the rest. Only what the architecture allows is done, and every tensor of
the place is reordered alike: the reordered result is the same function as the result, whatever was matched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import torch

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ArchitectureError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Maps, kind_of
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import MEAN
from modelsurgeon.maps.orders import identity
from modelsurgeon.proof import allowed, attention
from modelsurgeon.proof.arranged import Order, Place, Settled, arranged, settle
from modelsurgeon.proof.coordinates import joined_axes
from modelsurgeon.proof.modules import Held, modules
from modelsurgeon.proof.reordered import Reordered, Seat
from modelsurgeon.proof.sketches import Match, at_seat, directions, lens, match, project
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.lazy import LazyTensor


@dataclass
class Alignment:
    """Aligns a result with a source, axis by axis, each after those that its tensors have beside it.

    base    the source, untied and deepened as the result is
    new     names of tensors in `base` that are of new layers
    paired  {name in `base`: name in the result}
    found   {axis: what was done to it}
    """

    base: Checkpoint
    result: Checkpoint
    growth: Growth
    paired: dict[str, str]
    new: frozenset[str]
    found: dict[str, Settled] = field(default_factory=dict)
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

    def align(self, name: str, maps: Maps, standard: Sequence[np.ndarray]) -> None:
        """Reorder every place of an axis, towards one of the standard orders of copies where it can be.

        standard  [m] int64 each: sources of the maps that are tried anyway
        """
        table, kind = self.growth.architecture, kind_of(self.growth.axis(name))
        group = next(names for names in joined_axes(table, self._tied) if name in names)
        known = {axis: identity(size) for axis, size in self.growth.sizes.items() if not table.axes[axis].grows}
        maps = {**{a: m for a, m in known.items() if self.growth.targets[a] == m.size}, **maps}
        if name in self.found or not table.axes[name].grows:
            return
        if any(kind_of(table.axes[axis]).spans_layers for axis in group):
            settled = self._everywhere(group, maps, standard)
        elif kind.is_head:
            settled = attention.heads(self, name, maps, standard)
        elif kind.is_expert:
            settled = self._experts(name, maps, standard)
        elif kind.in_heads:
            settled = attention.inside(self, name, group, maps, standard)
        else:
            settled = None if kind.joins_leader else self._plain(name, group, maps, standard)
        if settled is not None:
            self.found |= dict.fromkeys(group, settled)

    @property
    def _tied(self) -> frozenset[str]:
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
            for key in [key for key in self._sketched if key[0] == seat.name and not key[1]]:
                del self._sketched[key]

    # --- axes ---

    def _everywhere(self, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
        """The one order that all layers have: a map of the axis says it, and nothing is moved."""
        table = self.growth.architecture
        seats = [
            (after, before)
            for name, old in self.pairs(self.wide.templates, maps)
            for after, before in zip(self.wide.seats(name, group), self.narrow.seats(old, group), strict=True)
        ]
        written = self._sums([pair for pair in seats if not pair[0].reads], maps)
        if written is None:
            return None
        found, wanted = written
        if has_means := table.norm == "layer" and len(found) > len(wanted):
            wanted = np.concatenate([wanted, wanted.mean(axis=0, keepdims=True)])
        matched = match(found, wanted, "any" if table.norm == "rms" else "positive")
        if matched is None:
            return None
        source = np.where(matched.source == len(wanted) - 1, MEAN, matched.source) if has_means else matched.source
        signs = np.sign(matched.scale) if np.any(matched.scale < 0) else None
        usual = signs is None and any(np.array_equal(source, one) for one in standard)
        return Settled(source, None if usual else Order(source, signs), 0, 1)

    def _plain(self, name: str, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
        """Neurons of each layer or expert, or the coordinates of a rank."""
        places = [self._place(seats, maps, group) for seats in self._places(group, maps)]
        matched = [place for place in places if place]
        settled = settle(matched, standard, self.growth.sizes[name], self.precision) if matched else None
        return settled and self.carried_out(settled)

    def _place(self, seats: list[tuple[Seat, Seat]], maps: Maps, group: tuple[str, ...]) -> Place | None:
        scales = allowed.scales(self.growth, group, [after for after, _ in seats])
        found = self.matched(seats, maps, scales)
        return None if found is None else Place(tuple(after for after, _ in seats), found)

    def _places(self, group: tuple[str, ...], maps: Maps) -> Iterator[list[tuple[Seat, Seat]]]:
        """The seats of each module, and of each expert where one tensor has all."""
        for names in modules(self.wide, group):
            several = any(self.wide.expert_dimension(name) is not None for name in names)
            axis = next((a for a, one in self.growth.architecture.axes.items() if kind_of(one).is_expert), "")
            for expert in range(self.growth.targets[axis]) if several else [None]:
                old = None if expert is None or axis not in maps else int(maps[axis].source[expert])
                pairs = self.pairs(names, maps)
                if len(pairs) == len(names) and (expert is None or old is not None):
                    yield [
                        both
                        for after, before in pairs
                        for both in zip(
                            self.wide.seats(after, group, expert=expert),
                            self.narrow.seats(before, group, expert=old),
                            strict=True,
                        )
                    ]

    def carried_out(self, settled: Settled) -> Settled:
        """Move what is settled."""
        for place, order, factor in settled.moves:
            self.move(place.seats, order, factor)
        return settled

    def _experts(self, name: str, maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
        """Experts of each layer, with their router's rows; consecutive ones that are a group stay one."""
        table, moved, count = self.growth.architecture, 0, 0
        group = (name, *(other for other, axis in table.axes.items() if axis.follows == name))
        block = self.growth.targets[name] // allowed.groups(self.growth, name)
        for counters, names in self._by_layer(name, group).items():
            seats = [
                both
                for after, before in self.pairs([n for n in names if self.wide.templates[n].signature.axes], maps)
                for both in zip(self.wide.seats(after, group), self.narrow.seats(before, group), strict=False)
            ]
            routers = [both for both in seats if name in self.wide.templates[both[0].name].signature.axes]
            found = self.matched([both for both in routers if not both[0].reads], maps, "none")
            if found is None or not len(standard):
                continue
            count += 1
            awake = self._awake([after for after, _ in seats], name)
            order = arranged(found.source, standard[0], block, awake)
            if order is None or np.array_equal(order, np.arange(len(order))):
                continue
            moved += 1
            self.move([after for after, _ in seats], order)
            self._rename(counters, names, name, order)
        return Settled(standard[0], None, moved, count) if count else None

    def _by_layer(self, name: str, group: tuple[str, ...]) -> dict[tuple[tuple[str, int], ...], list[str]]:
        """{counters of a layer: its tensors that have experts, or belong to one of them}."""
        found: dict[tuple[tuple[str, int], ...], list[str]] = {}
        for tensor, template in self.wide.templates.items():
            if {*group} & {*template.signature.axes} or name in template.placeholders:
                numbers = tuple((key, n) for key, n in self.wide.numbers(tensor).items() if key != name)
                found.setdefault(numbers, []).append(tensor)
        return found

    def _awake(self, seats: Sequence[Seat], name: str) -> np.ndarray | None:
        """[m] float64: how likely each copy is to be chosen, by the bias that only the choice sees."""
        for seat in seats:
            signature = self.wide.templates[seat.name].signature
            if len(signature.dimensions) == 1 and name not in signature.axes:
                tensor = self.tensor(seat.name, False)
                return np.asarray(tensor.read(0, tensor.shape[0]).double().numpy()[seat.at[0]])
        return None

    def _rename(self, counters: Sequence[tuple[str, int]], names: Sequence[str], axis: str, order: np.ndarray) -> None:
        """Give the tensors of each expert the name of the expert that it becomes."""
        own = [name for name in names if axis in self.wide.numbers(name)]
        before = {name: self.views[name] for name in own}
        for name in own:
            old = self.wide.by_key[self.wide.key(name, **{axis: int(order[self.wide.numbers(name)[axis]])})]
            self.views[name] = before[old]
        for key in [key for key in self._sketched if key[0] in before and not key[1]]:
            del self._sketched[key]


def _template(table: Architecture, name: str) -> Template | None:
    """The line of the table for a name; None where there is none."""
    with contextlib.suppress(ArchitectureError):
        return table.template(name)
    return None
