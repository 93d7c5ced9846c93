"""Noise that makes copies differ and leaves every sum as it is, to the last bit.

Coordinates that are copies, and are read alike, get equal gradients: they stay copies for ever. What reads them is free
to differ, so long as its parts still sum to the same (D + N with N E = 0 is as good as D). So two equal parts p of a
number become p + e and p - e. For the sum to keep its last bit, e comes from a rounding that the dtype itself made:

    a = p * (1 + amount * t), rounded        t in [0, 1) from a table of random numbers
    e = a - p                                exact, and so are p + e and p - e

`a` is no smaller than p, hence a whole number of p's units in the last place, and so is e; p - e is such a number too,
no larger than p: it needs no more digits than p has. That holds for every float, subnormal ones and zeros included.
Where `a` would be infinite there is no noise.

What stands at a row and a column depends on the seed, the tensor's name and both numbers, not on how the tensor is cut,
on threads or on the device. Rows that copy one old row stay equal: the router of experts compares them.
Su Jianlin, https://www.kexue.fm/archives/8444 (copies need noise); HyperCloning, https://arxiv.org/abs/2409.12903.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from blake3 import blake3

from modelsurgeon.arithmetic import SCRATCH, holds_tiny, is_finite
from modelsurgeon.dimension import Dimension

WORD = 4  # random bytes for each number of a table
TABLES = 4  # kept at a time: a tensor is written piece by piece
# A part of fewer units may have given one to its twin (`Dimension.rests`), where shares differ by a factor of two at
# most; then they are not equal, and are left alone. Numbers of this many times the smallest normal one are equal.
EQUAL_FROM = 4.0


@dataclass(frozen=True)
class Noise:
    """The noise of one tensor.

    amount  the most by which a part differs from its twin's mean, over that mean: above 0, at most 1
    key     what the random numbers follow from: the seed and the tensor's name
    """

    amount: float
    key: str

    def of(self, name: str) -> Noise:
        """The same for a tensor of this name."""
        return Noise(self.amount, f"{self.key}/{name}")


@lru_cache(maxsize=TABLES)
def _table(noise: Noise, length: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """([length] 1 + amount * t, [length] signs): what stands first does not depend on the length."""
    words = np.frombuffer(blake3(noise.key.encode()).digest(length=WORD * length), dtype="<u4")
    factors = torch.from_numpy(1.0 + noise.amount * 2.0**-31 * (words >> 1))
    signs = torch.from_numpy(1.0 - 2.0 * (words & 1))
    return factors.to(dtype).to(device), signs.to(dtype).to(device)


def touches(dimension: Dimension) -> bool:
    """Whether noise changes what stands along this dimension."""
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
    order   the dimensions in the order of their turn: a number that one of them touches, no later one does
    ranges  for each dimension, which of its coordinates the block has
    """
    tables = _table(noise, sum(d.extended_size + d.new_size for d in dimensions), block.dtype, str(block.device))
    shared = any(len(dimension.rests[0]) for dimension in dimensions)
    height = max(1, SCRATCH * block.shape[0] // max(1, block.numel()))
    for at in range(0, block.shape[0], height):
        rows = block[at : at + height]
        tiny = shared and holds_tiny(rows, 1 / EQUAL_FROM)
        picks = [np.arange(*found) for found in ranges]
        picks[0] = picks[0][at : at + height]
        corner = [int(pick[0]) for pick in picks]
        for axis in order:
            sign, free, every = dimensions[axis].pairs[1], dimensions[axis].free, picks[axis]
            for turn in (1, -1, 0):
                picks[axis] = every[sign[every] == turn] if turn else every[free[every]]
                if all(map(len, picks)):
                    factors, signs = (_looked_up(table, _keys(dimensions, picks, axis, turn)) for table in tables)
                    with _picked(rows, [pick - low for pick, low in zip(picks, corner, strict=True)]) as numbers:
                        _pair(numbers, factors, signs, turn, tiny) if turn else numbers.mul_(signs)
            picks[axis] = every[(sign[every] == 0) & ~free[every]]


def _keys(dimensions: Sequence[Dimension], picks: Sequence[np.ndarray], axis: int, turn: int) -> list[np.ndarray]:
    """What coordinates are looked up by: what they copy; along `axis`, the first of their pair, or themselves."""
    keys = [np.maximum(dimension.source[pick], 0) for dimension, pick in zip(dimensions, picks, strict=True)]
    keys[axis] = dimensions[axis].pairs[0][picks[axis]] if turn else picks[axis]
    return keys


def _pair(numbers: torch.Tensor, factors: torch.Tensor, signs: torch.Tensor, turn: int, tiny: bool) -> None:
    """Give parts of sums their noise, in their own memory; their twins get the other turn's.

    tiny  some are so small that they may not be equal to their twins
    """
    noise = (numbers * factors).sub_(numbers)
    if tiny:
        noise.masked_fill_(numbers.abs() < EQUAL_FROM * torch.finfo(numbers.dtype).smallest_normal, 0)
    if not is_finite(noise):
        noise.masked_fill_(~noise.isfinite(), 0)
    numbers.add_(noise.mul_(signs), alpha=turn)  # signs come last: a zero's is the same, whatever was looked for


def _looked_up(table: torch.Tensor, keys: Sequence[np.ndarray]) -> torch.Tensor:
    """What stands in the table at the sum of one key of each kind: no memory of its own where keys are consecutive."""
    lows = [int(key.min()) for key in keys]
    lengths = [int(key.max()) + 1 - low for key, low in zip(keys, lows, strict=True)]
    found = table.as_strided(lengths, [1] * len(keys), sum(lows))
    for axis, (key, low) in enumerate(zip(keys, lows, strict=True)):
        if not _is_range(key):
            found = found.index_select(axis, torch.from_numpy(key - low).to(table.device))
    return found


@contextmanager
def _picked(rows: torch.Tensor, picks: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
    """These coordinates of every dimension, which are put back where they are no view."""
    scattered = {axis: torch.from_numpy(pick).to(rows.device) for axis, pick in enumerate(picks) if not _is_range(pick)}
    for axis, pick in enumerate(picks):
        if axis not in scattered:
            rows = rows.narrow(axis, int(pick[0]), len(pick))
    numbers = rows
    for axis, index in scattered.items():
        numbers = numbers.index_select(axis, index)
    yield numbers
    if len(scattered) == 1:
        rows.index_copy_(*scattered.popitem(), numbers)
    elif scattered:
        every = [scattered.get(axis, torch.arange(size, device=rows.device)) for axis, size in enumerate(rows.shape)]
        rows[torch.meshgrid(*every, indexing="ij")] = numbers


def _is_range(key: np.ndarray) -> bool:
    """Whether the numbers are consecutive."""
    return bool(np.array_equal(key, np.arange(key[0], key[0] + len(key))))
