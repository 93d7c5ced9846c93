"""Proof on the weights: every tensor of the result folds back to the source's, by the maps on record; no forward pass.

The steps on record are replayed on the source, lazily: that gives the config and, for each tensor, the dimensions by
which it must have grown. Then every block of the result is folded (parts summed with their weights, copies compared
one by one) in float64 and compared with the source. All inputs are covered, whatever they are; memory is that of one
block.

    exact     the fold is the source, to the last bit
    rounded   it differs by no more than rounding each stored number once can explain
    wrong     it differs by more, or a tensor is missing, or nothing accounts for it
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from modelsurgeon import dimension
from modelsurgeon.axis_map import GAP, AxisMap
from modelsurgeon.check import check
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.config_keys import INERT
from modelsurgeon.errors import PlanError
from modelsurgeon.history import Step
from modelsurgeon.means import mean_rows, with_means
from modelsurgeon.remap import remap
from modelsurgeon.tensor import DTYPE_NAMES, DTYPES, FLOATS, LazyTensor, Remapped
from modelsurgeon.untie import untie_embeddings

BLOCK = 1 << 21  # numbers of one block: 16 MiB of float64 and as much again for what it is compared with
ARITHMETIC = 2.0**-50  # growing and folding in float64 take a few roundings of 2**-53 themselves
SLACK = 1 + 2**-6  # blocks that are rounded to 16 bits were computed in float32, which adds its own small rounding
BOOKKEEPING = INERT - {"tie_word_embeddings", "architectures", "vocab_size"}


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
class Proof:
    """All verdicts, and why the maps themselves are approximate, if they are."""

    verdicts: tuple[Verdict, ...]
    lossy: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.verdict == "wrong")

    @property
    def rounding(self) -> float:
        return max((verdict.rounding for verdict in self.verdicts), default=0.0)

    @property
    def summary(self) -> str:
        """exact, rounded or wrong: the worst of all."""
        found = {verdict.verdict for verdict in self.verdicts}
        return next((word for word in ("wrong", "rounded") if word in found), "exact")

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.summary,
            "rounding": self.rounding,
            "approximations": list(self.lossy),
            "tensors": [asdict(verdict) for verdict in self.verdicts],
        }


def prove(source: Checkpoint, result: Checkpoint) -> Proof | None:
    """Fold the result back to the source; None where the result has no record that begins at the source.

    Raises what `check` raises where the source does not fit its table.
    """
    steps = steps_between(source, result)
    if steps is None:
        return None
    check(source)
    try:
        expected = replay(source, steps)
    except PlanError as error:
        return Proof((Verdict("modelsurgeon.json", "wrong", detail=str(error)),))
    verdicts = [*_config_verdicts(expected, result), *_name_verdicts(expected, result)]
    shared = set(expected.tensors) & set(result.tensors)
    for name in sorted(name for name in shared if not source.architecture.is_recomputed(name)):
        verdicts.append(fold(name, expected.tensors[name], result.tensors[name], _earlier_eps(source, steps)))
    return Proof(tuple(verdicts), expected.lossy)


def steps_between(source: Checkpoint, result: Checkpoint) -> tuple[Step, ...] | None:
    """What was done to the source to make the result; None where the record does not tell."""
    before = [step.to_json() for step in source.steps]
    after = [step.to_json() for step in result.steps]
    if not result.steps or after[: len(before)] != before:
        return None
    return result.steps[len(before) :]


def composed_maps(steps: tuple[Step, ...]) -> dict[str, AxisMap]:
    """{axis: the map of all steps, one after another}."""
    maps: dict[str, AxisMap] = {}
    for step in steps:
        for axis, axis_map in step.maps.items():
            maps[axis] = maps[axis].then(axis_map) if axis in maps else axis_map
    return maps


def replay(source: Checkpoint, steps: tuple[Step, ...]) -> Checkpoint:
    """The steps again, lazily, as one. Raises PlanError where their maps do not commute with the model.

    Untying first and growing then is the same as the other way round: the maps keep tied tensors equal.
    """
    known = {"widen", "untie-embeddings"}
    for step in steps:
        if step.operation not in known:
            raise PlanError(f"a step {step.operation!r} on record, expected one of {', '.join(sorted(known))}")
    base = replace(source, lossy=())
    if any(step.operation == "untie-embeddings" for step in steps):
        base = untie_embeddings(base)
    maps = composed_maps(steps)
    return remap(base, maps) if maps else base


def _config_verdicts(expected: Checkpoint, result: Checkpoint) -> list[Verdict]:
    """Every config key that has an effect is what the steps make it."""
    table, wanted, found = expected.architecture, expected.resolved, result.architecture.resolve(result.config)
    wrong = []
    if wanted.get("model_type") != found.get("model_type"):
        return [Verdict("config.json", "wrong", detail=f"model_type: expected {wanted['model_type']}, found another")]
    keys = (set(wanted) | set(found)) - (BOOKKEEPING - set(table.keys)) - set(table.aliases)
    sized = {axis.key for axis in table.axes.values() if axis.key}
    for key in sorted(keys & table.accounted_keys - sized):
        if not _same(table.value(wanted, key), table.value(found, key)):
            wrong.append(f"{key}: expected {table.value(wanted, key)!r}, found {table.value(found, key)!r}")
    sizes, targets = result.sizes, expected.sizes
    wrong += [f"axis {a}: expected {targets[a]}, found {sizes[a]}" for a in targets if sizes.get(a) != targets[a]]
    return [Verdict("config.json", "wrong", detail=line) for line in wrong] or [Verdict("config.json", "exact")]


def _same(a: Any, b: Any) -> bool:
    """Whether two config values are equal; floats to a few roundings, for products are taken in other orders."""
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-14)
    return bool(a == b)


def _name_verdicts(expected: Checkpoint, result: Checkpoint) -> list[Verdict]:
    missing = sorted(set(expected.tensors) - set(result.tensors))
    extra = sorted(set(result.tensors) - set(expected.tensors))
    recomputed = expected.architecture.is_recomputed
    return [
        *(Verdict(name, "wrong", detail="missing") for name in missing if not recomputed(name)),
        *(Verdict(name, "wrong", detail="nothing accounts for it") for name in extra if not recomputed(name)),
    ]


def _earlier_eps(source: Checkpoint, steps: tuple[Step, ...]) -> float:
    """The sum of the relative spacings of the dtypes in which steps before the last stored their numbers."""
    stored, total = source.dtype, 0.0
    for step in steps[:-1]:
        stored = DTYPE_NAMES[step.arguments["dtype"]] if step.arguments.get("dtype") else stored
        total += float(torch.finfo(DTYPES[stored]).eps) if step.maps else 0.0
    return total


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
    for groups, rows in _blocks(expected):
        folded, size, weight = _folded(expected, found, groups, rows)
        wanted = _wanted(expected, groups)
        if expected.free:
            wanted = torch.where(_gaps(expected, groups) & folded.isfinite(), folded, wanted)
        difference = (folded - wanted).abs()
        allowed = size * ((float(info.eps) + earlier_eps) / 2 * SLACK + ARITHMETIC) + weight * smallest
        if any(dim.means for dim in expected.dimensions):  # a mean is as inexact as what it is the mean of
            allowed += _wanted(expected, groups, absolute=True) * (earlier_eps / 2 * SLACK + ARITHMETIC)
        equal = (folded == wanted) | (folded.isnan() & wanted.isnan())  # what the source holds, be it no number
        difference = torch.where(equal, 0.0, difference)
        bad = ~(equal | (folded.isfinite() & (difference <= allowed)))
        if bool(bad.any()):
            return Verdict(name, "wrong", detail=_first(bad, groups, wanted, folded))
        exact = exact and bool((difference == 0).all())
        rounding = max(rounding, float((difference / size.clamp_min(normal)).max()) if difference.numel() else 0.0)
    return Verdict(name, "exact" if exact else "rounded", rounding)


def _blocks(expected: Remapped) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fold groups, the new rows that make them), some at a time."""
    rows = expected.dimensions[0]
    order = np.argsort(rows.group, kind="stable")
    bounds = np.searchsorted(rows.group[order], np.arange(len(rows.group_source) + 1))
    width = int(np.prod(expected.shape[1:], dtype=np.int64)) or 1
    most = max(1, int(BLOCK / width / max(1.0, rows.new_size / max(1, len(rows.group_source)))))
    for start in range(0, len(rows.group_source), most):
        stop = min(start + most, len(rows.group_source))
        yield np.arange(start, stop), order[bounds[start] : bounds[stop]]


def _folded(
    expected: Remapped, found: LazyTensor, groups: np.ndarray, rows: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(the fold, the same of absolute values, the sum of the weights' absolute values), one number a group each."""
    block = read_rows(found, rows).double() + expected.offset
    size, weight = block.abs(), torch.ones_like(block)
    if expected.offset:
        size = size + abs(expected.offset)  # w is stored and rounded, 1 + w is folded
    for axis, dim in enumerate(expected.dimensions):
        if axis == 0:
            target, dual, count = dim.group[rows] - groups[0], dim.dual[rows], len(groups)
        else:
            target, dual, count = dim.group, dim.dual, len(dim.group_source)
        if np.array_equal(target, np.arange(count)) and np.all(dual == 1):
            continue
        block, size, weight = (
            _sum_groups(values, axis, target, factor, count)
            for values, factor in ((block, dual), (size, np.abs(dual)), (weight, np.abs(dual)))
        )
    return block, size, weight


def _sum_groups(values: torch.Tensor, axis: int, group: np.ndarray, dual: np.ndarray, count: int) -> torch.Tensor:
    shape = [1] * axis + [-1] + [1] * (values.ndim - axis - 1)
    out = values.new_zeros([*values.shape[:axis], count, *values.shape[axis + 1 :]])
    return out.index_add_(axis, torch.from_numpy(group), values * torch.from_numpy(dual).reshape(shape))


def _wanted(expected: Remapped, groups: np.ndarray, absolute: bool = False) -> torch.Tensor:
    """What the groups must fold to: the source's numbers times what copies are multiplied by; the fill in gaps.

    absolute  the same of the source's absolute values
    """
    dims = expected.dimensions
    source = dims[0].group_source[groups]
    block = _source_rows(expected, np.where(source == GAP, 0, source), absolute)
    block = (block + expected.offset) * expected.constant
    block = block.abs() if absolute else block
    for axis, dim in enumerate(dims):
        sources, factors = (source, dim.group_factor[groups]) if axis == 0 else (dim.group_source, dim.group_factor)
        block = with_means(block, axis, dim.means) if axis else block
        shape = [1] * axis + [-1] + [1] * (block.ndim - axis - 1)
        if axis and not np.array_equal(sources, np.arange(block.shape[axis])):
            block = block.index_select(axis, torch.from_numpy(np.where(sources == GAP, 0, sources)))
        if not np.all(factors == 1):
            block = block * torch.from_numpy(factors).reshape(shape)
    return _with_gaps(expected, groups, source, block)


def _source_rows(expected: Remapped, source: np.ndarray, absolute: bool) -> torch.Tensor:
    """Rows of the source, float64: old ones, and means of some (of absolute values)."""
    means, rows = expected.dimensions[0].means, expected.base.shape[0]
    if not np.any(source >= rows):
        return read_rows(expected.base, source).double()
    averaged = mean_rows(expected.base, means, rows, rows + len(means), absolute)
    old = read_rows(expected.base, np.where(source >= rows, 0, source)).double()
    kept = torch.from_numpy(np.flatnonzero(source >= rows))
    return old.index_copy(0, kept, averaged[torch.from_numpy(source[source >= rows] - rows)])


def _with_gaps(expected: Remapped, groups: np.ndarray, source: np.ndarray, block: torch.Tensor) -> torch.Tensor:
    for axis, dim in enumerate(expected.dimensions):
        gaps = np.flatnonzero((source if axis == 0 else dim.group_source) == GAP)
        if not len(gaps):
            continue
        index = torch.from_numpy(gaps)
        if callable(expected.fill):
            places = np.searchsorted(dim.group, gaps, sorter=np.argsort(dim.group, kind="stable"))
            places = np.argsort(dim.group, kind="stable")[places]
            values = expected.fill(int(groups[0]), int(groups[-1]) + 1).double()
            block = block.index_copy(axis, index, values.index_select(axis, torch.from_numpy(places)))
        else:
            block = block.index_fill(axis, index, float(expected.fill) + expected.offset)
    return block


def _gaps(expected: Remapped, groups: np.ndarray) -> torch.Tensor:
    """Which of the folded numbers copy none."""
    gaps = torch.zeros([len(groups), *(len(dim.group_source) for dim in expected.dimensions[1:])], dtype=torch.bool)
    for axis, dim in enumerate(expected.dimensions):
        source = dim.group_source[groups] if axis == 0 else dim.group_source
        gaps.index_fill_(axis, torch.from_numpy(np.flatnonzero(source == GAP)), True)
    return gaps


def read_rows(tensor: LazyTensor, rows: np.ndarray) -> torch.Tensor:
    """The rows of these numbers, in this order, read run by run."""
    if not len(rows):
        return tensor.read(0, 0)
    ordered = np.unique(rows)
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 1])
    stops = np.r_[starts[1:], len(ordered)]
    parts = [tensor.read(int(ordered[a]), int(ordered[b - 1]) + 1) for a, b in zip(starts, stops, strict=True)]
    block = parts[0] if len(parts) == 1 else torch.cat(parts)
    if np.array_equal(ordered, rows):
        return block
    return block.index_select(0, torch.from_numpy(np.searchsorted(ordered, rows)))


def _first(bad: torch.Tensor, groups: np.ndarray, wanted: torch.Tensor, folded: torch.Tensor) -> str:
    at = tuple(int(i) for i in bad.nonzero()[0])
    place = (int(groups[at[0]]), *at[1:])
    return f"at {list(place)} (folded): expected {float(wanted[at]):.9g}, found {float(folded[at]):.9g}"
