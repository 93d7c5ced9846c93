"""Checkpoints as other tools grow them, from their papers, in plain torch, without this package.

    hyperclone    HyperCloning (Samragh et al. 2024, https://arxiv.org/abs/2409.12903): everything twice, W/2 in every
                  block of a matrix, heads in tiles, an output head of its own; with paired noise if asked for
    llama_pro     LLaMA Pro (Wu et al. 2024, https://arxiv.org/abs/2401.02415): copies of blocks that add zero

Each takes the source's folder and writes another one. `change` plants a mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors, dict[str, Any]], None]

TWICE = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("n_embd", "n_head", "n_inner"),
)
EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "wpe.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
PER_HEAD = ("q_norm.weight", "k_norm.weight")  # of one head, and heads keep their size
LAYER = re.compile(r"(.*\.(?:layers|h)\.)(?P<layer>\d+)(\..*)")
LAST = ("o_proj.weight", "down_proj.weight")  # what LLaMA Pro zeroes in its own family


def read(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def write(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def converted(source: Path, folder: Path, change: Change) -> Path:
    """A folder of the same sizes, with `change` applied."""
    tensors, config = read(source)
    change(tensors, config)
    return write(folder, tensors, config)


def twice(matrix: torch.Tensor, noise: float = 0.0, scale: float = 0.5) -> torch.Tensor:
    """[[W/2, W/2], [W/2, W/2]], or with +-n in the blocks of each row."""
    blocks = []
    for _ in range(2):
        disturbed = torch.randn_like(matrix.float()).to(matrix.dtype) * noise
        blocks.append(torch.cat([matrix * scale + disturbed, matrix * scale - disturbed], 1))
    return torch.cat(blocks)


def hyperclone(
    source: Path, folder: Path, change: Change | None = None, *, noise: float = 0.0, tied: bool = False
) -> Path:
    """Twice as wide.

    tied  leave the head tied: the norm before it is halved
    """
    before, config = read(source)
    tensors = {name: _cloned(name, tensor, noise) for name, tensor in before.items()}
    config |= {key: 2 * config[key] for key in TWICE if config.get(key) is not None}
    if tied:
        tensors["model.norm.weight"] = torch.cat([before["model.norm.weight"]] * 2) / 2
    elif not any(name in HEADS for name in tensors):
        embedding = next(tensor for name, tensor in before.items() if name.endswith(EMBEDDINGS[:3]))
        tensors["lm_head.weight"] = torch.cat([embedding / 2] * 2, 1)
        config["tie_word_embeddings"] = False
    if change:
        change(tensors, config)
    return write(folder, tensors, config)


def _cloned(name: str, tensor: torch.Tensor, noise: float) -> torch.Tensor:
    if name.endswith(PER_HEAD):
        return tensor
    if name.endswith(EMBEDDINGS):
        return torch.cat([tensor, tensor], 1)
    if name.endswith(HEADS):
        return torch.cat([tensor / 2, tensor / 2], 1)
    if name.endswith("c_attn.weight"):  # Conv1D, queries beside keys beside values
        return torch.cat([twice(part.T, noise).T for part in tensor.chunk(3, 1)], 1)
    if name.endswith("c_attn.bias"):
        return torch.cat([part.repeat(2) for part in tensor.chunk(3)])
    if name.endswith(("c_fc.weight", "c_proj.weight")):
        return twice(tensor.T, noise).T
    return tensor.repeat(2) if tensor.ndim == 1 else twice(tensor, noise)


def llama_pro(
    source: Path, folder: Path, change: Change | None = None, *, every: int = 1, zeroed: tuple[str, ...] = LAST
) -> Path:
    """Insert a copy behind every n-th block, with the tensors of these names zeroed."""
    before, config = read(source)
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    order = [(layer, new) for layer in range(config[key]) for new in (False, True)]
    order = [(layer, new) for layer, new in order if not new or (layer + 1) % every == 0]
    tensors: Tensors = {}
    for name, tensor in before.items():
        found = LAYER.match(name)
        if not found:
            tensors[name] = tensor
            continue
        for place, (layer, new) in enumerate(order):
            if layer == int(found["layer"]):
                silent = new and name.endswith(zeroed)
                tensors[f"{found[1]}{place}{found[3]}"] = torch.zeros_like(tensor) if silent else tensor
    config[key] = len(order)
    if config.get("layer_types"):
        config["layer_types"] = [config["layer_types"][layer] for layer, _ in order]
    if change:
        change(tensors, config)
    return write(folder, tensors, config)
