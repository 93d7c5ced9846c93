"""Sums in a fixed order: the same bits however many threads add, and however a tensor is cut.

`torch.sum` depends on both. Here numbers are added elementwise, in float64: in groups of consecutive coordinates, whose
size depends on the tensor's shape alone, by halves inside a group, one group after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from modelsurgeon.tensors.arena import fresh
from modelsurgeon.tensors.lazy import LazyTensor

MEAN_BLOCK = 1 << 20  # numbers added at a time: 8 MiB of float64
SLAB = 1 << 19  # numbers added at a time that are in memory already: 4 MiB


def group_size(shape: Sequence[int], axis: int) -> int:
    """How many coordinates of an axis are added at a time in a tensor of this shape."""
    return max(1, MEAN_BLOCK // max(1, math.prod(shape[axis + 1 :])))


def mean_of(
    get: Callable[[int, int], torch.Tensor], of: np.ndarray, axis: int, step: int, absolute: bool = False
) -> torch.Tensor:
    """The mean of some coordinates along an axis (float64, size 1 along it), where get(start, stop) has them.

    of        [k] int64: the coordinates
    absolute  of their absolute values
    """
    total: torch.Tensor | None = None
    end = int(of.max()) + 1
    for at in range(int(of.min()), end, step):
        wanted = of[(of >= at) & (of < at + step)] - at
        if not len(wanted):
            continue
        block = get(at, min(at + step, end))
        if not np.array_equal(wanted, np.arange(block.shape[axis])):
            block = block.index_select(axis, torch.from_numpy(wanted).to(block.device))
        group = _halved(block.to(torch.float64, copy=True), axis, absolute)
        total = group.clone() if total is None else total.add_(group)
    assert total is not None
    return total.div_(torch.full_like(total, len(of)))  # by one number, accelerators multiply with its inverse


def _halved(block: torch.Tensor, axis: int, absolute: bool) -> torch.Tensor:
    """The sum along an axis, by halves, in the block's own memory."""
    if absolute:
        block.abs_()
    length = block.shape[axis]
    while length > 1:
        half = (length + 1) // 2
        block.narrow(axis, 0, length - half).add_(block.narrow(axis, half, length - half))
        length = half
    return block.narrow(axis, 0, 1)


def with_means(block: torch.Tensor, axis: int, means: Sequence[np.ndarray]) -> torch.Tensor:
    """Append the means of some coordinates along an axis (not the first) to a block."""
    if not means:
        return block
    step, rows = group_size(block.shape, axis), slab(block.shape)
    parts = [block[at : at + rows] for at in range(0, block.shape[0], rows)] or [block]
    averages = [torch.cat([_mean_in(part, of, axis, step).to(block.dtype) for part in parts]) for of in means]
    return torch.cat([block, *averages], axis)


def slab(shape: Sequence[int]) -> int:
    """How many rows of a block of this shape are averaged at a time, so that they fit the processor's cache."""
    return max(1, SLAB // max(1, math.prod(shape[1:])))


def _mean_in(block: torch.Tensor, of: np.ndarray, axis: int, step: int) -> torch.Tensor:
    return mean_of(lambda start, stop: block.narrow(axis, start, stop - start), of, axis, step)


def mean_rows(
    base: LazyTensor,
    means: Sequence[np.ndarray],
    low: int,
    high: int,
    absolute: bool = False,
    columns: tuple[int, int] | None = None,
) -> torch.Tensor:
    """[high - low, ...] float64: means number low - rows to high - rows of the rows of a tensor, read in groups.

    columns   first:last of dimension 1; None: all of it
    absolute  of their absolute values
    """
    rows, step = base.shape[0], group_size(base.shape, 0)

    def get(start: int, stop: int) -> torch.Tensor:
        return base.read(start, stop, fresh, *(columns or ()))

    return torch.cat([mean_of(get, of, 0, step, absolute) for of in means[low - rows : high - rows]])
