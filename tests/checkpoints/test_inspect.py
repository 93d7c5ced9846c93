"""`inspect` shows whatever can be read: known families, unknown ones, files that no table fits, quantised ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelsurgeon.checkpoints.checkpoint import INDEX, open_checkpoint
from modelsurgeon.checkpoints.inspection import inspect
from modelsurgeon.saving.save import save
from modelsurgeon.tensors.stored import Stored
from support import tiny
from support.cache import COMMIT, cache, cached
from support.command import contents, run

__all__ = ["cache"]  # a fixture

MAIN = [v for v in tiny.variants() if v.main]


def written(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def strange(tmp_path):
    """A checkpoint of a model type that nobody knows."""
    tensors = {f"blocks.{i}.mix.weight": torch.zeros(4, 6) for i in range(3)} | {"head": torch.zeros(2)}
    config = {"model_type": "strange", "dim": 6, "deep": {"er": 4}, "eos_token_id": 5, "tie_word_embeddings": False}
    return written(tmp_path / "strange", config, tensors)


@pytest.mark.parametrize("variant", MAIN, ids=str)
def test_all_of_a_checkpoint_that_fits_its_table_is_accounted_for(variant, source):
    checkpoint, found = open_checkpoint(source(variant)), inspect(source(variant))
    assert (found.refused, found.tensors, found.keys) == ("", (), ())
    assert {name: axis["size"] for name, axis in found.axes.items()} == checkpoint.sizes
    assert (found.tied, found.parameters) == (checkpoint.is_tied, checkpoint.parameters)
    assert found.bytes == sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    assert sum(group.count for group in found.groups) == len(checkpoint.tensors)
    assert {group.template for group in found.groups} == checkpoint.templates


def test_an_unknown_family_is_shown_by_its_names(strange):
    found = inspect(strange)
    assert not found.known and found.refused.startswith("unknown model_type 'strange'")
    assert {group.template: (group.count, group.shapes) for group in found.groups} == {
        "blocks.{n}.mix.weight": (3, ((4, 6),)),
        "head": (1, ((2,),)),
    }
    assert found.numbers == {"dim": 6, "deep.er": 4}
    assert (found.parameters, found.bytes, found.tied) == (74, 296, False)


def test_the_command_shows_it_on_stdout_and_ends_well(strange):
    done = run("inspect", strange)
    assert (done.code, done.err) == (0, "")
    assert "blocks.{n}.mix.weight x3" in done.out and "would be refused: unknown model_type 'strange'" in done.out
    assert json.loads(run("inspect", strange, "--json").out)["parameters"] == 74


def test_nothing_is_read_but_headers_and_nothing_is_written(strange, monkeypatch):
    before = contents(strange)
    monkeypatch.setattr(Stored, "read", None)
    assert run("inspect", strange).code == run("inspect", "demo").code == 0
    assert contents(strange) == before


def test_what_the_table_does_not_account_for_is_told(source, tmp_path):
    folder = save(open_checkpoint(source(tiny.named("llama-untied"))), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "training_run": "blue"}))
    save_file({"adapter.3.weight": torch.zeros(2)}, folder / "model.safetensors")
    found = inspect(folder)
    assert (found.tensors, found.keys) == (("adapter.3.weight",), ("training_run",))
    assert [(group.template, group.signature) for group in found.groups] == [("adapter.{n}.weight", "")]
    assert "adapter.3.weight" in found.refused
    assert "not accounted for: tensors adapter.3.weight" in run("inspect", folder).out


def test_a_quantised_checkpoint_is_shown_and_said_to_be_refused(source, tmp_path):
    folder = save(open_checkpoint(source(tiny.named("llama-untied"))), tmp_path / "quantised")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    tensors = {"model.layers.0.mlp.up_proj.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn)}
    save_file(tensors, folder / "model.safetensors")
    found = inspect(folder)
    assert "a quantised checkpoint" in found.refused
    assert [(group.dtypes, group.bytes) for group in found.groups] == [(("F8_E4M3",), 16)]
    assert run("inspect", folder).code == 0


@pytest.mark.parametrize(
    "broken",
    [b"", b"\0" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**60) + b"{", struct.pack("<Q", 9) + b'{"a": 1}'],
)
def test_a_file_that_cannot_be_read_is_told_and_the_rest_is_shown(broken, strange):
    (strange / "model.safetensors").write_bytes(broken)
    found = inspect(strange)
    assert found.numbers["dim"] == 6 and found.groups == ()
    assert "model.safetensors" in found.refused
    assert run("inspect", strange).code == 0


def test_an_index_that_is_none_is_told(strange):
    (strange / INDEX).write_text("{")
    found = inspect(strange)
    assert found.groups == () and "not JSON" in found.refused
    assert run("inspect", strange).code == 0


def test_a_config_without_weights_is_shown(strange):
    (strange / "model.safetensors").unlink()
    found = inspect(strange)
    assert found.groups == () and "no model.safetensors" in found.refused
    assert run("inspect", strange).code == 0


def test_shards_and_a_config_that_makes_no_sense_are_shown(source, tmp_path):
    folder = save(open_checkpoint("demo"), tmp_path / "sharded", shard_size=500_000)
    whole = inspect("demo")
    assert inspect(folder).groups == whole.groups
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    found = inspect(folder)
    assert found.axes["hidden"]["size"] is None and "hidden_size is 'wide'" in found.refused


@pytest.mark.parametrize("arguments", [["nowhere"], ["demo", "--revision", "main"]])
def test_what_is_not_there_is_refused(arguments):
    done = run("inspect", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_a_hub_id_is_inspected_from_the_cache_even_of_an_unknown_family(cache, strange):
    cached(cache, strange, COMMIT)
    found = inspect("org/name")
    assert (found.source, found.revision, found.parameters) == ("org/name", COMMIT, 74)
