"""A stored tensor as a stack of matrices, some rows at a time.

    for index, first, block in RowBlocks(tensor, capacity).blocks():
        ...                                    # [r, columns] as stored: rows first:first + r of matrix `index`

A tensor of up to `capacity` stays in memory, a larger one is read from the file each time. The blocks are the same, so
no measure depends on how much memory there is.
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
    """One tensor; if it has one dimension, a matrix of one column.

    capacity  bytes of it that may stay in memory
    stacked   whether the first dimension counts matrices (experts); else all further dimensions are columns
    """

    tensor: LazyTensor
    capacity: int
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(matrices, rows, columns)."""
        count, *sizes = self.tensor.shape if self._is_stack else (1, *self.tensor.shape)
        return count, sizes[0], math.prod(sizes[1:])

    @property
    def is_kept(self) -> bool:
        """Whether it stays in memory, and is read only once."""
        return self.tensor.nbytes <= self.capacity

    @property
    def step(self) -> int:
        """Rows of a block."""
        return max(1, BLOCK // max(1, self.shape[2]))

    def blocks(self, only: int | None = None) -> Iterator[tuple[int, int, torch.Tensor]]:
        """(number of the matrix, first row, [r, columns] as stored), in order; of matrix `only` where it is given."""
        count, rows, columns = self.shape
        for index in range(count) if only is None else [only]:
            for first in range(0, rows, self.step):
                last = min(first + self.step, rows)
                yield index, first, self._read(index, first, last).reshape(last - first, columns)

    def take(self, index: int, rows: np.ndarray) -> torch.Tensor:
        """[k, columns] as stored: these rows of matrix `index`, each read by itself if the tensor does not stay."""
        if self.is_kept:
            return self._whole[index].index_select(0, torch.from_numpy(rows))
        return torch.cat([self._read(index, row, row + 1).reshape(1, -1) for row in rows.tolist()])

    @cached_property
    def _whole(self) -> torch.Tensor:
        return self.tensor.read(0, self.tensor.shape[0]).reshape(self.shape)

    def _read(self, index: int, first: int, last: int) -> torch.Tensor:
        if self.is_kept:
            return self._whole[index, first:last]
        if self._is_stack:
            return self.tensor.read(index, index + 1, first=first, last=last)[0]
        return self.tensor.read(first, last)

    @property
    def _is_stack(self) -> bool:
        return self.stacked and len(self.tensor.shape) > 1
