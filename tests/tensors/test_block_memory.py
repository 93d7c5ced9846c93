"""Pieces of a tensor take no more memory than was computed before they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps.dimension import ungrown
from modelsurgeon.proof import fold, fold_blocks
from modelsurgeon.tensors import means
from modelsurgeon.tensors.arena import Arena, fresh
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, read_header
from support.counted import peak
from support.zoo import Make, base, case, copied, dtype, numbers, scaled_up, stored, tiled

__all__ = ["base", "case", "dtype"]  # fixtures

# --- memory -----------------------------------------------------------------------------------------------------------


MEASURED = (1 << 13, 1 << 30)


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
    monkeypatch.setattr(fold_blocks, "BLOCK", 1 << 14)
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
