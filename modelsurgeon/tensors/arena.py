"""Memory for blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

ALIGNED = 64  # bytes: a block begins at a multiple of this
LEAST = 1 << 16  # bytes of the smallest allocation

Empty = Callable[[Sequence[int], torch.dtype], torch.Tensor]  # uninitialised memory for a block


def fresh(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """New memory."""
    return torch.empty(tuple(shape), dtype=dtype)


class Arena:
    """Memory that every block uses again: one allocation, handed out from its beginning after each `reset`.

    Freed tensors leave holes that later ones do not fit: without an arena a process grows while it writes.
    size  bytes of the first allocation; where they do not suffice the arena grows to what was used
    """

    def __init__(self, size: int = 0) -> None:
        self._held = [torch.empty(size, dtype=torch.uint8)] if size else []
        self._used = 0

    def reset(self) -> Arena:
        """Reuse all of it for the next block."""
        if len(self._held) > 1:
            size = sum(map(len, self._held))
            self._held.clear()  # before as much is allocated again
            self._held.append(torch.empty(size, dtype=torch.uint8))
        self._used = 0
        return self

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        size = dtype.itemsize * math.prod(shape)
        if not self._held or self._used + size > len(self._held[-1]):
            self._held.append(torch.empty(max(size, LEAST), dtype=torch.uint8))
            self._used = 0
        block = self._held[-1][self._used : self._used + size]
        self._used += -(-size // ALIGNED) * ALIGNED
        return block.view(dtype).view(tuple(shape))
