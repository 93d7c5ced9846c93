"""Folders that hold several models at once, each of another number, so that what was read of them can be told.

folder_of(Case(frozenset({"single", "pickle"}), "shards", "other.safetensors"), path)
loaded_by_the_library(path)  # 1.0: every parameter of what `from_pretrained` loads
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from modelsurgeon.checkpoints.weight_files import ADAPTER, INDEX, NAMED, SINGLE

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHER, CLUSTER = "other.safetensors", "shard-00001-model-00001-of-00001.safetensors"
FILES = {  # {kind of file: (its name, the number in it)}
    "single": (SINGLE, 1.0),
    "stray shard": ("model-00003-of-00003.safetensors", 3.0),
    "variant": ("model.fp16.safetensors", 4.0),
    "consolidated": ("consolidated.safetensors", 5.0),
    "pickle": ("pytorch_model.bin", 6.0),
    "other": (OTHER, 7.0),
    "adapter": (ADAPTER, None),
    "cluster": (CLUSTER, 8.0),
}
OF_SHARDS = 2.0
INDICES = ("none", "shards", "itself", "gone", "half gone", "without metadata", "empty")
UNNAMED = "nothing"  # no key
NAMES = (UNNAMED, None, SINGLE, INDEX, OTHER)  # what transformers_weights is
SUBSETS = [frozenset(some) for count in range(len(FILES) + 1) for some in combinations(FILES, count)]


@dataclass(frozen=True)
class Case:
    """One folder.

    kinds  the files in it, by FILES
    index  what its index names, by INDICES
    named  `transformers_weights`
    """

    kinds: frozenset[str]
    index: str
    named: str | None

    def __str__(self) -> str:
        return f"{'+'.join(sorted(self.kinds)) or 'nothing'}, index {self.index}, named {self.named}"


def names() -> dict[str, torch.Tensor]:
    """The tensors of the smallest Llama."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 16}
    config = LlamaConfig(**sizes, num_hidden_layers=1, tie_word_embeddings=False, pad_token_id=0, dtype="float32")
    model = LlamaForCausalLM(config)
    return {**model.state_dict(), "config": config}  # type: ignore[dict-item]


TENSORS = names()
CONFIG: Any = TENSORS.pop("config")


def filled(number: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, number) for name, tensor in TENSORS.items()}


def folder_of(case: Case, folder: Path) -> Path:
    """The folder of a case, written anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    named = {} if case.named == UNNAMED else {NAMED: case.named}
    config = {**CONFIG.to_dict(), **named, "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    for kind in sorted(case.kinds):
        name, number = FILES[kind]
        if number is None:
            (folder / name).write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
        elif name.endswith(".bin"):
            torch.save(filled(number), folder / name)
        else:
            save_file(filled(number), folder / name, {"format": "pt"})
    _write_index(case.index, folder)
    return folder


def _write_index(kind: str, folder: Path) -> None:
    if kind == "none":
        return
    ordered = sorted(TENSORS)
    weight_map = {name: SHARDS[number % 2] for number, name in enumerate(ordered)}
    for shard in SHARDS if kind in ("shards", "without metadata") else SHARDS[:1] if kind == "half gone" else ():
        tensors = filled(OF_SHARDS)
        save_file({n: t for n, t in tensors.items() if weight_map[n] == shard}, folder / shard, {"format": "pt"})
    weight_map = dict.fromkeys(ordered, SINGLE) if kind == "itself" else {} if kind == "empty" else weight_map
    metadata: Mapping[str, Any] = {} if kind == "without metadata" else {"metadata": {"total_size": 0}}
    (folder / INDEX).write_text(json.dumps({**metadata, "weight_map": weight_map}))


def loaded_by_the_library(folder: Path, **options: Any) -> float | None:
    """The number that all parameters of the loaded model are; None where it is not loaded, or made up."""
    try:
        model, info = LlamaForCausalLM.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, **options
        )
    except Exception:  # whatever it is, nothing was loaded
        return None
    numbers = {number for parameter in model.parameters() for number in (parameter.min(), parameter.max())}
    return float(numbers.pop()) if len({*map(float, numbers)}) == 1 and not info["missing_keys"] else None


def loaded_by_index(folder: Path) -> float | None:
    """What a tool loads that begins at the index: the number of its files; None where none of them is there."""
    index = json.loads((folder / INDEX).read_text())["weight_map"] if (folder / INDEX).exists() else {}
    here = [folder / name for name in sorted(set(index.values())) if (folder / name).exists()]
    return float(next(iter(load_file(here[0]).values())).flatten()[0]) if here else None


def loaded_without_key(folder: Path) -> float | None:
    """What a tool loads that does not know `transformers_weights`."""
    path = folder / SINGLE
    return float(next(iter(load_file(path).values())).flatten()[0]) if path.exists() else loaded_by_index(folder)
