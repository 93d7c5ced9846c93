"""How much memory a piece of a tensor takes: an upper bound, from shapes and dtypes alone.

It follows the computation of `Remapped` step by step: blocks that are read, converted, averaged, gathered along each
dimension, and converted again. All of them count as if they were in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch

from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arithmetic import LEADS, MOST_RUNS, SCRATCH
from modelsurgeon.tensors.dtypes import SIZES
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.means import group_size, slab
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import least
from modelsurgeon.tensors.stored import SMALL, numbers

INDEX = 80  # bytes for each coordinate of a dimension gathered by index: sources, factors, gaps, relative sources
RUNS = 32  # bytes for each coordinate of a dimension copied run by run
SHARED = 80  # bytes for each number whose parts are added
FILL = 64  # bytes for each number that a function fills in
DISTURBED = 8  # numbers for each one that gets noise: itself, the noise, the looked up ones, twice where scattered
MASKS = 4  # bytes for each of them: two masks, of tiny numbers and of infinite ones
LOOKED_UP = 64  # bytes for each coordinate: the indices of those picked, of their twins and of their keys
TABLE = 80  # bytes for each entry of a table of random numbers: while it is computed, and in the few cached tables
DOUBLE = 8  # bytes of float64


class Grown(LazyTensor, Protocol):
    """What the cost depends on in a `Remapped` tensor, where each of these is explained."""

    @property
    def computed(self) -> tuple[tuple[Dimension, ...], float]: ...
    @property
    def work_dtype(self) -> torch.dtype: ...
    @property
    def noise(self) -> Noise | None: ...
    @property
    def is_cut_at_runs(self) -> bool: ...


def of_pieces(tensor: Grown, most: int) -> int:
    """Bytes for one of the pieces of at most `most` bytes, as it is stored."""
    if not tensor.shape or not tensor.nbytes:
        return SMALL
    row, columns = tensor.nbytes // tensor.shape[0], (*tensor.shape, 1)[1]
    if row > most and len(tensor.shape) > 1:
        return _stored(tensor, 1, max(1, most * columns // row), False)
    one_span = tensor.is_cut_at_runs and not tensor.dimensions[0].means
    return _stored(tensor, min(tensor.shape[0], max(1, most // row)), columns, one_span)


def of_read(tensor: Grown, rows: int, columns: int) -> int:
    """Bytes for reading so many rows and columns, from anywhere."""
    whole = len(tensor.shape) < 2 or columns >= tensor.shape[1]
    first = tensor.dimensions[0] if tensor.dimensions else None
    return _stored(tensor, rows, columns, whole and (not first or (len(first.runs) <= 1 and not first.means)))


def _stored(tensor: Grown, rows: int, columns: int, one_span: bool) -> int:
    """Bytes for rows x columns as they are stored: a block to assemble, one to convert, and a mask of NaNs."""
    count = numbers(tensor.shape, rows, columns)
    assembled = 0 if one_span else count * tensor.work_dtype.itemsize
    stored = count * SIZES[tensor.dtype] if SIZES[tensor.dtype] != tensor.work_dtype.itemsize else 0
    noise = _noise(tensor, rows, columns) if tensor.noise else 0
    return assembled + stored + noise + min(count, SCRATCH) + _rectangle(tensor, rows, columns, one_span)


def _noise(tensor: Grown, rows: int, columns: int) -> int:
    """Bytes for the noise of some rows at a time, for its table, and for the indices of coordinates."""
    row = numbers(tensor.shape, 1, columns)
    count = max(row, min(SCRATCH, rows * row))
    length = sum(dimension.extended_size + dimension.new_size for dimension in tensor.dimensions)
    return count * (DISTURBED * SIZES[tensor.dtype] + MASKS) + length * (LOOKED_UP + TABLE)


def _rectangle(tensor: Grown, rows: int, columns: int, one_span: bool) -> int:
    """Bytes for rows x columns that are made of one span each."""
    if not tensor.dimensions:
        return SMALL
    size, whole = tensor.work_dtype.itemsize, len(tensor.shape) < 2 or columns >= tensor.shape[1]
    shape = _old_shape(tensor, rows, columns, one_span)
    total = _old(tensor, shape) + SMALL
    dimensions = tensor.computed[0]
    for axis, dimension in [*list(enumerate(dimensions))[1:], (0, dimensions[0])]:
        new = rows if axis == 0 else columns if axis == 1 else dimension.new_size
        if axis > 1 or (axis and whole):
            total += _with_means(shape, axis, dimension, size)
        elif axis:
            total += _mean_columns(tensor, shape, new)
        index = RUNS if len(dimension.runs) <= MOST_RUNS else INDEX
        total += _shared(tensor, dimension, shape, axis) + index * (new + shape[axis])
        shape[axis] = new
        total += 0 if axis == 0 and one_span and 0.0 not in dimension.factors else math.prod(shape) * size
    return total + (FILL * math.prod(tensor.shape[1:]) if callable(tensor.fill) else 0)


def _old_shape(tensor: Grown, rows: int, columns: int, one_span: bool) -> list[int]:
    """How many old numbers a rectangle is made of at most: as `spans` cuts it."""
    old = tensor.base.shape
    column = SIZES[tensor.base.dtype] * math.prod(old[2:])
    read = rows if one_span or rows == 1 else max(2 * rows, least(column * math.prod(old[1:2])))
    shape = [min(read, old[0]), *old[1:]]
    if len(old) > 1 and columns < tensor.shape[1]:
        shape[1] = min(max(2 * columns, least(column)), old[1])
    return shape


def _old(tensor: Grown, shape: Sequence[int]) -> int:
    """Bytes for a block of old numbers of this shape, in the dtype of the arithmetic, or for means in their place."""
    columns = shape[1] if len(shape) > 1 else 1
    total = tensor.base.reading(shape[0], columns)
    if tensor.work_dtype.itemsize != SIZES[tensor.base.dtype]:
        total += math.prod(shape) * tensor.work_dtype.itemsize
    if not tensor.dimensions[0].means:
        return total
    step = min(group_size(tensor.base.shape, 0), tensor.base.shape[0])
    one = math.prod(shape[1:])
    group = tensor.base.reading(step, columns) + step * one * (SIZES[tensor.base.dtype] + DOUBLE)
    return total + group + DOUBLE * one * (3 + 2 * min(shape[0], len(tensor.dimensions[0].means)))


def _with_means(shape: Sequence[int], axis: int, dimension: Dimension, size: int) -> int:
    """Bytes for the means along an axis of a block, and for the block with them behind it."""
    if not dimension.means:
        return 0
    one = math.prod(shape) // max(1, shape[axis])
    step, rows = min(group_size(shape, axis), shape[axis]), min(slab(shape), max(1, shape[0]))
    added = one // max(1, shape[0]) * rows * (step * (size + DOUBLE) + 4 * DOUBLE)
    return added + one * size * (shape[axis] + 3 * len(dimension.means))


def _mean_columns(tensor: Grown, shape: Sequence[int], columns: int) -> int:
    """Bytes for means of columns of a part of a row, whose source is read in groups."""
    if not tensor.dimensions[1].means:
        return 0
    step = min(group_size(tensor.base.shape, 1), tensor.base.shape[1])
    one = shape[0] * math.prod(shape[2:])
    group = _old(tensor, [shape[0], step, *shape[2:]]) + one * step * (tensor.work_dtype.itemsize + DOUBLE)
    return group + one * (3 * DOUBLE + 2 * DOUBLE * min(columns, len(tensor.dimensions[1].means)) * 2)


def _shared(tensor: Grown, dimension: Dimension, shape: Sequence[int], axis: int) -> int:
    """Bytes for finding numbers whose parts are too small, and for adding those parts."""
    if not tensor.is_exact or not len(dimension.rests[0]):
        return 0
    one = math.prod(shape) // max(1, shape[axis])
    leads, rests = dimension.rests
    looked = min(SCRATCH, math.prod(shape)) * tensor.work_dtype.itemsize + 2 * leads.nbytes + 2 * rests.nbytes
    return looked + SHARED * min(max(LEADS, one), math.prod(shape))
