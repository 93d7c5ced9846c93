"""Which files make the model: what `from_pretrained` loads of any folder, or a refusal where others load another."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
import transformers

from modelsurgeon.checkpoints import checkpoint as checkpoints
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.weight_files import INDEX, SINGLE, WeightFiles, weight_files
from modelsurgeon.errors import AmbiguousError, SourceError
from modelsurgeon.running import reference
from modelsurgeon.running.reference import checked_view
from support.draws import drawn
from support.readings import (
    FILES,
    INDICES,
    NAMES,
    OTHER,
    SUBSETS,
    UNNAMED,
    Case,
    folder_of,
    loaded_by_index,
    loaded_by_the_library,
    loaded_without_key,
)

CASES = [Case(kinds, *way) for kinds, way in drawn(SUBSETS, product(INDICES, NAMES), "weight files")]
UNSOUND = ("empty", "without metadata")  # indices that are refused, whatever lies beside them


def of_parameters(tensors: dict[str, torch.Tensor]) -> float:
    numbers = {float(number) for tensor in tensors.values() for number in (tensor.min(), tensor.max())}
    assert len(numbers) == 1
    return numbers.pop()


def ours(folder: Path) -> float | None:
    """The number that this program reads, in its tensors and in what it would run; None where it refuses."""
    try:
        found = open_checkpoint(folder)
    except SourceError:
        return None
    with checked_view(folder) as view:
        run_later = loaded_by_the_library(view)
    read = {name: torch.from_numpy(tensor.read(0, tensor.shape[0]).numpy()) for name, tensor in found.tensors.items()}
    assert of_parameters(read) == run_later
    return run_later


def readings(case: Case, folder: Path, theirs: float | None) -> set[float | str]:
    """What the library, which loads `theirs`, and other tools load of a folder; what they would load on top of it."""
    if theirs in (None, FILES["pickle"][1]):
        theirs = loaded_by_the_library(folder, use_safetensors=True)
    found = {theirs, loaded_by_index(folder), loaded_without_key(folder)}
    return {number for number in found if number is not None} | case.kinds & {"adapter", "cluster"}


def holds(case: Case, folder: Path) -> None:
    """Assert the law: what is read is what the library loads, and a folder of one reading is read."""
    theirs, found = loaded_by_the_library(folder_of(case, folder)), ours(folder)
    assert found in (None, theirs), f"{case}: read {found}, and the library loads {theirs}"
    known = readings(case, folder, theirs)
    if theirs in known and len(known) == 1 and case.index not in UNSOUND:
        assert found == theirs, f"{case}: refused, though all load {theirs}"
    if len(known) > 1:
        with pytest.raises(AmbiguousError) if case.index not in UNSOUND else pytest.raises(SourceError):
            open_checkpoint(folder)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_read_is_what_from_pretrained_loads_or_is_refused(case, tmp_path):
    transformers.logging.set_verbosity_error()
    holds(case, tmp_path / "folder")


def index_first(folder, config=None):
    """The mistake: an index is believed before model.safetensors, and the config is not asked."""
    path = folder.path / INDEX
    weight_map = json.loads(path.read_text())["weight_map"] if path.exists() else {}
    return (
        WeightFiles(tuple(sorted({*weight_map.values()})), INDEX, weight_map) if weight_map else WeightFiles((SINGLE,))
    )


def unasked(folder, config=None):
    """The mistake: the config is not asked."""
    return weight_files(folder, {})


@pytest.mark.parametrize(
    ("mistake", "case"),
    [
        (index_first, Case(frozenset({"single"}), "shards", UNNAMED)),
        (index_first, Case(frozenset({"single", "other"}), "none", OTHER)),
        (unasked, Case(frozenset({"single", "other"}), "none", OTHER)),
        (lambda folder, config=None: WeightFiles((SINGLE,)), Case(frozenset({"single", "adapter"}), "none", UNNAMED)),
    ],
)
def test_a_program_that_reads_others_is_caught(mistake, case, tmp_path, monkeypatch):
    for module in (checkpoints, reference):
        monkeypatch.setattr(module, "weight_files", mistake)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        holds(case, tmp_path / "folder")
