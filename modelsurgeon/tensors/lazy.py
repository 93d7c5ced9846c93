"""Lazy tensors: where the numbers of a checkpoint are, or how they follow from others; nothing is read before `read`.

Stored                    bytes of a safetensors file (`stored.py`)
Remapped                  another lazy tensor, gathered and multiplied dimension by dimension (`remapped.py`)
Drawn, Formula, Turned    numbers that follow some other rule (`random/`)

Callers ask a tensor what they need, never which of these it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from modelsurgeon.files.safetensors_file import Described
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arena import Empty
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import Piece
from modelsurgeon.tensors.stored import Stored

Fill = Callable[[int, int], torch.Tensor]  # rows of numbers from (start, stop)


class LazyTensor(Described, Protocol):
    """Numbers that can be read, some rows at a time.

    dtype   of the stored numbers: "BF16", "F32" ...
    shape   its sizes; () of a single number
    nbytes  bytes that it takes when it is stored
    constant, offset, fill, free    as in `Remapped`
    """

    @property
    def stored(self) -> Stored | None:
        """The stored tensor that its numbers follow from; None where there is none."""

    @property
    def verbatim(self) -> Stored | None:
        """The stored tensor whose bytes it is, unchanged; None where its numbers are computed."""

    @property
    def unusual(self) -> bool:
        """Whether what was read of it so far held NaN or infinities."""

    @property
    def says(self) -> str:
        """A few words on how its numbers arise, for the plan."""

    @property
    def is_exact(self) -> bool:
        """Whether no stored number is rounded."""

    @property
    def factors(self) -> tuple[float, ...]:
        """The distinct factors that stored numbers are multiplied by."""

    @property
    def base(self) -> LazyTensor:
        """The tensor that it is a growth of (`Remapped`); itself where it did not grow."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The growth of each dimension: identities where it did not grow."""

    @property
    def constant(self) -> float: ...
    @property
    def offset(self) -> float: ...
    @property
    def fill(self) -> float | Fill: ...
    @property
    def free(self) -> bool: ...
    @property
    def fused(self) -> LazyTensor:
        """The same growth without a grown tensor in between."""

    @property
    def held(self) -> int:
        """Bytes of memory that are resident as long as it is read, beside its pieces."""

    def read(self, start: int, stop: int, empty: Empty = ..., first: int = ..., last: int | None = ...) -> torch.Tensor:
        """Rows start:stop of the first dimension (the number itself of a scalar), first:last of the second.

        Raises SourceError where they cannot be read.
        """

    def pieces(self, most: int) -> Iterator[Piece]:
        """The whole tensor in the order of its bytes, in pieces of at most `most` bytes of the stored dtype.

        A piece is whole rows, or a part of a row that is larger. One coordinate of dimension 1 is not cut, nor is a row
        that appears earlier.
        """

    def read_piece(self, piece: Piece, device: str = ..., empty: Empty = ...) -> torch.Tensor:
        """A piece as it is stored, on the CPU; what is computed on `device` does not depend on it."""

    def reading(self, rows: int, columns: int) -> int:
        """Bytes of memory that reading so many rows and columns takes at most, the result among them."""

    def working_set(self, most: int) -> int:
        """Bytes of memory that a piece of at most `most` bytes takes at most; 0 where the bytes are copied."""

    def with_noise(self, noise: Noise, turns: tuple[int, ...]) -> LazyTensor:
        """The tensor with noise where copies are parts of a sum, along the dimensions in the order of `turns`."""


def equal(a: LazyTensor, b: LazyTensor, block: int = 1 << 22) -> bool:
    """Whether two lazy tensors hold the same numbers, read in blocks of about `block` numbers."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows, end = max(1, block // max(1, a.shape[-1])), a.shape[0]
    ranges = ((at, min(at + rows, end)) for at in range(0, end, rows))
    return all(bool((a.read(*span) == b.read(*span)).all()) for span in ranges)
