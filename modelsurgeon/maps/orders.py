"""Constructors of axis maps: which old coordinate each new one copies, and what share each copy gets.

>>> tiled(2, 5)[0], power_of_two_shares(3), nested_pairs(4, 2, "interleaved")
(array([0, 1, 0, 1, 0]), (0.5, 0.25, 0.25), array([ 0,  1, -1, -1,  2,  3, -1, -1]))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelsurgeon.errors import PlanError
from modelsurgeon.maps.axis_map import GAP, AxisMap, occurrence


def identity(size: int) -> AxisMap:
    """The map that leaves an axis as it is."""
    return AxisMap(size, np.arange(size), np.ones(size), np.ones(size))


def tiled(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, rank, count), [new_size] int64 each: tiles of the axis, the last one cut short.

    rank   which copy of its source each new coordinate is
    count  how many copies its source has
    """
    source = np.arange(new_size) % size
    return source, np.arange(new_size) // size, np.bincount(source, minlength=size)[source]


def shares(rank: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Powers of two that sum to 1 over the copies of each source: `power_of_two_shares` for counts that may differ."""
    table = np.zeros((int(count.max(initial=1)) + 1, int(count.max(initial=1))))
    for number in np.unique(count):
        table[number, :number] = power_of_two_shares(int(number))
    return np.asarray(table[count, rank])


def ranks(source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rank, count) of each coordinate: which copy of its source it is, and of how many; a gap is the first of one."""
    rank, count = np.zeros(len(source), dtype=np.int64), np.ones(len(source), dtype=np.int64)
    copied = np.flatnonzero(source >= 0)
    rank[copied] = occurrence(source[copied])
    count[copied] = np.bincount(source[copied])[source[copied]]
    return rank, count


def copies(size: int, count: int, scale: float, shares: Sequence[float], gain: float = 1.0) -> AxisMap:
    """`count` whole tiles of the axis: x1, x2, ..., x1, x2, ... (copy c is read with shares[c])."""
    source = np.tile(np.arange(size), count)
    share = np.repeat(np.asarray(shares, dtype=np.float64), size)
    return AxisMap(size, source, np.full(size * count, float(scale)), share, gain)


def gathered(
    size: int, source: np.ndarray, scale: np.ndarray, share: np.ndarray, gain: float, split: str = "readers"
) -> AxisMap:
    """A map from its vectors; factors of gaps and shares of means become zero."""
    return AxisMap(size, source, np.where(source != GAP, scale, 0.0), np.where(source >= 0, share, 0.0), gain, split)


def power_of_two_shares(count: int) -> tuple[float, ...]:
    """Powers of two that sum to 1, as even as they can be: 2 -> 1/2 1/2; 3 -> 1/2 1/4 1/4; 5 -> 1/4 1/4 1/4 1/8 1/8.

    Multiplying by a power of two rounds nothing, which is why the rule `exact` reads copies with these.
    """
    shares = [1.0]
    while len(shares) < count:
        largest = max(shares)
        at = len(shares) - 1 - shares[::-1].index(largest)
        shares[at : at + 1] = [largest / 2, largest / 2]
    return tuple(shares)


def nested_pairs(size: int, count: int, layout: str) -> np.ndarray:
    """[size * count] int64: source coordinates of a rotary axis whose pair j moves to pair count * j, gaps between.

    base ** (-2 k j / (k d)) is base ** (-2 j / d): every old pair keeps its frequency. `layout` says which coordinates
    make pair j: "half" (j, j + size / 2), as in Llama; "interleaved" (2 j, 2 j + 1), as in RoFormer.
    """
    pairs = np.full(size * count // 2, GAP)
    pairs[::count] = np.arange(size // 2)
    return _pairs_to_coordinates(pairs, size, layout)


def repeated_pairs(size: int, count: int, layout: str) -> np.ndarray:
    """[size * count] int64: every pair `count` times in a row, the source article's way (not lossless).

    Su Jianlin, https://www.kexue.fm/archives/8444, the section on RoPE.
    """
    return _pairs_to_coordinates(np.repeat(np.arange(size // 2), count), size, layout)


def _pairs_to_coordinates(pairs: np.ndarray, size: int, layout: str) -> np.ndarray:
    gap = pairs == GAP
    if layout == "half":
        return np.concatenate([pairs, np.where(gap, GAP, pairs + size // 2)])
    if layout == "interleaved":
        return np.stack([np.where(gap, GAP, 2 * pairs), np.where(gap, GAP, 2 * pairs + 1)], axis=1).ravel()
    raise PlanError(f"unknown rotary layout {layout!r}: half or interleaved")
