"""Lazy tensors: where the numbers of a checkpoint are, or how they follow from others; nothing is read before `read`.

    Stored      bytes of a safetensors file
    Remapped    another lazy tensor, gathered and multiplied dimension by dimension

A remapped tensor is computed in blocks of rows. Where every factor is a power of two the arithmetic stays in the stored
dtype and rounds nothing; where a part of a sum would fall below the smallest number of its dtype, the first part takes
what the others lost. Everywhere else a block is computed in a wider dtype and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch

from modelsurgeon.axis_map import GAP
from modelsurgeon.dimension import Dimension
from modelsurgeon.files import File

DTYPES: dict[str, torch.dtype] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = ("BF16", "F16", "F32", "F64")
HALF_ULP = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}  # the largest relative rounding
DTYPE_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
MEAN_BLOCK = 1 << 20  # numbers read at a time where rows are averaged: 8 MiB of float64
MOST_RUNS = 64  # more runs than this are gathered by index: a strided copy each costs more than one index_select

Fill = Callable[[int, int], torch.Tensor]
Empty = Callable[[Sequence[int], torch.dtype], torch.Tensor]  # memory for a block, holding anything


def fresh(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Memory that nobody else uses."""
    return torch.empty(tuple(shape), dtype=dtype)


class Arena:
    """Memory that block after block uses again: the n-th request since `reset` gets the same bytes each time.

    Freed tensors leave holes that the next ones do not quite fit: without this a process grows while it writes.
    """

    def __init__(self) -> None:
        self._held: list[torch.Tensor] = []
        self._used = 0

    def reset(self) -> Arena:
        """Give all of it out anew."""
        self._used = 0
        return self

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        size = dtype.itemsize * math.prod(shape)
        if self._used == len(self._held):
            self._held.append(torch.empty(size, dtype=torch.uint8))
        if len(self._held[self._used]) < size:
            self._held[self._used] = torch.empty(size, dtype=torch.uint8)
        held = self._held[self._used][:size]
        self._used += 1
        return held.view(dtype).view(tuple(shape))


def is_power_of_two(factor: float) -> bool:
    """Whether multiplying by this factor moves only the exponent."""
    return factor != 0 and math.frexp(abs(factor))[0] == 0.5


def nearest_power_of_two(factor: float) -> float:
    """A power of two where the factor misses it by a float64 rounding or two, else the factor."""
    power = 2.0 ** round(math.log2(factor)) if factor > 0 else factor
    return power if math.isclose(power, factor, rel_tol=1e-14) else factor


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file.

    start   bytes from the file's beginning
    """

    file: File
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return DTYPES[self.dtype].itemsize * math.prod(self.shape)

    def read(self, start: int, stop: int, empty: Empty = fresh) -> torch.Tensor:
        """Rows start:stop of the first dimension (the number itself of a scalar). Raises SourceError when cut short."""
        block = empty((stop - start, *self.shape[1:]) if self.shape else (), DTYPES[self.dtype])
        row = DTYPES[self.dtype].itemsize * math.prod(self.shape[1:])
        self.file.read_into(block.reshape(-1).view(torch.uint8).numpy().data, self.start + start * row)
        return block


@dataclass(frozen=True, eq=False)
class Remapped:
    """A lazy tensor whose every dimension is grown, times a constant.

    dimensions  one for each dimension of `base`
    offset      what the model adds to the tensor before it uses it: 1 for gains of the form (1 + w)
    fill        gaps: a number, or rows of numbers from (start, stop)
    free        gaps may hold anything: nobody reads them
    """

    base: LazyTensor
    dimensions: tuple[Dimension, ...]
    dtype: str
    constant: float = 1.0
    offset: float = 0.0
    fill: float | Fill = 0.0
    free: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dimension.new_size for dimension in self.dimensions)

    @property
    def nbytes(self) -> int:
        return DTYPES[self.dtype].itemsize * math.prod(self.shape)

    @property
    def computed(self) -> tuple[tuple[Dimension, ...], float]:
        """(dimensions, constant) to compute by."""
        return _arithmetic(self.dimensions, self.constant)[:2]

    @property
    def factors(self) -> tuple[float, ...]:
        """The distinct factors that old numbers are multiplied by."""
        return _arithmetic(self.dimensions, self.constant)[2]

    @cached_property
    def is_exact(self) -> bool:
        """Whether no stored number is rounded."""
        if any(dimension.means for dimension in self.dimensions):
            return False
        if FLOATS.index(self.dtype) < FLOATS.index(self.base.dtype) or (self.dtype, self.base.dtype) == ("F16", "BF16"):
            return False
        if self.offset:
            return all(factor in (0.0, 1.0) for factor in self.factors)
        return all(factor == 0 or is_power_of_two(factor) for factor in self.factors)

    @property
    def work_dtype(self) -> torch.dtype:
        """What blocks are computed in: the stored dtype where nothing rounds, else a wider one."""
        if self.is_exact:
            return DTYPES[self.dtype]
        return torch.float64 if "F64" in (self.dtype, self.base.dtype) or self.dtype == "F32" else torch.float32

    def read(self, start: int, stop: int, empty: Empty = fresh) -> torch.Tensor:
        """Rows start:stop, in the stored dtype."""
        return converted(self.compute(start, stop, empty=empty), DTYPES[self.dtype], empty)

    def compute(self, start: int, stop: int, device: str = "cpu", empty: Empty = fresh) -> torch.Tensor:
        """Rows start:stop in `work_dtype`, on `device`, in memory from `empty`."""
        wanted = self.dimensions[0].source[start:stop]
        mean = wanted >= self.base.shape[0]
        if mean.any() and not mean.all():
            cuts = [start, *(start + 1 + np.flatnonzero(np.diff(mean))), stop]
            parts = [self.compute(int(a), int(b), device, empty) for a, b in pairwise(cuts)]
            return torch.cat(parts)
        kept = wanted[wanted != GAP]
        low, high = (int(kept.min()), int(kept.max()) + 1) if len(kept) else (0, 0)
        if high - low > 2 * (stop - start) and stop - start > 1:  # never read much more than is asked for
            middle = (start + stop) // 2
            return torch.cat([self.compute(start, middle, device, empty), self.compute(middle, stop, device, empty)])
        rows = mean_rows(self.base, self.dimensions[0].means, low, high) if mean.any() else None
        block = converted(
            (self.base.read(low, high, empty) if rows is None else rows).to(device), self.work_dtype, empty
        )
        offset = 0.0 if self.is_exact else self.offset  # exact: 1 + w becomes 1 + w or 0, and small w must survive
        if offset:
            block.add_(offset)
        dimensions, constant = self.computed
        if constant != 1.0:
            block.mul_(constant)
        for axis, dimension in list(enumerate(dimensions))[1:]:
            block = with_means(block, axis, dimension.means)
            block = take(block, axis, dimension, 0, dimension.new_size, 0, self.is_exact, empty)
        block = take(block, 0, dimensions[0], start, stop, low, self.is_exact, empty)
        return self._filled(block.sub_(offset) if offset else block, start, stop)

    def _filled(self, block: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        if self.is_exact and self.offset:
            nothing = np.flatnonzero(self.dimensions[0].factor[start:stop] == 0)
            block = block.index_fill(0, torch.from_numpy(nothing).to(block.device), -self.offset)
        if not callable(self.fill) and not self.fill and not self.offset:
            return block  # gaps are zero already
        values = self.fill(start, stop).to(block) if callable(self.fill) else None
        for axis, dimension in enumerate(self.dimensions):
            source = dimension.source[start:stop] if axis == 0 else dimension.source
            gaps = torch.from_numpy(np.flatnonzero(source == GAP)).to(block.device)
            if values is None:
                block = block.index_fill(axis, gaps, float(self.fill))  # type: ignore[arg-type]
            else:
                block = block.index_copy(axis, gaps, values.index_select(axis, gaps))
        return block

    def bands(self, rows: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """(start, stop, repeats): rows start:stop, at most `rows` of them, stand again at each start of `repeats`."""
        dimension = self.computed[0][0]
        if len(dimension.runs) > MOST_RUNS or len(dimension.rests[0]):
            yield from ((at, min(at + rows, dimension.new_size), ()) for at in range(0, dimension.new_size, rows))
            return
        same: dict[tuple[int, int, float], list[int]] = {}
        for run in dimension.runs:
            same.setdefault((run.source, run.stop - run.start, run.factor), []).append(run.start)
        for (source, length, _), starts in same.items():
            first, repeats = starts[0], starts[1:] if source != GAP else []
            for at in range(0, length, rows):
                yield first + at, first + min(at + rows, length), tuple(repeat + at for repeat in repeats)
            for start in starts[1:] if source == GAP else []:
                yield from ((start + a, start + min(a + rows, length), ()) for a in range(0, length, rows))


LazyTensor = Stored | Remapped


@lru_cache(maxsize=1024)
def _arithmetic(
    dimensions: tuple[Dimension, ...], constant: float
) -> tuple[tuple[Dimension, ...], float, tuple[float, ...]]:
    """(dimensions, constant, the distinct factors): even factors that would round first go into the constant.

    1/sqrt(2) in two dimensions is 1/2, which rounds nothing. Dimensions are shared by many tensors: told once.
    """
    even = [dimension.factors for dimension in dimensions]
    if all(len(found) <= 1 for found in even) and not all(is_power_of_two(f) for found in even for f in found):
        total = math.prod((f for found in even for f in found), start=constant)
        dimensions, constant = tuple(dimension.without_factors for dimension in dimensions), nearest_power_of_two(total)
    factors = np.array([constant])
    for dimension in dimensions:
        factors = np.unique(np.outer(factors, dimension.factors or (1.0,)))
    return dimensions, constant, tuple(float(f) for f in factors)


def with_means(block: torch.Tensor, axis: int, means: Sequence[np.ndarray]) -> torch.Tensor:
    """The block, with the means of some of its coordinates along an axis behind them."""
    if not means:
        return block
    found = [block.index_select(axis, torch.from_numpy(of).to(block.device)) for of in means]
    averages = [values.double().mean(axis, keepdim=True).to(block.dtype) for values in found]
    return torch.cat([block, *averages], axis)


def mean_rows(
    base: LazyTensor, means: Sequence[np.ndarray], low: int, high: int, absolute: bool = False
) -> torch.Tensor:
    """[high - low, ...] float64: means number low - rows to high - rows of the rows of a tensor, read in blocks.

    absolute  of their absolute values
    """
    rows = base.shape[0]
    step = max(1, MEAN_BLOCK // max(1, math.prod(base.shape[1:])))
    found = []
    for of in means[low - rows : high - rows]:
        total = torch.zeros(base.shape[1:], dtype=torch.float64)
        for at in range(int(of.min()), int(of.max()) + 1, step):
            wanted = of[(of >= at) & (of < at + step)] - at
            block = base.read(at, min(at + step, int(of.max()) + 1))
            kept = block.index_select(0, torch.from_numpy(wanted)).double()
            total += (kept.abs() if absolute else kept).sum(0)
        found.append(total / len(of))
    return torch.stack(found)


def converted(block: torch.Tensor, dtype: torch.dtype, empty: Empty = fresh) -> torch.Tensor:
    """The block in another dtype, on its device."""
    if block.dtype == dtype or block.device.type != "cpu":
        return block.to(dtype)
    return empty(block.shape, dtype).copy_(block)


def take(
    block: torch.Tensor,
    axis: int,
    dimension: Dimension,
    start: int,
    stop: int,
    low: int,
    exact: bool,
    empty: Empty = fresh,
) -> torch.Tensor:
    """Grow one dimension of a block: new coordinates start:stop, where the block begins at old coordinate `low`.

    exact   every factor is a power of two: sums of parts are kept to the last bit
    """
    if start == low and stop - start == block.shape[axis] and dimension.is_identity:
        return block
    shape = [*block.shape[:axis], stop - start, *block.shape[axis + 1 :]]
    out = empty(shape, block.dtype) if block.device.type == "cpu" else block.new_empty(shape)
    if len(dimension.runs) <= MOST_RUNS:
        for run in dimension.runs:
            first, last = max(run.start, start), min(run.stop, stop)
            if first < last:
                source = run.source - low + first - run.start
                _copy_run(block, out, axis, source, first - start, last - first, run.factor, run.source == GAP)
    else:
        _gather(block, out, axis, dimension, start, stop, low)
    if exact and len(dimension.rests[0]) and holds_tiny(block, min(abs(f) for f in dimension.factors if f), empty):
        _give_leads_the_rest(block, out, axis, dimension, start, stop, low)
    return out


def _copy_run(
    block: torch.Tensor, out: torch.Tensor, axis: int, source: int, start: int, length: int, factor: float, gap: bool
) -> None:
    target = out.narrow(axis, start, length)
    if gap or factor == 0:
        target.zero_()
    elif factor == 1:
        target.copy_(block.narrow(axis, source, length))
    else:
        torch.mul(block.narrow(axis, source, length), factor, out=target)


def _gather(
    block: torch.Tensor, out: torch.Tensor, axis: int, dimension: Dimension, start: int, stop: int, low: int
) -> None:
    source, factor = dimension.source[start:stop], dimension.factor[start:stop]
    shape = [1] * axis + [-1] + [1] * (block.ndim - axis - 1)
    if block.shape[axis] == 0:
        out.zero_()
        return
    gap = torch.from_numpy(source == GAP).to(block.device)
    index = torch.from_numpy(np.where(source == GAP, 0, source - low)).to(block.device)
    torch.index_select(block, axis, index, out=out)
    if np.any(factor[source != GAP] != 1):
        out.mul_(torch.from_numpy(factor).to(out).reshape(shape))
    if bool(gap.any()):
        out.masked_fill_(gap.reshape(shape), 0)


def _give_leads_the_rest(
    block: torch.Tensor, out: torch.Tensor, axis: int, dimension: Dimension, start: int, stop: int, low: int
) -> None:
    leads, rests = dimension.rests
    here = (leads >= start) & (leads < stop)
    leads, parts = leads[here], torch.from_numpy(rests[here].T)
    index = torch.from_numpy(dimension.source[leads] - low).to(block.device)
    whole = block.index_select(axis, index)
    rest = whole.double()
    shape = [1] * axis + [-1] + [1] * (block.ndim - axis - 1)
    for part in parts:
        rest -= (whole.double() * part.reshape(shape).to(block.device)).to(block.dtype).double()
    out.index_copy_(axis, torch.from_numpy(leads - start).to(block.device), rest.to(out.dtype))


def holds_tiny(block: torch.Tensor, factor: float, empty: Empty = fresh) -> bool:
    """Whether some number, not zero, times `factor` falls below the smallest normal number of its dtype.

    Twice the bits of a number, as integers that wrap around, are its magnitude without its sign; zero is moved from the
    smallest to the largest by subtracting 2 of the unsigned integer, which is adding `shift` to the signed one.
    """
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[block.element_size()]
    shift = torch.iinfo(integer).max - 1
    limit = torch.tensor(torch.finfo(block.dtype).smallest_normal / factor, dtype=block.dtype).view(integer)
    out = empty(block.shape, integer) if block.device.type == "cpu" else block.new_empty(block.shape, dtype=integer)
    added = torch.tensor(shift, dtype=integer, device=block.device)
    torch.add(added, block.view(integer), alpha=2, out=out)
    return bool(block.numel()) and int(out.min()) < 2 * int(limit) - 2 + torch.iinfo(integer).min
