"""The two passes over an embedding, block by block: what belongs to each row alone, and what is measured against all.

    first = read_first(rows, "cpu", tell)              norms, equal rows, dead ones, sums, the robust deviation
    second = read_second(rows, first, "cpu", tell)     distances to the mean, far components

Memory holds one number for each row and for each column, never the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from modelsurgeon.diagnosis.weights.equal_rows import Lines, Sketch
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.tensors.lazy import LazyTensor

FAR = 10.0  # a row this many times longer, or shorter, than the median is far
FAR_COMPONENT = 50.0  # robust deviations
# Of the median distance to the mean. Resizing puts new rows at 3e-5 of it, and 16-bit rounding adds 2^-9 of the mean's
# length, which is at most a few times that distance; random rows are all at 1, as nearly as 1/sqrt(2 d).
AT_MEAN = 0.05
NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation
SAMPLE = 1 << 21  # numbers that the robust deviation is estimated from: to 0.1%
EXAMPLES = 10


@dataclass
class First:
    """What the first pass finds.

    norms           [n] float64: of each row; infinite where it is not finite
    total, squares  [d] float64: sums of each column, and of its squares, over finite rows
    equal           which rows equal an earlier one, and which are zero
    centres         [d] float64 each: where rows are that no training reached
    robust          the robust deviation of all components
    """

    norms: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor
    equal: Lines
    centres: list[torch.Tensor] = field(default_factory=list)
    robust: float = 0.0

    @property
    def dead(self) -> torch.Tensor:
        """[n] bool: rows of zeros."""
        return torch.from_numpy(self.equal.zero[0])

    @property
    def finite(self) -> torch.Tensor:
        return self.norms.isfinite()

    @property
    def live(self) -> torch.Tensor:
        """[n] bool: finite rows that are not zero."""
        return self.finite & ~self.dead

    @property
    def median(self) -> float:
        """The median norm of rows that are not zero."""
        return float(self.norms[~self.dead].median()) if not self.dead.all() else 0.0

    @property
    def moments(self) -> tuple[float, float]:
        """(mean, deviation) of all components of finite rows."""
        count = max(1, int(self.finite.sum()) * len(self.total))
        mean = float(self.total.sum()) / count
        return mean, math.sqrt(max(0.0, float(self.squares.sum()) / count - mean**2))

    @property
    def columns(self) -> torch.Tensor:
        """[d] float64: the deviation of each column over live rows."""
        count = max(1, int(self.live.sum()))
        return (self.squares / count - (self.total / count).square()).clamp(min=0).sqrt().cpu()


def read_first(rows: RowBlocks, device: str, tell: Callable[[int], object]) -> First:
    """Measure each row alone, and sum over all."""
    _, vocab, width = rows.shape
    norms = torch.zeros(vocab, dtype=torch.float64)
    total, squares = torch.zeros(2, width, dtype=torch.float64, device=device)
    sketch, step = Sketch(rows), max(1, vocab * width // SAMPLE)  # every step-th row is part of the sample
    sample = torch.zeros(-(-vocab // step), width)
    for index, start, block in rows.blocks():
        stop = start + len(block)
        sketch.add(index, start, block)
        wide = block.to(device).double()
        energy = wide.square()
        lengths = (energy @ energy.new_ones(width)).sqrt()
        finite = lengths.isfinite()
        norms[start:stop] = lengths.masked_fill(~finite, math.inf).cpu()
        ones = energy.new_ones(len(block))
        total += ones @ _cleared(wide, finite)
        squares += ones @ _cleared(energy, finite)
        places = slice(-(-start // step), -(-stop // step))
        sample[places] = wide[-start % step :: step].float().cpu()
        tell(stop)
    found = First(norms, total, squares, sketch.settle().rows)
    found.centres = _centres(rows.tensor, found)
    flat = sample[found.live[::step]].numpy().ravel()
    found.robust = NORMAL * float(np.median(np.abs(flat - np.median(flat)))) if flat.size else 0.0
    return found


def _cleared(wide: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """[r, d]: the rows, with zeros for those that are not finite."""
    return wide if finite.all() else wide.masked_fill(~finite[:, None], 0.0)


def _centres(tensor: LazyTensor, first: First) -> list[torch.Tensor]:
    """The mean of all rows, as resizing takes it; and that of the usual rows, where far or dead ones move it."""
    live = first.live
    far = live & (first.norms > FAR * first.median)
    centres = [first.total / max(1, int(first.finite.sum()))]
    if far.any() or first.dead.any():
        total = first.total.clone()
        for row in far.nonzero()[:, 0].tolist():
            total -= tensor.read(row, row + 1)[0].double().flatten().to(total.device)
        centres.append(total / max(1, int((live & ~far).sum())))
    return centres


@dataclass
class Second:
    """What the second pass finds.

    at_mean  [n] bool: rows that lie where resizing puts new ones
    far      how many components are far; `farthest`: (value, row, column) of the largest ones
    largest  the largest |component|
    """

    at_mean: torch.Tensor
    far: int = 0
    largest: float = 0.0
    farthest: list[tuple[float, int, int]] = field(default_factory=list)


def read_second(rows: RowBlocks, first: First, device: str, tell: Callable[[int], object]) -> Second:
    """Measure every row against the centres, and every component against the robust deviation."""
    vocab, live = rows.shape[1], first.live
    distances = torch.full((len(first.centres), vocab), math.inf)
    found = Second(torch.zeros(vocab, dtype=torch.bool))
    for _, start, block in rows.blocks():
        stop = start + len(block)
        single = _cleared(block.to(device).float(), first.finite[start:stop].to(device))
        for which, centre in enumerate(first.centres):
            distances[which, start:stop] = (single - centre.float()).norm(dim=1).cpu()
        _add_far(found, single, start, FAR_COMPONENT * first.robust)
        tell(stop)
    for one in distances:
        if live.any():
            found.at_mean |= live & (one <= AT_MEAN * one[live].median())
    return found


def _add_far(found: Second, rows: torch.Tensor, start: int, limit: float) -> None:
    """Count and collect the components beyond the limit."""
    low, high = torch.aminmax(rows)
    most = max(float(high), -float(low))
    found.largest = max(found.largest, most)
    if most <= limit or not limit:
        return
    sizes = rows.abs()
    found.far += int((sizes > limit).sum())
    values, places = sizes.flatten().topk(min(EXAMPLES, sizes.numel()))
    for place in places[values > limit].tolist():
        row, column = divmod(place, rows.shape[1])
        found.farthest.append((float(rows[row, column]), start + row, column))
    found.farthest = sorted(found.farthest, key=lambda one: -abs(one[0]))[:EXAMPLES]
