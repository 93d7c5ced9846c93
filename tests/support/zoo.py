"""A grown tensor of every kind, made of numbers that are hard to add: for tests of pieces, threads and memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon.architectures.sinusoid import sinusoid
from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN
from modelsurgeon.maps.dimension import Dimension, along, concatenation, product, ungrown
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, read_header

UNUSUAL = (math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0)
SINES = "sines and cosines"
MOST = (1, 7, 64, 1000, 1 << 30)


def numbers(shape: tuple[int, ...], dtype: torch.dtype, unusual: bool) -> torch.Tensor:
    """Random numbers of all magnitudes, also near the smallest, and NaN and infinities."""
    random = torch.Generator().manual_seed(math.prod(shape))
    values = torch.randn(shape, generator=random, dtype=torch.float64).reshape(-1)
    smallest = torch.finfo(dtype).smallest_normal
    values[::3] *= smallest
    values[::9] *= 2**-3
    if unusual and len(values):
        places = torch.randperm(len(values), generator=random)[: max(1, len(values) // 5)]
        values[places] = torch.tensor(UNUSUAL, dtype=torch.float64).repeat(len(places))[: len(places)]
    return values.to(dtype).reshape(shape)


def tiled(size: int, count: int, side: str = "readers", scale: float = 1.0) -> Dimension:
    shares = orders.power_of_two_shares(count) if scale == 1.0 else [1 / scale / count] * count
    return along(orders.copies(size, count, scale, shares), side)


def made_of(size: int, source: list[int] | np.ndarray, side: str = "writers", scale: float = 1.0) -> Dimension:
    """A dimension of these sources, in this order."""
    rank, count = orders.ranks(np.asarray(source))
    factor, part = np.full(len(source), scale), orders.shares(rank, count) if scale == 1.0 else 1 / count / scale
    return along(orders.gathered(size, np.asarray(source), factor, part, 1.0), side)


def shuffled(size: int, count: int, side: str = "writers") -> Dimension:
    source = np.random.default_rng(size).permutation(np.tile(np.arange(size), count))
    return made_of(size, source, side)


def tail(size: int, what: int, count: int = 3) -> Dimension:
    return made_of(size, [*range(size), *[what] * count])


def fused(size: int) -> Dimension:
    part = made_of(size // 2, [*range(size // 2), GAP, GAP])
    return concatenation([part, part])


def interleaved(size: int) -> Dimension:
    return product([tiled(size // 2, 2, "writers"), ungrown(2)])


Make = Callable[[Stored], Remapped]


def grown(*parts: Callable[[int], Dimension], dtype: str | None = None, fill: Any = 0.0, **options: Any) -> Make:
    def make(base: Stored) -> Remapped:
        dimensions = tuple(part(size) for part, size in zip(parts, base.shape, strict=True))
        rows = sinusoid(base.shape[-1], dimensions[-1].new_size) if fill == SINES else fill
        return Remapped(base, dimensions, dtype or base.dtype, fill=rows, **options)

    return make


def twice(base: Stored) -> Remapped:
    once = Remapped(base, (tiled(base.shape[0], 3), shuffled(base.shape[1], 2)), "F32")
    return Remapped(once, (tail(once.shape[0], MEAN), tiled(once.shape[1], 2)), "BF16", constant=0.3)


def thirds(size: int) -> Dimension:
    return tiled(size, 3)


def roots(size: int) -> Dimension:
    return tiled(size, 3, "writers", 3**-0.5)


def copied(size: int) -> Dimension:
    return tiled(size, 2, "writers")


def means_behind(size: int) -> Dimension:
    return tail(size, MEAN)


def gaps_behind(size: int) -> Dimension:
    return tail(size, GAP)


def free_behind(size: int) -> Dimension:
    """Free gaps behind the coordinates, filled with old ones."""
    return made_of(size, [*range(size), GAP, GAP], "readers").filled


def room_behind(size: int) -> Dimension:
    """Gaps that make its size even, as that of a table of sines and cosines is."""
    return tail(size, GAP, 4)


def mixed(size: int) -> Dimension:
    return shuffled(size, 3, "readers")


def many(size: int) -> Dimension:
    """More runs than are copied one by one, gaps and means among them."""
    source = np.r_[np.resize(np.arange(size), max(size, 66)), np.full(4, GAP), np.full(2, MEAN)]
    return made_of(size, np.random.default_rng(0).permutation(source), scale=0.3)


def ignored(size: int) -> Dimension:
    """Sources with the factor zero."""
    factor = np.r_[np.ones(size), np.zeros(size)]
    axis = orders.gathered(size, np.tile(np.arange(size), 2), np.ones(2 * size), factor, 1.0)
    return along(axis, "readers")


NOISE = Noise(0.5, "zoo")

ZOO: dict[str, tuple[tuple[int, ...], Make]] = {
    "a vector, tiled": ((9,), grown(thirds)),
    "a vector, shuffled": ((9,), grown(mixed)),
    "a vector with gaps that are filled": ((9,), grown(gaps_behind, fill=7.0)),
    "a vector with means": ((9,), grown(means_behind)),
    "a gain of the form 1 + w": ((9,), grown(copied, offset=1.0)),
    "a gain of the form 1 + w that is multiplied": ((9,), grown(roots, offset=1.0, constant=2**0.5)),
    "a gain of the form 1 + w with gaps": ((9,), grown(gaps_behind, offset=1.0)),
    "a gain of the form 1 + w that becomes nothing": ((9,), grown(ignored, offset=1.0)),
    "a scalar": ((), grown(constant=0.3)),
    "a scalar in another dtype": ((), grown(dtype="F64")),
    "no rows": ((0, 4), grown(ungrown, copied)),
    "no columns": ((4, 0), grown(copied, ungrown)),
    "tiled rows": ((10, 6), grown(copied, ungrown)),
    "shared rows": ((10, 6), grown(thirds, ungrown)),
    "shared columns": ((10, 6), grown(ungrown, thirds)),
    "both": ((10, 6), grown(thirds, copied)),
    "roots that make a power of two": ((10, 6), grown(roots, roots)),
    "factors that round": ((10, 6), grown(roots, thirds)),
    "interleaved": ((10, 6), grown(interleaved, interleaved)),
    "fused with gaps": ((10, 6), grown(fused, fused, fill=3.0)),
    "shuffled": ((10, 6), grown(mixed, mixed)),
    "many runs": ((10, 6), grown(many, many)),
    "means behind the rows": ((10, 6), grown(means_behind, ungrown)),
    "means behind the columns": ((10, 6), grown(ungrown, means_behind)),
    "means behind both": ((10, 6), grown(means_behind, means_behind)),
    "multiplied by nothing": ((10, 6), grown(ignored, ignored)),
    "gaps that a function fills": ((10, 6), grown(ungrown, room_behind, fill=SINES)),
    "rows and columns that a function fills": ((8, 6), grown(room_behind, room_behind, fill=SINES)),
    "wider": ((10, 6), grown(thirds, copied, dtype="F64")),
    "narrower": ((10, 6), grown(thirds, copied, dtype="F16")),
    "remapped again": ((10, 6), twice),
    "large rows": ((3, 11, 10), grown(copied, thirds, ungrown)),
    "large rows, shuffled": ((3, 11, 10), grown(mixed, mixed, mixed)),
    "large rows that round": ((3, 11, 10), grown(roots, copied, thirds)),
    "large rows with means": ((3, 11, 10), grown(means_behind, means_behind, means_behind)),
    "large rows with gaps": ((3, 11, 10), grown(gaps_behind, gaps_behind, gaps_behind, fill=2.0)),
    "columns with noise": ((10, 6), grown(copied, thirds, noise=NOISE, turns=(0, 1))),
    "rows and columns with noise": ((10, 6), grown(thirds, mixed, noise=NOISE, turns=(0, 1))),
    "free gaps with noise": ((10, 6), grown(free_behind, thirds, noise=NOISE, turns=(0, 1))),
    "large rows with noise": ((3, 11, 10), grown(copied, mixed, thirds, noise=NOISE, turns=(0, 1, 2))),
}


@pytest.fixture(params=ZOO)
def case(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], Make]:
    return ZOO[request.param]


@pytest.fixture(params=["BF16", "F16", "F32", "F64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(case: tuple[tuple[int, ...], Make], dtype: str, tmp_path: Path) -> Stored:
    return stored(numbers(case[0], DTYPES[dtype], unusual=True), tmp_path)


def stored(values: torch.Tensor, folder: Path) -> Stored:
    save_file({"t": values}, folder / "t.safetensors")
    return read_header(LocalFile(folder / "t.safetensors"))["t"]


def bits(block: torch.Tensor) -> bytes:
    return block.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def whole(lazy: Remapped) -> bytes:
    return bits(lazy.read(0, lazy.shape[0] if lazy.shape else 1))


def in_pieces(lazy: Remapped, most: int) -> bytes:
    """The bytes that a writer writes."""
    arena, row = Arena(), lazy.nbytes // lazy.shape[0] if lazy.shape and lazy.shape[0] else 0
    found = bytearray()
    for piece in lazy.pieces(most):
        if piece.again is None:
            found += bits(lazy.read_piece(piece, empty=arena.reset()))
        else:
            assert (piece.again + piece.stop - piece.start) * row <= len(found)
            found += found[row * piece.again : row * (piece.again + piece.stop - piece.start)]
    return bytes(found)


def scaled_up(shape: tuple[int, ...]) -> tuple[int, ...]:
    factors = {0: (), 1: (400,), 2: (20, 40), 3: (1, 8, 40)}[len(shape)]
    return tuple(size * factor for size, factor in zip(shape, factors, strict=True))
