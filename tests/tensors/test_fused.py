"""Two growths, one after the other, told as one: of a dimension, and of a tensor that waits to be computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps.axis_map import GAP, AxisMap
from modelsurgeon.maps.dimension import Dimension, ungrown
from modelsurgeon.maps.orders import copies, gathered, nested_pairs, ranks, shares, tiled
from modelsurgeon.maps.signature import parse
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Stored, read_header


def grown(size: int, kind: str, split: str) -> AxisMap:
    """One growth of an axis; every factor is a power of two, so that all sums are exact."""
    if kind == "none":
        return copies(size, 1, 1.0, (1.0,))
    if kind == "nested" and size % 2 == 0:
        source = nested_pairs(size, 2, "half")
        return gathered(size, source, np.full(len(source), 2.0), np.full(len(source), 0.5), 1.0, split)
    source = (
        np.r_[tiled(size, 2 * size)[0], [GAP]]
        if kind == "gaps"
        else tiled(size, 3 * size if kind == "three" else 2 * size)[0]
    )
    parts = shares(*ranks(source))
    if split == "writers":
        return gathered(size, source, parts, np.ones(len(source)), 1.0, split)
    return gathered(size, source, np.full(len(source), 2.0), parts / 2, 1.0, split)


KINDS = st.sampled_from(["none", "two", "three", "gaps", "nested"])
TEXTS = st.sampled_from(["a <- b", "(a b) <- b", "a <- (b a~)", "(a + b) <- a", "a -> (b + b a)"])


@given(TEXTS, st.tuples(KINDS, KINDS), st.tuples(KINDS, KINDS), st.sampled_from(["readers", "writers"]))
def test_a_growth_after_a_growth_is_the_growth_by_both_maps(text, first, second, split):
    sizes = {"a": 2, "b": 4}
    one = {axis: grown(size, kind, split) for (axis, size), kind in zip(sizes.items(), first, strict=True)}
    two = {axis: grown(one[axis].new_size, kind, split) for axis, kind in zip(sizes, second, strict=True)}
    both = {axis: axis_map.then(two[axis]) for axis, axis_map in one.items()}
    signature = parse(text)
    for before, after, wanted in zip(*(signature.grow(maps) for maps in (one, two, both)), strict=True):
        found = before.then(after)
        assert found is not None
        assert np.array_equal(found.source, wanted.source)
        assert np.array_equal(found.factor, wanted.factor)
        assert not np.any(found.free & ~wanted.free)  # where two axes have gaps, the later growth left zero
        assert_folds(found)


def assert_folds(dimension: Dimension) -> None:
    """The law of every dimension: a sum over each group is the old number, times its factor."""
    old = np.random.default_rng(0).integers(-99, 99, dimension.size).astype(float)
    new = np.where(dimension.source == GAP, 0.0, old[dimension.source] * dimension.factor)
    folded = np.bincount(dimension.group, new * dimension.dual, len(dimension.group_source))
    wanted = np.where(dimension.group_source == GAP, 0.0, old[dimension.group_source] * dimension.group_factor)
    assert np.array_equal(folded, wanted)
    assert set(dimension.group_source) - {GAP} == set(range(dimension.size))


def stored(values: torch.Tensor, folder: Path) -> Stored:
    save_file({"a": values}, folder / "a.safetensors")
    return read_header(LocalFile(folder / "a.safetensors"))["a"]


def test_parts_of_a_sum_that_are_copied_unequally_are_not_told_as_one():
    parts = parse("a <- b").grow({"a": grown(2, "none", "readers"), "b": grown(2, "two", "readers")})[1]
    uneven = np.array([0, 1, 2, 3, 0])
    every, ones = np.arange(5), np.ones(5)
    assert parts.then(Dimension(4, uneven, ones, every, ones, uneven, ones, np.zeros(5, dtype=bool))) is None
    assert parts.then(ungrown(4)) is not None


def test_a_tensor_grown_twice_with_noise_is_told_as_grown_once_without(tmp_path):
    base = stored(torch.arange(32.0).reshape(4, 8) + 1, tmp_path)
    maps = {"a": grown(4, "two", "readers"), "b": grown(8, "two", "readers")}
    later = {"a": grown(8, "three", "readers"), "b": grown(16, "gaps", "readers")}
    signature = parse("a <- b")
    once = Remapped(base, signature.grow(maps), "F32", 2.0, noise=Noise(0.5, "first"), turns=(0, 1))
    twice = Remapped(once, signature.grow(later), "F32", 0.5)
    quiet = Remapped(replace(once, noise=None), twice.dimensions, "F32", 0.5)
    fused = twice.fused
    assert fused.base is base and fused.noise is None
    assert torch.equal(fused.read(0, fused.shape[0]), quiet.read(0, quiet.shape[0]))
    assert not torch.equal(twice.read(0, twice.shape[0]), quiet.read(0, quiet.shape[0]))


@pytest.mark.parametrize("inner, outer", [({"offset": 1.0}, {}), ({}, {"offset": 1.0}), ({"fill": 3.0}, {"fill": 1.0})])
def test_tensors_that_grow_otherwise_are_not_told_as_one(inner, outer, tmp_path):
    maps = {"a": grown(4, "gaps", "readers")}
    once = Remapped(stored(torch.arange(4.0), tmp_path), parse("a <-").grow(maps), "F32", **inner)
    twice = Remapped(once, parse("a <-").grow({"a": grown(9, "two", "readers")}), "F32", **outer)
    assert twice.fused is twice
