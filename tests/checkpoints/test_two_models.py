"""A folder that holds two models: every command refuses it by name; what nobody reads by default is named and left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.inspection import inspect
from modelsurgeon.checkpoints.weight_files import ADAPTER, INDEX, NAMED, SINGLE
from modelsurgeon.errors import AmbiguousError, SourceError
from modelsurgeon.files.file import LocalFile
from modelsurgeon.files.hashes import ALGORITHM, digest
from modelsurgeon.operations.catalogue import offered
from modelsurgeon.running.reference import checked_view
from modelsurgeon.saving.save import save
from support import tiny
from support.command import contents, run, sha256
from support.hub_environment import hub_environment
from support.hub_repos import WRITER, Access
from support.hub_server import HubServer
from support.readings import CLUSTER, OTHER
from support.spoiling import config

LLAMA = tiny.named("llama-tied")


@pytest.fixture
def whole(source):
    """A tiny Llama in one file."""
    return source(LLAMA)


@pytest.fixture
def single(whole, tmp_path):
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "single"))


@pytest.fixture
def sharded(whole, tmp_path):
    """The same in shards, as this program writes them."""
    return save(open_checkpoint(whole), tmp_path / "sharded", shard_size=20000)


def zeros(folder: Path, name: str = SINGLE) -> None:
    """Weights of zeros beside those that are there."""
    shards = [load_file(path) for path in sorted(folder.glob("model*.safetensors"))]
    tensors = {name: torch.zeros_like(tensor) for shard in shards for name, tensor in shard.items()}
    save_file(tensors, folder / name, {"format": "pt"})


def named(folder: Path) -> None:
    """The config names other weights."""
    zeros(folder, OTHER)
    config(**{NAMED: OTHER})(folder)


TWO = {  # {what lies beside the shards: (a function that puts it there, what must be named)}
    "a stray file of zeros": (zeros, (SINGLE, INDEX, "model-00001-of-0000")),
    "weights that the config names": (named, (OTHER, INDEX, NAMED)),
    "an adapter": (lambda folder: (folder / ADAPTER).write_text("{}"), (ADAPTER, "merge_and_unload")),
    "a distributed checkpoint": (lambda folder: zeros(folder, CLUSTER), (CLUSTER, "save_pretrained")),
}
OPERATIONS = [operation.name for operation in offered() if operation.reads == "checkpoint"]
COMMANDS = {
    **{name: (name, "{}", "-o", "{}/../out") for name in OPERATIONS},
    "verify": ("verify", "{whole}", "{}"),
    "verify as the source": ("verify", "{}", "{whole}"),
    "inspect": ("inspect", "{}"),
    "diagnose": ("diagnose", "{}"),
}
each_two = pytest.mark.parametrize(("spoil", "words"), TWO.values(), ids=TWO)


@each_two
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_two_models_in_one_line(command, spoil, words, sharded, whole):
    spoil(sharded)
    before = contents(sharded.parent)
    done = run(*(part.format(sharded, whole=whole) for part in command))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert all(word in done.err for word in ("two models", *words)), done.err
    assert contents(sharded.parent) == before


@each_two
def test_what_becomes_two_models_after_it_was_opened_is_not_run(spoil, words, sharded):
    spoil(sharded)
    with pytest.raises(AmbiguousError, match="two models: "), checked_view(sharded):
        pass


def test_the_shards_alone_are_no_two_models(sharded, whole):
    assert run("inspect", sharded).code == run("verify", whole, sharded, "--quiet").code == 0


def test_a_record_that_lists_two_models_does_not_make_them_one(sharded):
    (sharded / ADAPTER).write_text("{}")
    (sharded / "modeling_evil.py").write_text("")
    done = run("verify", "--files", sharded)
    assert done.code == 1 and all(f"{name}: not on record" in done.err for name in (ADAPTER, "modeling_evil.py"))
    (sharded / "modeling_evil.py").unlink()
    record, file = json.loads((sharded / "modelsurgeon.json").read_text()), LocalFile(sharded / ADAPTER)
    record["files"][ADAPTER] = {"bytes": file.size, ALGORITHM: digest(file)}
    (sharded / "modelsurgeon.json").write_text(json.dumps(record))
    done = run("verify", "--files", sharded)
    assert done.code == 2 and "two models" in done.err and done.err.count("\n") == 1


@each_two
def test_behind_a_network_it_is_refused_too(spoil, words, sharded, monkeypatch):
    spoil(sharded)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    MemoryFileSystem().put(f"{sharded}/", "/bucket/model", recursive=True)
    with pytest.raises(AmbiguousError, match="memory://bucket/model: two models: "):
        open_checkpoint("memory://bucket/model")


@each_two
def test_on_the_hub_it_is_refused_too_and_no_weights_are_fetched(spoil, words, sharded, monkeypatch, tmp_path):
    spoil(sharded)
    with HubServer() as hub, hub_environment(monkeypatch, hub, tmp_path / "cache", WRITER):
        hub.tokens[WRITER] = Access("org")
        hub.add("org/two", {path.name: path.read_bytes() for path in sharded.iterdir()})
        done = run("inspect", "org/two")
        assert done.code == 2 and "org/two: two models" in done.err and done.err.count("\n") == 1
        assert not [one for one in hub.asked() if one.path.endswith(".safetensors")]


# --- one reading -----------------------------------------------------------------------------------------------------


def test_a_folder_in_the_place_of_a_file_is_no_second_model(sharded, whole):
    (sharded / SINGLE).mkdir()
    (sharded / ADAPTER).mkdir()
    assert open_checkpoint(sharded).tensors.keys() == open_checkpoint(whole).tensors.keys()
    assert tiny.load(sharded, LLAMA.kind)  # which is what the library does with it


def test_the_state_of_a_trainer_holds_no_weights(single):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "zoo.json"):
        (single / name).touch()
    assert not open_checkpoint(single).not_judged
    (single / "pytorch_model-00001-of-00002.bin").touch()
    assert open_checkpoint(single).not_judged[0].endswith(": pytorch_model-00001-of-00002.bin")


def test_what_is_not_read_by_default_is_left_behind_by_name(single, whole):
    others = ["consolidated.safetensors", "model-00003-of-00003.safetensors", "model.fp16.safetensors", "model.gguf"]
    for name in others:
        zeros(single, name)
    (single / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    done = run("widen", single, "-o", single.parent / "out")
    assert done.code == 0 and f"files left behind: {', '.join(sorted([*others, INDEX]))}\n" in done.err
    weights = f"not judged, for transformers reads them by no default: {', '.join(sorted([*others, INDEX]))}"
    assert open_checkpoint(single).not_judged == (weights,) and not open_checkpoint(whole).not_judged
    assert f"not read by default: {', '.join(sorted([*others, INDEX]))}\n" in run("inspect", single).out
    rows = json.loads(run("verify", whole, single, "--json").out)["beside"]
    row = next(row for row in rows if row["what"] == "other weights")
    assert row["finding"] == "not compared" and all(name in row["detail"] for name in others)
    assert json.loads(run("diagnose", single, "--weights", "--json").out)["models"][0]["notes"] == [weights]
    assert run("widen", whole, "-o", single.parent / "clean").code == 0
    assert load_file(single.parent / "out" / SINGLE).keys() == load_file(single.parent / "clean" / SINGLE).keys()
    assert sha256(single.parent / "out" / SINGLE) == sha256(single.parent / "clean" / SINGLE)
    record = json.loads((single.parent / "out" / "modelsurgeon.json").read_text())
    assert set(record["steps"][0]["source"]["files"]) == {"config.json", SINGLE}


@pytest.mark.parametrize("name", [OTHER, "other.safetensors.index.json"])
def test_weights_that_the_config_alone_names_are_read_and_the_result_names_its_own(name, sharded, single, whole):
    folder = single if name == OTHER else sharded
    (folder / (SINGLE if name == OTHER else INDEX)).rename(folder / name)
    config(**{NAMED: name})(folder)
    out, new = folder.parent / "out", folder.parent / "new"
    assert run("widen", folder, "-o", out, "--verify", "--quiet").code == 0
    assert run("verify", whole, folder, "--quiet").code == 0
    assert run("init", folder, "-o", new, "--quiet").code == 0
    assert not [place for place in (out, new) if NAMED in json.loads((place / "config.json").read_text())]


def test_code_that_the_config_names_is_told_and_not_run_by_default(single):
    config(auto_map={"AutoModelForCausalLM": "modeling_x.Evil"})(single)
    (single / "modeling_x.py").write_text("raise SystemExit(77)")
    done = run("widen", single, "-o", single.parent / "out", "--verify")
    assert done.code == 0 and "modeling_x.Evil" in done.err and "which is not copied" in done.err


@pytest.mark.parametrize("others", [["config.4.0.0.json"], "config.9.json", ["config.json", "config.4.json"], {"a": 1}])
def test_a_config_that_leads_to_another_config_is_refused(others, single):
    config(configuration_files=others)(single)
    for command in ("widen", "init", "untie-embeddings"):
        done = run(command, single, "-o", single.parent / "out")
        assert done.code == 2 and "configuration_files names" in done.err and done.err.count("\n") == 1
    assert "configuration_files names" in inspect(single).refused


def test_a_list_of_configs_that_names_this_one_alone_is_no_second_reading(single):
    config(configuration_files=["config.json"])(single)
    assert open_checkpoint(single).tensors


def test_an_adapter_without_a_model_says_how_to_merge_it(tmp_path):
    (tmp_path / ADAPTER).write_text("{}")
    for command in ("inspect", "widen", "init"):
        done = run(command, tmp_path, *(() if command == "inspect" else ("-o", tmp_path.parent / "out")))
        assert done.code == 2 and "an adapter, and no config.json; merge it" in done.err


def test_what_no_default_reads_can_be_inspected(single):
    (single / SINGLE).rename(single / "consolidated.safetensors")
    found = inspect(single)
    assert found.parameters > 10**4 and "only consolidated.safetensors" in found.refused
    with pytest.raises(SourceError, match=r"only consolidated\.safetensors"):
        open_checkpoint(single)
