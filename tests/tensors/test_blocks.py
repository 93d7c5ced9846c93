"""Pieces of a tensor: the same bytes whatever their size, the threads and the path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelsurgeon.architectures.sinusoid import sinusoid
from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps.dimension import ungrown
from modelsurgeon.tensors import arithmetic, means, remapped
from modelsurgeon.tensors import stored as stored_tensors
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.pieces import Piece
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, count_unusual
from support.counted import threads
from support.zoo import (
    MOST,
    Make,
    base,
    bits,
    case,
    copied,
    dtype,
    in_pieces,
    numbers,
    room_behind,
    roots,
    scaled_up,
    stored,
    tiled,
    whole,
)

__all__ = ["base", "case", "dtype"]  # fixtures


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
