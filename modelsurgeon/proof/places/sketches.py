"""Which coordinate of a source each coordinate of a result copies: told by short sketches of their rows.

A row is projected to WIDTH random directions: equal rows have equal sketches, and others hardly ever do. The columns of
a result may be copies with noise that sums to zero; so its directions are those of the source, spread over the copies
(`lens`): the sketch of a wide row is that of the narrow row that it folds to. Nothing is decided here: a wrong match
makes the proof fail.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.proof.places.reordered import Seat
from modelsurgeon.tensors.lazy import LazyTensor

WIDTH = 16  # directions of a sketch
BLOCK = 1 << 22  # numbers that are read or compared at a time
FAR = 0.5  # sketches of unit length farther apart than this are of other rows, whatever rounding did
EQUAL = 1e-12  # squared distances that differ by less are equal
NOTHING = 1e-12  # a sketch so much shorter than the longest is that of zeros


def directions(name: str, size: int) -> np.ndarray:
    """[size, WIDTH] float64: random, the same ones for the same name."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal((size, WIDTH))


def lens(dim: Dimension, narrow: np.ndarray) -> np.ndarray:
    """[m, WIDTH] float64: directions in which a wide row has the sketch that its fold has in `narrow` [n, WIDTH]."""
    valid = (dim.group_source >= 0) & (dim.group_source < dim.size) & (dim.group_factor != 0)
    times = np.bincount(dim.group_source[valid], minlength=dim.size)
    old = np.where(valid, dim.group_source, 0)
    weight = np.where(valid, 1 / np.where(valid, dim.group_factor * np.maximum(times, 1)[old], 1.0), 0.0)
    return np.asarray(narrow[old[dim.group]] * (weight[dim.group] * dim.dual)[:, None])


def project(tensor: LazyTensor, seat_dimension: int, slice_: int | None, wide: np.ndarray) -> np.ndarray:
    """[positions along the dimension, WIDTH] float64: sketches in directions [numbers beside it, WIDTH]."""
    if slice_ is not None:
        block = tensor.read(slice_, slice_ + 1)[0].double()
        return _sketched(block.movedim(seat_dimension - 1, 0).reshape(block.shape[seat_dimension - 1], -1), wide)
    rows, inner = tensor.shape[0], math.prod(tensor.shape[1:])
    step = max(1, BLOCK // max(1, inner))
    blocks = ((at, tensor.read(at, min(rows, at + step)).double()) for at in range(0, rows, step))
    if seat_dimension == 0:
        return np.concatenate([_sketched(block.reshape(len(block), -1), wide) for _, block in blocks])
    size = tensor.shape[seat_dimension]
    found, along = np.zeros((size, WIDTH)), wide.reshape(rows, -1, WIDTH)
    for at, block in blocks:
        part = along[at : at + len(block)].reshape(-1, WIDTH)
        found += _sketched(block.movedim(seat_dimension, 0).reshape(size, -1), part)
    return found


def _sketched(rows: torch.Tensor, wide: np.ndarray) -> np.ndarray:
    return np.asarray((rows @ torch.from_numpy(np.ascontiguousarray(wide))).numpy())


def at_seat(projected: np.ndarray, seat: Seat) -> np.ndarray:
    """[m, WIDTH] float64: the sketches of coordinates; occurrences are told apart by weights of their own."""
    weights = 1 + np.arange(len(seat.at)) / 3
    return np.asarray((projected[seat.at] * weights[:, None, None]).sum(axis=0))


@dataclass(frozen=True)
class Match:
    """What each coordinate copies.

    source  [m] int64: the coordinate of the source; GAP: zeros
    scale   [m] float64: how many times as large it is (0 in gaps)
    """

    source: np.ndarray
    scale: np.ndarray


def match(found: np.ndarray, wanted: np.ndarray, scales: str, second: Sequence[np.ndarray] = ()) -> Match | None:
    """Match sketches [m, w] with those of a source [n, w]; None where some coordinate is like none of the source's.

    scales  what a coordinate may be multiplied by: "none", "sign", "positive", "any"
    second  two further sketches, [m, w] and [n, w], that decide between coordinates of the source that are equal
    """
    longest = max((float(np.abs(part).max(initial=0.0)) for part in (found, wanted)), default=0.0)
    if not (math.isfinite(longest) and longest):
        return None
    if scales == "none" or scales == "sign":
        long = np.sqrt((wanted**2).sum(axis=1)).mean() or longest
        units = found / long, wanted / long
    else:
        units = _unit(found, longest), _unit(wanted, longest)
    empty = np.sqrt((found**2).sum(axis=1)) <= NOTHING * longest
    signed = scales in ("sign", "any")
    first = nearest(units[1], units[1], signed)[0]  # of coordinates of the source that are equal, the first one
    source, distance = nearest(units[0], units[1], signed)
    source = first[source]
    if np.any(distance[~empty] > FAR * max(1.0, float(np.abs(units[1]).max()))):
        return None
    source = np.where(empty, GAP, _told_apart(source, first, empty, second))
    scale = np.where(empty, 0.0, 1.0)
    if scales != "none":
        old = wanted[np.where(empty, 0, source)]
        dot = (found * old).sum(axis=1) / np.maximum((old**2).sum(axis=1), NOTHING)
        scale = np.where(empty, 0.0, np.sign(dot) if scales == "sign" else dot)
    return Match(source, scale)


def _unit(rows: np.ndarray, longest: float) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.sqrt((rows**2).sum(axis=1)), NOTHING * longest)[:, None])


def nearest(found: np.ndarray, wanted: np.ndarray, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """([m] int64: the first of the nearest rows of `wanted`; [m] float64: how far it is); `signed`: up to its sign."""
    squares, at, far = (wanted**2).sum(axis=1), [], []
    step = max(1, BLOCK // max(1, len(wanted)))
    for start in range(0, len(found), step):
        rows = found[start : start + step]
        dot = rows @ wanted.T
        square = (rows**2).sum(axis=1)[:, None] + squares - 2 * (np.abs(dot) if signed else dot)
        least = np.maximum(square.min(axis=1), 0)
        at.append((square <= (least + EQUAL * (1 + least))[:, None]).argmax(axis=1))
        far.append(np.sqrt(least))
    return np.concatenate([np.zeros(0, np.int64), *at]), np.concatenate([np.zeros(0), *far])


def _told_apart(source: np.ndarray, first: np.ndarray, empty: np.ndarray, second: Sequence[np.ndarray]) -> np.ndarray:
    """Sources where several are equal: by the second sketches where there are as many, else by turns."""
    found = source.copy()
    for representative in np.unique(first[np.bincount(first, minlength=len(first))[first] > 1]):
        old = np.flatnonzero(first == representative)
        new = np.flatnonzero((source == representative) & ~empty)
        turns = old[np.arange(len(new)) % len(old)]
        if len(second) and len(new) == len(old):
            turns = old[_assigned(second[0][new], second[1][old])]
        found[new] = turns
    return found


def _assigned(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[k] int64: a different row of `wanted` for each of as many, the nearest pairs first."""
    square = ((found[:, None] - wanted[None]) ** 2).sum(axis=2)
    chosen = np.zeros(len(found), dtype=np.int64)
    for _ in range(len(found)):
        i, j = np.unravel_index(np.argmin(square), square.shape)
        chosen[i] = j
        square[i, :] = square[:, j] = np.inf
    return chosen
