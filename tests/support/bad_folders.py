"""Bad inputs whose files are two models, or none that is loaded by default: a part of the list of `bad_inputs.py`."""

from __future__ import annotations

from modelsurgeon.checkpoints.checkpoint import SINGLE
from support.spoiling import NORM, bad, both, config, content, index, pickled, prefixed, renamed, zeros

NO_FILE = "no model.safetensors and no model.safetensors.index.json"
OUTSIDE = "a checkpoint's files lie in its own folder"

FOLDERS = {  # folders that hold two models, or none that is loaded by default
    "a stray file of zeros beside shards": bad(
        zeros(SINGLE), "two models", SINGLE, "names model-00001-of-", "remove", of="sharded"
    ),
    "a stray file beside an index of a part of its shards": bad(
        both(zeros(SINGLE), lambda folder: next(folder.glob("model-*")).unlink()), "two models", of="sharded"
    ),
    "a stray file beside an index of another folder's files": bad(
        both(zeros(SINGLE), index(lambda names: names.update({NORM: "sub/x.safetensors"}))), "two models", of="sharded"
    ),
    **{
        f"weights that the config names beside others: {name} in {of}": bad(
            both(zeros(name), config(transformers_weights=name)), "two models", f"config.json names {name}", of=of
        )
        for of in ("llama-tied", "sharded")
        for name in ("other.safetensors", "adapter_model.safetensors", "consolidated.safetensors")
    },
    **{
        f"weights that the config names: {value!r}": bad(
            config(transformers_weights=value), "transformers_weights", said
        )
        for value, said in {
            "gone.safetensors": "two models",
            "../outside.safetensors": "two models",
            "pytorch_model.bin": "expected the name of a safetensors file or index",
            "adapter_model.bin": "expected the name of a safetensors file or index",
            "": "expected the name of a safetensors file or index",
            7: "expected the name of a safetensors file or index",
            False: "expected the name of a safetensors file or index",
        }.items()
    },
    **{
        f"weights that the config alone names: {value}": bad(
            both(config(transformers_weights=value), lambda folder: (folder / SINGLE).unlink()), said
        )
        for value, said in {
            "gone.safetensors": "no gone.safetensors, though transformers_weights in config.json names it",
            "sub/x.safetensors": OUTSIDE,
            "../x.safetensors": OUTSIDE,
            "/x.safetensors.index.json": OUTSIDE,
            SINGLE: f"no {SINGLE}, though transformers_weights in config.json names it",
        }.items()
    },
    "an adapter beside the weights": bad(
        content("adapter_config.json", "{}"), "two models: adapter_config.json", "peft", "merge_and_unload()"
    ),
    "an adapter beside shards": bad(
        content("adapter_config.json", "x"), "two models: adapter_config.json", of="sharded"
    ),
    "a part of a distributed checkpoint": bad(
        zeros("shard-00001-model-00001-of-00002.safetensors"), "two models: shard-00001-", "distributed checkpoint"
    ),
    **{
        f"only {name}": bad(renamed(name), NO_FILE, f"only {name}; ", *said)
        for name, said in {
            "model.fp16.safetensors": ["variant='fp16'"],
            "model.fp16-00001-of-00002.safetensors": ["variant='fp16'"],
            "model.safetensors.index.fp16.json": ["variant='fp16'"],
            "consolidated.safetensors": ["the names of the original code"],
            "consolidated-00001-of-00002.safetensors": ["the names of the original code"],
            "model-00001-of-00002.safetensors": ["a shard, and transformers needs the index"],
            "weights.safetensors": ["rename it to model.safetensors"],
            "Model.safetensors": ["rename it to model.safetensors"],
            "model.gguf": ["gguf_file="],
            "tf_model.h5": ["transformers 4"],
            "flax_model.msgpack": ["transformers 4"],
        }.items()
    },
    "a pickle that transformers would load beside what it would not": bad(
        both(pickled("pytorch_model.bin"), zeros("consolidated.safetensors")),
        NO_FILE,
        "only pytorch_model.bin; pickles",
    ),
    **{
        f"a config that leads to another: {value}": bad(config(configuration_files=value), "configuration_files names")
        for value in (["config.4.0.0.json"], "config.json.bak", ["config.json", 7])
    },
    **{
        f"tensors that begin with {prefix}": bad(
            prefixed(prefix), f"every tensor begins with '{prefix}'", said, "or strip the prefix"
        )
        for prefix, said in {
            "_orig_mod.": "a compiled model",
            "module.": "DDP",
            "_fsdp_wrapped_module.": "FSDP",
            "base_model.model.": "merge_and_unload()",
            "model.": "a module around the model",
            "student.": "a module around the model",
        }.items()
    },
}
