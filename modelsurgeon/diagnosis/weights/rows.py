"""A stored tensor as a stack of matrices, some rows at a time; it stays in memory where it fits, else it is read again.

    for index, first, block in RowBlocks(tensor, capacity).blocks():
        ...                                    # [r, columns] as stored: rows first:first + r of matrix `index`

Whoever asks again gets the same blocks: what is larger than `capacity` is read from the file each time, so no measure
depends on how much memory there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modelsurgeon.tensors.lazy import LazyTensor

BLOCK = 1 << 20  # numbers of a block: what is computed of one stays in the caches


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """One tensor of one or more dimensions; of one, a matrix of one column.

    capacity  bytes of it that may stay in memory
    stacked   whether the first dimension counts matrices (experts); else it is one matrix, whose columns are all
              dimensions but the first one (convolutions)
    """

    tensor: LazyTensor
    capacity: int
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(matrices, rows, columns)."""
        sizes = self.tensor.shape
        if self._is_stack:
            return sizes[0], sizes[1], math.prod(sizes[2:])
        return 1, sizes[0], math.prod(sizes[1:])

    @property
    def is_kept(self) -> bool:
        """Whether it is read once."""
        return self.tensor.nbytes <= self.capacity

    @property
    def step(self) -> int:
        """Rows of a block."""
        return max(1, BLOCK // max(1, self.shape[2]))

    def blocks(self, only: int | None = None) -> Iterator[tuple[int, int, torch.Tensor]]:
        """(number of the matrix, first row, [r, columns] as stored), in order.

        only  the number of one matrix: no others
        """
        count, rows, columns = self.shape
        for index in range(count) if only is None else [only]:
            for first in range(0, rows, self.step):
                last = min(first + self.step, rows)
                yield index, first, self._read(index, first, last).reshape(last - first, columns)

    def take(self, index: int, rows: np.ndarray) -> torch.Tensor:
        """[k, columns] as stored: these rows of matrix `index`, each read by itself if the tensor is on disk."""
        if self.is_kept:
            matrix = self._kept[index] if self._is_stack else self._kept
            return matrix.index_select(0, torch.from_numpy(rows)).reshape(len(rows), -1)
        return torch.cat([self._read(index, row, row + 1).reshape(1, -1) for row in rows.tolist()])

    @cached_property
    def _kept(self) -> torch.Tensor:
        return self.tensor.read(0, self.tensor.shape[0])

    def _read(self, index: int, first: int, last: int) -> torch.Tensor:
        if self.is_kept:
            return self._kept[index, first:last] if self._is_stack else self._kept[first:last]
        if self._is_stack:
            return self.tensor.read(index, index + 1, first=first, last=last)[0]
        return self.tensor.read(first, last)

    @property
    def _is_stack(self) -> bool:
        return self.stacked and len(self.tensor.shape) > 1
