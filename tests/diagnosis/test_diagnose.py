"""A diagnosis from end to end: what is planted in a checkpoint is told of it, with what would help."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.diagnosis.diagnose import Diagnosis, diagnose_all, document
from modelsurgeon.diagnosis.verdicts import thresholds
from modelsurgeon.errors import PlanError
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from support import command, diagnoses
from support.grow import widen

MLP = {"intermediate_size": 704}  # twice the demo's: copies of one axis


@pytest.fixture(scope="module")
def demo() -> Diagnosis:
    """Of the demo, run; the memory is plenty, whatever else is in this process."""
    return diagnose_all([open_checkpoint("demo")], RunOptions(memory=10**11, samples=2, length=32))[0]


def verdicts(found: Diagnosis) -> dict[str, Any]:
    return dict(zip(thresholds(), found.verdicts, strict=True))


def changed(folder: Path, name: str, change: Any) -> Path:
    """The demo with one tensor changed."""
    shutil.copytree(DEMO, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_demo_is_narrow_and_its_document_fits_the_schema(demo: Diagnosis) -> None:
    found = verdicts(demo)
    assert (found["head_width"].verdict, found["head_width"].value) == ("act", 128)
    assert found["head_width"].command == "modelsurgeon widen demo -o OUT --set hidden_size=1024"
    assert "unknown" not in {one.verdict for one in demo.verdicts}
    whole = document([demo] * 2, "cpu", "modelsurgeon diagnose demo demo")
    diagnoses.validator().validate(json.loads(json.dumps(whole, allow_nan=False)))


def test_the_command_that_would_help_is_one_that_works(demo: Diagnosis) -> None:
    words = str(verdicts(demo)["head_width"].command).split()
    key, _, size = words[-1].partition("=")
    assert widen(open_checkpoint(words[2]), settings={key: int(size)}).sizes["hidden"] == 1024


def test_copies_are_told_with_the_source_that_they_came_from(tmp_path: Path) -> None:
    folder = save(widen(open_checkpoint("demo"), settings=MLP), tmp_path / "wide")
    found = verdicts(*diagnose_all([open_checkpoint(folder)], weights_only=True))
    assert found["copies"].verdict == "act"
    assert found["copies"].command == "modelsurgeon widen demo -o OUT --noise 0.5"
    noisy = save(widen(open_checkpoint("demo"), settings=MLP, noise=0.5), tmp_path / "noisy")
    assert verdicts(*diagnose_all([open_checkpoint(noisy)], weights_only=True))["copies"].verdict == "fine"


def test_two_models_are_measured_each_as_if_alone(tmp_path: Path, demo: Diagnosis) -> None:
    def spoil(tensor: torch.Tensor) -> None:
        tensor[3, 5] = torch.nan

    folder = changed(tmp_path / "spoilt", "model.layers.1.mlp.up_proj.weight", spoil)
    models = [open_checkpoint("demo"), open_checkpoint(folder)]
    options = RunOptions(memory=10**11)  # as in `demo`: threads share sums alike
    before, after = diagnose_all(models, options, weights_only=True)
    assert before.spectrum and demo.spectrum
    assert before.scan.to_json() == demo.scan.to_json()
    assert verdicts(before)["not_finite"].verdict == "fine"
    spoilt = verdicts(after)["not_finite"]
    assert (spoilt.verdict, spoilt.value) == ("act", 1)
    assert "model.layers.1.mlp.up_proj.weight" in spoilt.says
    json.dumps(after.to_json(), allow_nan=False)


def test_what_cannot_be_kept_is_refused_before_a_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelsurgeon.tensors.stored import Stored

    monkeypatch.setattr(Stored, "read", lambda *given, **named: pytest.fail("a tensor was read"))
    with pytest.raises(PlanError, match=r"memory 400\.0 MB: this takes .* at least"):
        diagnose_all([open_checkpoint("demo")], RunOptions(memory=400_000_000))


def test_a_model_that_cannot_be_run_is_still_weighed(tmp_path: Path) -> None:
    folder = shutil.copytree(DEMO, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "no such function"}), encoding="utf-8")
    (folder / "notes.txt").write_text("what a copy would leave behind", encoding="utf-8")
    (found,) = diagnose_all([open_checkpoint(folder)])
    assert found.running is None and verdicts(found)["anisotropy"].verdict == "unknown"
    (note,) = found.notes
    assert "not run" in note and "no such function" in note


def test_the_command_prints_one_document_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = command.run("diagnose", "demo", "--weights", "--json", "--report", str(report))
    document = json.loads(done.out)
    assert done.code == 0 and [model["source"] for model in document["models"]] == ["demo"]
    assert "bottleneck" in done.err and report.read_text(encoding="utf-8").startswith("<!doctype html>")
