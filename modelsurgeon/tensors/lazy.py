"""Lazy tensors: where the numbers of a checkpoint are, or how they follow from others; nothing is read before `read`.

Stored      bytes of a safetensors file (`stored.py`)
Remapped    another lazy tensor, gathered and multiplied dimension by dimension (`remapped.py`)
Computed    follows some other rule: drawn at random or turned (`computed.py`)
"""

from __future__ import annotations

from typing import Protocol

import torch

from modelsurgeon.tensors.arena import Empty
from modelsurgeon.tensors.stored import Stored


class LazyTensor(Protocol):
    """Numbers that can be read, some rows at a time.

    dtype   what it is stored in: "BF16", "F32" ...
    shape   its sizes; () of a single number
    nbytes  bytes that it takes when it is stored
    stored  the stored tensor that it begins with, if it does with one
    """

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def stored(self) -> Stored | None: ...

    @property
    def unusual(self) -> bool:
        """Whether what was read of it so far held NaN or infinities."""

    def read(self, start: int, stop: int, empty: Empty = ..., first: int = ..., last: int | None = ...) -> torch.Tensor:
        """Rows start:stop of the first dimension (the number itself of a scalar), first:last of the second.

        Raises SourceError where they cannot be read.
        """


def equal(a: LazyTensor, b: LazyTensor, block: int = 1 << 22) -> bool:
    """Whether two lazy tensors hold the same numbers, read in blocks of about `block` numbers."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows = max(1, block // max(1, a.shape[-1]))
    return all(
        bool((a.read(at, min(at + rows, a.shape[0])) == b.read(at, min(at + rows, a.shape[0]))).all())
        for at in range(0, a.shape[0], rows)
    )
