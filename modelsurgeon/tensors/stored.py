"""Tensors that are no growth of others, among them those of safetensors files, read some rows at a time.

>>> read_header(LocalFile(Path("model.safetensors")))["lm_head.weight"].shape
(4096, 256)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File
from modelsurgeon.files.safetensors_file import read_entries
from modelsurgeon.maps import dimension
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors import quantised
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.arithmetic import is_finite
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS, SIZES
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import Piece, rows_or_parts

COUNTED = 1 << 20  # numbers examined at a time
Write = Callable[[torch.Tensor, int], None]  # writes consecutive numbers of a tensor, from the place of the first on
SMALL = 1 << 16  # bytes that are counted nowhere else: objects, numbers on their own, the ends of blocks


class Ungrown(ABC):
    """A lazy tensor that is no growth of another one: it is its own base, and its dimensions are identities.

    Subclasses add a dtype, a shape and how it is read. The numbers do not depend on how it is cut, on threads or on the
    machine. By default they follow some rule and are computed.
    """

    dtype: str
    shape: tuple[int, ...]
    constant, offset, fill, free = 1.0, 0.0, 0.0, False
    held = 0
    is_exact = True
    factors: tuple[float, ...] = ()

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
    @abstractmethod
    def says(self) -> str:
        """As `LazyTensor.says`."""

    @property
    def stored(self) -> Stored | None:
        """The stored tensor that its numbers follow from; None where there is none."""
        return None

    @property
    def verbatim(self) -> Stored | None:
        """None: its numbers are computed."""
        return None

    @property
    def unusual(self) -> bool:
        """As `LazyTensor.unusual`."""
        return self.stored is not None and self.stored.unusual

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

    def working_set(self, most: int) -> int:
        """As `LazyTensor.working_set`: reading the rows and columns of one piece."""
        rows, columns = (*self.shape, 1)[:2]
        row = self.nbytes // max(1, rows)
        if row > most:
            return self.reading(1, max(1, most * columns // row))
        return self.reading(min(rows, max(1, most // max(1, row))), columns)


def numbers(shape: tuple[int, ...], rows: int, columns: int) -> int:
    """How many numbers so many rows and columns of a tensor have; a vector has one column."""
    return rows * (columns if len(shape) > 1 else 1) * math.prod(shape[2:])


@dataclass(frozen=True)
class Stored(Ungrown):
    """A tensor in a file.

    start   where its data begins, in bytes from the file's beginning
    """

    file: File
    dtype: str
    shape: tuple[int, ...]
    start: int

    says = "copied"
    factors = (1.0,)

    @property
    def stored(self) -> Stored:
        return self

    @property
    def verbatim(self) -> Stored:
        return self

    @property
    def unusual(self) -> bool:
        """Whether a read so far met NaN or infinities."""
        return self.start in self.file.flagged

    def working_set(self, most: int) -> int:
        """0: its bytes are copied without being read."""
        return 0

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """As `LazyTensor.read`. Raises SourceError where the file is cut short."""
        block = self._block(start, stop, empty, first, last, self._fill)
        if not is_finite(block):
            self.file.flagged.add(self.start)
        return block

    def _fill(self, block: torch.Tensor, at: int) -> None:
        at_byte = self.start + DTYPES[self.dtype].itemsize * at
        self.file.read_into(block.reshape(-1).view(torch.uint8).numpy().data, at_byte)


def count_unusual(stored: Stored) -> tuple[int, int]:
    """(NaNs, infinities): how many a tensor holds."""
    if stored.dtype not in FLOATS:
        return 0, 0
    nans = infinities = 0
    flat = Stored(stored.file, stored.dtype, (math.prod(stored.shape),), stored.start)
    for at in range(0, flat.shape[0], COUNTED):
        block = flat.read(at, min(at + COUNTED, flat.shape[0]))
        nans += int(block.isnan().sum())
        infinities += int(block.isinf().sum())
    return nans, infinities


def read_header(file: File) -> dict[str, Stored]:
    """{name: tensor}. Raises SourceError for a file that is not sound, and for quantised numbers."""
    entries = read_entries(file)
    for name, entry in entries.items():
        if not name.isprintable():
            raise SourceError(f"{file}: tensor {name!r} has control characters in its name")
        if entry.dtype not in DTYPES:
            raise SourceError(f"{file}: {quantised.of_tensor(name, entry.dtype)}")
    return {name: Stored(file, entry.dtype, entry.shape, entry.start) for name, entry in entries.items()}
