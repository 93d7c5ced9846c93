"""Files that the library would read in the place of those judged, or beside them, and files that are broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE
from support.attacks.attack import Attack, copied, widened
from support.placing import also, cut, edited, removed, sharded, written, zeros
from support.planting import all_of

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "somewhere", "r": 4, "target_modules": ["q_proj"]}
CODE = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}


def two_readings() -> Iterator[Attack]:
    llama, wide = copied("llama-tied"), widened("llama-tied")
    yield llama.refused("file", "shards, and zeros in the file of one", all_of(sharded, zeros(SINGLE)), "files", SINGLE)
    yield wide.refused(
        "file", "shards, and zeros in the file of one, with a record", all_of(sharded, zeros(SINGLE)), "files", SINGLE
    )
    yield llama.refused(
        "file", "shards, and the same once more in the file of one", all_of(sharded, also(SINGLE)), "files", SINGLE
    )
    other = all_of(zeros("other.safetensors"), edited("config.json", transformers_weights="other.safetensors"))
    yield llama.refused("file", "a config that names other weights", other, "config", "transformers_weights")
    yield wide.refused(
        "file", "a config that names other weights, with a record", other, "config", "transformers_weights"
    )
    yield llama.refused(
        "file", "an adapter beside the weights", written("adapter_config.json", ADAPTER), "files", "adapter_config.json"
    )
    yield wide.refused(
        "file",
        "an adapter beside the weights, with a record",
        written("adapter_config.json", ADAPTER),
        "files",
        "adapter_config.json",
    )


def one_reading() -> Iterator[Attack]:
    """Files that the library does not read where these are."""
    llama, wide = copied("llama-tied"), widened("llama-tied")
    yield llama.passes("file", "a variant in 16 bits", zeros("model.fp16.safetensors"))
    yield wide.passes("file", "a variant in 16 bits, with a record", zeros("model.fp16.safetensors"))
    yield llama.passes("file", "a consolidated file", zeros("consolidated.safetensors"))
    yield llama.passes("file", "a pickle beside it", written("pytorch_model.bin", "no pickle"))
    yield llama.passes(
        "file", "an index of a variant", written("model.safetensors.index.fp16.json", {"weight_map": {}})
    )
    yield llama.passes("file", "an index of pickles", written("pytorch_model.bin.index.json", {"weight_map": {}}))
    yield llama.passes("file", "an adapter's weights without its config", zeros("adapter_model.safetensors"))
    yield llama.passes("file", "a config without a class", edited("config.json", architectures=None))
    yield llama.proven("nothing", "the same in shards", sharded)
    yield wide.proven("nothing", "the same in shards, with a record", sharded)
    yield wide.unrecorded.proven("nothing", "the same in shards, its record gone", sharded)


def broken() -> Iterator[Attack]:
    llama = copied("llama-tied")
    yield llama.refused("file", "no weights", removed(SINGLE), "files")
    yield llama.refused("file", "no config", removed("config.json"), "config")
    yield llama.refused("file", "a file without its last bytes", cut(SINGLE, 100), "files", SINGLE)
    yield llama.refused("file", "an empty file", written(SINGLE, ""), "files", SINGLE)
    yield llama.refused("file", "a shard that is gone", all_of(sharded, removed(SECOND)), "files", SECOND)
    yield llama.refused("file", "a shard cut short", all_of(sharded, cut(FIRST, 10)), "files", FIRST)
    yield llama.refused(
        "file", "an index without a list", all_of(sharded, written(INDEX, {"metadata": {}})), "files", INDEX
    )
    yield llama.refused("file", "an index that is no JSON", all_of(sharded, written(INDEX, "{")), "files", INDEX)
    yield llama.refused(
        "file",
        "an index that names a file outside",
        all_of(sharded, written(INDEX, {"weight_map": {"model.norm.weight": "../x.safetensors"}})),
        "files",
    )
    yield llama.refused("file", "an index that leaves a tensor out", all_of(sharded, _shortened), "files", INDEX)
    yield llama.refused("file", "a config that is a list", written("config.json", "[]"), "config")
    yield llama.refused(
        "file", "a config without a model type", edited("config.json", model_type=None), "config", "model_type"
    )
    yield llama.refused(
        "file",
        "a quantised config",
        edited("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "config",
        "quant",
    )


def _shortened(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"].pop("model.norm.weight")
    (folder / INDEX).write_text(json.dumps(index))
