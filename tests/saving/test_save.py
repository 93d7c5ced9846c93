"""Saving: what lies in an output, byte for byte, and that the source is never touched."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
import torch
import transformers
from safetensors.torch import load_file

from modelsurgeon.checkpoints.checkpoint import INDEX, open_checkpoint
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.saving.save import save
from modelsurgeon.tensors import budget
from modelsurgeon.version import __version__
from support import tiny
from support.command import blake3, contents, run, sha256
from support.grow import widen

SIDE_FILES = {
    "tokenizer.json": b'{"a": "\xc3\xa9"}\r\n',
    "tokenizer_config.json": b"{ }",
    "vocab.txt": b"\x00\xff\n",
    "spiece.model": bytes(range(256)),
    "special_tokens_map.json": b"{}",
    "chat_template.jinja": b"{% for m in messages %}\n",
    "LICENSE": b"Do as you like.\n",
    "NOTICE.txt": b"Note.\n",
}
LEFT_BEHIND = {
    "modeling_llama.py": b"raise SystemExit",
    "tokenizer.py": b"raise SystemExit",
    "README.md": b"# A model of width 32\n",
    "training_args.bin": b"\x80",
}


@pytest.fixture
def folder(source, tmp_path):
    """A tied Llama with files beside it, in a folder of its own."""
    path = shutil.copytree(source(tiny.named("llama-tied"), "bfloat16"), tmp_path / "source")
    for name, data in {**SIDE_FILES, **LEFT_BEHIND}.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def sharded(folder, tmp_path):
    """The same in shards of 8 kB."""
    return save(open_checkpoint(folder), tmp_path / "sharded", shard_size=8000)


OPERATIONS = {"widen": lambda c: widen(c, 2), "untie": untie_embeddings, "copy": lambda c: c}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_files_have_the_mode_that_the_umask_leaves(mask, file_mode, folder_mode, folder, tmp_path):
    for path in folder.iterdir():
        path.chmod(0o600)
    before = os.umask(mask)
    try:
        out = save(widen(open_checkpoint(folder), 2), tmp_path / "out", shard_size=20000)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {file_mode}
    assert stat.S_IMODE(out.stat().st_mode) == folder_mode


@each_operation
def test_side_files_are_copied_byte_for_byte_and_code_is_not(operation, folder, tmp_path):
    out = save(operation(open_checkpoint(folder)), tmp_path / "out")
    for name, data in SIDE_FILES.items():
        assert (out / name).read_bytes() == data, name
    assert (out / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()
    assert not set(os.listdir(out)) & set(LEFT_BEHIND)


def test_what_does_not_go_along_is_named(folder, tmp_path):
    said = run("widen", folder, "-o", tmp_path / "out").err
    assert "files left behind: modeling_llama.py, tokenizer.py, training_args.bin" in said


def test_the_config_keeps_its_order_and_its_unknown_keys(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config = {"my_note": "é \ud800 [red]", **dict(reversed(config.items())), "nested": {"b": [1.5, None], "a": 1e-6}}
    (folder / "config.json").write_text(json.dumps(config))
    out = save(widen(open_checkpoint(folder), 2), tmp_path / "out")
    found = json.loads((out / "config.json").read_text())
    grown = {"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"}
    assert list(found) == list(config)
    assert {key for key in config if found[key] != config[key]} == grown
    assert all(found[key] == 2 * config[key] for key in grown)


@pytest.mark.parametrize("size", [8000, 20000, 10**9])
def test_shards_hold_no_more_than_asked_for_and_the_library_loads_them(size, folder, tmp_path):
    out = save(widen(open_checkpoint(folder), 2), tmp_path / "out", shard_size=size)
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    held = {name: load_file(out / name) for name in shards}
    for tensors in held.values():
        assert len(tensors) == 1 or sum(t.numel() * t.element_size() for t in tensors.values()) <= size
    if size == 10**9:
        assert shards == ["model.safetensors"] and not (out / INDEX).exists()
    else:
        assert shards == [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
        index = json.loads((out / INDEX).read_text())
        assert index["weight_map"] == {name: shard for shard, tensors in held.items() for name in tensors}
        total = sum(t.numel() * t.element_size() for tensors in held.values() for t in tensors.values())
        assert index["metadata"]["total_size"] == total
    model = tiny.load(out, "LlamaForCausalLM")
    assert torch.equal(
        model.model.norm.weight, {k: v for t in held.values() for k, v in t.items()}["model.norm.weight"].float()
    )


def test_the_record_tells_what_was_done_to_what(folder, tmp_path):
    out = save(widen(open_checkpoint(folder), 2, attention="heads"), tmp_path / "out")
    record = json.loads((out / "modelsurgeon.json").read_text())
    assert (record["tool"], len(record["steps"])) == ("modelsurgeon", 1)
    step = record["steps"][0]
    assert (step["operation"], step["version"], step["lossless"]) == ("widen", __version__, True)
    chosen = {"rule": "exact", "attention": "heads", "rope": "nested", "dtype": None, "noise": 0.0}
    assert step["arguments"] == {"factor": 2, "settings": {}, **chosen}
    assert step["source"]["id"] == str(folder)
    assert step["source"]["files"] == {
        name: {"bytes": (folder / name).stat().st_size, "blake3": blake3(folder / name)}
        for name in ("config.json", "model.safetensors")
    }
    assert {"stream", "hidden", "mlp", "heads", "kv"} <= set(step["maps"])
    assert not {"vocab", "head"} & set(step["maps"])


def test_the_record_grows_by_a_step_an_operation(folder, tmp_path):
    first = save(widen(open_checkpoint(folder), 2), tmp_path / "first")
    second = save(untie_embeddings(open_checkpoint(first)), tmp_path / "second")
    steps = [json.loads((out / "modelsurgeon.json").read_text())["steps"] for out in (first, second)]
    assert [step["operation"] for step in steps[1]] == ["widen", "untie-embeddings"]
    assert steps[1][0] == steps[0][0]
    assert steps[1][1]["source"]["id"] == str(first)
    assert steps[1][1]["source"]["files"]["model.safetensors"]["blake3"] == blake3(first / "model.safetensors")
    assert steps[1][1]["maps"] == {}


@pytest.mark.parametrize("command", ["widen", "untie-embeddings"])
def test_no_operation_touches_its_source(command, sharded, tmp_path):
    before = contents(sharded)
    stamps = {path: path.stat().st_mtime_ns for path in [sharded, *sharded.iterdir()]}
    assert run(command, sharded, "-o", tmp_path / "out", "--verify").code == 0
    assert run("verify", sharded, tmp_path / "out", "--samples", 1, "--length", 16).code == 0
    assert contents(sharded) == before
    assert {path: path.stat().st_mtime_ns for path in [sharded, *sharded.iterdir()]} == stamps


def test_untying_leaves_every_shard_of_the_source_byte_for_byte(sharded, tmp_path):
    out = save(untie_embeddings(open_checkpoint(sharded)), tmp_path / "out")
    before = [sha256(path) for path in sorted(sharded.glob("*.safetensors"))]
    after = [sha256(path) for path in sorted(out.glob("*.safetensors"))]
    assert len(before) > 2 and len(after) == len(before) + 1
    assert set(before) < set(after)
    tiny.load(out, "LlamaForCausalLM")


@pytest.mark.parametrize("kind", ["demo", "sharded"])
def test_untying_copies_inside_the_kernel(kind, sharded, tmp_path, monkeypatch):
    checkpoint, written, pwrite = open_checkpoint("demo" if kind == "demo" else sharded), [], os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda to, data, at: written.append(bytes(data)) or pwrite(to, data, at))
        out = save(untie_embeddings(checkpoint), tmp_path / "out")
    assert len(written) == 1 and b'{"__metadata__"' in written[0]  # of the one shard that is new: its header
    found = {name: t.read(0, t.shape[0]) for name, t in open_checkpoint(out).tensors.items()}
    old = {name: t.read(0, t.shape[0]) for name, t in checkpoint.tensors.items()}
    assert found.keys() - old.keys() == {"lm_head.weight"}
    assert torch.equal(found["lm_head.weight"], old["model.embed_tokens.weight"])
    assert all(torch.equal(found[name], old[name]) for name in old)


def test_an_untied_model_is_copied_faithfully_and_called_so(source, tmp_path):
    folder = source(tiny.named("llama-untied"))
    done = run("untie-embeddings", folder, "-o", tmp_path / "out")
    assert done.code == 0 and "already untied: copied as it is" in done.err
    old, new = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert all(
        (folder / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in ("model.safetensors",)
    )
    configs = [json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "out")]
    assert configs[0] == configs[1]
    record = json.loads((tmp_path / "out" / "modelsurgeon.json").read_text())
    assert record["steps"] == [] and record["files"]["model.safetensors"]["blake3"] == blake3(
        folder / "model.safetensors"
    )


def test_numbers_that_are_no_numbers_are_copied_bit_for_bit(folder, tmp_path):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = next(t.start for name, t in open_checkpoint(folder).tensors.items() if name == "model.embed_tokens.weight")
    data[start : start + 8] = bytes.fromhex("c07f 807f 80ff 0100".replace(" ", ""))  # NaN, inf, -inf, a denormal
    path.write_bytes(data)
    for command in ("widen", "untie-embeddings"):
        assert run(command, folder, "-o", tmp_path / command).code == 0
    untied = open_checkpoint(tmp_path / "untie-embeddings").tensors
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert untied[name].read(0, 1)[0, :4].view(torch.int16).tolist() == [0x7FC0, 0x7F80, 0xFF80 - 2**16, 1]
    found = open_checkpoint(tmp_path / "widen").tensors["model.embed_tokens.weight"].read(0, 1)[0, :4]
    assert torch.isnan(found[0]) and found[1:3].tolist() == [torch.inf, -torch.inf]


@each_operation
@pytest.mark.parametrize("kind", ["folder", "sharded"])
def test_every_kind_of_folder_opens_and_loads_after_every_operation(kind, operation, request, tmp_path):
    folder = request.getfixturevalue(kind)
    out = save(operation(open_checkpoint(folder)), tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == tiny.VOCAB


def test_experts_that_are_tensors_of_their_own_are_saved_and_loaded_under_further_names(source, tmp_path):
    folder = source(tiny.named("mixtral-untied"), "bfloat16")
    settings = {"num_local_experts": 12, "num_experts_per_tok": 4}
    out = save(widen(open_checkpoint(folder), None, settings), tmp_path / "out", shard_size=20000)
    names = json.loads((out / INDEX).read_text())["weight_map"]
    old, new = (open_checkpoint(path).tensors for path in (folder, out))
    expert = "model.layers.1.block_sparse_moe.experts.{}.w2.weight"
    for number in range(12):
        assert expert.format(number) in names
        copied = new[expert.format(number)].read(0, 32)
        assert torch.equal(copied, old[expert.format(number // 2)].read(0, 32))
    assert expert.format(12) not in names
    tiny.load(out, "MixtralForCausalLM")


def test_a_config_that_changes_between_the_reading_of_it_and_the_hashing_is_refused(tmp_path):
    opened = open_checkpoint(shutil.copytree(DEMO, tmp_path / "source"))
    config = tmp_path / "source" / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-05"))
    with pytest.raises(SourceError, match=r"config.json: changed while it was read"):
        save(opened, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_that_changes_while_it_is_read_is_refused(folder, tmp_path):
    opened = open_checkpoint(folder)
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(SourceError, match=r"model.safetensors: changed while it was read"):
        save(widen(opened, 2), tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["source"]


def test_weights_that_are_no_numbers_are_named_and_counted(folder, tmp_path):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = open_checkpoint(folder).tensors["model.embed_tokens.weight"].start
    data[start : start + 6] = bytes.fromhex("c07f 807f 80ff".replace(" ", ""))  # NaN, inf, -inf
    path.write_bytes(data)
    for command in ("widen", "untie-embeddings"):
        done = run(command, folder, "-o", tmp_path / command, "--json")
        line = "tensor 'model.embed_tokens.weight' holds 1 NaN and 2 infinities, in the source as in the output"
        assert done.code == 0 and line in done.err and line in json.loads(done.out)["notices"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("largest", [64, 1000, 8 << 20])
def test_the_bytes_are_the_same_whatever_workers_and_pieces(workers, largest, sharded, tmp_path, monkeypatch):
    usual = save(widen(open_checkpoint(sharded), 2), tmp_path / "usual", shard_size=20000)
    monkeypatch.setattr(budget, "LARGEST", largest)
    out = save(widen(open_checkpoint(sharded), 2), tmp_path / "out", shard_size=20000, workers=workers)
    assert contents(out) == contents(usual)


def test_memory_that_is_too_little_is_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(PlanError, match=r"this takes .* at least"):
        save(widen(open_checkpoint(folder), 2), tmp_path / "out", memory=10**8)
    assert sorted(os.listdir(tmp_path)) == ["source"]
