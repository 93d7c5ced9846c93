"""Cuts, reads and folds a tensor and what it must fold to, some fold groups at a time.

A block is some fold groups of rows, and of columns, too, where one group of rows is large (an expert's matrix), so that
its memory does not depend on the size of the tensor. In a matrix [8, 8] that copies one of [4, 4] twice along both
dimensions, where columns are parts of a sum, the block of rows 4 and 5 is

    read      [2, 8]  as stored
    folded    [2, 4]  float64: columns 0 to 3 plus columns 4 to 7
    wanted    [2, 4]  rows 0 and 1 of the old matrix

Sums are taken in float64, in the order of the new coordinates. Numbers that are neither summed nor multiplied stay as
stored: copies are compared bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.proof.parts import SHORT, Get, Part, broadcast, by_runs, read_rows, taken
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.arithmetic import converted
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.means import group_size, mean_of, mean_rows, with_means

BLOCK = 1 << 20  # numbers of one block: 8 MiB of float64; with smaller ones Python takes longer than arithmetic


@dataclass(frozen=True, eq=False)
class Block:
    """Some fold groups along each dimension of a tensor; `is_part`: not of all columns."""

    tensor: LazyTensor
    parts: tuple[Part, ...]
    is_part: bool

    def read(self, found: LazyTensor, empty: Empty = fresh) -> torch.Tensor:
        """The new numbers as stored; where the model adds an offset, float64 with the offset."""
        if self.is_part:
            rows, columns = (part.members for part in self.parts[:2])
            values = by_runs(lambda a, b: read_rows(found, rows, (a, b)), columns, 1)
        else:
            values = read_rows(found, self.parts[0].members, None, empty) if self.parts else found.read(0, 1)
        return values.double() + self.tensor.offset if self.tensor.offset else values

    def fold(self, values: torch.Tensor, empty: Empty = fresh, absolute: bool = False) -> torch.Tensor:
        """One number for each group: the sum of its members times their weights (`absolute`: their absolute values)."""
        for axis, part in enumerate(self.parts):
            if not part.is_plain:
                values = _sum_groups(values, axis, part, np.abs(part.dual) if absolute else part.dual, empty)
        return values

    def fold_absolute(self, values: torch.Tensor, empty: Empty = fresh) -> torch.Tensor:
        """The fold of absolute values, float64; plus the offset again, since w is rounded where 1 + w is folded."""
        values = torch.abs(converted(values, torch.float64, empty), out=empty(values.shape, torch.float64))
        if self.tensor.offset:
            values += abs(self.tensor.offset)
        return self.fold(values, empty, absolute=True)

    @property
    def weight(self) -> torch.Tensor:
        """The sum of the absolute weights of each group's members; it broadcasts to a fold."""
        weight = torch.ones([1] * len(self.parts), dtype=torch.float64)
        for axis, part in enumerate(self.parts):
            if not part.is_plain:
                sums = np.bincount(part.target, np.abs(part.dual), len(part.groups))
                weight = weight * torch.from_numpy(sums).reshape(broadcast(axis, len(self.parts)))
        return weight

    def wanted(self, empty: Empty = fresh, absolute: bool = False) -> torch.Tensor:
        """What the groups must fold to: the source's (absolute) numbers times the groups' factors; the fill in gaps."""
        if self.is_part:
            values = by_runs(lambda a, b: _source_columns(self, a, b, absolute), self.parts[1].old, 1)
        else:
            values = _source(self, None, absolute, empty)
        for axis, part in enumerate(self.parts):
            if axis > self.is_part:
                values = with_means(values, axis, part.dimension.means)
                values = taken(values, axis, part.old, part.old_runs, empty)
            factor = part.dimension.group_factor[part.groups]
            if not np.all(factor == 1):
                by = torch.from_numpy(factor).reshape(broadcast(axis, values.ndim))
                out = empty(values.shape, torch.float64)
                values = torch.mul(converted(values, torch.float64, empty), by, out=out)
        return _with_gaps(self, values)

    @property
    def free(self) -> torch.Tensor | None:
        """Which folded numbers may be anything, since nothing reads them, or they read zeros; None: none may."""
        places = [part.gaps if self.tensor.free else part.free for part in self.parts]
        if not any(map(len, places)):
            return None
        free = torch.zeros([len(part.groups) for part in self.parts], dtype=torch.bool)
        for axis, groups in enumerate(places):
            free.index_fill_(axis, groups, True)
        return free


def cut(tensor: LazyTensor) -> Iterator[Block]:
    """The blocks of a whole tensor."""
    dims = tensor.dimensions
    if not dims:
        yield Block(tensor, (), False)
        return
    whole = [Part(dim, np.arange(len(dim.group_source)), np.arange(dim.new_size)) for dim in dims[1:]]
    for rows in _some(dims[0], BLOCK / max(1, math.prod(tensor.shape[1:]))):
        size = len(rows.members) * math.prod(tensor.shape[2:])
        is_part = len(dims) > 1 and len(rows.groups) == 1 and size * tensor.shape[1] > 2 * BLOCK
        for columns in [[part] for part in _some(dims[1], BLOCK / size)] if is_part else [whole[:1]]:
            yield Block(tensor, (rows, *columns, *whole[1:]), is_part)


def _some(dim: Dimension, most: float) -> Iterator[Part]:
    """Fold groups of about `most` new coordinates at a time."""
    order, count = np.argsort(dim.group, kind="stable"), len(dim.group_source)
    bounds = np.searchsorted(dim.group[order], np.arange(count + 1))
    step = max(1, int(most / max(1.0, dim.new_size / max(1, count))))
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield Part(dim, np.arange(start, stop), np.sort(order[bounds[start] : bounds[stop]]))


def _sum_groups(values: torch.Tensor, axis: int, part: Part, dual: np.ndarray, empty: Empty) -> torch.Tensor:
    out = empty([*values.shape[:axis], len(part.groups), *values.shape[axis + 1 :]], torch.float64)
    if SHORT * len(part.runs) > len(part.members):
        weighted = values.double() * torch.from_numpy(dual).reshape(broadcast(axis, values.ndim))
        return out.zero_().index_add_(axis, torch.from_numpy(part.target), weighted)
    runs = part.runs
    if (runs[0].target, runs[0].length, runs[0].weight) == (0, len(part.groups), 1.0):
        out.copy_(values.narrow(axis, runs[0].at, runs[0].length))
        runs = runs[1:]
    else:
        out.zero_()
    for at, target, length, _ in runs:
        member = converted(values.narrow(axis, at, length), torch.float64, empty)
        out.narrow(axis, target, length).add_(member if dual[at] == 1 else member * dual[at])
    return out


def _source_columns(block: Block, start: int, stop: int, absolute: bool) -> torch.Tensor:
    """Columns of the source; those from its size on are means of columns."""
    shape, size = block.tensor.base.shape, block.tensor.base.shape[1]
    if stop <= size:
        return _source(block, (start, stop), absolute)
    found = [_source(block, (start, size), absolute).double()] if start < size else []
    for of in block.tensor.dimensions[1].means[max(0, start - size) : stop - size]:
        found.append(mean_of(lambda a, b: _source(block, (a, b), absolute), of, 1, group_size(shape, 1)))
    return torch.cat(found, 1)


def _source(block: Block, columns: tuple[int, int] | None, absolute: bool, empty: Empty = fresh) -> torch.Tensor:
    """Rows of the source, first:last of their columns, multiplied by the tensor's constant."""
    tensor, rows = block.tensor, block.parts[0].old if block.parts else None
    values = tensor.base.read(0, 1) if rows is None else _source_rows(tensor, rows, columns, absolute, empty)
    if tensor.offset or tensor.constant != 1 or any(dim.means for dim in tensor.dimensions):
        values = (values.double() + tensor.offset) * tensor.constant
    return values.abs() if absolute else values


def _source_rows(
    tensor: LazyTensor, source: np.ndarray, columns: tuple[int, int] | None, absolute: bool, empty: Empty
) -> torch.Tensor:
    """Rows of the source, or means of its rows (`absolute`: of their absolute values)."""
    means, rows = tensor.dimensions[0].means, tensor.base.shape[0]
    if not np.any(source >= rows):
        return read_rows(tensor.base, source, columns, empty)
    averaged = mean_rows(tensor.base, means, rows, rows + len(means), absolute, columns)
    old = read_rows(tensor.base, np.where(source >= rows, 0, source), columns).double()
    places = torch.from_numpy(np.flatnonzero(source >= rows))
    return old.index_copy(0, places, averaged[torch.from_numpy(source[source >= rows] - rows)])


def _with_gaps(block: Block, values: torch.Tensor) -> torch.Tensor:
    if not any(len(part.gaps) for part in block.parts):
        return values
    fill, values = block.tensor.fill, values.double()
    if callable(fill):
        filled = _filled(block, fill)
    else:
        filled = torch.tensor(fill + block.tensor.offset, dtype=torch.float64).expand(values.shape)
    for axis, part in enumerate(block.parts):
        values = values.index_copy(axis, part.gaps, filled.index_select(axis, part.gaps))
    return values


def _filled(block: Block, fill: Get) -> torch.Tensor:
    """The numbers of a fill function at the first member of each group."""
    firsts = []
    for part in block.parts:
        order = np.argsort(part.dimension.group, kind="stable")
        firsts.append(order[np.searchsorted(part.dimension.group[order], part.groups)])
    values = by_runs(fill, firsts[0], 0).double()
    for axis, places in enumerate(firsts[1:], start=1):
        values = values.index_select(axis, torch.from_numpy(places))
    return values
