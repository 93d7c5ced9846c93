"""A kind of axis: what the axis passes on the way from its writers to its readers, which alone decides how it grows.

    >>> kind_of(Axis("intermediate_size", through="pointwise")).map(growth, "mlp", {})
    AxisMap(1536 -> 3072)

A kind is a class in a file of this folder, registered under the word that tables write (`Axis.through`). Planning,
checks, the table of families, inference and reports ask the kind, and nothing else looks at the word.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Axis, Config
from modelsurgeon.architectures.norms import is_normalised
from modelsurgeon.architectures.plain_names import plain
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import kinds
from modelsurgeon.growth.growth import Growth
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap

Maps = Mapping[str, AxisMap]
SAME = 1e-14  # factors nearer to each other than this are equal: a few float64 operations


class Kind:
    """One kind. By default an axis passes copies of any scale and grows to any size."""

    word: ClassVar[str]  # its name in tables
    coordinates: ClassVar[str] = ""  # what people call its coordinates; empty: the plain name of the axis
    sizes: ClassVar[str] = "any"  # the sizes to which it can grow, where they do not depend on the table
    grown_by: ClassVar[tuple[str, ...]] = ()  # the ways of growing attention by a factor that grow it, too
    keeps_size: ClassVar[bool] = False  # whether a factor or a number of parameters never grows it
    unit_scale: ClassVar[bool] = False  # whether only copies of scale 1 pass
    passes_means: ClassVar[bool] = False  # whether a mean of all coordinates passes
    spans_layers: ClassVar[bool] = False  # whether one coordinate is the same one in all layers
    is_head: ClassVar[bool] = False  # whether a coordinate is a head
    is_expert: ClassVar[bool] = False  # whether a coordinate is an expert
    in_heads: ClassVar[bool] = False  # whether every head has coordinates of its own
    is_examined: ClassVar[bool] = True  # whether reports compare its copies
    joins_leader: ClassVar[bool] = False  # whether reports count its coordinates with those of its leader
    only_order: ClassVar[str] = ""  # the name of the one order that inference tries, that of `map`; empty: several

    def noun(self, name: str) -> str:
        """What people call the coordinates of such an axis."""
        return self.coordinates or plain(name)

    def reach(self, table: Architecture, name: str) -> str:
        """The sizes that an axis can grow to, as `overview.py` lists them."""
        return self.sizes

    # --- planning ---

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """The map of an axis: tiles, the last of them cut short. `maps` has the maps of the axes planned before.

        Raises PlanError, naming the axis and the nearest sizes, where the axis cannot have the size.
        """
        size, target = growth.sizes[name], growth.targets[name]
        source, rank, count = orders.tiled(size, target)
        scale = self.scale(growth, count)
        return orders.gathered(size, source, scale, growth.parts(rank, count) / scale, 1.0)

    def scale(self, growth: Growth, count: np.ndarray) -> np.ndarray:
        """[m] float64: the factors of the writers of tiles, where each coordinate is one of `count` copies."""
        return np.ones(len(count))

    # --- checking ---

    def check(self, name: str, axis_map: AxisMap) -> None:
        """Raise PlanError where a map other than the identity does not commute with what the axis passes through."""
        if self.unit_scale and not np.all(axis_map.scale[~axis_map.gaps] == 1):
            raise PlanError(f"axis {name!r}: only copies of scale 1 pass through {self.word}")
        if axis_map.means.any() and not self.passes_means:
            raise PlanError(f"axis {name!r}: a mean does not pass through {self.word}")

    def reasons_against(self, table: Architecture, config: Config, maps: Maps, name: str) -> tuple[str, ...]:
        """Why the maps of all axes together are approximate on this one. Raises PlanError where they are wrong."""
        return ()

    def clamped(self, axis_map: AxisMap) -> tuple[np.ndarray, ...]:
        """The factors of each side of the axis that a clamp on queries, keys and values bounds."""
        return ()

    def settings(self, table: Architecture, config: Config, maps: Maps, name: str) -> dict[str, Any]:
        """{config key: new value} of settings other than the size that depend on the axis."""
        return {}

    # --- inference: the maps that another tool may have used ---

    def candidates(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, AxisMap]]:
        """(order of the copies, map) of every map to try, the likeliest first; `maps` has what the axis depends on."""
        if self.only_order:
            yield self.only_order, self.map(growth, name, maps)
            return
        size, gain = growth.sizes[name], growth.gain(name)
        for order, source in self.orders(growth, name, maps):
            copied = source >= 0
            for scale in self.factors(growth, name, source, maps):  # readers weigh each copy by its factor
                energy = np.bincount(source[copied], weights=scale[copied] ** 2, minlength=size)
                share = np.zeros(len(source))
                share[copied] = gain * scale[copied] / np.where(energy == 0, 1.0, energy)[source[copied]]
                share = np.where(np.abs(share - scale) < SAME * np.abs(scale), scale, share)  # a clamp wants them equal
                yield order, orders.gathered(size, source, scale, share, gain)

    def orders(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
        """(its name, [m] int64 sources) of every order of copies."""
        size, target = growth.sizes[name], growth.targets[name]
        if target == size:
            yield "in place", np.arange(size)
        if target <= size:
            return
        yield "copies in tiles", orders.tiled(size, target)[0]
        yield "copies side by side", np.arange(target) * size // target
        yield "then zeros", np.r_[np.arange(size), np.full(target - size, GAP)]
        if target % size and growth.architecture.norm == "layer" and is_normalised(growth.architecture, name):
            tiles = np.tile(np.arange(size), target // size)
            yield "copies in tiles, then their mean", np.r_[tiles, np.full(target % size, MEAN)]

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """[m] float64 each: the possible factors of these copies' writers."""
        yield np.ones(len(source))
        if not self.unit_scale:
            count = ranks(source)[1]
            yield np.sqrt(1 / count)
            yield 1 / count


def ranks(source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rank, count) as `orders.ranks`; a mean counts as often as the most frequent coordinate."""
    rank, count = orders.ranks(source)
    return rank, np.where(source == MEAN, count.max(initial=1), count)


_registered: dict[str, Kind] = {}


def register(kind: type[Kind]) -> type[Kind]:
    """Make a kind known: a decorator. Raises ValueError where another kind has its word."""
    if kind.word in _registered:
        raise ValueError(f"two kinds of axes are called {kind.word!r}")
    _registered[kind.word] = kind()
    return kind


def forget(kind: type[Kind]) -> None:
    """Undo `register`: for tests that define kinds of their own."""
    _registered.pop(kind.word, None)


def kind_of(axis: Axis) -> Kind:
    """The kind of an axis. Raises KeyError for a word that no kind has: a mistake in a table."""
    _load()
    return _registered[axis.through]


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"{kinds.__name__}.{module.name}")
