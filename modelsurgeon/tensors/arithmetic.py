"""Arithmetic on blocks: gather x multiply along one dimension, in memory that block after block uses again.

Every number depends on the old ones that it is made of, not on its neighbours: the bits are the same however a tensor
is cut, on however many threads. All NaNs get the same bits (`with_one_nan`), unlike in torch.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.pieces import Span

MOST_RUNS = 64  # more runs than this are gathered by index: as many strided copies cost more than one index_select
SCRATCH = 1 << 19  # numbers examined at a time: they stay in the processor's cache
LEADS = 1 << 15  # numbers whose parts are added at a time, in about ten tensors of that size


def is_power_of_two(factor: float) -> bool:
    """Whether multiplying by this factor moves only the exponent."""
    return factor != 0 and math.frexp(abs(factor))[0] == 0.5


def nearest_power_of_two(factor: float) -> float:
    """The factor, or the power of two from which one or two float64 roundings separate it."""
    power = 2.0 ** round(math.log2(factor)) if factor > 0 else factor
    return power if math.isclose(power, factor, rel_tol=1e-14) else factor


def converted(block: torch.Tensor, dtype: torch.dtype, empty: Empty = fresh) -> torch.Tensor:
    """The block in another dtype, on its device."""
    if block.dtype == dtype or block.device.type != "cpu":
        return block.to(dtype)
    return empty(block.shape, dtype).copy_(block)


def is_finite(block: torch.Tensor) -> bool:
    """Whether a block holds neither NaN nor infinities, as integers never do."""
    if not block.numel() or not block.is_floating_point():
        return True
    return all(math.isfinite(bound) for bound in torch.aminmax(block))  # a NaN becomes both bounds


def with_one_nan(block: torch.Tensor) -> torch.Tensor:
    """Give every NaN of a block the same bits, in the block's own memory."""
    numbers = block.reshape(-1)
    for at in range(0, len(numbers), SCRATCH):
        part = numbers[at : at + SCRATCH]
        part.masked_fill_(part.isnan(), math.nan)
    return block


def take(
    block: torch.Tensor, axis: int, dimension: Dimension, span: Span, exact: bool, empty: Empty = fresh
) -> torch.Tensor:
    """Grow one dimension of a block to the new coordinates of a span; the block begins at the span's `low`.

    exact   every factor is a power of two: sums of parts are exact to the last bit
    The result may use the block's own memory.
    """
    source, factor = dimension.source[span.start : span.stop], dimension.factor[span.start : span.stop]
    shared = exact and len(dimension.rests[0])
    is_whole = np.array_equal(source, np.arange(span.low, span.low + block.shape[axis]))
    if is_whole and not shared and len(factor) and factor[0] and np.all(factor == factor[0]):
        return block if factor[0] == 1 else block.mul_(float(factor[0]))
    shape = [*block.shape[:axis], len(source), *block.shape[axis + 1 :]]
    out = empty(shape, block.dtype) if block.device.type == "cpu" else block.new_empty(shape)
    if len(dimension.runs) <= MOST_RUNS:
        _copy_runs(block, out, axis, dimension, span)
    else:
        _gather(block, out, axis, source, factor, span.low)
    if shared:
        smallest = min(abs(factor) for factor in dimension.factors if factor)
        if holds_tiny(block, smallest, empty):
            _give_leads_the_rest(block, out, axis, dimension, span, torch.finfo(block.dtype).smallest_normal / smallest)
    return out


def _copy_runs(block: torch.Tensor, out: torch.Tensor, axis: int, dimension: Dimension, span: Span) -> None:
    for run in dimension.runs:
        first, last = max(run.start, span.start), min(run.stop, span.stop)
        if first >= last:
            continue
        target = out.narrow(axis, first - span.start, last - first)
        if run.source == GAP or run.factor == 0:
            target.zero_()
            continue
        old = block.narrow(axis, run.source - span.low + first - run.start, last - first)
        target.copy_(old) if run.factor == 1 else torch.mul(old, run.factor, out=target)


def _gather(
    block: torch.Tensor, out: torch.Tensor, axis: int, source: np.ndarray, factor: np.ndarray, low: int
) -> None:
    if block.shape[axis] == 0:
        out.zero_()
        return
    shape = [1] * axis + [-1] + [1] * (block.ndim - axis - 1)
    nothing = (source == GAP) | (factor == 0)
    index = torch.from_numpy(np.where(source == GAP, 0, source - low)).to(block.device)
    torch.index_select(block, axis, index, out=out)
    if np.any(factor[~nothing] != 1):
        out.mul_(torch.from_numpy(factor).to(out).reshape(shape))
    if nothing.any():
        out.masked_fill_(torch.from_numpy(nothing).to(block.device).reshape(shape), 0)


def _give_leads_the_rest(
    block: torch.Tensor, out: torch.Tensor, axis: int, dimension: Dimension, span: Span, limit: float
) -> None:
    """Where a number is below `limit`, some of its parts are tiny: set the first to the whole less the others."""
    leads, rests = dimension.rests
    here = (leads >= span.start) & (leads < span.stop)
    leads, parts = leads[here], rests[here]
    step = max(1, LEADS // max(1, block.numel() // block.shape[axis]))
    shape = [1] * axis + [-1] + [1] * (block.ndim - axis - 1)
    for at in range(0, len(leads), step):
        index = torch.from_numpy(leads[at : at + step] - span.start).to(block.device)
        source = torch.from_numpy(dimension.source[leads[at : at + step]] - span.low).to(block.device)
        whole = block.index_select(axis, source).double()
        rest = whole.clone()
        for part in torch.from_numpy(parts[at : at + step].T):
            rest -= (whole * part.reshape(shape).to(block.device)).to(block.dtype)
        tiny = (whole.abs() < limit) & (whole != 0)
        out.index_copy_(axis, index, torch.where(tiny, rest.to(out.dtype), out.index_select(axis, index)))


def holds_tiny(block: torch.Tensor, factor: float, empty: Empty = fresh) -> bool:
    """Whether some number, not zero, times `factor` falls below the smallest normal number of its dtype.

    Doubling the bits of a number as a wrapping integer drops the sign and orders numbers by magnitude. Subtracting 2 of
    the unsigned integer, which is adding `shift` to the signed one, moves zero from the smallest to the largest.
    """
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[block.element_size()]
    shift = torch.iinfo(integer).max - 1
    limit = torch.tensor(torch.finfo(block.dtype).smallest_normal / factor, dtype=block.dtype).view(integer)
    bound = 2 * int(limit) - 2 + torch.iinfo(integer).min
    added = torch.tensor(shift, dtype=integer, device=block.device)
    numbers = block.reshape(-1).view(integer)
    length = min(len(numbers), SCRATCH)
    out = empty((length,), integer) if block.device.type == "cpu" else numbers.new_empty(length)
    for at in range(0, len(numbers), max(1, length)):
        part = numbers[at : at + length]
        if int(torch.add(added, part, alpha=2, out=out[: len(part)]).min()) < bound:
            return True
    return False
