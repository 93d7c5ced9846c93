"""Folds one tensor back to the source's, block by block, in float64: the basis of the proof on the weights.

A block whose fold equals the source, number for number, is exact. Only in other blocks is each difference compared with
what rounding explains. Blocks are independent: each thread folds one while others read theirs. Folding takes
`folding_memory()` bytes, for tensors of any size.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modelsurgeon.proof import fold_blocks
from modelsurgeon.proof.fold_blocks import Block
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.arithmetic import converted, is_finite
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS, HALF_ULP
from modelsurgeon.tensors.lazy import LazyTensor

MOST_THREADS = 3  # each has a block in memory, and more of them wait for Python's lock
AT_ONCE = 40  # float64 numbers in memory for each number of a block, at most, where numbers differ
ARITHMETIC = 2.0**-50  # growing and folding in float64 round a few times by 2**-53
SLACK = 1 + 2**-6  # for blocks that were computed in float32 before they were rounded to 16 bits


@dataclass(frozen=True)
class TensorVerdict:
    """The verdict on one tensor or the config: exact, rounded or wrong.

    rounding  the largest difference over the sum of the absolute numbers that were folded; 0 where exact
    detail    of what is wrong: where, expected, found
    ulps      the largest difference in units of the last place, in the stored dtype, of the expected fold: half a unit
              where a number was rounded once, more where parts of a sum were, and much more where the parts cancel
    """

    name: str
    verdict: str
    rounding: float = 0.0
    detail: str = ""
    ulps: float = 0.0


def fold(
    name: str,
    expected: LazyTensor,
    found: LazyTensor,
    earlier_eps: float = 0.0,
    workers: Workers | None = None,
    rounding: float | None = None,
) -> TensorVerdict:
    """Fold one tensor of the result, and compare it with what it must fold to.

    earlier_eps  the sum of the relative spacings of dtypes that were rounded to before the stored one
    workers      threads to fold with; None: new ones for this tensor
    rounding     how much of a number all roundings may be, where that is known: `earlier_eps` is not used then
    The verdict depends neither on threads nor on the size of blocks.
    """
    if workers is None:
        with Workers() as own:
            return fold(name, expected, found, earlier_eps, own, rounding)
    if expected.shape != found.shape:
        return TensorVerdict(name, "wrong", detail=f"shape: expected {list(expected.shape)}, found {list(found.shape)}")
    if found.dtype not in FLOATS:
        return TensorVerdict(name, "wrong", detail=f"stored as {found.dtype}, expected a float dtype")
    worst = TensorVerdict(name, "exact")
    before = earlier_eps / 2 if rounding is None else rounding
    bounds = Bounds(before if rounding is not None else HALF_ULP[found.dtype] + before, before)
    for verdict in workers.verdicts(expected, found, bounds):
        if verdict.verdict == "wrong":
            return replace(verdict, name=name)
        if verdict.verdict == "rounded":
            rounding, ulps = max(worst.rounding, verdict.rounding), max(worst.ulps, verdict.ulps)
            worst = TensorVerdict(name, "rounded", rounding, ulps=ulps)
    return worst


@dataclass(frozen=True)
class Bounds:
    """How much of a number rounding explains: of those that are folded, and of those that a mean was taken of."""

    folded: float
    averaged: float


def most_threads() -> int:
    """How many threads fold at a time by default."""
    return min(MOST_THREADS, torch.get_num_threads())


def folding_memory(threads: int | None = None) -> int:
    """Bytes of memory that folding takes at most, for tensors of any size (blocks are at most twice `BLOCK`)."""
    return (threads or most_threads()) * AT_ONCE * 2 * fold_blocks.BLOCK * torch.float64.itemsize


def _compare(block: Block, found: LazyTensor, bounds: Bounds, empty: Arena) -> TensorVerdict:
    """The verdict on one block, without the tensor's name."""
    new, wanted = block.read(found, empty), block.wanted(empty)
    folded = block.fold(new, empty)
    if (free := block.free) is not None:
        folded, wanted = folded.double(), wanted.double()
        wanted = torch.where(free & folded.isfinite(), folded, wanted)
    if _all_equal(folded, wanted, empty):
        return TensorVerdict("", "exact")
    folded, wanted = (converted(numbers, torch.float64, empty) for numbers in (folded, wanted))
    return _compare_in_float64(block, new, folded, wanted, torch.finfo(DTYPES[found.dtype]), bounds, empty)


def _all_equal(a: Tensor, b: Tensor, empty: Arena) -> bool:
    """Whether all numbers are equal. In 16 bits the bits are compared, so that zeros or NaNs may count as different."""
    if a.dtype == b.dtype and a.dtype.itemsize == 2:
        a, b = a.view(torch.int16), b.view(torch.int16)
    elif a.dtype != b.dtype:
        a, b = converted(a, torch.float64, empty), converted(b, torch.float64, empty)
    return np.array_equal(a.numpy(), b.numpy())  # several times faster than torch.equal


def _compare_in_float64(
    block: Block, new: Tensor, folded: Tensor, wanted: Tensor, stored: torch.finfo, bounds: Bounds, empty: Arena
) -> TensorVerdict:
    """Compare each difference of a block with what rounding explains."""
    eps, normal = float(stored.eps), float(stored.smallest_normal)
    size = block.fold_absolute(new, empty)
    allowed = torch.mul(size, bounds.folded * SLACK + ARITHMETIC, out=empty(size.shape, torch.float64))
    allowed += block.weight * (normal * eps)
    if any(part.dimension.means for part in block.parts):  # a mean is as inexact as its numbers
        allowed += block.wanted(absolute=True).double() * (bounds.averaged * SLACK + ARITHMETIC)
    difference = torch.sub(folded, wanted, out=empty(folded.shape, torch.float64)).abs_()
    if not is_finite(difference):
        difference.masked_fill_(~difference.isfinite(), torch.nan)  # a NaN is within no bound
        same = (folded == wanted) | (folded.isnan() & wanted.isnan())  # as in the source
        for numbers in (difference, allowed, size):
            numbers.masked_fill_(same, 0.0)
    within = difference <= allowed
    if not within.all():
        at = tuple(int(i) for i in (~within).nonzero()[0])
        place = [int(part.groups[i]) for part, i in zip(block.parts, at, strict=True)]
        expected, found = float(wanted[at]), float(folded[at])
        detail = f"at {place} (folded): expected {expected:.9g}, found {found:.9g}"
        return TensorVerdict("", "wrong", detail=detail)
    if not difference.any():
        return TensorVerdict("", "exact")
    unit = _spacing(wanted - block.tensor.offset, eps, normal)
    ulps = float(torch.div(difference, unit, out=unit).max())
    return TensorVerdict("", "rounded", float(difference.div_(size.clamp_min_(normal)).max()), ulps=ulps)


def _spacing(numbers: Tensor, eps: float, normal: float) -> Tensor:
    """The unit in the last place of each number: the distance between numbers of its exponent in a dtype."""
    bits = numbers.abs().clamp_min_(normal).view(torch.int64)
    return bits.bitwise_and_(0x7FF << 52).view(torch.float64).mul_(eps)  # the bits of a float64's exponent


class Workers:
    """Threads that fold blocks, each with an arena of its own and torch on one thread; None: `most_threads()`."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or most_threads()
        self._arenas, self._before = defaultdict[int, Arena](Arena), torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.threads, "fold")

    def __enter__(self) -> Workers:
        if self.threads > 1:
            torch.set_num_threads(1)
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def verdicts(self, expected: LazyTensor, found: LazyTensor, bounds: Bounds) -> Iterator[TensorVerdict]:
        """The verdict on each block, in order; only a few blocks are in memory at a time."""

        def compare(block: Block) -> TensorVerdict:
            return _compare(block, found, bounds, self._arenas[threading.get_ident()].reset())

        blocks = fold_blocks.cut(expected)
        if self.threads == 1:
            yield from map(compare, blocks)
            return
        pending: deque[Future[TensorVerdict]] = deque()
        for block in blocks:
            pending.append(self._pool.submit(compare, block))
            if len(pending) > 2 * self.threads:
                yield pending.popleft().result()
        for future in pending:
            yield future.result()
