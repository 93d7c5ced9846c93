"""The numbers of a tensor: exact counts of unusual ones, and mean and deviation of the finite ones.

    census = Census("BF16")
    census.add(block)                  block after block, in any order
    census.numbers                     Numbers(count=1024, nan=0, inf=0, zero=3, ..., float16=Lost(0, 7), ...)
    census.moments.deviation           0.0200

A 16-bit dtype has 65,536 numbers, so one histogram of a block's bits answers every question; it takes 2 ns a number on
one core, where a pass for each question takes 5. Wider numbers are counted in float64, after the few that some 16-bit
dtype would lose are picked out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch

from modelsurgeon.tensors.dtypes import DTYPES

PIECE = 1 << 18  # numbers at a time: 2 MB of float64 stay in the caches
PATTERNS = 1 << 16
# Rounding to the nearest, ties to even, gives infinity from halfway between the largest number and the next power of
# two, and zero up to half of the smallest number.
INFINITE = {torch.float16: 65520.0, torch.bfloat16: 2.0**128 - 2.0**119}
NOTHING = {torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}


@dataclass(frozen=True)
class Lost:
    """How many numbers a 16-bit dtype would lose: finite ones to infinity, others than zero to zero."""

    overflow: int = 0
    underflow: int = 0

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.overflow + other.overflow, self.underflow + other.underflow)


@dataclass(frozen=True)
class Numbers:
    """Counts of the numbers of one tensor or several; schema.json describes the fields."""

    count: int = 0
    nan: int = 0
    inf: int = 0
    zero: int = 0
    subnormal: int = 0
    largest: float = 0.0
    float16: Lost = Lost()
    bfloat16: Lost = Lost()

    def __add__(self, other: Numbers) -> Numbers:
        summed = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Numbers(**{**summed, "largest": max(self.largest, other.largest)})

    @property
    def is_usual(self) -> bool:
        """Whether none is NaN, infinite or subnormal, and no 16-bit dtype would lose any."""
        lost = self.float16 + self.bfloat16
        return not (self.nan or self.inf or self.subnormal or lost.overflow or lost.underflow)


@dataclass(frozen=True)
class Moments:
    """Mean and spread of finite numbers; `square`: the sum of squared distances from the mean."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def __add__(self, other: Moments) -> Moments:
        """Moments of both together: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm ..." (1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        if not self.count or not other.count:
            return self if self.count else other
        return Moments(
            count,
            self.mean + apart * other.count / count,
            self.square + other.square + apart**2 * self.count * other.count / count,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    def moved(self, added: float) -> Moments:
        """Moments of the same numbers with this added to each."""
        return replace(self, mean=self.mean + added, low=self.low + added, high=self.high + added)

    @property
    def deviation(self) -> float:
        """The standard deviation of the numbers as a population; NaN where there are none."""
        return math.sqrt(self.square / self.count) if self.count else math.nan

    @property
    def rms(self) -> float:
        """The root of the mean square; NaN where there are no numbers."""
        return math.hypot(self.deviation, self.mean) if self.count else math.nan


class Census:
    """Counts one tensor's numbers, block after block; `dtype` as in a safetensors header: BF16, F16, F32 or F64."""

    def __init__(self, dtype: str) -> None:
        self._dtype = DTYPES[dtype]
        self._seen = torch.zeros(PATTERNS, dtype=torch.int64) if self._dtype.itemsize == 2 else None
        self._numbers, self._moments = Numbers(), Moments()

    def add(self, block: torch.Tensor) -> None:
        """Count a block of the tensor as it is stored, on the CPU."""
        if self._seen is not None:
            bits = block.reshape(-1).view(torch.int16).to(torch.int32).bitwise_and_(PATTERNS - 1)
            self._seen += torch.bincount(bits, minlength=PATTERNS)
            return
        for piece in torch.split(block.reshape(-1), PIECE):
            self._add_wide(piece)

    @property
    def numbers(self) -> Numbers:
        if self._seen is None:
            return self._numbers
        found = self._seen.nonzero()[:, 0]
        return _counted(_values(self._dtype)[found], self._seen[found], self._dtype)

    @property
    def moments(self) -> Moments:
        if self._seen is None:
            return self._moments
        found = (_values(self._dtype).isfinite() & (self._seen > 0)).nonzero()[:, 0]
        return _moments(_values(self._dtype)[found], self._seen[found].double())

    def _add_wide(self, piece: torch.Tensor) -> None:
        sizes = piece.abs()
        picked = piece[(sizes <= NOTHING[torch.float16]) | ~(sizes < INFINITE[torch.float16])].double()  # NaN, too
        found = _counted(picked, torch.ones_like(picked, dtype=torch.int64), self._dtype)
        values = (piece[piece.isfinite()] if found.nan or found.inf else piece).double()
        moments = _moments(values)
        largest = max(abs(moments.low), abs(moments.high)) if moments.count else 0.0
        self._numbers += replace(found, count=piece.numel(), largest=largest)
        self._moments += moments


def _moments(values: torch.Tensor, weights: torch.Tensor | None = None) -> Moments:
    """Moments of [n] float64 finite numbers, each counted `weights` times, or once."""
    if not values.numel():
        return Moments()
    low, high = map(float, values.aminmax())
    count = float(weights.sum()) if weights is not None else float(len(values))
    mean = float(values.dot(weights) if weights is not None else values.sum()) / count
    apart = values - mean
    square = float(apart.dot(apart * weights if weights is not None else apart))
    return Moments(int(count), mean, square, low, high)


def _counted(values: torch.Tensor, times: torch.Tensor, dtype: torch.dtype) -> Numbers:
    """The counts of [n] float64 numbers stored as `dtype`, each counted `times` times."""

    def count(where: torch.Tensor) -> int:
        return int(times[where].sum())

    sizes, finite, nonzero = values.abs(), values.isfinite(), values != 0
    lost = [
        Lost(count(finite & (sizes >= INFINITE[one])), count(nonzero & (sizes <= NOTHING[one]))) for one in INFINITE
    ]
    special = count(values.isnan()), count(values.isinf()), count(~nonzero)
    subnormal = count(nonzero & (sizes < torch.finfo(dtype).smallest_normal))
    largest = float(sizes[finite].max()) if finite.any() else 0.0
    return Numbers(int(times.sum()), *special, subnormal, largest, *lost)


@lru_cache
def _values(dtype: torch.dtype) -> torch.Tensor:
    """[65536] float64: the number of every 16-bit pattern."""
    return torch.arange(PATTERNS, dtype=torch.int32).to(torch.int16).view(dtype).double()
