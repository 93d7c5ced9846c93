"""Lazy tensors by a rule of their own, neither bytes of a file nor a gather of another tensor.

Drawn     normal numbers, or one number everywhere (`random/drawn.py`)
Turned    rows of another tensor times an orthogonal matrix (`random/turned.py`)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.dtypes import SIZES
from modelsurgeon.tensors.pieces import Piece, rows_or_parts
from modelsurgeon.tensors.stored import Stored


class Computed(ABC):
    """A lazy tensor by a rule of its own. Its numbers do not depend on how it is cut, on threads or the machine.

    dtype  what it is stored in
    shape  its sizes, at least one
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> Stored | None:
        """The stored tensor that it follows from, if it does from one."""
        return None

    @property
    def held(self) -> int:
        """Bytes that are resident as long as it is read, beside its pieces."""
        return 0

    @property
    def nbytes(self) -> int:
        return SIZES[self.dtype] * math.prod(self.shape)

    @property
    def unusual(self) -> bool:
        """Whether what was read so far held NaN or infinities."""
        return self.stored is not None and self.stored.unusual

    @property
    @abstractmethod
    def says(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Rows start:stop, first:last of dimension 1, as they are stored."""

    @abstractmethod
    def reading(self, rows: int, columns: int) -> int:
        """Bytes of memory that reading so many rows and columns takes at most, the result among them."""

    def pieces(self, most: int) -> Iterator[Piece]:
        """As `Remapped.pieces`."""
        columns = self.shape[1] if len(self.shape) > 1 else 1
        if self.nbytes:
            yield from rows_or_parts(Piece(0, self.shape[0], 0, columns), self.nbytes // self.shape[0], most)

    def working_set(self, most: int) -> int:
        """Bytes of memory that a piece of at most `most` bytes takes at most, the result among them."""
        rows, columns = self.shape[0], self.shape[1] if len(self.shape) > 1 else 1
        row = self.nbytes // max(1, rows)
        if row > most:
            return self.reading(1, max(1, most * columns // row))
        return self.reading(min(rows, max(1, most // max(1, row))), columns)

    def read_piece(self, piece: Piece, device: str = "cpu", empty: Empty = fresh) -> torch.Tensor:
        """A piece as it is stored, computed on the CPU whatever the device."""
        whole = len(self.shape) < 2 or (piece.first, piece.last) == (0, self.shape[1])
        return self.read(piece.start, piece.stop, empty, *(() if whole else (piece.first, piece.last)))
