"""Noise: copies differ, sums do not, to the last bit; the same bytes however a tensor is cut."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.maps import dimension, orders
from modelsurgeon.maps.axis_map import GAP, AxisMap
from modelsurgeon.proof.proof import prove
from modelsurgeon.saving.save import save
from modelsurgeon.tensors import noise
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.pieces import Piece
from modelsurgeon.tensors.remapped import Remapped
from support import draws
from support.grow import widen
from support.held import Held

FLOATS = ("BF16", "F16", "F32", "F64")
INTEGERS = {"BF16": torch.int16, "F16": torch.int16, "F32": torch.int32, "F64": torch.int64}


def wide(weight: torch.Tensor, stored: str, count: int, amount: float = 0.5, key: str = "key") -> Remapped:
    """A matrix whose columns read `count` copies of an axis, with noise."""
    shares = orders.power_of_two_shares(count)
    read = orders.copies(weight.shape[1], count, 1.0, shares)
    dims = dimension.ungrown(weight.shape[0]), dimension.along(read, "readers")
    return Remapped(Held(weight), dims, stored, noise=Noise(amount, key), turns=(0, 1))  # type: ignore[arg-type]


def parts(tensor: Remapped, count: int) -> torch.Tensor:
    """[count, rows, columns] float64: the parts of every number."""
    whole = tensor.read(0, tensor.shape[0]).double()
    return whole.reshape(whole.shape[0], count, -1).transpose(0, 1)


def every_number(stored: str, seed: int) -> torch.Tensor:
    """[8, 512]: random bits, all exponents, subnormal ones and both zeros; the largest ones, and powers of two."""
    generator = np.random.default_rng(seed)
    size = DTYPES[stored].itemsize
    drawn = torch.from_numpy(np.frombuffer(generator.bytes(8 * 512 * size), dtype=f"<i{size}").copy())
    weight = drawn.view(DTYPES[stored]).reshape(8, 512).clone()
    info = torch.finfo(weight.dtype)
    weight[~weight.isfinite()] = 1.0
    edges = [0.0, -0.0, info.max, info.min, info.smallest_normal, info.tiny * info.eps, -3 * info.tiny * info.eps]
    weight[0, : len(edges)] = torch.tensor(edges, dtype=torch.float64).to(weight.dtype)
    return weight


@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("count", [2, 3, 5])
@given(seed=st.integers(0, 2**32), amount=st.sampled_from([0.01, 0.5, 1.0]))
@settings(max_examples=draws.examples(5), deadline=None)
def test_parts_sum_to_the_old_number_to_the_last_bit(stored: str, count: int, seed: int, amount: float) -> None:
    weight = every_number(stored, seed)
    found = parts(wide(weight, stored, count, amount, str(seed)), count)
    assert bool(found.isfinite().all())
    total = [math.fsum(numbers) for numbers in found.reshape(count, -1).T.tolist()]  # rounds once, where at all
    if stored == "F64" and count > 2:  # no wider dtype: three parts of a sum near the smallest normal number may round
        weight[weight.abs() < 16 * torch.finfo(weight.dtype).smallest_normal] = 0.0
        total = [number if wanted else 0.0 for number, wanted in zip(total, weight.flatten().tolist(), strict=True)]
    assert total == weight.double().flatten().tolist()


@pytest.mark.parametrize("stored", FLOATS)
def test_parts_differ_by_so_much(stored: str) -> None:
    weight = torch.randn(4, 9000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(DTYPES[stored])
    first, second = parts(wide(weight, stored, 2, 0.5), 2)
    usual = weight.abs() > 0.01
    apart = ((first - second) / weight)[usual]
    assert float(apart.abs().max()) <= 0.5 + 2.0**-7  # and the rounding of 8 bits
    assert float(apart.square().mean().sqrt()) == pytest.approx(0.5 / 3**0.5, rel=0.03)
    assert abs(float(apart.mean())) < 0.02  # either part is the larger one
    assert float((apart == 0).double().mean()) < 0.03


def test_what_has_no_twin_stays() -> None:
    read = orders.copies(4, 3, 1.0, (0.5, 0.25, 0.25))
    lead, sign = dimension.along(read, "readers").pairs
    assert sign.tolist() == [0] * 4 + [1] * 4 + [-1] * 4
    assert lead[4:].tolist() == [4, 5, 6, 7] * 2
    assert not dimension.along(read, "writers").pairs[1].any()


def test_infinities_and_nan_stay_what_they_are() -> None:
    weight = torch.tensor([[float("inf"), float("-inf"), float("nan"), torch.finfo(torch.float32).max]])
    first, second = parts(wide(weight, "F32", 2), 2)
    assert first[0, :2].tolist() == [float("inf"), float("-inf")] == second[0, :2].tolist()
    assert bool(first[0, 2].isnan()) and bool(second[0, 2].isnan())
    assert float(first[0, 3] + second[0, 3]) == float(weight[0, 3])


def both(stored: str) -> Remapped:
    """Rows that are parts (queries' side of q.k, interleaved pairs with free gaps) and columns that read copies."""
    weight = torch.randn(12, 10, generator=torch.Generator().manual_seed(2)).to(DTYPES[stored])
    rows = np.array([0, GAP, 1, 2, 3, GAP, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 4, 5])
    rank, copied = orders.ranks(rows)
    head = orders.gathered(12, rows, np.ones(18), orders.shares(rank, copied), 1.0)
    columns = orders.copies(10, 2, 1.0, (0.5, 0.5))
    dims = dimension.along(head, "readers").filled, dimension.along(columns, "readers")
    return Remapped(Held(weight), dims, stored, noise=Noise(0.5, "both"), turns=(0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("stored", ["BF16", "F32"])
def test_pieces_are_the_same_however_a_tensor_is_cut(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = both(stored)
    whole = tensor.read(0, 18)
    for most in (1, 7, 40, 200):
        for piece in tensor.pieces(most):
            assert piece.again is None  # rows that are parts are no repeats
            expected = whole[piece.start : piece.stop, piece.first : piece.last]
            assert torch.equal(tensor.read_piece(piece), expected)
    monkeypatch.setattr(noise, "SCRATCH", 16)
    assert torch.equal(tensor.read(0, 18), whole)
    assert torch.equal(tensor.read_piece(Piece(4, 9, 0, 20)), whole[4:9])


def test_free_gaps_hold_something_and_others_zero() -> None:
    tensor = both("F32")
    gaps = tensor.read(0, 18)[tensor.dimensions[0].free]
    assert gaps.shape[0] == 2 and bool((gaps != 0).all())
    read = AxisMap(2, np.array([0, 1, GAP]), np.array([1.0, 1, 0]), np.array([1.0, 1, 0]))
    assert dimension.along(read, "readers").free.tolist() == [False, False, True]
    assert not dimension.along(read, "writers").free.any()


def test_repeated_rows_stay_equal() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    axis = orders.copies(3, 2, 1.0, (0.5, 0.5)), orders.copies(4, 2, 1.0, (0.5, 0.5))
    dims = dimension.along(axis[0], "writers"), dimension.along(axis[1], "readers")
    tensor = Remapped(Held(weight), dims, "F32", noise=Noise(0.5, "rows"), turns=(0, 1))  # type: ignore[arg-type]
    found = tensor.read(0, 6)
    assert torch.equal(found[:3], found[3:])  # a router's rows for copies of one expert must tie
    assert [piece.again for piece in tensor.pieces(1 << 20)] == [None, 0]


def test_rows_that_are_parts_are_no_repeats() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(4))
    axis = orders.copies(3, 2, 2**-0.5, (2**-0.5, 2**-0.5))
    dims = dimension.along(axis, "readers"), dimension.ungrown(4)
    tensor = Remapped(Held(weight), dims, "F32", noise=Noise(0.5, "parts"), turns=(0, 1))  # type: ignore[arg-type]
    assert tensor.is_cut_at_runs  # where plain copies are told as repeats
    assert [piece.again for piece in tensor.pieces(1 << 20)] == [None, None]
    assert not torch.equal(*tensor.read(0, 6).split(3))


def folder_bytes(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def test_one_seed_gives_one_result_that_is_proven(tmp_path: Path) -> None:
    source = open_checkpoint("demo")
    for name, seed, rule in (("a", 1, "exact"), ("b", 1, "exact"), ("c", 2, "exact"), ("d", 1, "orthogonal")):
        grown = widen(source, 2, rule=rule, noise=0.5, seed=seed)
        assert grown.steps[-1].seed == seed
        save(grown, tmp_path / name)
        proof = prove(source, open_checkpoint(tmp_path / name))
        assert proof and proof.summary == ("exact" if rule == "exact" else "rounded")
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b") != folder_bytes(tmp_path / "c")


def test_noise_is_told_and_so_is_its_absence() -> None:
    source = open_checkpoint("demo")
    assert any("noise 0.5 (seed 3)" in note for note in widen(source, noise=0.5, seed=3).notes)
    assert any("stay copies" in note for note in widen(source, noise=0.0).notes)
    with pytest.raises(PlanError, match="expected 0"):
        widen(source, noise=1.5)
