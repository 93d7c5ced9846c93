"""A result's tensors with the coordinates of some axes in another order, and multiplied by factors; nothing is copied.

A symmetry of the architecture reorders coordinates of one place (the neurons of one layer, the heads of one attention)
in every tensor that has them: each position of a dimension is used once, so that no number is left out or used twice.

    reorder = Reordered(up_proj)
    reorder.move(seat, np.array([2, 0, 1]))      # coordinate 0 is now what coordinate 2 was
    reorder.tensor                               # lazy
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.maps import dimension
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, Ungrown


class UnlikeError(ModelSurgeonError):
    """A place of the result has other parts than the source's, so no order of it can be told."""


@dataclass(frozen=True, eq=False)
class Seat:
    """Where the coordinates of one place are in a tensor.

    name       of the tensor
    dimension  that has them
    at         [occurrences, m] int64: positions along it; a fused tensor of gate and up has two occurrences
    reads      whether they are read there, not written
    slice      the coordinate of dimension 0 that belongs to the place (an expert); None: all of them
    """

    name: str
    dimension: int
    at: np.ndarray
    reads: bool
    slice: int | None = None


def alike(name: str, after: Iterable[Seat], before: Iterable[Seat]) -> list[tuple[Seat, Seat]]:
    """Seats of the result's tensor `name` with the source's. Raises UnlikeError where one has more of them."""
    pairs = [*after], [*before]
    if len(pairs[0]) != len(pairs[1]):
        raise UnlikeError(f"{name}: {len(pairs[0])} places, {len(pairs[1])} in the source")
    return list(zip(*pairs, strict=True))


@dataclass
class Order:
    """Positions and factors along each dimension: new[p] = old[source[p]] * factor[p]."""

    source: list[np.ndarray]
    factor: list[np.ndarray]

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Order:
        """The order as it is."""
        return cls([np.arange(size) for size in shape], [np.ones(size) for size in shape])

    def move(self, axis: int, at: np.ndarray, order: np.ndarray, factor: np.ndarray | None = None) -> None:
        """Coordinate j, at positions at[:, j], becomes what order[j] was, times factor[j]."""
        assert np.array_equal(np.sort(order), np.arange(at.shape[1])), "an order uses every coordinate once"
        self.source[axis][at] = self.source[axis][at[:, order]]
        self.factor[axis][at] = self.factor[axis][at[:, order]] * (1.0 if factor is None else factor)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """As dimensions of `Remapped`."""
        return tuple(map(_dimension, self.source, self.factor))


@dataclass
class Reordered:
    """One tensor of the result, and how it is reordered so far; `slices`: by coordinate of dimension 0, the others."""

    stored: LazyTensor
    order: Order = field(init=False)
    slices: dict[int, Order] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = Order.of(self.stored.shape)

    def move(self, seat: Seat, order: np.ndarray, factor: np.ndarray | None = None) -> None:
        """Reorder the coordinates of one seat, and multiply them."""
        if seat.slice is None:
            assert not (self.slices and seat.dimension == 0), "slices are reordered before what is in them"
            self.order.move(seat.dimension, seat.at, order, factor)
            return
        own = self.slices.setdefault(seat.slice, Order.of(self.stored.shape[1:]))
        own.move(seat.dimension - 1, seat.at, order, factor)

    @property
    def tensor(self) -> LazyTensor:
        """The tensor in its new order."""
        whole = self.order.dimensions
        moved = self.stored if all(one.is_identity for one in whole) else _remapped(self.stored, whole)
        if not self.slices:
            return moved
        others = tuple(map(dimension.ungrown, moved.shape[1:]))
        inside = [self.slices[at].dimensions if at in self.slices else others for at in range(moved.shape[0])]
        return Stacked(moved, tuple(inside))


def _dimension(source: np.ndarray, factor: np.ndarray) -> Dimension:
    as_it_was = dimension.ungrown(len(source))
    if np.array_equal(source, as_it_was.source) and np.all(factor == 1):
        return as_it_was
    return replace(as_it_was, source=source, factor=factor)


def _remapped(tensor: LazyTensor, dimensions: tuple[Dimension, ...]) -> Remapped:
    return Remapped(tensor, dimensions, tensor.dtype)


class Stacked(Ungrown):
    """A tensor whose slices along dimension 0 are reordered each in its own way: the experts of a layer.

    inside  for each coordinate of dimension 0 the dimensions of its slice
    """

    says = "reordered"

    def __init__(self, tensor: LazyTensor, inside: tuple[tuple[Dimension, ...], ...]) -> None:
        self.dtype, self.shape, self._tensor = tensor.dtype, tensor.shape, tensor
        one = dimension.ungrown(1)
        self._parts = [_remapped(_Slice(tensor, at), (one, *own)) for at, own in enumerate(inside)]
        self.is_exact = all(part.is_exact for part in self._parts)

    @property
    def stored(self) -> Stored | None:
        return self._tensor.stored

    @property
    def unusual(self) -> bool:
        return self._tensor.unusual

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        parts = [self._parts[at].read(0, 1, fresh, first, last) for at in range(start, stop)]
        return torch.cat(parts) if parts else self._tensor.read(0, 0)


class _Slice(Ungrown):
    """One coordinate of dimension 0, which it keeps."""

    says = "a slice"

    def __init__(self, tensor: LazyTensor, at: int) -> None:
        self.dtype, self.shape, self._tensor, self._at = tensor.dtype, (1, *tensor.shape[1:]), tensor, at

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        return self._tensor.read(self._at + start, self._at + stop, empty, first, last)


Views = Mapping[str, Reordered]
