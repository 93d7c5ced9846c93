"""Planted mistakes: what surgery gets wrong elsewhere, done on purpose to a finished result.

Each takes the folder of a result and changes it on disk. Verification must call every one of them different.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Mutant:
    """What is wrong, the tiny variant it is planted in, what changes the folder of a widened result, the rule used."""

    name: str
    family: str
    plant: Callable[[Path], None]
    rule: str = "exact"

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


def tensors(change: Change) -> Callable[[Path], None]:
    """A mutant of the weights."""

    def plant(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        before = {name: tensor.clone() for name, tensor in held.items()}
        change(held)
        changed = before.keys() != held.keys() or any(not torch.equal(before[name], held[name]) for name in before)
        assert changed, "the mutant changed nothing"
        save_file(
            {name: tensor.contiguous() for name, tensor in held.items()}, folder / "model.safetensors", {"format": "pt"}
        )

    return plant


def config(**values: object) -> Callable[[Path], None]:
    """A mutant of the config."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        assert any(held.get(key) != value for key, value in values.items()), "the mutant changed nothing"
        (folder / "config.json").write_text(json.dumps({**held, **values}))

    return plant


def times(name: str, factor: float, columns: slice = slice(None)) -> Callable[[Path], None]:
    """One tensor (or some of its last coordinates) times a factor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., columns] *= factor

    return tensors(change)


def swapped(name: str, dim: int, first: slice, second: slice) -> Callable[[Path], None]:
    """Two slices of one dimension in each other's place."""

    def change(held: dict[str, torch.Tensor]) -> None:
        moved = held[name].transpose(0, dim).clone()
        moved[first], moved[second] = moved[second].clone(), moved[first].clone()
        held[name] = moved.transpose(0, dim)

    return tensors(change)


def repeated_heads(name: str, heads: int) -> Callable[[Path], None]:
    """Rows tiled across heads where whole heads should follow one another."""

    def change(held: dict[str, torch.Tensor]) -> None:
        rows = held[name]
        held[name] = rows.reshape(heads, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)

    return tensors(change)


def zeroed(name: str) -> Callable[[Path], None]:
    return times(name, 0.0)


def every_mutant() -> Iterator[Mutant]:
    """The tiny variants are widened by two, attention by heads, before a mutant is planted."""
    llama = "model.layers.1"
    yield Mutant("a share x 1.01", "llama-tied", times(f"{llama}.mlp.down_proj.weight", 1.01, slice(0, 40)))
    yield Mutant(
        "a share x 1.01 in one tensor's every column", "llama-tied", times(f"{llama}.self_attn.q_proj.weight", 1.01)
    )
    yield Mutant("one number", "llama-untied", times("lm_head.weight", 1.5, slice(3, 4)))
    yield Mutant("an eps left alone", "llama-tied", config(rms_norm_eps=1e-2), "orthogonal")
    yield Mutant("an eps divided for nothing", "llama-tied", config(rms_norm_eps=5e-3))
    yield Mutant(
        "swapped heads in the out-projection",
        "llama-tied",
        swapped(f"{llama}.self_attn.o_proj.weight", 1, slice(0, 8), slice(8, 16)),
    )
    yield Mutant(
        "swapped key heads", "llama-tied", swapped(f"{llama}.self_attn.k_proj.weight", 0, slice(0, 8), slice(8, 16))
    )
    yield Mutant("rows tiled across heads", "llama-tied", repeated_heads(f"{llama}.self_attn.q_proj.weight", 8))
    yield Mutant("a head tied again", "llama-untied", config(tie_word_embeddings=True))
    yield Mutant(
        "another rotary base", "llama-tied", config(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    )
    yield Mutant("another activation", "llama-tied", config(hidden_act="gelu"))
    yield Mutant("a tied head that was not folded", "llama-tied", times("model.norm.weight", 2.0))
    yield Mutant("a missed bias", "gpt2-tied", zeroed("transformer.h.0.mlp.c_proj.bias"))
    yield Mutant(
        "the article's second MLP bias",
        "bert-tied",
        times("bert.encoder.layer.0.output.dense.bias", 2**-0.5),
        "orthogonal",
    )
    yield Mutant("an eps left alone", "gpt2-tied", config(layer_norm_epsilon=1e-2), "orthogonal")
    yield Mutant(
        "queries in the place of keys",
        "gpt2-tied",
        swapped("transformer.h.1.attn.c_attn.weight", 1, slice(0, 64), slice(64, 128)),
    )
    yield Mutant("attention not scaled", "gpt2-tied", config(scale_attn_weights=False))
    yield Mutant(
        "queries in the place of values",
        "gpt_neox-untied",
        swapped("gpt_neox.layers.0.attention.query_key_value.weight", 0, slice(0, 16), slice(32, 48)),
    )
    yield Mutant(
        "another rotary share",
        "gpt_neox-untied",
        config(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    )
    yield Mutant("a sequential block", "gpt_neox-untied", config(use_parallel_residual=False))
    yield Mutant("an un-scaled head", "t5-tied", config(scale_decoder_outputs=False))
    yield Mutant(
        "a relative bias of another head",
        "t5-tied",
        swapped("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 1, slice(0, 1), slice(1, 2)),
    )
    yield Mutant("an embedding scale forgotten", "gemma2-tied", times("model.embed_tokens.weight", 2**0.5))
    yield Mutant("gains as if they were not 1 + w", "gemma2-tied", times("model.norm.weight", 0.5))
    yield Mutant("another attention scale", "gemma2-tied", config(query_pre_attn_scalar=14))
    yield Mutant("a query norm scaled", "qwen3-tied", times("model.layers.0.self_attn.q_norm.weight", 1.01))
    yield Mutant(
        "a position table of another base", "roformer-tied", times("roformer.encoder.embed_positions.weight", 1.01)
    )
    yield Mutant(
        "positions off by one row",
        "opt-tied",
        swapped("model.decoder.embed_positions.weight", 0, slice(2, 3), slice(3, 4)),
    )
