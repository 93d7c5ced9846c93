"""Another lazy tensor, gathered and multiplied dimension by dimension.

It is computed in pieces: some rows, or a part of one. Where every factor is a power of two, arithmetic stays in the
stored dtype and rounds nothing; where a part of a sum would fall below the smallest number of its dtype, the first part
takes what the others lost. Everywhere else a piece is computed in a wider dtype and rounded once. The bytes do not
depend on pieces, threads or device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors import cost
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.arithmetic import (
    MOST_RUNS,
    converted,
    is_power_of_two,
    nearest_power_of_two,
    take,
    with_one_nan,
)
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS, HALF_ULP
from modelsurgeon.tensors.lazy import Fill, LazyTensor
from modelsurgeon.tensors.means import group_size, mean_of, mean_rows, with_means
from modelsurgeon.tensors.noise import Noise, disturb, touches
from modelsurgeon.tensors.pieces import Piece, Span, least, rows_or_parts, runs_of_rows, spans
from modelsurgeon.tensors.stored import Stored


@dataclass(frozen=True, eq=False)
class Remapped:
    """A lazy tensor whose every dimension is grown, times a constant.

    dimensions  one for each dimension of `base`
    constant    the factor that all numbers are multiplied by
    offset      the number that the model adds to the tensor before it uses it: 1 for gains of the form (1 + w)
    fill        the contents of gaps: a number, or rows of numbers from (start, stop)
    free        whether gaps may hold anything, since nothing reads them
    noise       makes copies differ that are parts of a sum; None: they stay equal
    turns       the dimensions in the order in which noise is added along them
    """

    base: LazyTensor
    dimensions: tuple[Dimension, ...]
    dtype: str
    constant: float = 1.0
    offset: float = 0.0
    fill: float | Fill = 0.0
    free: bool = False
    noise: Noise | None = None
    turns: tuple[int, ...] = ()
    verbatim = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The new sizes."""
        return tuple(dimension.new_size for dimension in self.dimensions)

    @property
    def stored(self) -> Stored | None:
        return self.base.stored

    @property
    def held(self) -> int:
        return self.base.held

    @property
    def nbytes(self) -> int:
        """Bytes that it takes when it is stored."""
        return DTYPES[self.dtype].itemsize * math.prod(self.shape)

    @property
    def unusual(self) -> bool:
        return self.base.unusual

    @property
    def says(self) -> str:
        """ "exact", or "rounded" with the dtype and by how much."""
        if self.is_exact:
            return "exact"
        stored = f"stored as {self.dtype}, " if self.dtype != self.base.dtype else f"in {self.dtype}, "
        return f"rounded: {stored}by {HALF_ULP[self.dtype]:.0e} at most"

    @property
    def computed(self) -> tuple[tuple[Dimension, ...], float]:
        """(dimensions, constant) of the arithmetic."""
        return _arithmetic(self.dimensions, self.constant)[:2]

    @property
    def factors(self) -> tuple[float, ...]:
        """The distinct factors, the constant included."""
        return _arithmetic(self.dimensions, self.constant)[2]

    @cached_property
    def is_exact(self) -> bool:
        """Whether no stored number is rounded."""
        if any(dimension.means for dimension in self.dimensions):
            return False
        if FLOATS.index(self.dtype) < FLOATS.index(self.base.dtype) or (self.dtype, self.base.dtype) == ("F16", "BF16"):
            return False
        dimensions, constant = self.computed  # sqrt(2) in two places is applied twice, and each time it rounds
        factors = [constant, *(factor for dimension in dimensions for factor in dimension.factors)]
        return all(factor in (0.0, 1.0) if self.offset else not factor or is_power_of_two(factor) for factor in factors)

    @property
    def fused(self) -> Remapped:
        """One growth in place of two, where the base grew too and one map does what both do.

        The base in between is rounded and may hold noise; the result is not rounded there, and holds none.
        """
        if self.base.base is self.base:
            return self
        inner = self.base.fused
        dimensions = [one.then(later) for one, later in zip(inner.dimensions, self.dimensions, strict=True)]
        alike = (inner.offset, inner.fill, inner.free) == (self.offset, self.fill, self.free)
        still = [all(one.is_identity for one in part) for part in (inner.dimensions, self.dimensions)]
        if callable(inner.fill) or callable(self.fill) or None in dimensions or not (alike or any(still)):
            return self
        if inner.offset != self.offset:  # (1 + w) grows as a whole, and w alone is multiplied
            return self
        grows, constant = self if still[0] else inner, inner.constant * self.constant
        both = tuple(one for one in dimensions if one is not None)
        return Remapped(inner.base, both, self.dtype, constant, self.offset, grows.fill, grows.free)

    def with_noise(self, noise: Noise, turns: tuple[int, ...]) -> Remapped:
        """As `LazyTensor.with_noise`; free gaps are filled for it."""
        if not any(map(touches, self.dimensions)):
            return self
        return replace(self, dimensions=tuple(one.filled for one in self.dimensions), noise=noise, turns=turns)

    def reading(self, rows: int, columns: int) -> int:
        return cost.of_read(self, rows, columns)

    def working_set(self, most: int) -> int:
        return cost.of_pieces(self, most)

    @property
    def work_dtype(self) -> torch.dtype:
        """The dtype of the arithmetic: the stored one where nothing rounds, else a wider one."""
        if self.is_exact:
            return DTYPES[self.dtype]
        return torch.float64 if "F64" in (self.dtype, self.base.dtype) or self.dtype == "F32" else torch.float32

    def pieces(self, most: int) -> Iterator[Piece]:
        """Cut at runs of rows where there are few."""
        rows, columns = (*self.shape, 1, 1)[:2]
        whole = [Piece(0, rows, 0, columns)] if rows else []
        for run in runs_of_rows(self.computed[0][0], columns) if self.is_cut_at_runs else whole:
            if self.noise and touches(self.dimensions[0]):
                run = replace(run, again=None)
            yield from rows_or_parts(run, self.nbytes // rows, most)

    @property
    def is_cut_at_runs(self) -> bool:
        """Whether every piece lies within one run of rows, so that equal runs are equal rows."""
        if not self.dimensions or callable(self.fill):
            return False
        dimension = self.computed[0][0]
        return len(dimension.runs) <= MOST_RUNS and not len(dimension.rests[0])

    def read_piece(self, piece: Piece, device: str = "cpu", empty: Empty = fresh) -> torch.Tensor:
        """Compute a piece on the device, convert it, and add the noise."""
        return self._stored(self.compute_piece(piece, device, empty), piece.start, piece.first, empty)

    def compute_piece(self, piece: Piece, device: str = "cpu", empty: Empty = fresh) -> torch.Tensor:
        """A piece in `work_dtype`, on `device`, in memory from `empty`: before noise, and with NaNs of any bits."""
        last = piece.last if len(self.shape) > 1 else None
        return self._computed(piece.start, piece.stop, piece.first, last, device, empty)

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        return self._stored(self._computed(start, stop, first, last, "cpu", empty), start, first, empty)

    def _stored(self, block: torch.Tensor, start: int, first: int, empty: Empty) -> torch.Tensor:
        block = converted(block, DTYPES[self.dtype], empty)
        if self.noise:
            lows = (start, first, *[0] * block.ndim)
            ranges = [(low, low + size) for low, size in zip(lows, block.shape, strict=False)]
            disturb(block, self.noise, self.dimensions, self.turns, ranges)
        block = block.cpu()
        return with_one_nan(block) if self.unusual else block

    def _computed(self, start: int, stop: int, first: int, last: int | None, device: str, empty: Empty) -> torch.Tensor:
        """Grow the rows, and of a matrix the columns, that are asked for: rectangles of the base, side by side."""
        if not self.dimensions:
            block = self._multiplied(self.base.read(0, 1, empty), device, empty)
            return block.sub_(self._added) if self._added else block
        column = DTYPES[self.base.dtype].itemsize * math.prod(self.base.shape[2:])
        row = column * math.prod(self.base.shape[1:2])
        rows = spans(self.dimensions[0].source, start, stop, self.base.shape[0], least(row))
        columns: list[Span | None] = [None]
        if last is not None and last - first < self.shape[1]:
            columns = [*spans(self.dimensions[1].source, first, last, self.base.shape[1], least(column))]
        if len(rows) == len(columns) == 1:
            return self._rectangle(rows[0], columns[0], device, empty)
        inner = self.shape[1:2] if last is None else (last - first,)
        out = empty((stop - start, *inner, *self.shape[2:]), self.work_dtype).to(device)
        for across in rows:
            for along in columns:
                target = out[across.start - start : across.stop - start]
                target = target[:, along.start - first : along.stop - first] if along else target
                target.copy_(self._rectangle(across, along, device, fresh))
        return out

    def _rectangle(self, rows: Span, columns: Span | None, device: str, empty: Empty) -> torch.Tensor:
        """One span of rows times one span of columns (None: all columns)."""
        block = self._averaged(rows, columns, device, empty)
        dimensions, _ = self.computed
        for axis, dimension in list(enumerate(dimensions))[1:]:
            span = columns if axis == 1 else None
            block = block if span else with_means(block, axis, dimension.means)
            span = span or Span(0, dimension.new_size, 0, dimension.extended_size)
            block = take(block, axis, dimension, span, self.is_exact, empty)
        block = take(block, 0, dimensions[0], rows, self.is_exact, empty)
        return self._filled(block.sub_(self._added) if self._added else block, rows, columns)

    def _averaged(self, rows: Span, columns: Span | None, device: str, empty: Empty) -> torch.Tensor:
        """Old numbers, or means of columns. A span holds only one kind, unless the row is whole."""
        if columns is None or columns.high <= self.base.shape[1]:
            return self._old(rows, columns and (columns.low, columns.high), device, empty)
        size, step = self.base.shape[1], group_size(self.base.shape, 1)
        means = self.dimensions[1].means[columns.low - size : columns.high - size]
        averages = [mean_of(lambda a, b: self._old(rows, (a, b), device, fresh), of, 1, step) for of in means]
        return torch.cat([average.to(self.work_dtype) for average in averages], 1)

    def _old(self, rows: Span, columns: tuple[int, int] | None, device: str, empty: Empty) -> torch.Tensor:
        """Old numbers, or means of rows, ready to be gathered."""
        if rows.high > self.base.shape[0]:
            block = mean_rows(self.base, self.dimensions[0].means, rows.low, rows.high, columns=columns)
        else:
            block = self.base.read(rows.low, rows.high, empty, *(columns or ()))
        return self._multiplied(block, device, empty)

    def _multiplied(self, block: torch.Tensor, device: str, empty: Empty) -> torch.Tensor:
        block = converted(block.to(device), self.work_dtype, empty)
        if self._added:
            block.add_(self._added)
        return block if self.computed[1] == 1.0 else block.mul_(self.computed[1])

    @property
    def _added(self) -> float:
        """The offset, added first and subtracted last; none where factors are exact: 1 + w rounds small w."""
        return 0.0 if self.is_exact else self.offset

    def _filled(self, block: torch.Tensor, rows: Span, columns: Span | None) -> torch.Tensor:
        if self.is_exact and self.offset:
            nothing = np.flatnonzero(self.dimensions[0].factor[rows.start : rows.stop] == 0)
            block.index_fill_(0, torch.from_numpy(nothing).to(block.device), -self.offset)
        if not callable(self.fill) and not self.fill and not self.offset:
            return block  # gaps are zero already
        spans = (rows, columns, *[None] * len(self.dimensions))
        sources = [d.source[s.start : s.stop] if s else d.source for d, s in zip(self.dimensions, spans, strict=False)]
        gaps = [torch.from_numpy(np.flatnonzero(source == GAP)).to(block.device) for source in sources]
        if callable(self.fill):
            _fill_rows(block, gaps, self.fill, rows, columns)
            return block
        for axis, places in enumerate(gaps):
            block.index_fill_(axis, places, self.fill)
        return block


def _fill_rows(block: torch.Tensor, gaps: list[torch.Tensor], fill: Fill, rows: Span, columns: Span | None) -> None:
    """Fill the gaps row by row, so that the numbers do not depend on how the tensor is cut."""
    for at in range(rows.stop - rows.start):
        row, values = block[at : at + 1], fill(rows.start + at, rows.start + at + 1).to(block)
        values = values[:, columns.start : columns.stop] if columns else values
        if bool((gaps[0] == at).any()):
            row.copy_(values)
        for axis, places in list(enumerate(gaps))[1:]:
            row.index_copy_(axis, places, values.index_select(axis, places))


@lru_cache(maxsize=1024)
def _arithmetic(
    dimensions: tuple[Dimension, ...], constant: float
) -> tuple[tuple[Dimension, ...], float, tuple[float, ...]]:
    """(dimensions, constant, the distinct factors), with even factors moved into the constant where each would round.

    1/sqrt(2) in two dimensions is 1/2, which rounds nothing. Cached, since many tensors share their dimensions.
    """
    every = [factor for dimension in dimensions for factor in dimension.factors]
    if all(len(dimension.factors) <= 1 for dimension in dimensions) and not all(map(is_power_of_two, every)):
        constant = nearest_power_of_two(math.prod(every, start=constant))
        dimensions = tuple(dimension.without_factors for dimension in dimensions)
    factors = np.array([constant])
    for dimension in dimensions:
        factors = np.unique(np.outer(factors, dimension.factors or (1.0,)))
    return dimensions, constant, tuple(float(f) for f in factors)
