"""A kind of axis is one class: planning, checks, families, inference and reports ask it, here one of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.words import Axis
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import overview
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, forget, kind_of, register
from modelsurgeon.growth.remap import remap
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.proof.infer import infer
from modelsurgeon.proof.proof import prove
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification.trainable import examine
from support import tiny
from support.grow import widen


class Twins(Kind):
    """An activation of each coordinate, whose copies must lie side by side."""

    word = "twins"
    coordinates = "twins"
    grown_by = ("head-dim", "heads")
    unit_scale = True

    def reach(self, table: Architecture, name: str) -> str:
        return "xk"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        size, target = growth.sizes[name], growth.targets[name]
        if target % size:
            raise growth.refusal(name, "twins are whole", growth.multiples(name))
        source = np.repeat(np.arange(size), target // size)
        return orders.gathered(size, source, np.ones(target), growth.parts(*orders.ranks(source)), 1.0)

    def check(self, name: str, axis_map: AxisMap) -> None:
        super().check(name, axis_map)
        if np.any(np.diff(axis_map.source) < 0):
            raise PlanError(f"axis {name!r}: twins lie side by side")

    def orders(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
        size, target = growth.sizes[name], growth.targets[name]
        yield "twin by twin", np.repeat(np.arange(size), target // size)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Architecture]:
    """Llama's table with MLPs of this kind."""
    load = registry._load
    llama = load("llama")
    changed = replace(llama, axes={**llama.axes, "mlp": replace(llama.axes["mlp"], through="twins")})
    monkeypatch.setattr(registry, "_load", lambda model_type: changed if model_type == "llama" else load(model_type))
    register(Twins)
    yield changed
    forget(Twins)


@pytest.fixture
def checkpoint(table: Architecture, source: Callable[..., Path]) -> Checkpoint:
    return open_checkpoint(source(tiny.named("llama-untied")))


def test_it_is_planned_by_its_map_and_proven(checkpoint: Checkpoint) -> None:
    result = widen(checkpoint, 2, rule="exact", attention="heads")
    size = checkpoint.sizes["mlp"]
    assert result.steps[-1].maps["mlp"].source.tolist() == np.repeat(np.arange(size), 2).tolist()
    proof = prove(checkpoint, result, result.steps)
    assert proof is not None and proof.summary == "exact"


def test_it_names_the_sizes_that_it_can_have(checkpoint: Checkpoint) -> None:
    size = checkpoint.sizes["mlp"]
    with pytest.raises(PlanError, match=f"twins are whole; sizes that work: {size} or {2 * size}"):
        widen(checkpoint, settings={"intermediate_size": size + 1})


def test_its_check_refuses_a_map_on_record(checkpoint: Checkpoint) -> None:
    size = checkpoint.sizes["mlp"]
    with pytest.raises(PlanError, match="axis 'mlp': twins lie side by side"):
        remap(checkpoint, {"mlp": orders.copies(size, 2, 1.0, (0.5, 0.5))})


def test_families_shows_its_reach(table: Architecture) -> None:
    assert overview.make_row("llama", table).cells["mlp"] == "xk"
    assert overview.family("llama")[0].cells["mlp"] == "xk"


def test_inference_tries_its_candidates(checkpoint: Checkpoint) -> None:
    result = replace(widen(checkpoint, 2, rule="exact", attention="heads"), steps=())
    inferred = infer(checkpoint, result)
    assert any(line.startswith("mlp: twin by twin") for line in inferred.lines)
    proof = prove(checkpoint, result, inferred.steps)
    assert proof is not None and proof.summary == "exact"


def test_reports_use_its_noun(checkpoint: Checkpoint, tmp_path: Path) -> None:
    grown = widen(checkpoint, settings={"intermediate_size": 2 * checkpoint.sizes["mlp"]})
    save(grown, tmp_path / "out")
    found = examine(open_checkpoint(tmp_path / "out"), grown.steps[-1].maps, RunOptions(samples=1, length=8))
    (mlp,) = (axis for axis in found.axes if axis.axis == "mlp")
    assert mlp.through == "twins" and "pairs of twins will" in mlp.says


def test_two_kinds_cannot_have_one_word(table: Architecture) -> None:
    with pytest.raises(ValueError, match="two kinds of axes are called 'twins'"):
        register(Twins)


def test_every_word_of_a_table_is_a_kind_that_the_docstring_explains() -> None:
    tables = [registry.find(model_type) for model_type in registry.known()]
    layouts = [layout for table in tables for layout in (table, *(form.of(table) for form in table.forms))]
    words = {axis.through for table in layouts for axis in table.axes.values()}
    assert {kind_of(Axis(through=word)).word for word in words} == words
    assert all(f'"{word}"' in str(Axis.__doc__) for word in words)
