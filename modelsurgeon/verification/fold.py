"""One tensor folded back to the source's, block by block, in float64: what the proof on the weights rests on.

A block is some fold groups of rows, and of the columns too where one group of rows is large (an expert's matrix): its
memory does not depend on how large the tensor is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modelsurgeon import dimension
from modelsurgeon.axis_map import GAP
from modelsurgeon.dimension import Dimension
from modelsurgeon.means import group_size, mean_of, mean_rows, with_means
from modelsurgeon.tensor import DTYPES, FLOATS, LazyTensor, Remapped

BLOCK = 1 << 21  # numbers of one block: 16 MiB of float64 and as much again for what it is compared with
ARITHMETIC = 2.0**-50  # growing and folding in float64 take a few roundings of 2**-53 themselves
SLACK = 1 + 2**-6  # blocks that are rounded to 16 bits were computed in float32, which adds its own small rounding

Get = Callable[[int, int], torch.Tensor]  # consecutive coordinates start:stop


@dataclass(frozen=True)
class Verdict:
    """One tensor's (or the config's) verdict.

    rounding  the largest difference over the sum of the absolute numbers that were folded; 0 where exact
    detail    of what is wrong: where, expected, found
    """

    name: str
    verdict: str
    rounding: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Block:
    """Some fold groups along each dimension of a tensor.

    groups   for each dimension: consecutive fold groups
    members  for each dimension: the new coordinates that make them
    is_part  of rows: it has some groups of the columns
    """

    tensor: Remapped
    groups: tuple[np.ndarray, ...]
    members: tuple[np.ndarray, ...]
    is_part: bool

    @cached_property
    def sources(self) -> tuple[np.ndarray, ...]:
        """For each dimension: what each group folds to."""
        return tuple(dim.group_source[own] for dim, own in zip(self.tensor.dimensions, self.groups, strict=True))

    @cached_property
    def gaps(self) -> tuple[torch.Tensor, ...]:
        """For each dimension: which of these groups copy none."""
        return tuple(torch.from_numpy(np.flatnonzero(source == GAP)) for source in self.sources)


def fold(name: str, expected: LazyTensor, found: LazyTensor, earlier_eps: float = 0.0) -> Verdict:
    """Fold one tensor of the result, block by block, and compare it with what it must fold to.

    earlier_eps  relative spacing of numbers that earlier steps may have rounded, on top of the result's own
    """
    if expected.shape != found.shape:
        return Verdict(name, "wrong", detail=f"shape: expected {list(expected.shape)}, found {list(found.shape)}")
    if found.dtype not in FLOATS:
        return Verdict(name, "wrong", detail=f"stored as {found.dtype}, expected a float dtype")
    if not isinstance(expected, Remapped):
        expected = Remapped(expected, tuple(dimension.plain(size) for size in expected.shape), expected.dtype)
    rounding, exact = 0.0, True
    info = torch.finfo(DTYPES[found.dtype])
    normal = float(info.smallest_normal)
    smallest = normal * float(info.eps)
    for block in _blocks(expected):
        folded, size, weight = _folded(block, found)
        wanted = _wanted(block)
        if expected.free:
            wanted = torch.where(_in_gaps(block) & folded.isfinite(), folded, wanted)
        difference = (folded - wanted).abs()
        allowed = size * ((float(info.eps) + earlier_eps) / 2 * SLACK + ARITHMETIC) + weight * smallest
        if any(dim.means for dim in expected.dimensions):  # a mean is as inexact as what it is the mean of
            allowed += _wanted(block, absolute=True) * (earlier_eps / 2 * SLACK + ARITHMETIC)
        equal = (folded == wanted) | (folded.isnan() & wanted.isnan())  # what the source holds, be it no number
        difference = torch.where(equal, 0.0, difference)
        bad = ~(equal | (folded.isfinite() & (difference <= allowed)))
        if bool(bad.any()):
            return Verdict(name, "wrong", detail=_first(bad, block, wanted, folded))
        exact = exact and bool((difference == 0).all())
        rounding = max(rounding, float((difference / size.clamp_min(normal)).max()) if difference.numel() else 0.0)
    return Verdict(name, "exact" if exact else "rounded", rounding)


def _blocks(tensor: Remapped) -> Iterator[Block]:
    """The whole tensor, some fold groups at a time."""
    dims = tensor.dimensions
    whole = [(np.arange(len(dim.group_source)), np.arange(dim.new_size)) for dim in dims]
    if not dims:
        yield Block(tensor, (), (), False)
        return
    for rows in _some(dims[0], BLOCK / max(1, math.prod(tensor.shape[1:]))):
        size = len(rows[1]) * math.prod(tensor.shape[2:])
        is_part = len(dims) > 1 and len(rows[0]) == 1 and size * tensor.shape[1] > 2 * BLOCK
        for columns in [[part] for part in _some(dims[1], BLOCK / size)] if is_part else [whole[1:2]]:
            parts = [rows, *columns, *whole[2:]]
            yield Block(tensor, tuple(own for own, _ in parts), tuple(of for _, of in parts), is_part)


def _some(dim: Dimension, most: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fold groups, the new coordinates that make them), about `most` coordinates at a time."""
    order = np.argsort(dim.group, kind="stable")
    count = len(dim.group_source)
    bounds = np.searchsorted(dim.group[order], np.arange(count + 1))
    step = max(1, int(most / max(1.0, dim.new_size / max(1, count))))
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield np.arange(start, stop), order[bounds[start] : bounds[stop]]


def _folded(block: Block, found: LazyTensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(the fold, the same of absolute values, the sum of the weights' absolute values), one number a group each."""
    offset = block.tensor.offset
    values = _read(found, block.members, block.is_part) + offset
    size, weight = values.abs(), torch.ones_like(values)
    if offset:
        size = size + abs(offset)  # w is stored and rounded, 1 + w is folded
    for axis, (dim, groups, members) in enumerate(
        zip(block.tensor.dimensions, block.groups, block.members, strict=True)
    ):
        target, dual, count = dim.group[members] - (groups[0] if len(groups) else 0), dim.dual[members], len(groups)
        if np.array_equal(target, np.arange(count)) and np.all(dual == 1):
            continue
        values, size, weight = (
            _sum_groups(summed, axis, target, factor, count)
            for summed, factor in ((values, dual), (size, np.abs(dual)), (weight, np.abs(dual)))
        )
    return values, size, weight


def _read(found: LazyTensor, members: tuple[np.ndarray, ...], is_part: bool) -> torch.Tensor:
    """Rows, and some columns of them, float64."""
    if not members:
        return found.read(0, 1).double()
    if not is_part:
        return read_rows(found, members[0]).double()
    return by_runs(lambda a, b: read_rows(found, members[0], (a, b)), members[1], 1).double()


def _sum_groups(values: torch.Tensor, axis: int, group: np.ndarray, dual: np.ndarray, count: int) -> torch.Tensor:
    shape = [1] * axis + [-1] + [1] * (values.ndim - axis - 1)
    out = values.new_zeros([*values.shape[:axis], count, *values.shape[axis + 1 :]])
    return out.index_add_(axis, torch.from_numpy(group), values * torch.from_numpy(dual).reshape(shape))


def _wanted(block: Block, absolute: bool = False) -> torch.Tensor:
    """What the groups must fold to: the source's numbers times what copies are multiplied by; the fill in gaps.

    absolute  the same of the source's absolute values
    """
    dims, sources = block.tensor.dimensions, [np.where(source == GAP, 0, source) for source in block.sources]
    if block.is_part:
        values = by_runs(lambda a, b: _source_columns(block, a, b, absolute), sources[1], 1)
    else:
        values = _source(block, None, absolute)
    for axis, (dim, groups) in enumerate(zip(dims, block.groups, strict=True)):
        factors = dim.group_factor[groups]
        if axis > block.is_part:
            values = with_means(values, axis, dim.means)
            if not np.array_equal(sources[axis], np.arange(values.shape[axis])):
                values = values.index_select(axis, torch.from_numpy(sources[axis]))
        if not np.all(factors == 1):
            values = values * torch.from_numpy(factors).reshape([-1] + [1] * (values.ndim - axis - 1))
    return _with_gaps(block, values)


def _source_columns(block: Block, start: int, stop: int, absolute: bool) -> torch.Tensor:
    """Columns of the source, and from its last one on the means of some."""
    shape = block.tensor.base.shape
    if stop <= shape[1]:
        return _source(block, (start, stop), absolute)
    found = [_source(block, (start, shape[1]), absolute)] if start < shape[1] else []
    for of in block.tensor.dimensions[1].means[max(0, start - shape[1]) : stop - shape[1]]:
        found.append(mean_of(lambda a, b: _source(block, (a, b), absolute), of, 1, group_size(shape, 1)))
    return torch.cat(found, 1)


def _source(block: Block, columns: tuple[int, int] | None, absolute: bool) -> torch.Tensor:
    """Rows of the source, first:last of their columns, float64, multiplied by the tensor's constant."""
    tensor = block.tensor
    if not block.sources:
        values = tensor.base.read(0, 1).double()
    else:
        source = np.where(block.sources[0] == GAP, 0, block.sources[0])
        values = _source_rows(tensor, source, columns, absolute)
    values = (values + tensor.offset) * tensor.constant
    return values.abs() if absolute else values


def _source_rows(tensor: Remapped, source: np.ndarray, columns: tuple[int, int] | None, absolute: bool) -> torch.Tensor:
    """Rows of the source, float64: old ones, and means of some (of absolute values)."""
    means, rows = tensor.dimensions[0].means, tensor.base.shape[0]
    if not np.any(source >= rows):
        return read_rows(tensor.base, source, columns).double()
    averaged = mean_rows(tensor.base, means, rows, rows + len(means), absolute, columns)
    old = read_rows(tensor.base, np.where(source >= rows, 0, source), columns).double()
    kept = torch.from_numpy(np.flatnonzero(source >= rows))
    return old.index_copy(0, kept, averaged[torch.from_numpy(source[source >= rows] - rows)])


def _with_gaps(block: Block, values: torch.Tensor) -> torch.Tensor:
    fill = block.tensor.fill
    filled = _filled(block, fill) if callable(fill) and any(map(len, block.gaps)) else None
    for axis, gaps in enumerate(block.gaps):
        if not len(gaps):
            continue
        if filled is not None:
            values = values.index_copy(axis, gaps, filled.index_select(axis, gaps))
        else:
            values = values.index_fill(axis, gaps, float(fill) + block.tensor.offset)  # type: ignore[arg-type]
    return values


def _filled(block: Block, fill: Get) -> torch.Tensor:
    """What a function fills in where the first member of each group stands."""
    firsts = []
    for dim, groups in zip(block.tensor.dimensions, block.groups, strict=True):
        order = np.argsort(dim.group, kind="stable")
        firsts.append(order[np.searchsorted(dim.group[order], groups)])
    values = by_runs(fill, firsts[0], 0).double()
    for axis, places in list(enumerate(firsts))[1:]:
        values = values.index_select(axis, torch.from_numpy(places))
    return values


def _in_gaps(block: Block) -> torch.Tensor:
    """Which of the folded numbers copy none."""
    inside = torch.zeros([len(groups) for groups in block.groups], dtype=torch.bool)
    for axis, gaps in enumerate(block.gaps):
        inside.index_fill_(axis, gaps, True)
    return inside


def read_rows(tensor: LazyTensor, rows: np.ndarray, columns: tuple[int, int] | None = None) -> torch.Tensor:
    """The rows of these numbers, in this order, read run by run; of dimension 1 first:last, or all."""
    if columns is None:
        return by_runs(tensor.read, rows, 0)
    return by_runs(lambda a, b: tensor.read(a, b, first=columns[0], last=columns[1]), rows, 0)


def by_runs(get: Get, wanted: np.ndarray, axis: int) -> torch.Tensor:
    """Coordinates along an axis, in this order, where get(start, stop) has them; asked for run by run."""
    if not len(wanted):
        return get(0, 0)
    ordered = np.unique(wanted)
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 1])
    stops = np.r_[starts[1:], len(ordered)]
    parts = [get(int(ordered[a]), int(ordered[b - 1]) + 1) for a, b in zip(starts, stops, strict=True)]
    block = parts[0] if len(parts) == 1 else torch.cat(parts, axis)
    if np.array_equal(ordered, wanted):
        return block
    return block.index_select(axis, torch.from_numpy(np.searchsorted(ordered, wanted)))


def _first(bad: torch.Tensor, block: Block, wanted: torch.Tensor, folded: torch.Tensor) -> str:
    at = tuple(int(i) for i in bad.nonzero()[0])
    place = [int(groups[i]) for groups, i in zip(block.groups, at, strict=True)]
    return f"at {place} (folded): expected {float(wanted[at]):.9g}, found {float(folded[at]):.9g}"
