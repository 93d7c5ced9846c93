"""Pieces of a tensor: the same bytes whatever their size, the threads and the path, in memory that is told before."""

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
from modelsurgeon.proof import blocks, fold
from modelsurgeon.tensors import arithmetic, means, remapped
from modelsurgeon.tensors import stored as stored_tensors
from modelsurgeon.tensors.arena import Arena, fresh
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import Piece
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, count_unusual, read_header
from support.counted import peak, threads

UNUSUAL = (math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0)
SINES = "sines and cosines"
MOST = (1, 7, 64, 1000, 1 << 30)


def numbers(shape: tuple[int, ...], dtype: torch.dtype, unusual: bool) -> torch.Tensor:
    """Random numbers of all magnitudes, among them those near the smallest, and what is no number."""
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
    """Of these sources, in this order, each read with its part."""
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
    """Gaps that may hold anything."""
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
    """Sources that are multiplied by nothing."""
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
    """What a writer would write."""
    arena, row = Arena(), lazy.nbytes // lazy.shape[0] if lazy.shape and lazy.shape[0] else 0
    found = bytearray()
    for piece in lazy.pieces(most):
        if piece.again is None:
            found += bits(lazy.read_piece(piece, empty=arena.reset()))
        else:
            assert (piece.again + piece.stop - piece.start) * row <= len(found)
            found += found[row * piece.again : row * (piece.again + piece.stop - piece.start)]
    return bytes(found)


def test_the_bytes_do_not_depend_on_the_pieces(case: tuple[Any, Make], base: Stored) -> None:
    lazy = case[1](base)
    expected = whole(lazy)
    assert len(expected) == lazy.nbytes
    for most in MOST if base.dtype == "BF16" else (64,):
        assert in_pieces(lazy, most) == expected, most


@pytest.mark.parametrize("most", [1 << 19, 1 << 30])
def test_the_bytes_do_not_depend_on_the_threads(case: tuple[tuple[int, ...], Make], most: int, tmp_path: Path) -> None:
    """With so many numbers that torch divides them among its threads."""
    lazy = case[1](stored(numbers(scaled_up(case[0]), torch.bfloat16, unusual=True), tmp_path))
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(in_pieces(lazy, most))
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_bytes_do_not_depend_on_the_device(case: tuple[Any, Make], base: Stored) -> None:
    lazy = case[1](base)
    for piece in lazy.pieces(1 << 12):
        if piece.again is None:
            assert bits(lazy.read_piece(piece, "cuda", Arena())) == bits(lazy.read_piece(piece))


def test_pieces_cover_every_byte_once_in_order_and_are_as_small_as_asked(case: tuple[Any, Make], base: Stored) -> None:
    lazy = case[1](base)
    item, one = DTYPES[lazy.dtype].itemsize, math.prod(lazy.shape[2:])
    columns = lazy.shape[1] if len(lazy.shape) > 1 else 1
    for most in MOST:
        at = 0
        for piece in lazy.pieces(most):
            rows, part = piece.stop - piece.start, piece.last - piece.first
            assert (piece.start * columns + piece.first) * one * item == at
            assert rows == 1 or part == columns
            size = rows * part * one * item
            assert size <= most or (rows == 1 and (part == 1 or piece.again is not None))
            at += size
        assert at == lazy.nbytes


def test_a_part_of_a_row_is_the_same_numbers(case: tuple[Any, Make], base: Stored) -> None:
    lazy = case[1](base)
    if len(lazy.shape) < 2 or not lazy.nbytes:
        return
    expected = lazy.read(0, lazy.shape[0])
    for first, last in [(0, 1), (lazy.shape[1] // 2, lazy.shape[1]), (1, lazy.shape[1] - 1)]:
        assert bits(lazy.read(1, 3, first=first, last=last)) == bits(expected[1:3, first:last])
        assert bits(base.read(1, 3, first=0, last=2)) == bits(base.read(1, 3)[:, :2])


# --- rules whose breach would be seen above ---------------------------------------------------------------------------


def test_numbers_that_are_not_tiny_are_the_same_beside_a_tiny_one(tmp_path: Path, dtype: str) -> None:
    """Taking the rest from the lead is for tiny numbers alone: it would round float64, and infinities have no rest."""
    ordinary = torch.tensor([1 / 3, -0.0, math.inf, -math.inf, 3.7]).to(DTYPES[dtype])
    tiny = torch.cat([ordinary, torch.tensor([torch.finfo(DTYPES[dtype]).smallest_normal]).to(DTYPES[dtype])])
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    found = [
        Remapped(stored(v, f), (tiled(len(v), 5),), dtype).read(0, 5)
        for v, f in zip([ordinary, tiny], folders, strict=True)
    ]
    assert bits(found[0]) == bits(found[1])


@pytest.mark.parametrize("kind", ["BF16", "F16", "F32", "F64"])
def test_nan_has_one_spelling_whatever_the_processor_makes_of_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some processors' vector code spells it otherwise than their scalar code; here every other one is all ones."""
    dtype, spell = DTYPES[kind], remapped.with_one_nan
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    one = torch.tensor(math.nan, dtype=dtype).view(integers).item()
    spelt = []

    def otherwise(block: torch.Tensor) -> torch.Tensor:
        block.view(integers).view(-1)[::2], block.view(integers).view(-1)[1::2] = -1, one
        spelt.append(set(block.view(integers).flatten().tolist()))
        return spell(block)

    monkeypatch.setattr(remapped, "with_one_nan", otherwise)
    lazy = Remapped(stored(torch.full((40, 33), math.nan), tmp_path), (roots(40), ungrown(33)), kind)
    found = lazy.read(0, 40)
    assert spelt == [{-1, one}]
    assert set(found.view(integers).flatten().tolist()) == {one}


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 1000])
def test_a_mean_is_that_of_float64_numbers(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(length, 7, generator=torch.Generator().manual_seed(length))
    for group in (1, 3, 1 << 20):
        found = means.mean_of(lambda a, b: values[a:b], np.arange(length), 0, group)
        torch.testing.assert_close(found[0], values.double().mean(0), rtol=1e-14, atol=1e-14)
    assert torch.equal(means.mean_of(lambda a, b: values[a:b], np.array([length - 1]), 0, 4)[0], values[-1].double())


def test_rows_that_a_function_fills_differently_are_not_the_same_rows(tmp_path: Path) -> None:
    base = stored(torch.randn(4, 6), tmp_path)
    lazy = Remapped(base, (copied(4), room_behind(6)), "F32", fill=sinusoid(6, 10))
    assert all(piece.again is None for piece in lazy.pieces(64))


def test_rows_that_stand_again_are_told(tmp_path: Path) -> None:
    lazy = Remapped(stored(torch.randn(4, 6), tmp_path), (copied(4), ungrown(6)), "F32")
    assert list(lazy.pieces(1 << 20)) == [Piece(0, 4, 0, 6), Piece(4, 8, 0, 6, 0)]
    assert [piece.again for piece in lazy.pieces(10)][-4:] == [0, 1, 2, 3]


def test_a_part_of_a_row_reads_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Remapped(stored(torch.randn(2, 1000, 300), tmp_path), (ungrown(2), copied(1000), ungrown(300)), "F32")
    asked: list[int] = []
    read_into = LocalFile.read_into
    monkeypatch.setattr(LocalFile, "read_into", lambda *a: asked.append(len(a[1])) or read_into(*a))
    for piece in lazy.pieces(100_000):
        asked.clear()
        lazy.compute_piece(piece)
        assert sum(asked) <= 200_000


# --- memory -----------------------------------------------------------------------------------------------------------


MEASURED = (1 << 13, 1 << 30)


def scaled_up(shape: tuple[int, ...]) -> tuple[int, ...]:
    factors = {0: (), 1: (400,), 2: (20, 40), 3: (1, 8, 40)}[len(shape)]
    return tuple(size * factor for size, factor in zip(shape, factors, strict=True))


@pytest.mark.parametrize("kind", ["BF16", "F32"])
def test_a_piece_takes_no_more_memory_than_was_told(
    case: tuple[tuple[int, ...], Make], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(means, "MEAN_BLOCK", 1 << 12)
    base = stored(numbers(scaled_up(case[0]), DTYPES[kind], unusual=True), tmp_path)
    lazy = case[1](base)
    lazy.is_exact, lazy.factors, [dimension.runs for dimension in lazy.dimensions]  # what is kept is no piece's memory
    for most in MEASURED:
        pieces = [piece for piece in lazy.pieces(most) if piece.again is None]
        for piece in {*pieces[:1], *pieces[len(pieces) // 2 :][:1], *pieces[-1:]}:
            assert peak(lambda piece=piece: lazy.read_piece(piece, empty=fresh)) <= lazy.working_set(most), most


def test_working_sets_of_matrices_are_a_few_pieces(tmp_path: Path) -> None:
    for shape in [(1000, 1000), (16, 500, 500)]:
        base = stored(torch.zeros(shape, dtype=torch.bfloat16), tmp_path)
        lazy = Remapped(base, tuple(copied(size) for size in shape), "BF16")
        for most in (1 << 14, 1 << 18):
            assert lazy.working_set(most) <= 5 * most + (1 << 19)


@pytest.mark.parametrize("side", ["writers", "readers"])
def test_experts_are_folded_in_memory_that_does_not_depend_on_their_size(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    found = []
    for columns in (256, 1024):
        base = stored(numbers((2, columns, 128), torch.bfloat16, unusual=False), tmp_path)
        lazy = Remapped(base, (ungrown(2), tiled(columns, 2, side), ungrown(128)), "BF16")
        save_file({"t": lazy.read(0, 2)}, tmp_path / "new.safetensors")
        new = read_header(LocalFile(tmp_path / "new.safetensors"))["t"]
        found.append(peak(lambda lazy=lazy, new=new: fold.fold("t", lazy, new)))
        assert fold.fold("t", lazy, new).verdict == "exact"
    vectors = 16 * 8 * 2 * (1024 - 256)  # bytes of a few vectors as long as the axis, which every map is made of
    assert found[1] < 1.5 * found[0] + vectors


def test_an_arena_that_was_told_its_size_asks_for_no_more(case: tuple[Any, Make], base: Stored) -> None:
    lazy = case[1](base)
    for most in (64, 1 << 20) if base.dtype in ("BF16", "F64") else (1 << 20,):  # small ones in the least and largest
        arena = Arena(lazy.working_set(most))
        for piece in lazy.pieces(most):
            lazy.read_piece(piece, empty=arena.reset())
            assert len(arena._held) == 1


# --- what is no number ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3.0])
@pytest.mark.parametrize("shape", [(), (5,), (6, 5), (2, 6, 5)])
def test_a_tensor_that_holds_what_is_no_number_is_noted_when_it_is_read(
    number: float, shape: tuple[int, ...], tmp_path: Path
) -> None:
    values = torch.ones(shape)
    values.reshape(-1)[-1] = number
    base = stored(values, tmp_path)
    base.read(0, shape[0] if shape else 1)
    assert (base.start in base.file.flagged) == (number != 3.0)
    assert count_unusual(base) == (int(math.isnan(number)), int(math.isinf(number)))


def test_integers_and_nothing_are_not_looked_at(tmp_path: Path) -> None:
    for values in (torch.arange(5), torch.zeros(0, 4)):
        base = stored(values, tmp_path)
        base.read(0, values.shape[0])
        assert not base.file.flagged
        assert count_unusual(base) == (0, 0)


def test_all_of_a_large_tensor_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tensors, "COUNTED", 7)
    values = numbers((13, 11), torch.float32, unusual=True)
    assert count_unusual(stored(values, tmp_path)) == (int(values.isnan().sum()), int(values.isinf().sum()))


def test_arithmetic_finds_what_is_no_number_in_a_block() -> None:
    assert arithmetic.is_finite(torch.zeros(0)) and arithmetic.is_finite(torch.ones(3, dtype=torch.int64))
    assert not arithmetic.is_finite(torch.tensor([1.0, math.nan, 2.0]))
    assert not arithmetic.is_finite(torch.tensor([1.0, -math.inf]))
