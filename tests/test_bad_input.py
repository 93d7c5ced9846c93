"""Bad input: each kind is refused with exit code 2 and one line that says what is wrong, and nothing is written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from command import contents, run
from modelsurgeon import architecture
from modelsurgeon.checkpoint import INDEX, open_checkpoint
from modelsurgeon.save import save
from modelsurgeon.sizes import parse_size

COMMANDS = ("widen", "untie-embeddings")
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
ABSENT = object()


@pytest.fixture
def folder(source, tmp_path):
    """A tied Llama that a test may spoil."""
    return shutil.copytree(source(tiny.named("llama-tied")), tmp_path / "folder")


@pytest.fixture
def sharded(folder, tmp_path):
    """The same in three shards or more."""
    return save(open_checkpoint(folder), tmp_path / "sharded", shard_size=20000)


def refused(folder, *words, commands=COMMANDS, options=()):
    """Assert that each command refuses the folder: code 2, one line that holds these words, nothing written."""
    parent = folder.parent
    before = contents(parent)
    for command in commands:
        done = run(command, folder, "-o", parent / "out", *options)
        assert (done.code, done.out) == (2, ""), done.err
        assert done.err.startswith("modelsurgeon: ") and done.err.count("\n") == 1 and done.err.endswith("\n")
        assert done.err.isascii() and done.err[:-1].isprintable(), "what would move the cursor"
        assert "Traceback" not in done.err
        for word in words:
            assert word in done.err, done.err
    assert contents(parent) == before


def change_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ABSENT}))


def change_tensors(folder, change, file="model.safetensors"):
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, {"format": "pt"})


def header(folder, file="model.safetensors"):
    """(header, data) of a file."""
    raw = (folder / file).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(folder, text, data, file="model.safetensors"):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data)


# The place


def test_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path / "nowhere", "nowhere: no such folder, and not a Hub id (org/name)")


def test_a_repository_that_cannot_be_reached(tmp_path):
    done = run("widen", "no-such-org/no-such-name", "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no-such-org/no-such-name: no such folder, not in the Hub's cache, and the Hub cannot be reached" in done.err
    assert contents(tmp_path) == {}


def test_a_file_in_the_place_of_a_folder(folder):
    refused(folder / "config.json", "a file; expected a folder")


def test_an_empty_source(tmp_path):
    done = run("widen", "", "-o", tmp_path / "out")
    assert done.code == 2 and "an empty SOURCE" in done.err


@pytest.mark.parametrize("command", [*COMMANDS, "verify"])
def test_a_name_that_no_file_can_have(command, tmp_path):
    done = run(command, "x" * 5000, *(["demo"] if command == "verify" else ["-o", tmp_path / "out"]))
    assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_a_folder_without_safetensors(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors and no model.safetensors.index.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickles_are_named_and_never_opened(name, folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    refused(folder, f"only {name}", "pickles are never opened", "safe_serialization=True")
    assert not (tmp_path / "exploded").exists()


# config.json


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


NO_OBJECT = {
    "no JSON": ("{", "not JSON"),
    "empty": ("", "not JSON"),
    "a list": ("[]", "expected a JSON object, found list"),
    "a string": ('"llama"', "expected a JSON object, found str"),
    "deep lists": ("[" * 100_000, "not JSON"),
    "deep objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "not JSON"),
    "an endless number": (f'{{"hidden_size": {"1" * 5000}}}', "not JSON"),
    "bytes": (b"\xff\xfe\x00", "not JSON"),
}


@pytest.mark.parametrize(("text", "said"), NO_OBJECT.values(), ids=NO_OBJECT)
def test_a_config_that_is_no_object(text, said, folder):
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder, "config.json", said)


def test_a_config_that_is_a_folder(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, "no config.json")


def test_an_unknown_model_type_and_the_known_ones(folder):
    change_config(folder, model_type="perceiver")
    refused(folder, "unknown model_type 'perceiver'; known: ", ", ".join(architecture.known()))


@pytest.mark.parametrize("value", [None, ABSENT, "", "../llama", "__init__", 7, ["llama"], {"llama": 1}])
def test_a_model_type_that_is_none(value, folder):
    change_config(folder, model_type=value)
    refused(folder, "model_type")


CONTRADICTIONS = {
    "hidden_size": (48, "model.", "config.json makes it"),
    "num_key_value_heads": (4, "k_proj", "[32, 32]", "[16, 32]"),
    "num_attention_heads": (8, "_proj", "config.json makes it"),
    "intermediate_size": (41, "mlp.", "41", "40"),
    "vocab_size": (tiny.VOCAB + 1, EMBEDDING, f"[{tiny.VOCAB + 1}, 32]", f"[{tiny.VOCAB}, 32]"),
    "head_dim": (12, "_proj", "config.json makes it"),
    "num_hidden_layers": (3, "'model.layers.2.", "is missing"),
}


@pytest.mark.parametrize(("key", "value", "words"), [(k, v, w) for k, (v, *w) in CONTRADICTIONS.items()])
def test_a_config_that_contradicts_the_tensors(key, value, words, folder):
    change_config(folder, **{key: value})
    refused(folder, *words)


SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
NO_SIZES = ["32", 32.0, -32, True, [32], {"a": 32}, 10**18, "[red]", "\x1b[31m\n"]


@pytest.mark.parametrize("value", NO_SIZES, ids=repr)
@pytest.mark.parametrize("key", [*SIZES, "vocab_size", "head_dim"])
def test_a_size_that_is_none(key, value, folder):
    change_config(folder, **{key: value})
    refused(folder)


NO_EPS = [value for value in NO_SIZES if value not in (32.0, 10**18)]  # numbers are, however odd
UNSEEN = [
    *(("num_labels", value) for value in NO_SIZES),
    *(("rms_norm_eps", value) for value in NO_EPS),
    *(("architectures", value) for value in NO_SIZES),
]


@pytest.mark.parametrize(("key", "value"), UNSEEN, ids=repr)
def test_a_value_that_no_tensor_shows_to_be_wrong(key, value, folder):
    change_config(folder, **{key: value})
    refused(folder, "expected")


QUANTISED = [{"quant_method": "gptq", "bits": 4}, {"load_in_8bit": True}]


@pytest.mark.parametrize("value", QUANTISED)
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_quantised_checkpoint(key, value, folder):
    change_config(folder, **{key: value})
    refused(folder, "a quantised checkpoint; start from the one that it was made from")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
def test_weights_of_a_quantised_dtype(dtype, folder):
    change_tensors(folder, lambda tensors: tensors.update({NORM: torch.ones(32).to(dtype)}))
    refused(folder, NORM, "is stored as", "quantised")


@pytest.mark.parametrize("key", ["clip_qkv", "residual_multiplier", "logit_scale", "n_embd", "d_ff"])
def test_a_config_key_with_an_effect_elsewhere(key, folder):
    change_config(folder, **{key: 8})
    refused(folder, f"{key} = 8 is not accounted for by llama", "remove it if it has no effect")


def test_a_head_size_in_gpt2(source, tmp_path):
    folder = shutil.copytree(source(tiny.named("gpt2-tied")), tmp_path / "gpt2")
    change_config(folder, head_dim=8)
    refused(folder, "head_dim = 8 is not accounted for by gpt2")


def test_an_unknown_harmless_key_is_kept_and_mentioned(folder, tmp_path):
    change_config(folder, my_note="x")
    done = run("widen", folder, "-o", tmp_path / "out")
    assert done.code == 0 and "kept as they are, unknown to llama: my_note" in done.err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["my_note"] == "x"


# Tensors


def test_a_tensor_that_no_table_names(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.0.extra.weight": torch.ones(3)}))
    refused(folder, "'model.layers.0.extra.weight': no line of this model type's table accounts for it")


@pytest.mark.parametrize("name", [NORM, EMBEDDING, "model.layers.1.self_attn.o_proj.weight"])
def test_a_tensor_that_is_missing(name, folder):
    change_tensors(folder, lambda tensors: tensors.pop(name))
    refused(folder, f"tensor '{name}' is missing")


def test_a_tensor_missing_from_some_layers_only(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.1.self_attn.q_proj.bias": torch.ones(32)}))
    refused(folder, "tensor 'model.layers.0.self_attn.q_proj.bias' is missing")


@pytest.mark.parametrize("layer", ["2", "00", "01", "9" * 20, "9" * 5000, "\u0661"])
def test_a_layer_beyond_the_config_s_or_no_number_as_written(layer, folder):
    name = f"model.layers.{layer}.input_layernorm.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(32)}))
    before = contents(folder.parent)
    done = run("widen", folder, "-o", folder.parent / "out")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err[:200]
    assert "has only num_hidden_layers = 2" in done.err or "is no number as the library writes it" in done.err
    assert contents(folder.parent) == before


def test_a_tensor_under_two_names(folder):
    change_tensors(folder, lambda tensors: tensors.update({"norm.weight": torch.ones(32)}))
    refused(folder, "stands twice, under two names")


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=file:///etc/passwd]x[/link]", ":boom:"])
def test_markup_in_names_is_shown_as_it_is(name, folder, tmp_path):
    change_config(folder, **{name: name})
    done = run("widen", folder, "-o", tmp_path / "out")
    assert done.code == 0 and f"unknown to llama: {name}\n" in done.err
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(3)}))
    shutil.rmtree(tmp_path / "out")
    refused(folder, f"tensor '{name}'")


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "back\rwards", "\u202eright to left", "bell\x07"])
def test_control_characters_in_names_are_escaped(name, folder, tmp_path):
    change_config(folder, **{name: name}, my_note=name)
    (folder / name).write_text("left behind")
    done = run("widen", folder, "-o", tmp_path / "out")
    assert done.code == 0 and ascii(name) in done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    assert json.loads((tmp_path / "out" / "config.json").read_text())[name] == name
    shutil.rmtree(tmp_path / "out")
    moved = folder.rename(tmp_path / name)
    change_tensors(moved, lambda tensors: tensors.update({f"{name}rotary_emb.inv_freq": torch.ones(3)}))
    refused(moved, "has control characters in its name")


# Layers and experts


@pytest.fixture
def mixture(source, tmp_path):
    """A mixture of six experts, beside a dense first layer, that a test may spoil."""
    return shutil.copytree(source(tiny.named("qwen2_moe-untied")), tmp_path / "mixture")


EXPERT = "model.layers.1.mlp.experts.{}.up_proj.weight"


def test_an_expert_beyond_the_config_s(mixture):
    change_tensors(mixture, lambda tensors: tensors.update({EXPERT.format(6): tensors[EXPERT.format(0)].clone()}))
    refused(mixture, f"'{EXPERT.format(6)}'", "has only num_experts = 6")


def test_an_expert_that_is_missing(mixture):
    change_tensors(mixture, lambda tensors: tensors.pop(EXPERT.format(3)))
    refused(mixture, f"'{EXPERT.format(3)}' is missing")


def test_more_experts_than_the_file_has(mixture):
    change_config(mixture, num_experts=7)
    refused(mixture, "config.json makes it [7, 32]", "the file holds [6, 32]")


@pytest.mark.parametrize("number", ["00", "01", "9" * 20, "9" * 5000])
def test_an_expert_s_number_that_is_none(number, mixture):
    change_tensors(mixture, lambda tensors: tensors.update({EXPERT.format(number): tensors[EXPERT.format(0)].clone()}))
    refused(mixture)


def test_experts_in_a_layer_that_has_none(mixture):
    name = EXPERT.format(0).replace("layers.1", "layers.0")
    change_tensors(mixture, lambda tensors: tensors.update({name: tensors[EXPERT.format(0)].clone()}))
    refused(mixture, f"'{name}': by config.json its layer has none")


def test_a_layer_that_the_config_makes_dense_though_it_holds_experts(mixture):
    change_config(mixture, mlp_only_layers=[0, 1])
    refused(mixture, "model.layers.1.mlp.")


def test_experts_fused_and_apart_at_once(mixture):
    fused = {"model.layers.1.mlp.experts.gate_up_proj": torch.ones(6, 48, 32)}
    change_tensors(mixture, lambda tensors: tensors.update(fused))
    refused(mixture, "model.layers.1.mlp.experts.")


@pytest.mark.parametrize("key", ["num_experts", "num_experts_per_tok", "moe_intermediate_size"])
@pytest.mark.parametrize("value", ["6", 6.5, -1, True, [6], 10**18], ids=repr)
def test_a_number_of_experts_that_is_none(key, value, mixture):
    change_config(mixture, **{key: value})
    refused(mixture)


@pytest.mark.parametrize("value", [3, 0, -1, "x", [2], True], ids=repr)
def test_groups_of_experts_that_are_none(value, source, tmp_path):
    folder = shutil.copytree(source(tiny.named("deepseek_v3-untied")), tmp_path / "v3")
    change_config(folder, n_group=value)
    refused(folder, "n_group", commands=["widen"])


CLAMPS = ["x", 3, [], {"clip_qkv": "x"}, {"clip_qkv": [1]}, {"clip_qkv": -1.0}, {"clip_qkv": True}]


@pytest.mark.parametrize("value", CLAMPS, ids=repr)
def test_a_nested_part_that_is_none(value, source, tmp_path):
    folder = shutil.copytree(source(tiny.named("mpt-tied")), tmp_path / "mpt")
    change_config(folder, attn_config=value)
    refused(folder, "attn_config", commands=["widen"])


# Files


def test_a_file_cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refused(folder, "model.safetensors: not a sound safetensors file")


HEADERS = {
    "nothing": b"",
    "three bytes": b"abc",
    "no header": struct.pack("<Q", 0),
    "garbage": struct.pack("<Q", 8) + b"garbage!",
    "no JSON": struct.pack("<Q", 2) + b"{a",
    "a list": struct.pack("<Q", 2) + b"[]",
    "no UTF-8": struct.pack("<Q", 2) + b"\xff\xfe",
    "longer than the file": struct.pack("<Q", 100) + b"{}",
    "2**63 long": struct.pack("<Q", 2**63) + b"{}",
    "2**64 - 1 long": struct.pack("<Q", 2**64 - 1) + b"{}",
    "deep": struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_corrupt_header(data, folder):
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, "model.safetensors: ")


def test_a_name_that_stands_twice_in_a_header(folder):
    found, data = header(folder)
    text = json.dumps(found)
    entry = f'"{NORM}": {json.dumps(found[NORM])}'
    assert entry in text
    write(folder, text.replace(entry, f"{entry}, {entry}").encode(), data)
    refused(folder, "stands twice")


@pytest.mark.parametrize("change", [{"data_offsets": [0, 4]}, {"shape": [2**62, 4]}, {"shape": [-1]}, {"dtype": "F7"}])
def test_an_entry_that_contradicts_the_data(change, folder):
    found, data = header(folder)
    found[NORM].update(change)
    write(folder, found, data)
    refused(folder, "not a sound safetensors file")


def test_a_folder_in_the_place_of_the_file(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "no model.safetensors")


# The index


def change_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "[" * 100_000])
def test_an_index_that_is_none(index, sharded):
    (sharded / INDEX).write_text(index)
    refused(sharded, INDEX)


def test_an_index_that_names_a_missing_file(sharded):
    change_index(sharded, lambda names: names.update({NORM: "model-00099-of-00099.safetensors"}))
    refused(sharded, "no model-00099-of-00099.safetensors, though its index names it")


@pytest.mark.parametrize("place", ["../outside.safetensors", "{}/outside.safetensors", "sub/x.safetensors", "..", ""])
def test_an_index_that_leads_out_of_the_folder(place, sharded, tmp_path):
    shard = next(sharded.glob("model-*.safetensors"))
    shutil.copy(shard, tmp_path / "outside.safetensors")
    (sharded / "sub").mkdir()
    shutil.copy(shard, sharded / "sub" / "x.safetensors")
    place = place.format(tmp_path)
    change_index(sharded, lambda names: names.update({k: place for k, v in names.items() if v == shard.name}))
    refused(sharded)
    assert "lie in its own folder" in run("widen", sharded, "-o", tmp_path / "out").err or place in ("", "..")


def test_an_index_and_files_that_disagree(sharded):
    shards = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    before = (sharded / INDEX).read_text()
    change_index(sharded, lambda names: names.update({NORM: next(s for s in shards if s != names[NORM])}))
    refused(sharded, NORM, "lies in")
    (sharded / INDEX).write_text(before)
    change_index(sharded, lambda names: names.update({"model.more.weight": shards[0]}))
    refused(sharded, f"'model.more.weight' is not in {shards[0]}")
    (sharded / INDEX).write_text(before)
    change_index(sharded, lambda names: names.pop(NORM))
    refused(sharded, NORM)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "LICENSE", "config.json"])
def test_a_link_out_of_the_folder(name, folder, tmp_path):
    (folder / name).touch()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, "a link out of its folder")


def test_an_index_that_is_a_link_out_of_the_folder(sharded, tmp_path):
    (sharded / INDEX).rename(tmp_path / "elsewhere")
    (sharded / INDEX).symlink_to(tmp_path / "elsewhere")
    refused(sharded, "a link out of its folder")


def test_links_that_stay_in_the_folder_are_followed(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    assert run("widen", folder, "-o", tmp_path / "out").code == 0


# The record


@pytest.mark.parametrize(
    "record", ["{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "steps": [1]}', "[" * 100_000, "null"]
)
def test_a_record_that_cannot_be_read(record, folder):
    (folder / "modelsurgeon.json").write_text(record)
    refused(folder, "modelsurgeon.json: ")


# Options

OPTIONS = {
    "a factor of 1": ("--factor", "1", "factor is 1, expected a whole number of 2 or more"),
    "a factor of 0": ("--factor", "0", "factor is 0"),
    "a negative factor": ("--factor", "-2", "factor is -2"),
    "a half": ("--factor", "2.5", "Invalid value for '--factor'"),
    "a word": ("--factor", "two", "Invalid value for '--factor'"),
    "a rule": ("--rule", "best", "rule is 'best', expected one of auto, "),
    "an attention": ("--attention", "flash", "attention is 'flash', expected one of auto, "),
    "a rope": ("--rope", "yarn", "rope is 'yarn', expected one of nested, repeat"),
    "a dtype": ("--dtype", "int8", "dtype is 'int8', expected one of bfloat16, "),
    "a device": ("--device", "tpu", "device 'tpu', expected cpu, cuda"),
    "no unit": ("--shard-size", "5XB", "shard size '5XB': expected a number of bytes, as in 500MB, 5GB or 2GiB"),
    "no size": ("--shard-size", "0", "shard size '0'"),
    "nothing": ("--shard-size", "", "shard size ''"),
    "a negative size": ("--shard-size", "-5GB", "shard size '-5GB'"),
    "a revision": ("--revision", "main", "--revision main is for Hub ids"),
    "no option": ("--faktor", "2", "No such option: --faktor"),
}


@pytest.mark.parametrize(("option", "value", "said"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_does_not_exist_or_fit(option, value, said, folder):
    refused(folder, said, commands=["widen"], options=(option, value))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(folder):
    for command in (["widen", folder, "-o", folder.parent / "out"], ["verify", folder, folder]):
        done = run(*command, "--device", "cuda")
        assert done.code == 2 and "torch can use 0 GPUs here" in done.err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("5GiB", 5 * 2**30),
        ("500000", 500_000),
        ("500MB", 5 * 10**8),
        ("1.5kB", 1500),
        ("5g", 5 * 10**9),
    ],
)
def test_sizes_as_people_write_them(text, size, folder):
    assert parse_size(text) == size
    assert run("widen", folder, "--shard-size", text, "--dry-run").code == 0
