"""Noise that makes copies differ and leaves every sum as it is, to the last bit.

Copies that are read alike get equal gradients and stay copies for ever. The weights that read them may differ, as long
as the parts of each weight keep their sum (D + N with N E = 0 is as good as D). So two equal parts p of a number become
p + e and p - e. To keep the last bit of the sum, e comes from a rounding in the dtype itself:

    a = p * (1 + amount * t), rounded        t in [0, 1) from a table of random numbers
    e = a - p                                exact, and so are p + e and p - e

`a` is no smaller than p, hence a whole number of p's units in the last place, and so is e; p - e is such a number too,
no larger than p: it needs no more digits than p has. That holds for every float, subnormal ones and zeros included.
Where `a` would be infinite there is no noise.

The noise at a row and a column depends on the seed, the tensor's name and both numbers, not on how the tensor is cut,
on threads or on the device. Rows that copy one old row stay equal, since the router of experts compares them.
Su Jianlin, https://www.kexue.fm/archives/8444 (copies need noise); HyperCloning, https://arxiv.org/abs/2409.12903.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from blake3 import blake3

from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.tensors.arithmetic import SCRATCH, holds_tiny, is_finite

WORD = 4  # random bytes for each number of a table
TABLES = 4  # cached at a time, since a tensor is written piece by piece
# Times the smallest normal number: from here on twins are equal. A smaller part may have given one unit to its twin
# (`Dimension.rests`), where shares differ by at most a factor of two; such twins get no noise.
EQUAL_FROM = 4.0


@dataclass(frozen=True)
class Noise:
    """The noise of one tensor.

    amount  the largest difference between a part and the mean of both twins, over that mean: above 0, at most 1
    key     seed and tensor's name: the random numbers follow from it
    """

    amount: float
    key: str

    def of(self, name: str) -> Noise:
        """The noise of the tensor of this name."""
        return Noise(self.amount, f"{self.key}/{name}")


@lru_cache(maxsize=TABLES)
def _table(noise: Noise, length: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """([length] factors 1 + amount * t, [length] signs): a longer table begins with the shorter one."""
    words = np.frombuffer(blake3(noise.key.encode()).digest(length=WORD * length), dtype="<u4")
    factors = torch.from_numpy(1.0 + noise.amount * 2.0**-31 * (words >> 1))
    signs = torch.from_numpy(1.0 - 2.0 * (words & 1))
    return factors.to(dtype).to(device), signs.to(dtype).to(device)


def touches(dimension: Dimension) -> bool:
    """Whether noise changes numbers along this dimension."""
    return bool(dimension.pairs[1].any() or dimension.free.any())


def disturb(
    block: torch.Tensor,
    noise: Noise,
    dimensions: Sequence[Dimension],
    order: Sequence[int],
    ranges: Sequence[tuple[int, int]],
) -> None:
    """Add the noise to a block, in its own memory; free coordinates get random signs.

    block   contiguous, as it is stored
    order   each number changes along one dimension only: the first in this order that applies
    ranges  for each dimension, the coordinates that the block has
    """
    tables = _table(noise, sum(d.extended_size + d.new_size for d in dimensions), block.dtype, str(block.device))
    tiny = any(len(dimension.rests[0]) for dimension in dimensions) and holds_tiny(block, 1 / EQUAL_FROM)
    picks = [np.arange(*found) for found in ranges]
    for axis in order:
        (lead, sign), every = dimensions[axis].pairs, picks[axis]
        first, second = every[sign[every] == 1], every[sign[every] == -1]
        free, untouched = every[dimensions[axis].free[every]], (sign[every] == 0) & ~dimensions[axis].free[every]
        both = np.array_equal(lead[second], first)
        for twins in [{1: first, -1: second}] if both else [{1: first}, {-1: second}]:
            chosen = {turn: _with(picks, axis, own) for turn, own in twins.items()}
            keys = _keys(dimensions, _with(picks, axis, lead[next(iter(twins.values()))]), axis)
            for part, factors, signs in _at_a_time(chosen, keys, tables):
                _pair({turn: _picked(block, pick, ranges) for turn, pick in part.items()}, factors, signs, tiny)
        keys = _keys(dimensions, _with(picks, axis, free), axis)
        for part, _, signs in _at_a_time({0: _with(picks, axis, free)}, keys, tables):
            with _picked(block, part[0], ranges) as numbers:
                numbers.mul_(signs)
        picks[axis] = every[untouched]


def _with(picks: Sequence[np.ndarray], axis: int, own: np.ndarray) -> list[np.ndarray]:
    """The picks with other coordinates along one dimension."""
    return [*picks[:axis], own, *picks[axis + 1 :]]


def _keys(dimensions: Sequence[Dimension], picks: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    """The keys of coordinates in the table: what they copy; along `axis`, the coordinates themselves."""
    keys = [np.maximum(dimension.source[pick], 0) for dimension, pick in zip(dimensions, picks, strict=True)]
    return _with(keys, axis, picks[axis])


def _at_a_time(
    chosen: Mapping[int, Sequence[np.ndarray]], keys: Sequence[np.ndarray], tables: Sequence[torch.Tensor]
) -> Iterator[tuple[dict[int, list[np.ndarray]], torch.Tensor, torch.Tensor]]:
    """(coordinates, factors, signs), some rows at a time, so that they fit the processor's cache."""
    if not all(map(len, keys)):
        return
    height = max(1, SCRATCH // max(1, math.prod(map(len, keys[1:]))))
    for at in range(0, len(keys[0]), height):
        factors, signs = (_looked_up(table, [keys[0][at : at + height], *keys[1:]]) for table in tables)
        yield {turn: [pick[0][at : at + height], *pick[1:]] for turn, pick in chosen.items()}, factors, signs


def _pair(
    twins: Mapping[int, AbstractContextManager[torch.Tensor]], factors: torch.Tensor, signs: torch.Tensor, tiny: bool
) -> None:
    """Add the noise to parts of sums: {1: the first of each pair, -1: the other}, or one of them alone.

    tiny  whether some are so small that they may differ from their twins
    """
    with ExitStack() as stack:
        parts = {turn: stack.enter_context(numbers) for turn, numbers in twins.items()}
        numbers = next(iter(parts.values()))
        noise = (numbers * factors).sub_(numbers)
        if tiny:
            noise.masked_fill_(numbers.abs() < EQUAL_FROM * torch.finfo(numbers.dtype).smallest_normal, 0)
        if not is_finite(noise):
            noise.masked_fill_(~noise.isfinite(), 0)
        noise.mul_(signs)  # last, so that the sign of a zero does not depend on the branches above
        for turn, numbers in parts.items():
            numbers.add_(noise, alpha=turn)


def _looked_up(table: torch.Tensor, keys: Sequence[np.ndarray]) -> torch.Tensor:
    """The table at the sum of one key of each kind; a view where keys are consecutive."""
    lows = [int(key.min()) for key in keys]
    lengths = [int(key.max()) + 1 - low for key, low in zip(keys, lows, strict=True)]
    found = table.as_strided(lengths, [1] * len(keys), sum(lows))
    for axis, (key, low) in enumerate(zip(keys, lows, strict=True)):
        if not _is_range(key):
            found = found.index_select(axis, torch.from_numpy(key - low).to(table.device))
    return found


@contextmanager
def _picked(
    block: torch.Tensor, picks: Sequence[np.ndarray], ranges: Sequence[tuple[int, int]]
) -> Iterator[torch.Tensor]:
    """These coordinates of every dimension of a block; where they are no view, they are written back afterwards."""
    scattered = {}
    for axis, (pick, (low, _)) in enumerate(zip(picks, ranges, strict=True)):
        if _is_range(pick):
            block = block.narrow(axis, int(pick[0]) - low, len(pick))
        else:
            scattered[axis] = torch.from_numpy(pick - low).to(block.device)
    numbers = block
    for axis, index in scattered.items():
        numbers = numbers.index_select(axis, index)
    yield numbers
    if len(scattered) == 1:
        block.index_copy_(*scattered.popitem(), numbers)
    elif scattered:
        every = [scattered.get(axis, torch.arange(size, device=block.device)) for axis, size in enumerate(block.shape)]
        block[torch.meshgrid(*every, indexing="ij")] = numbers


def _is_range(key: np.ndarray) -> bool:
    """Whether the numbers are consecutive."""
    return bool(np.array_equal(key, np.arange(key[0], key[0] + len(key))))
