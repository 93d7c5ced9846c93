"""Lazy tensors: where the numbers of a checkpoint are, or how they follow from others; nothing is read before `read`.

Stored      bytes of a safetensors file (`stored.py`)
Remapped    another lazy tensor, gathered and multiplied dimension by dimension (`remapped.py`)
Computed    follows some other rule: drawn at random or turned (`computed.py`)

Whoever has one asks it, and never which of the three it is.
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

    dtype     what it is stored in: "BF16", "F32" ...
    shape     its sizes; () of a single number
    nbytes    bytes that it takes when it is stored
    stored    the stored tensor that it begins with, if it does with one
    verbatim  the stored tensor whose bytes it is, unchanged; None where its numbers are computed
    unusual   whether what was read of it so far held NaN or infinities

    says      what it is, in a few words, for the plan
    is_exact  whether no stored number is rounded
    factors   the distinct factors that stored numbers are multiplied by

    How it grew (`Remapped`); what did not grow is its own base, and its dimensions are identities:
    base, dimensions, constant, offset, fill, free
    fused     the same without a grown tensor in between

    held      bytes of memory that are resident as long as it is read, beside its pieces
    """

    @property
    def stored(self) -> Stored | None: ...
    @property
    def verbatim(self) -> Stored | None: ...
    @property
    def unusual(self) -> bool: ...

    @property
    def says(self) -> str: ...
    @property
    def is_exact(self) -> bool: ...
    @property
    def factors(self) -> tuple[float, ...]: ...

    @property
    def base(self) -> LazyTensor: ...
    @property
    def dimensions(self) -> tuple[Dimension, ...]: ...
    @property
    def constant(self) -> float: ...
    @property
    def offset(self) -> float: ...
    @property
    def fill(self) -> float | Fill: ...
    @property
    def free(self) -> bool: ...
    @property
    def fused(self) -> LazyTensor: ...

    @property
    def held(self) -> int: ...

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
        """It with noise where copies are parts of a sum, along the dimensions in this order."""


def equal(a: LazyTensor, b: LazyTensor, block: int = 1 << 22) -> bool:
    """Whether two lazy tensors hold the same numbers, read in blocks of about `block` numbers."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows = max(1, block // max(1, a.shape[-1]))
    return all(
        bool((a.read(at, min(at + rows, a.shape[0])) == b.read(at, min(at + rows, a.shape[0]))).all())
        for at in range(0, a.shape[0], rows)
    )
