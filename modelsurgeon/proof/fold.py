"""One tensor folded back to the source's, block by block, in float64: the basis of the proof on the weights.

A block whose fold equals the source, number for number, is exact. Only in other blocks is each difference compared with
what rounding explains. Blocks are independent: each thread folds one while others read theirs. Beside the libraries
`folding_memory()` bytes are resident, whatever the tensor.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.proof import fold_blocks
from modelsurgeon.proof.fold_blocks import Block
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.arithmetic import converted, is_finite
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS
from modelsurgeon.tensors.lazy import LazyTensor

MOST_THREADS = 3  # each holds a block, and more of them wait for Python's lock
AT_ONCE = 40  # float64 numbers in memory for each number of a block, at most, where numbers differ
ARITHMETIC = 2.0**-50  # growing and folding in float64 round a few times by 2**-53
EXPONENT = 0x7FF << 52  # the exponent's bits of a float64
SLACK = 1 + 2**-6  # for blocks that were computed in float32 before they were rounded to 16 bits


@dataclass(frozen=True)
class TensorVerdict:
    """One tensor's (or the config's) verdict.

    rounding  the largest difference over the sum of the absolute numbers that were folded; 0 where exact
    ulps      the largest difference in units of the last place, as the result stores it, of the number that the fold
              should have given: half a unit where a number was rounded once, more where parts of a sum were, and much
              more where the parts cancel
    detail    of what is wrong: where, expected, found
    """

    name: str
    verdict: str
    rounding: float = 0.0
    detail: str = ""
    ulps: float = 0.0


@dataclass(frozen=True)
class BlockDifference:
    """What differs in one block.

    wrong  the first number that no rounding explains: where, expected, found; empty where there is none
    """

    rounding: float = 0.0
    ulps: float = 0.0
    wrong: str = ""


def fold(
    name: str, expected: LazyTensor, found: LazyTensor, earlier_eps: float = 0.0, workers: Workers | None = None
) -> TensorVerdict:
    """Fold one tensor of the result, block by block, and compare it with what it must fold to.

    earlier_eps  relative spacing of dtypes to which earlier steps may have rounded
    workers      threads to fold with; None: new ones for this tensor
    The verdict does not depend on threads or on the size of blocks.
    """
    if workers is None:
        with Workers() as own:
            return fold(name, expected, found, earlier_eps, own)
    if expected.shape != found.shape:
        return TensorVerdict(name, "wrong", detail=f"shape: expected {list(expected.shape)}, found {list(found.shape)}")
    if found.dtype not in FLOATS:
        return TensorVerdict(name, "wrong", detail=f"stored as {found.dtype}, expected a float dtype")
    rounding, ulps, exact = 0.0, 0.0, True

    def compare(block: Block, memory: Arena) -> BlockDifference | None:
        return _compare(block, found, earlier_eps, memory)

    for difference in workers.in_order(compare, fold_blocks.cut(expected)):
        if difference is None:
            continue
        if difference.wrong:
            return TensorVerdict(name, "wrong", detail=difference.wrong)
        exact = False
        rounding, ulps = max(rounding, difference.rounding), max(ulps, difference.ulps)
    return TensorVerdict(name, "exact" if exact else "rounded", rounding, ulps=ulps)


def most_threads() -> int:
    """How many threads fold at a time by default."""
    return min(MOST_THREADS, torch.get_num_threads())


def folding_memory(threads: int | None = None) -> int:
    """Bytes of memory that folding takes at most, for tensors of any size (blocks are at most twice `BLOCK`)."""
    return (threads or most_threads()) * AT_ONCE * 2 * fold_blocks.BLOCK * torch.float64.itemsize


# --- one block ---


def _compare(block: Block, found: LazyTensor, earlier_eps: float, empty: Arena) -> BlockDifference | None:
    """The differences of a block; None where there are none."""
    held, wanted = block.read(found, empty), block.wanted(empty)
    folded = block.fold(held, empty)
    if (free := block.free) is not None:
        folded, wanted = folded.double(), wanted.double()
        wanted = torch.where(free & folded.isfinite(), folded, wanted)
    if _all_equal(folded, wanted, empty):
        return None
    folded, wanted = (converted(numbers, torch.float64, empty) for numbers in (folded, wanted))
    return _difference(block, held, folded, wanted, found.dtype, earlier_eps, empty)


def _all_equal(a: torch.Tensor, b: torch.Tensor, empty: Arena) -> bool:
    """Whether all numbers are equal. In 16 bits the bits are compared, so that zeros or NaNs may count as different."""
    if a.dtype == b.dtype and a.dtype.itemsize == 2:
        a, b = a.view(torch.int16), b.view(torch.int16)
    elif a.dtype != b.dtype:
        a, b = converted(a, torch.float64, empty), converted(b, torch.float64, empty)
    return np.array_equal(a.numpy(), b.numpy())  # several times faster than torch.equal


def _difference(
    block: Block,
    held: torch.Tensor,
    folded: torch.Tensor,
    wanted: torch.Tensor,
    stored: str,
    earlier_eps: float,
    empty: Arena,
) -> BlockDifference | None:
    """How far off the numbers of a block are, and whether rounding each stored number once explains it."""
    info = torch.finfo(DTYPES[stored])
    eps, normal = float(info.eps), float(info.smallest_normal)
    size = block.fold_absolute(held, empty)
    allowed = torch.mul(size, (eps + earlier_eps) / 2 * SLACK + ARITHMETIC, out=empty(size.shape, torch.float64))
    allowed += block.weight * (normal * eps)
    if any(part.dimension.means for part in block.parts):  # a mean is as inexact as its numbers
        allowed += block.wanted(absolute=True).double() * (earlier_eps / 2 * SLACK + ARITHMETIC)
    difference = torch.sub(folded, wanted, out=empty(folded.shape, torch.float64)).abs_()
    if not is_finite(difference):
        difference.masked_fill_(~difference.isfinite(), torch.nan)  # a NaN is within no bound
        same = (folded == wanted) | (folded.isnan() & wanted.isnan())  # as in the source
        for numbers in (difference, allowed, size):
            numbers.masked_fill_(same, 0.0)
    within = difference <= allowed
    if not within.all():
        return BlockDifference(wrong=_first(~within, block, wanted, folded))
    if not difference.any():
        return None
    unit = _spacing(wanted - block.tensor.offset, eps, normal)
    ulps = float(torch.div(difference, unit, out=unit).max())
    return BlockDifference(float(difference.div_(size.clamp_min_(normal)).max()), ulps)


def _spacing(numbers: torch.Tensor, eps: float, normal: float) -> torch.Tensor:
    """The unit in the last place of each number: the distance between numbers of its exponent in a dtype."""
    bits = numbers.abs().clamp_min_(normal).view(torch.int64)
    return bits.bitwise_and_(EXPONENT).view(torch.float64).mul_(eps)


def _first(bad: torch.Tensor, block: Block, wanted: torch.Tensor, folded: torch.Tensor) -> str:
    at = tuple(int(i) for i in bad.nonzero()[0])
    place = [int(part.groups[i]) for part, i in zip(block.parts, at, strict=True)]
    return f"at {place} (folded): expected {float(wanted[at]):.9g}, found {float(folded[at]):.9g}"


# --- threads ---


class _Memory(threading.local):
    """An arena for each thread."""

    def __init__(self) -> None:
        self.arena = Arena()


class Workers:
    """Threads that fold blocks, each with an arena of its own; torch computes on one thread in each.

    threads  None: as many as torch uses, `MOST_THREADS` at most
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or most_threads()
        self._memory, self._before = _Memory(), torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.threads, "fold")

    def __enter__(self) -> Workers:
        if self.threads > 1:
            torch.set_num_threads(1)
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def in_order(
        self, compare: Callable[[Block, Arena], BlockDifference | None], every: Iterator[Block]
    ) -> Iterator[BlockDifference | None]:
        """The differences of each block, in order; only a few blocks are under way at a time."""

        def work(block: Block) -> BlockDifference | None:
            return compare(block, self._memory.arena.reset())

        if self.threads == 1:
            yield from map(work, every)
            return
        pending: deque[Future[BlockDifference | None]] = deque()
        for block in every:
            pending.append(self._pool.submit(work, block))
            if len(pending) > 2 * self.threads:
                yield pending.popleft().result()
        for future in pending:
            yield future.result()
