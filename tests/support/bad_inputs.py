"""The list of bad inputs: name, the function that makes it, words of the message, the exit code if it is not 2."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import torch

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE
from support import tiny
from support.bad_folders import FOLDERS, NO_FILE, OUTSIDE
from support.spoiling import (
    ABSENT,
    NORM,
    added,
    bad,
    config,
    content,
    copied,
    cut,
    entry,
    header,
    in_two_shards,
    index,
    leads_to,
    linked,
    listening,
    longer,
    moved,
    pickled,
    removed,
    replaced,
    shard_called,
    shard_linked,
    swapped,
    twice,
    unsaid,
)

EMBEDDING = "model.embed_tokens.weight"
EXPERT = "model.layers.1.mlp.experts.{}.up_proj.weight"
QUIET = ("--quiet",)  # notes on the plan come before the error
UNSOUND = "model.safetensors: not a sound safetensors file: "

PLACE = {
    "a folder that is not there": bad(lambda folder: folder / "nowhere", "no such folder, and not a Hub id (org/name)"),
    "a repository that cannot be reached": bad(
        lambda folder: "no-such-org/no-such-name",
        "no such folder, not in the Hub's cache, and the Hub cannot be reached",
    ),
    "a file": bad(lambda folder: folder / "config.json", "a file; expected a folder"),
    "nothing": bad(lambda folder: "", "an empty SOURCE"),
    "a name that no file can have": bad(lambda folder: "x" * 5000, "longer than a file's name can be"),
    "a device": bad(lambda folder: "/dev/zero", "a file; expected a folder"),
}

FILES = {
    "no config": bad(lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no safetensors": bad(lambda folder: (folder / SINGLE).unlink(), NO_FILE),
    **{
        f"only {name}": bad(pickled(name), f"only {name}", "pickles are never opened", "safe_serialization=True")
        for name in ("pytorch_model.bin", "model.pt", "model.ckpt")
    },
    **{
        f"{what} in the place of {name}": bad(replaced(name, by), said)
        for name, said in ((SINGLE, NO_FILE), ("config.json", "no config.json"))
        for what, by in {
            "a folder": Path.mkdir,
            "a FIFO": os.mkfifo,
            "a socket": listening,
            "a link to a device": lambda path: path.symlink_to("/dev/zero"),
            "a link to nothing": lambda path: path.symlink_to("nowhere"),
            "a link to itself": lambda path: path.symlink_to(path.name),
        }.items()
    },
    **{
        f"a link out of the folder: {name}": bad(linked(name), "a link out of its folder")
        for name in (SINGLE, "tokenizer.json", "LICENSE", "config.json")
    },
    "a link out of the folder: the index": bad(linked(INDEX), "a link out of its folder", of="sharded"),
    "a link out of the folder: a shard": bad(shard_linked, "a link out of its folder", of="sharded"),
}

HEADERS = {
    "an empty file": bad(content(SINGLE, b""), UNSOUND, "0 bytes, expected the 8"),
    "three bytes": bad(content(SINGLE, b"abc"), UNSOUND, "3 bytes, expected the 8"),
    "no header": bad(content(SINGLE, bytes(8)), UNSOUND),
    "zeros": bad(content(SINGLE, bytes(4096)), UNSOUND),
    "garbage": bad(content(SINGLE, struct.pack("<Q", 8) + b"garbage!"), UNSOUND, "expected a JSON object"),
    "a list": bad(content(SINGLE, struct.pack("<Q", 2) + b"[]"), UNSOUND, "expected a JSON object"),
    "no UTF-8": bad(content(SINGLE, struct.pack("<Q", 9) + b'{"\xff": {}}'), UNSOUND),
    "longer than the file": bad(content(SINGLE, struct.pack("<Q", 100) + b"{}"), UNSOUND, "100 bytes in a file of 10"),
    "2**63 long": bad(content(SINGLE, struct.pack("<Q", 2**63) + b"{}"), UNSOUND, "expected 100000000 at most"),
    "2**64 - 1 long": bad(content(SINGLE, struct.pack("<Q", 2**64 - 1) + b"{}"), UNSOUND, "expected 100000000 at most"),
    "deep": bad(content(SINGLE, struct.pack("<Q", 200_000) + b'{"a":' * 40_000), UNSOUND),
    "text": bad(content(SINGLE, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), UNSOUND),
    "cut short in its length": bad(cut(5), UNSOUND),
    "cut short in its header": bad(cut(100), UNSOUND, "in a file of 100"),
    "cut short in its data": bad(cut(0.5), UNSOUND, "bytes of tensors, but "),
    "cut short by a byte": bad(cut(-1), UNSOUND, "bytes of tensors, but "),
    "a byte more": bad(longer, UNSOUND, "bytes of tensors, but "),
    "a name that appears twice": bad(header(twice), UNSOUND, f"appears twice, '{NORM}'"),
    "a gap": bad(moved(4), UNSOUND, "a gap before it"),
    "an overlap": bad(moved(-4), UNSOUND, "overlaps the one before"),
    "offsets of another size": bad(moved(0, 4), UNSOUND, f"'{NORM}': 132 bytes, but F32 of shape [32] takes 128"),
    "negative offsets": bad(entry(data_offsets=[-128, 0]), UNSOUND, "data_offsets [-128, 0], expected"),
    "reversed offsets": bad(entry(data_offsets=[128, 0]), UNSOUND, "-128 bytes, but F32 of shape [32] takes 128"),
    "offsets beyond 2**63": bad(entry(data_offsets=[2**63, 2**63 + 128]), UNSOUND),
    "a negative shape": bad(entry(shape=[-32]), UNSOUND, "shape [-32], expected whole numbers of 0 or more"),
    "a huge shape": bad(entry(shape=[2**62, 4]), UNSOUND, "which no memory holds"),
    "a shape that overflows to its size": bad(entry(shape=[2**32, 2**32, 32]), UNSOUND, "which no memory holds"),
    "a shape of 2**62 beside 0": bad(entry(shape=[0, 2**62], data_offsets=[0, 0]), UNSOUND, "which no memory holds"),
    "a shape of strings": bad(entry(shape=["32"]), UNSOUND, "shape ['32'], expected whole numbers"),
    "a shape with a point": bad(entry(shape=[32.0]), UNSOUND, "shape [32.0], expected whole numbers"),
    "an unknown dtype": bad(entry(dtype="F7"), UNSOUND, f"tensor '{NORM}': unknown dtype 'F7'"),
    "a dtype of other size": bad(entry(dtype="F64"), UNSOUND, "128 bytes, but F64 of shape [32] takes 256"),
    "an entry too much": bad(entry(strides=[1]), UNSOUND, "expected dtype, shape, data_offsets"),
    "metadata of numbers": bad(header(lambda found: found.update(__metadata__={"a": 1})), UNSOUND, "expected strings"),
}

NO_OBJECT = {
    "no JSON": ("{", "not JSON"),
    "empty": ("", "not JSON"),
    "a list": ("[]", "expected a JSON object, found list"),
    "a string": ('"llama"', "expected a JSON object, found str"),
    "deep lists": ("[" * 100_000, "not JSON"),
    "deep objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "not JSON"),
    "an endless number": (f'{{"hidden_size": {"1" * 5000}}}', "not JSON (a whole number of 5000 digits, expected 308"),
    "bytes": (b"\xff\xfe\x00", "not JSON"),
    "a mark of byte order": (b'\xef\xbb\xbf{"model_type": "llama"}', "not JSON (Unexpected UTF-8 BOM"),
    "a name twice": ('{"model_type": "llama", "model_type": "gpt2"}', "a name that appears twice, 'model_type'"),
    "a nested name twice": ('{"rope_parameters": {"a": 1, "a": 2}}', "a name that appears twice, 'a'"),
    "too large": (" " * 10_000_001, "10000001 bytes of JSON, expected 10000000 at most"),
    "too full": ("[" + "[]," * 300_000, "600001 values, expected 500000 at most"),
}
SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
NO_SIZES = ["32", 32.0, -32, True, [32], {"a": 32}, 10**18, "[red]", "\x1b[31m\n"]
NO_EPS = [value for value in NO_SIZES if value not in (32.0, 10**18)]  # numbers are, however odd
QUANTISED = {
    "gptq": ("gptq", "start from the checkpoint that it was made from: transformers cannot undo it"),
    "awq": ("awq", "transformers cannot undo it"),
    "fbgemm_fp8": ("fbgemm_fp8", "transformers cannot undo it"),
    "torchao": ("torchao", "transformers cannot undo it"),
    "bitsandbytes": ("bitsandbytes", "dtype=bfloat16, then model.dequantize() and save_pretrained"),
    "fp8": ("fp8", "FineGrainedFP8Config(dequantize=True)"),
    "mxfp4": ("mxfp4", "Mxfp4Config(dequantize=True)"),
    "compressed-tensors": ("compressed-tensors", "CompressedTensorsConfig(dequantize=True)"),
    "of next year": ("of next year", "start from the checkpoint that it was made from"),
}

CONFIGS = {
    **{
        f"a config: {name}": bad(content("config.json", text), "config.json", said)
        for name, (text, said) in NO_OBJECT.items()
    },
    "an unknown model type": bad(
        config(model_type="perceiver"), "unknown model_type 'perceiver'; known: ", ", ".join(registry.known())
    ),
    **{
        f"a model type that is none: {value}": bad(config(model_type=value), "model_type")
        for value in (None, "", "../llama", "__init__", 7, ["llama"], {"llama": 1})
    },
    "no model type": bad(config(model_type=ABSENT), "model_type"),
    "another hidden size": bad(config(hidden_size=48), "model.", "config.json makes it"),
    "more kv heads": bad(config(num_key_value_heads=4), "k_proj", "[32, 32]", "[16, 32]"),
    "more heads": bad(config(num_attention_heads=8), "_proj", "config.json makes it"),
    "a wider MLP": bad(config(intermediate_size=41), "mlp.", "41", "40"),
    "a larger vocabulary": bad(
        config(vocab_size=tiny.VOCAB + 1), EMBEDDING, f"[{tiny.VOCAB + 1}, 32]", f"[{tiny.VOCAB}, 32]"
    ),
    "wider heads": bad(config(head_dim=12), "_proj", "config.json makes it"),
    "more layers": bad(config(num_hidden_layers=3), "'model.layers.2.", "is missing"),
    **{
        f"{key} = {value!r}": bad(config(**{key: value}))
        for key in (*SIZES, "vocab_size", "head_dim")
        for value in NO_SIZES
    },
    **{f"num_labels = {value!r}": bad(config(num_labels=value), "expected") for value in NO_SIZES},
    **{f"rms_norm_eps = {value!r}": bad(config(rms_norm_eps=value), "expected") for value in NO_EPS},
    **{f"architectures = {value!r}": bad(config(architectures=value), "expected") for value in NO_SIZES},
    **{
        f"{key} = 8": bad(
            config(**{key: 8}), f"{key} = 8 is not accounted for by llama", "remove it if it has no effect"
        )
        for key in ("clip_qkv", "residual_multiplier", "logit_scale", "n_embd", "d_ff")
    },
    "a head size in GPT-2": bad(config(head_dim=8), "head_dim = 8 is not accounted for by gpt2", of="gpt2-tied"),
    **{
        f"quantised by {method}": bad(
            config(quantization_config={"quant_method": method}), "a quantised checkpoint", *words
        )
        for method, words in QUANTISED.items()
    },
    "quantised by an old bitsandbytes": bad(config(quantization_config={"load_in_8bit": True}), "bitsandbytes"),
    "quantised under another key": bad(config(compression_config={"quant_method": "gptq"}), "compression_config: gptq"),
    "quantised by a string": bad(config(quantization_config="x"), "quantization_config is 'x', expected an object"),
}

PACKED = [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32, torch.int16]
TENSORS = {
    **{
        f"{dtype}": bad(added(NORM, torch.ones(32).to(dtype)), NORM, "is stored as", "quantised", "save_pretrained")
        for dtype in PACKED
    },
    "blocks of mxfp4": bad(
        added("model.layers.0.mlp.experts.down_proj_blocks", torch.ones(4, 4, dtype=torch.uint8)),
        "down_proj_blocks' is stored as U8 (8-bit or packed integers): quantised",
    ),
    "a tensor that no table names": bad(
        added("model.layers.0.extra.weight"),
        "'model.layers.0.extra.weight': no line of this model type's table accounts for it",
    ),
    **{
        f"a tensor that is missing: {name}": bad(removed(name), f"tensor '{name}' is missing")
        for name in (NORM, EMBEDDING, "model.layers.1.self_attn.o_proj.weight")
    },
    "a tensor of some layers only": bad(
        added("model.layers.1.self_attn.q_proj.bias"), "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"
    ),
    "a layer beyond the config's": bad(
        added("model.layers.2.input_layernorm.weight"), "has only num_hidden_layers = 2"
    ),
    **{
        f"layer {layer[:20]}": bad(
            added(f"model.layers.{layer}.input_layernorm.weight"),
            "expected at most 9 decimal digits without leading zeros",
        )
        for layer in ("00", "01", "9" * 20, "9" * 3000, "\u0661")
    },
    "an endless name": bad(added("x" * 5000), UNSOUND, "a name of 5002 bytes, expected 4096 at most"),
    "a tensor under two names": bad(added("norm.weight"), "appears twice, under two names"),
    "an expert beyond the config's": bad(
        copied(EXPERT.format(6), EXPERT.format(0)), EXPERT.format(6), "has only num_experts = 6", of="qwen2_moe-untied"
    ),
    "an expert that is missing": bad(
        removed(EXPERT.format(3)), f"'{EXPERT.format(3)}' is missing", of="qwen2_moe-untied"
    ),
    "more experts than the file has": bad(
        config(num_experts=7), "makes it [7, 32]", "the file holds [6, 32]", of="qwen2_moe-untied"
    ),
    **{
        f"expert {number[:20]}": bad(copied(EXPERT.format(number), EXPERT.format(0)), of="qwen2_moe-untied")
        for number in ("00", "01", "9" * 20, "9" * 3000)
    },
    "experts in a layer that has none": bad(
        copied("model.layers.0.mlp.experts.0.up_proj.weight", EXPERT.format(0)),
        "by config.json its layer has none",
        of="qwen2_moe-untied",
    ),
    "no experts in a layer that has some": bad(
        config(mlp_only_layers=[0, 1]), "model.layers.1.mlp.", of="qwen2_moe-untied"
    ),
    "experts fused and apart": bad(
        added("model.layers.1.mlp.experts.gate_up_proj", torch.ones(6, 48, 32)),
        "model.layers.1.mlp.experts.",
        of="qwen2_moe-untied",
    ),
    **{
        f"{key} = {value!r}": bad(config(**{key: value}), of="qwen2_moe-untied")
        for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
        for value in ("6", 6.5, -1, True, [6], 10**18)
    },
    **{
        f"n_group = {value!r}": bad(config(n_group=value), "n_group", of="deepseek_v3-untied", commands=("widen",))
        for value in (3, 0, -1, "x", [2], True)
    },
    **{
        f"attn_config = {value!r}": bad(config(attn_config=value), "attn_config", of="mpt-tied", commands=("widen",))
        for value in ("x", 3, [], {"clip_qkv": "x"}, {"clip_qkv": [1]}, {"clip_qkv": -1.0}, {"clip_qkv": True})
    },
}

INDICES = {
    **{
        f"an index: {text[:20]}": bad(content(INDEX, text), INDEX, of="sharded")
        for text in ("{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "[" * 100_000)
    },
    "a name that appears twice in the index": bad(
        content(INDEX, f'{{"weight_map": {{"{NORM}": "a", "{NORM}": "b"}}}}'), f"appears twice, '{NORM}'", of="sharded"
    ),
    "an index that is too full": bad(content(INDEX, "[" + "[]," * 1_100_000), "2200001 values", of="sharded"),
    "an index that names a missing file": bad(
        index(lambda names: names.update({NORM: "model-00099-of-00099.safetensors"})),
        "no model-00099-of-00099.safetensors, though its index names it",
        of="sharded",
    ),
    **{
        f"an index that leads to {place}": bad(leads_to(place), said, of="sharded")
        for place, said in {
            "../outside.safetensors": OUTSIDE,
            "{}/outside.safetensors": OUTSIDE,
            "sub/x.safetensors": OUTSIDE,
            "./sub/../config.json": OUTSIDE,
            "..": "though its index names it",
            ".": OUTSIDE,
            "": "though its index names it",
            "a\0b": "though its index names it",
        }.items()
    },
    "an index without metadata": bad(unsaid("metadata"), 'add "metadata": {}', of="sharded"),
    "an index of no tensors": bad(index(lambda names: names.clear()), "names no tensor", of="sharded"),
    "an index that names no safetensors": bad(shard_called("weights.dat"), "names 'weights.dat'", of="sharded"),
    "a tensor in another shard than the index says": bad(swapped, NORM, "lies in", "and the index names", of="sharded"),
    "a tensor in two shards": bad(in_two_shards, NORM, "lies in", "and the index names", of="sharded"),
    "a tensor of the index in no shard": bad(
        index(lambda names: names.update({"more": names[NORM]})), "'more' is not in", of="sharded"
    ),
    "a tensor that the index leaves out": bad(
        index(lambda names: names.pop(NORM)), NORM, "the index names no file", of="sharded"
    ),
}

RECORDS = {
    f"a record: {text[:20]}": bad(content("modelsurgeon.json", text), "modelsurgeon.json: ")
    for text in (
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "steps": [1]}',
        "[" * 100_000,
        "null",
        '{"a": 1, "a": 2}',
    )
}

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
    "a device that is none": ("--device", "tpu", "device 'tpu', expected cpu, cuda"),
    "no unit": ("--shard-size", "5XB", "shard size '5XB': expected a number of bytes, as in 500MB, 5GB or 2GiB"),
    "no size": ("--shard-size", "0", "shard size '0'"),
    "an empty size": ("--shard-size", "", "shard size ''"),
    "a negative size": ("--shard-size", "-5GB", "shard size '-5GB'"),
    "a revision": ("--revision", "main", "--revision main is for Hub ids"),
    "no option": ("--faktor", "2", "No such option: --faktor"),
}

OUTPUTS = {
    "an output that is the source": bad(lambda folder: None, "lies inside of the source", output="folder"),
    "an output inside of the source": bad(lambda folder: None, "lies inside of the source", output="folder/out"),
    "an output around the source": bad(lambda folder: None, "holds the source", output="."),
    "an output that exists": bad(lambda folder: (folder.parent / "out").mkdir(), "exists; --overwrite replaces it"),
    "an output that is a file": bad(lambda folder: (folder.parent / "out").touch(), "exists and is no folder"),
    "an output that is a link": bad(
        lambda folder: (folder.parent / "out").symlink_to(folder.parent / "other"), "exists and is no folder"
    ),
    "an output that is a link to the source": bad(
        lambda folder: (folder.parent / "out").symlink_to(folder), "lies inside of the source"
    ),
    "an output in a file": bad(
        lambda folder: (folder.parent / "file").touch(),
        "lies in a file, expected a folder",
        output="file/out",
    ),
    "an output whose name is too long": bad(
        lambda folder: None, "longer than a folder's name can be", output="x" * 300
    ),
    "a folder that is no checkpoint, to be replaced": bad(
        lambda folder: (folder.parent / "out" / "mine").mkdir(parents=True),
        "exists and is no checkpoint",
        options=("--overwrite",),
    ),
}

BAD = {
    **PLACE,
    **FILES,
    **FOLDERS,
    **HEADERS,
    **CONFIGS,
    **TENSORS,
    **INDICES,
    **RECORDS,
    **{
        name: bad(lambda folder: None, said, commands=("widen",), options=(option, value))
        for name, (option, value, said) in OPTIONS.items()
    },
    **OUTPUTS,
}
