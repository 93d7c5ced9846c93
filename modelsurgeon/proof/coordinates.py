"""Where the coordinates of an axis that grew are in the parameters of a model, and which of them are copies.

Neurons of two layers or two experts, and coordinates inside of two heads, have nothing to do with each other: each
layer, expert or head is a place of its own. A coordinate of the residual stream is the same one in all layers. Axes
that a norm joins are one: the norm reads coordinate 3 of the stream and writes coordinate 3 of the next axis.

    >>> strips(axis_of("mlp"), table, sizes, ["model.layers.0.mlp.up_proj.weight", ...])
    {(("layer", 0),): [Strip("model.layers.0.mlp.up_proj.weight", dimension=0, ...), ...], ...}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import torch

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.growth.kinds.kind import Kind, kind_of
from modelsurgeon.maps.axis_map import GAP, AxisMap
from modelsurgeon.maps.orders import identity, ranks
from modelsurgeon.maps.signature import Expression, Signature

MOST_PAIRS = 1024  # of one place; if there are more, old coordinates are drawn evenly

Place = tuple[tuple[str, int], ...]  # the counters of a name: (("layer", 3),)


@dataclass(frozen=True)
class GrownAxis:
    """Axes that grew as one.

    names   the axes that norms join, in the table's order; `kind` is that of the first
    size    before they grew
    source  [m] int64: the old coordinate that each new one copies; negative if it copies none, or nothing reads it
    """

    names: tuple[str, ...]
    kind: Kind
    size: int
    source: np.ndarray
    spans_layers: bool

    @property
    def new_size(self) -> int:
        """The size after they grew."""
        return len(self.source)

    @cached_property
    def all_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Every two copies of one old coordinate, [p] int64 each, in the order of the old coordinates."""
        rank, count = ranks(self.source)
        at = np.full((self.size, int(count.max(initial=1))), -1)
        copied = self.source >= 0
        at[self.source[copied], rank[copied]] = np.flatnonzero(copied)
        drawn = [at[:, [a, b]] for a, b in combinations(range(at.shape[1]), 2)]
        pairs = np.stack(drawn, axis=1).reshape(-1, 2) if drawn else np.zeros((0, 2), dtype=np.int64)
        pairs = pairs[(pairs >= 0).all(axis=1)]
        return pairs[:, 0], pairs[:, 1]

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All pairs, or about MOST_PAIRS of them: those of old coordinates that are drawn evenly."""
        left, right = self.all_pairs
        if len(left) <= MOST_PAIRS:
            return left, right
        olds = np.unique(self.source[left])
        count = max(1, MOST_PAIRS * len(olds) // len(left))
        drawn = np.isin(self.source[left], olds[np.linspace(0, len(olds) - 1, count).astype(np.int64)])
        return left[drawn], right[drawn]

    @property
    def new(self) -> np.ndarray:
        """The new coordinates that copy none."""
        return np.flatnonzero(self.source < 0)


def grown_axes(table: Architecture, maps: Mapping[str, AxisMap]) -> tuple[GrownAxis, ...]:
    """The axes that these maps grow; those that a norm joins are one."""
    found = []
    for names in joined_axes(table):
        if grown := [maps[name] for name in names if name in maps and not maps[name].is_identity]:
            source = np.max([axis_map.source for axis_map in grown], axis=0)  # a gap of one may be a mean of another
            reads = np.any([axis_map.share != 0 for axis_map in grown], axis=0)
            found.append(_axis(table, names, grown[0].size, np.where(reads, source, GAP)))
    return tuple(found)


def all_axes(table: Architecture, sizes: Mapping[str, int], shared: Iterable[str] = ()) -> tuple[GrownAxis, ...]:
    """Every axis that can grow, as if each coordinate copied itself; a router's own coordinates belong to its experts.

    shared  axes that are one since one tensor has both: an embedding that is the head, too
    """
    found = []
    for joined in joined_axes(table, frozenset(shared)):
        if kind_of(table.axes[joined[0]]).is_examined:
            added = [n for n, axis in table.axes.items() if kind_of(axis).joins_leader and axis.follows in joined]
            found.append(_axis(table, (*joined, *added), sizes[joined[0]], np.arange(sizes[joined[0]])))
    return tuple(found)


def _axis(table: Architecture, names: tuple[str, ...], size: int, source: np.ndarray) -> GrownAxis:
    kinds = [kind_of(table.axes[name]) for name in names]
    return GrownAxis(names, kinds[0], size, source, any(kind.spans_layers for kind in kinds))


def joined_axes(table: Architecture, shared: frozenset[str] = frozenset()) -> list[tuple[str, ...]]:
    """The table's axes in groups: those that some norm reads and writes, and those that are shared, in one tuple."""
    group = {name: set(shared) if name in shared else {name} for name in table.axes}
    for _, signature in table.norms:
        assert signature.normalises is not None
        for read, written in zip(signature.normalises.axes(), signature.gains, strict=True):
            both = group[read] | group[written]
            group |= dict.fromkeys(both, both)
    return list(dict.fromkeys(tuple(one for one in table.axes if one in group[name]) for name in table.axes))


@dataclass(frozen=True, eq=False)
class Strip:
    """Where the coordinates of an axis are in one tensor.

    dimension  of the tensor
    order      [occurrences, places, m] int64: positions along it; a fused tensor of gate and up has two occurrences
    beside     a second dimension whose coordinates are places of their own (the experts of one tensor)
    only       the one place that it belongs to, if its name has the number; None: all of them
    """

    name: str
    dimension: int
    order: np.ndarray
    beside: int | None = None
    only: int | None = None

    def take(self, values: torch.Tensor, coordinates: np.ndarray) -> torch.Tensor:
        """[occurrences, places, coordinates, numbers] float64: the slices of these coordinates."""
        order = self.order[:, :, coordinates]
        found = values.index_select(self.dimension, torch.from_numpy(order.ravel()).to(values.device)).double()
        numbers = values.numel() // values.shape[self.dimension]
        if self.beside is None:
            return found.movedim(self.dimension, 0).reshape(*order.shape, numbers)
        places = values.shape[self.beside]
        found = found.movedim((self.dimension, self.beside), (0, 1))
        return found.reshape(len(order), len(coordinates), places, numbers // places).transpose(1, 2)

    def places(self, shape: tuple[int, ...]) -> int:
        """How many places a tensor of this shape has."""
        if self.only is not None:
            return self.only + 1
        return self.order.shape[1] if self.beside is None else shape[self.beside]


def strips(
    axis: GrownAxis, table: Architecture, sizes: Mapping[str, int], names: Iterable[str]
) -> dict[Place, list[Strip]]:
    """{counters of the names: strips}; under () those that belong to every place.

    sizes  {axis: its new size}
    names  of parameters; `table` must be fitted to them
    """
    finder, tensors_by_place = _Strips(axis, table, sizes), defaultdict[Place, list[tuple[str, Template]]](list)
    for name in names:
        template = table.template(name)
        if template and set(template.signature.axes) & set(axis.names):
            tensors_by_place[place_of(axis, table, template, name)].append((name, template))
    found = {}
    for place, tensors in tensors_by_place.items():
        places = 1 if place == () and len(tensors_by_place) > 1 else finder.places(tensors)
        found[place] = [strip for name, template in tensors for strip in finder.strips(name, template, places)]
    return found


def place_of(axis: GrownAxis, table: Architecture, template: Template, name: str) -> Place:
    """The place of the axis' coordinates in a tensor of this name; () if they belong to every place."""
    numbers = {} if axis.spans_layers else table.numbers(template, name)
    return tuple((key, number) for key, number in numbers.items() if key not in table.axes)


def counts_experts(table: Architecture, expression: Expression) -> bool:
    """Whether a dimension has one coordinate for each expert."""
    return [kind_of(table.axes[name]).is_expert for name in expression.axes()] == [True]


@dataclass
class _Strips:
    """Finds the strips of an axis, tensor by tensor, and the order of coordinates once for each signature."""

    axis: GrownAxis
    table: Architecture
    sizes: Mapping[str, int]
    seen: dict[tuple[str, int, str], np.ndarray] = field(default_factory=dict)
    orders: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)

    def places(self, tensors: list[tuple[str, Template]]) -> int:
        """How many places the heads of one layer's tensors are: as many as the tensor with the fewest heads has."""
        counts = {
            self.sizes[carrier]
            for _, template in tensors
            for d, (expression, _) in enumerate(template.signature.dimensions)
            for carrier in self._heads(expression.axes())
            if (self._labels(template, d, carrier)[self._own(template, d) >= 0] >= 0).any()
        }
        fewest = min(counts, default=1)
        return fewest if all(count % fewest == 0 for count in counts) else 1

    def _heads(self, names: tuple[str, ...]) -> list[str]:
        """The axes of heads, where the axis lies inside of heads."""
        if self.axis.spans_layers or not self.axis.kind.in_heads:
            return []
        axes = self.table.axes
        led = {name: (name, axes[name].follows) for name in names}
        return [name for name, both in led.items() if any(kind_of(axes[n]).is_head for n in both if n)]

    def _own(self, template: Template, d: int) -> np.ndarray:
        return np.asarray(np.max([self._labels(template, d, name) for name in self.axis.names], axis=0))

    def strips(self, name: str, template: Template, places: int) -> Iterator[Strip]:
        """The strips of one tensor: one for each dimension that has the axis."""
        table, dimensions, apart = self.table, template.signature.dimensions, not self.axis.spans_layers
        experts = [d for d, (expression, _) in enumerate(dimensions) if apart and counts_experts(table, expression)]
        spread = [axis for axis in table.spread(template) if apart and kind_of(table.axes[axis]).is_expert]
        only = table.numbers(template, name)[spread[0]] if spread else None
        for d, (expression, _) in enumerate(dimensions):
            if not set(expression.axes()) & set(self.axis.names):
                continue
            key = template.signature.text, d, places
            if key not in self.orders:
                self.orders[key] = self._order(template, d, places)
            yield Strip(name, d, self.orders[key], next((e for e in experts if e != d), None), only)

    def _order(self, template: Template, d: int, places: int) -> np.ndarray:
        """[occurrences, places, m] int64: as `Strip.order`."""
        own = self._own(template, d)
        place = np.full(len(own), -1)
        for carrier in self._heads(template.signature.dimensions[d][0].axes()) if places > 1 else []:
            label = self._labels(template, d, carrier)
            place = np.where(label >= 0, label // (self.sizes[carrier] // places), place)
        inside = np.flatnonzero(own >= 0)
        if (place[inside] < 0).any():
            place = place * 0
        order = inside[np.lexsort((inside, own[inside], place[inside]))]
        return order.reshape(len(np.unique(place[inside])), self.axis.new_size, -1).transpose(2, 0, 1)

    def _labels(self, template: Template, d: int, name: str) -> np.ndarray:
        """[positions] int64: as `labels`, computed once for each signature."""
        key = template.signature.text, d, name
        if key not in self.seen:
            self.seen[key] = labels(template.signature, d, name, self.sizes)[0]
        return self.seen[key]


def labels(signature: Signature, d: int, name: str, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """([positions] int64: the coordinate of an axis at each position of a dimension, -1 where it has no part;
    [positions] bool: whether it is read there).

    A map that multiplies every coordinate by a number of its own labels it, whatever the dimension is made of.
    """
    (expression, side), size = signature.dimensions[d], sizes[name]
    numbers = np.arange(size) + 2.0
    maps = {axis: identity(sizes[axis]) for axis in expression.axes()}
    maps[name] = AxisMap(size, np.arange(size), numbers, 1 / numbers)
    factor = expression.grow(maps, side).factor
    return np.rint(np.maximum(factor, 1 / factor)).astype(np.int64) - 2, factor < 1
