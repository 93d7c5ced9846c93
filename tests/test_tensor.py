"""Remapped tensors: gather x multiply, rounded once or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon import axis_map, dimension
from modelsurgeon.axis_map import GAP
from modelsurgeon.checkpoint import open_checkpoint
from modelsurgeon.safetensors_file import read_header
from modelsurgeon.tensor import Remapped, Stored, nearest_power_of_two
from modelsurgeon.widen import widen


def stored(tensor: torch.Tensor, folder: Path) -> Stored:
    save_file({"t": tensor}, folder / "t.safetensors")
    return read_header(folder / "t.safetensors", "t.safetensors")["t"]


def whole(tensor: Remapped) -> torch.Tensor:
    return tensor.read(0, tensor.shape[0])


def test_even_factors_of_two_dimensions_are_one_factor(tmp_path: Path) -> None:
    old = torch.randn(6, 4)
    even = axis_map.copies(6, 2, 2**-0.5, [2**-0.5] * 2), axis_map.copies(4, 2, 2**-0.5, [2**-0.5] * 2)
    rows, columns = dimension.along(even[0], "writers"), dimension.along(even[1], "readers")
    wide = Remapped(stored(old, tmp_path), (rows, columns), "F32")
    assert wide.factors == (0.5,)
    assert wide.is_exact
    assert torch.equal(whole(wide), old.repeat(2, 2) / 2)


def test_a_factor_that_rounds_is_applied_in_a_wider_dtype_and_rounded_once(tmp_path: Path) -> None:
    old = torch.randn(64, 64)
    axis = axis_map.copies(64, 3, 3**-0.5, [3**-0.5] * 3)
    wide = Remapped(stored(old, tmp_path), (dimension.plain(64), dimension.along(axis, "readers")), "F32")
    assert torch.equal(whole(wide), (old.double() * float(axis.share[0])).float().repeat(1, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_small_gains_of_the_form_one_plus_w_survive_a_copy(dtype: torch.dtype, tmp_path: Path) -> None:
    old = torch.tensor([0.25, -1e-6, 3e-7, 0.0]).to(dtype)
    axis = axis_map.copies(4, 2, 1.0, (0.5, 0.5))
    name = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[dtype]
    wide = Remapped(stored(old, tmp_path), (dimension.along(axis, "writers"),), name, offset=1.0)
    assert wide.is_exact
    assert torch.equal(whole(wide), old.repeat(2))


def test_a_gain_that_becomes_nothing_is_minus_one_where_the_model_adds_one(tmp_path: Path) -> None:
    old = torch.tensor([0.25, -0.5]).bfloat16()
    axis = axis_map.AxisMap(2, np.tile(np.arange(2), 2), np.array([1.0, 1, 0, 0]), np.ones(4), split="writers")
    wide = Remapped(stored(old, tmp_path), (dimension.along(axis, "writers"),), "BF16", offset=1.0)
    assert whole(wide).tolist() == [0.25, -0.5, -1.0, -1.0]


def test_gaps_hold_the_fill_and_old_infinities_do_not_leak_into_them(tmp_path: Path) -> None:
    old = torch.tensor([torch.inf, 2.0])
    source = np.array([0, GAP, 1, GAP])
    axis = axis_map.gathered(2, source, np.ones(4), np.ones(4), 1.0)
    plain = Remapped(stored(old, tmp_path), (dimension.along(axis, "writers"),), "F32")
    assert whole(plain).tolist() == [torch.inf, 0.0, 2.0, 0.0]
    filled = Remapped(plain.base, plain.dimensions, "F32", fill=7.0)
    assert whole(filled).tolist() == [torch.inf, 7.0, 2.0, 7.0]


def test_a_remapped_tensor_can_be_remapped_again(tmp_path: Path) -> None:
    old = torch.randn(5, 3)
    axis = axis_map.copies(5, 2, 1.0, (0.5, 0.5))
    once = Remapped(stored(old, tmp_path), (dimension.along(axis, "writers"), dimension.plain(3)), "F32")
    again = axis_map.copies(10, 3, 1.0, (0.5, 0.25, 0.25))
    twice = Remapped(once, (dimension.along(again, "writers"), dimension.plain(3)), "F32", constant=2.0)
    assert torch.equal(whole(twice), 2 * old.repeat(6, 1))


def test_rows_read_are_near_the_rows_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = torch.randn(1000, 2)
    axis = axis_map.copies(1000, 2, 1.0, (0.5, 0.5))
    wide = Remapped(stored(old, tmp_path), (dimension.along(axis, "writers"), dimension.plain(2)), "F32")
    asked: list[int] = []
    read = Stored.read
    monkeypatch.setattr(Stored, "read", lambda self, a, b, *rest: asked.append(b - a) or read(self, a, b, *rest))
    assert torch.equal(wide.read(990, 1010), old.repeat(2, 1)[990:1010])
    assert max(asked) <= 40


def test_a_scalar_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    save_file({"s": torch.tensor(3.0), "e": torch.zeros(0, 4)}, tmp_path / "t.safetensors")
    header = read_header(tmp_path / "t.safetensors", "t.safetensors")
    assert header["s"].read(0, 1).item() == 3.0
    assert header["e"].read(0, 0).shape == (0, 4)


def test_only_near_misses_become_powers_of_two() -> None:
    assert nearest_power_of_two(0.5000000000000001) == 0.5
    assert nearest_power_of_two(0.500001) == 0.500001
    assert nearest_power_of_two(-0.5) == -0.5


def test_layers_share_their_dimensions_so_that_a_plan_does_not_grow_with_depth() -> None:
    before = open_checkpoint("demo")
    wide = widen(before, 2)
    held = {id(dimension) for tensor in wide.tensors.values() for dimension in tensor.dimensions}  # type: ignore[union-attr]
    signatures = {template.signature.text for template in before.architecture.templates}
    assert len(held) <= 2 * len(signatures)
