"""A lazy tensor that is no growth of another one: it is its own base, and each of its dimensions is an identity."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Self

import torch

from modelsurgeon.maps import dimension
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.dtypes import DTYPES, SIZES
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import Piece, rows_or_parts

Write = Callable[[torch.Tensor, int], None]  # writes consecutive numbers of a tensor, from the place of the first on
SMALL = 1 << 16  # bytes that are counted nowhere else: objects, numbers on their own, the ends of blocks


class Ungrown(ABC):
    """A lazy tensor whose class adds a dtype, a shape and how it is read."""

    dtype: str
    shape: tuple[int, ...]
    constant, offset, fill, free = 1.0, 0.0, 0.0, False
    held = 0
    is_exact = True
    factors: tuple[float, ...] = (1.0,)

    @abstractmethod
    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """As `LazyTensor.read`."""

    def _block(self, start: int, stop: int, empty: Empty, first: int, last: int | None, write: Write) -> torch.Tensor:
        """The block that `read` returns, written by `write`."""
        columns = self.shape[1:2] if last is None else (last - first,)
        block = empty((stop - start, *columns, *self.shape[2:]) if self.shape else (), DTYPES[self.dtype])
        row, column = math.prod(self.shape[1:]), math.prod(self.shape[2:])
        if columns == self.shape[1:2]:
            write(block, start * row)
        else:
            for at in range(start, stop):
                write(block[at - start], at * row + first * column)
        return block

    @property
    def nbytes(self) -> int:
        """Bytes that it takes when it is stored."""
        return SIZES[self.dtype] * math.prod(self.shape)

    @property
    def base(self) -> Self:
        return self

    @property
    def fused(self) -> Self:
        return self

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return tuple(map(dimension.ungrown, self.shape))

    def with_noise(self, noise: Noise, turns: tuple[int, ...]) -> Self:
        """Itself: it has no copies."""
        return self

    def pieces(self, most: int) -> Iterator[Piece]:
        """As `LazyTensor.pieces`; no row appears earlier."""
        rows, columns = (*self.shape, 1, 1)[:2]
        if self.nbytes:
            yield from rows_or_parts(Piece(0, rows, 0, columns), self.nbytes // rows, most)

    def read_piece(self, piece: Piece, device: str = "cpu", empty: Empty = fresh) -> torch.Tensor:
        """A piece as it is stored, read or computed on the CPU whatever the device."""
        whole = len(self.shape) < 2 or (piece.first, piece.last) == (0, self.shape[1])
        return self.read(piece.start, piece.stop, empty, *(() if whole else (piece.first, piece.last)))

    def reading(self, rows: int, columns: int) -> int:
        """As `LazyTensor.reading`: the numbers, and little else."""
        return numbers(self.shape, rows, columns) * SIZES[self.dtype] + SMALL


def numbers(shape: tuple[int, ...], rows: int, columns: int) -> int:
    """How many numbers so many rows and columns of a tensor have; a vector has one column."""
    return rows * (columns if len(shape) > 1 else 1) * math.prod(shape[2:])
