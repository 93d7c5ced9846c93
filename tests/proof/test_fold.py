"""The fold, block by block and by runs, gives the verdict that the definition gives of the whole tensor at once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps import axis_map, dimension, orders
from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.proof import fold_blocks, parts
from modelsurgeon.proof.fold import ARITHMETIC, SLACK, TensorVerdict, Workers, fold, folding_memory
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import read_header
from support import draws
from support.counted import peak
from support.held import FLOATS, SEEDS, Held, random_map, split_map, whole


def fold_matrix(dim: dimension.Dimension, absolute: bool = False) -> torch.Tensor:
    """[groups, new size] float64: the weight of each new coordinate in each group's sum."""
    matrix = np.zeros((len(dim.group_source), dim.new_size))
    matrix[dim.group, np.arange(dim.new_size)] = np.abs(dim.dual) if absolute else dim.dual
    return torch.from_numpy(matrix)


def multiplied(matrices: list[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """Each matrix times the tensor, one after another along its own dimension, added coordinate by coordinate."""
    for axis, matrix in enumerate(matrices):
        moved = tensor.movedim(axis, 0)
        out = torch.zeros(matrix.shape[0], *moved.shape[1:], dtype=torch.float64)
        for group, member in matrix.nonzero().tolist():
            out[group] += matrix[group, member] * moved[member]
        tensor = out.movedim(0, axis)
    return tensor


def defined(wide: Remapped, found: torch.Tensor) -> TensorVerdict:
    """The verdict by definition, of a tensor that is held whole and has neither means nor an offset."""
    info = torch.finfo(found.dtype)
    wanted = wide.base.values.double() * wide.constant  # type: ignore[union-attr]
    for axis, dim in enumerate(wide.dimensions):
        wanted = wanted.index_select(axis, torch.from_numpy(np.maximum(dim.group_source, 0)))
        factor = np.where(dim.group_source == GAP, 0.0, dim.group_factor)
        wanted = wanted * torch.from_numpy(factor).reshape([-1] + [1] * (wanted.ndim - axis - 1))
    for axis, dim in enumerate(wide.dimensions):
        wanted = wanted.index_fill(axis, torch.from_numpy(np.flatnonzero(dim.group_source == GAP)), 0.0)
    folds, sizes = ([fold_matrix(dim, absolute) for dim in wide.dimensions] for absolute in (False, True))
    folded, size = multiplied(folds, found.double()), multiplied(sizes, found.double().abs())
    weight = multiplied(sizes, torch.ones_like(found, dtype=torch.float64))
    allowed = size * (info.eps / 2 * SLACK + ARITHMETIC) + weight * info.smallest_normal * info.eps
    rounding = ulps = 0.0
    for at in np.ndindex(*folded.shape):
        a, b = float(folded[at]), float(wanted[at])
        free = any(dim.group_free[i] for i, dim in zip(at, wide.dimensions, strict=True))
        if a == b or (math.isnan(a) and math.isnan(b)) or (free and math.isfinite(a)):
            continue
        if not (math.isfinite(a) and abs(a - b) <= float(allowed[at])):
            return TensorVerdict("t", "wrong", detail=f"at {list(at)} (folded): expected {b:.9g}, found {a:.9g}")
        rounding = max(rounding, abs(a - b) / max(float(size[at]), info.smallest_normal))
        unit = 2.0 ** (math.frexp(max(abs(b), info.smallest_normal))[1] - 1) * info.eps
        ulps = max(ulps, abs(a - b) / unit)
    return TensorVerdict("t", "rounded" if rounding else "exact", rounding, ulps=ulps)


@st.composite
def stored_growths(draw: st.DrawFn) -> tuple[Remapped, torch.Tensor]:
    """(a remapped tensor without means, what is stored of it, perhaps with a few bits flipped)."""
    rng = np.random.default_rng(draw(SEEDS))
    dims = []
    for _ in range(draw(st.integers(1, 3))):
        axis = draw(st.sampled_from([tiled_map, random_map, split_map]))(rng, int(rng.integers(1, 6)))
        axis = axis if not axis.means.any() else tiled_map(rng, axis.size)
        side = draw(st.sampled_from(["writers", "readers"]))
        dims.append(dimension.product([dimension.along(axis, side), dimension.ungrown(int(rng.integers(1, 3)))]))
    old = torch.from_numpy(rng.normal(size=[dim.size for dim in dims])).to(DTYPES[draw(FLOATS)])
    for number in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]), max_size=2)):
        old.view(-1)[rng.integers(old.numel())] = number
    wide = Remapped(Held(old), tuple(dims), draw(st.sampled_from([Held(old).dtype, "F32"])))  # type: ignore[arg-type]
    found = whole(wide)
    for _ in range(draw(st.integers(0, 2))):
        flip(found, int(rng.integers(found.numel())), int(rng.integers(8 * found.element_size())))
    return wide, found


def tiled_map(rng: np.random.Generator, size: int) -> axis_map.AxisMap:
    count = int(rng.integers(1, 4))
    return orders.copies(size, count, 1.0, orders.power_of_two_shares(count))


def flip(numbers: torch.Tensor, at: int, bit: int) -> None:
    """Flip one bit of one number."""
    view = numbers.view(-1).view(torch.uint8).numpy()
    view[at * numbers.element_size() + bit // 8] ^= 1 << bit % 8


@settings(max_examples=draws.examples(40))
@given(stored_growths(), st.sampled_from([1, 7, 1 << 19]), st.sampled_from([0, 1, 16]), st.sampled_from([1, 3]))
def test_the_verdict_is_the_defined_one_in_any_blocks_by_any_runs_and_threads(
    case: tuple[Remapped, torch.Tensor], block: int, short: int, threads: int
) -> None:
    wide, found = case
    wanted = defined(wide, found)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fold_blocks, "BLOCK", block)
        patched.setattr(fold_blocks, "SHORT", short)
        patched.setattr(parts, "SHORT", short)
        with Workers(threads) as workers:
            assert fold("t", wide, Held(found), workers=workers) == wanted  # type: ignore[arg-type]


def doubled(values: torch.Tensor, stored: str) -> tuple[Remapped, torch.Tensor]:
    """A matrix whose columns are read from two halves each, and what is stored of it."""
    dims = (
        dimension.ungrown(values.shape[0]),
        dimension.along(orders.copies(values.shape[1], 2, 1.0, (0.5, 0.5)), "readers"),
    )
    wide = Remapped(Held(values), dims, stored)  # type: ignore[arg-type]
    return wide, whole(wide)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_bit_that_is_flipped_is_seen(dtype: torch.dtype) -> None:
    numbers = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide, found = doubled(numbers, Held(numbers).dtype)
    assert fold("t", wide, Held(found)) == TensorVerdict("t", "exact")  # type: ignore[arg-type]
    for bit in range(dtype == torch.float64, 8 * dtype.itemsize):  # a half's last bit is less than a float64 sum holds
        spoiled = found.clone()
        flip(spoiled, 4, bit)
        verdict = fold("t", wide, Held(spoiled))  # type: ignore[arg-type]
        assert verdict.verdict in ("wrong", "rounded")
        assert ("at [0, 1]" in verdict.detail) == (verdict.verdict == "wrong")


def test_rounding_is_told_in_units_of_the_last_place_of_what_is_stored() -> None:
    old = torch.tensor([[1.0, 3.0, 1e-41]])
    wide, found = doubled(old, "F32")
    found[0, 3] += 2.0**-24  # of 1/2: half a unit of the last place of 1
    verdict = fold("t", wide, Held(found))  # type: ignore[arg-type]
    assert (verdict.verdict, verdict.ulps, verdict.rounding) == ("rounded", 0.5, 2.0**-24 / (1 + 2.0**-24))
    found[0, 4] += 2.0**-23  # of 3/2: half a unit of 3
    found[0, 5] += 2.0**-149  # of a subnormal: one unit
    assert fold("t", wide, Held(found)).ulps == 1.0  # type: ignore[arg-type]


def test_what_cancels_is_held_no_better_than_its_parts() -> None:
    wide, found = doubled(torch.tensor([[2.0**-20]]), "F32")
    found[0] = torch.tensor([1.0, -1.0])
    verdict = fold("t", wide, Held(found))  # type: ignore[arg-type]
    assert verdict.verdict == "wrong"
    found[0] = torch.tensor([1.0, -1.0 + 2.0**-20 + 2.0**-24])
    verdict = fold("t", wide, Held(found))  # type: ignore[arg-type]
    assert (verdict.verdict, verdict.ulps) == ("rounded", 2.0**19)
    assert verdict.rounding < 2.0**-24


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_no_more_memory_is_taken_than_is_stated(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tensor that is larger than that, whose numbers all differ: each block is looked at twice."""
    wide, found = doubled(torch.randn(1024, 512, generator=torch.Generator().manual_seed(0)).to(dtype), "F64")
    found *= 1 + 2.0**-52
    save_file({"old": wide.base.values, "new": found}, tmp_path / "t.safetensors")  # type: ignore[union-attr]
    header = read_header(LocalFile(tmp_path / "t.safetensors"))
    on_disk = replace(wide, base=header["old"])
    monkeypatch.setattr(fold_blocks, "BLOCK", 1 << 14)
    stated = folding_memory(1)
    with Workers(1) as workers:
        assert peak(lambda: fold("t", on_disk, header["new"], workers=workers)) <= stated
    monkeypatch.setattr(fold_blocks, "BLOCK", 1 << 30)
    with Workers(1) as workers:
        assert peak(lambda: fold("t", on_disk, header["new"], workers=workers)) > stated


def test_threads_hand_on_what_cannot_be_read() -> None:
    class Broken(Held):
        def read(self, *_: object, **__: object) -> torch.Tensor:
            raise OSError("gone")

    wide, found = doubled(torch.ones(4, 4), "F32")
    before = torch.get_num_threads()
    with pytest.raises(OSError, match="gone"), Workers(2) as workers:
        fold("t", wide, Broken(found), workers=workers)  # type: ignore[arg-type]
    assert torch.get_num_threads() == before
