"""Planted mistakes: what surgery gets wrong elsewhere, done on purpose to a finished result.

Each takes the folder of a result and changes it on disk. The proof must call every one of them wrong; UNSEEN says which
other levels of verification see it, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

KINDS = ("map", "scale", "bias", "weight", "layout", "config", "tie", "noise")
LEVELS = ("proof", "logits", "layers", "generation", "bf16")
Change = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    kind       what of: one of KINDS
    name       what is wrong
    family     the tiny variant it is planted in
    plant      what changes the folder of a widened result
    rule       the rule that it was widened by
    settings   the sizes that it was widened to; by two where there are none
    attention  how attention was widened by two
    noise      of the result that it is planted in
    """

    kind: str
    name: str
    family: str
    plant: Callable[[Path], None]
    rule: str = "exact"
    settings: Mapping[str, int] = field(default_factory=dict)
    attention: str = "heads"
    noise: float = 0.0

    @property
    def levels(self) -> frozenset[str]:
        """The levels of verification that see it."""
        return frozenset(LEVELS) - frozenset(UNSEEN.get(str(self), "").split())

    @property
    def too_small(self) -> bool:
        """Whether float32 logits cannot tell it from rounding: the proof sees it."""
        return "logits" not in self.levels

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


def inside(key: str, **values: object) -> Callable[[Path], None]:
    """A mutant of a nested part of the config."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        config(**{key: {**held[key], **values}})(folder)

    return plant


def without(key: str) -> Callable[[Path], None]:
    """A key of the config left out."""

    def plant(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        assert held.pop(key, None) is not None, "the mutant changed nothing"
        (folder / "config.json").write_text(json.dumps(held))

    return plant


def all_of(*plants: Callable[[Path], None]) -> Callable[[Path], None]:
    """Mistakes that go together."""

    def plant(folder: Path) -> None:
        for each in plants:
            each(folder)

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


def continued(name: str, size: int) -> Callable[[Path], None]:
    """Copies in the place of what stands behind the first `size` of the last coordinates."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., size:] = held[name][..., : held[name].shape[-1] - size].clone()

    return tensors(change)


def filled(name: str, rows: slice, value: float) -> Callable[[Path], None]:
    """Some rows of one tensor hold one number."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][rows] = value

    return tensors(change)


def in_order(name: str, dim: int, order: list[int]) -> Callable[[Path], None]:
    """The equal blocks of one dimension in another order."""

    def change(held: dict[str, torch.Tensor]) -> None:
        blocks = held[name].chunk(len(order), dim)
        held[name] = torch.cat([blocks[place] for place in order], dim)

    return tensors(change)


def exchanged(first: str, second: str) -> Callable[[Path], None]:
    """Two tensors in each other's place."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[first], held[second] = held[second], held[first]

    return tensors(change)


def halves(name: str, size: int) -> Callable[[Path], None]:
    """The last dimension grown from `size` as if it were two halves, not pairs that alternate."""

    def change(held: dict[str, torch.Tensor]) -> None:
        first, second = held[name][..., :size].chunk(2, -1)
        held[name] = torch.cat([first, first, second, second], -1)

    return tensors(change)


def tiled_experts(layer: str, gate: str, count: int) -> Callable[[Path], None]:
    """Experts, and their rows of the router, tiled where copies should stand side by side."""

    def change(held: dict[str, torch.Tensor]) -> None:
        before = dict(held)
        for j in range(2 * count):
            for name in ("gate_proj", "up_proj", "down_proj"):
                source = f"{layer}.experts.{2 * (j % count)}.{name}.weight"
                held[f"{layer}.experts.{j}.{name}.weight"] = before[source].clone()
        held[gate] = before[gate][::2].repeat(2, 1)

    return tensors(change)


def reordered(name: str, dim: int, first: int) -> Callable[[Path], None]:
    """One dimension, seen as `first` parts of as many numbers, with the numbers first and the parts second."""

    def change(held: dict[str, torch.Tensor]) -> None:
        moved = held[name].transpose(0, dim)
        turned = moved.reshape(first, -1, *moved.shape[1:]).transpose(0, 1).reshape(moved.shape)
        held[name] = turned.transpose(0, dim).contiguous()

    return tensors(change)


def in_heads(name: str, order: list[int]) -> Callable[[Path], None]:
    """The rows of every head in another order."""

    def change(held: dict[str, torch.Tensor]) -> None:
        rows = held[name]
        held[name] = rows.reshape(-1, len(order), *rows.shape[1:])[:, order].reshape(rows.shape)

    return tensors(change)


def transposed(name: str) -> Callable[[Path], None]:
    """A square matrix that is stored the other way round."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name] = held[name].T.clone()

    return tensors(change)


def plus(name: str, value: float, columns: slice) -> Callable[[Path], None]:
    """Something added to some of the last coordinates of one tensor."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[name][..., columns] += value

    return tensors(change)


def diverged(embedding: str, head: str) -> Callable[[Path], None]:
    """A head of its own beside a flag that still says that it is the embedding."""

    def change(held: dict[str, torch.Tensor]) -> None:
        held[head] = 1.5 * held[embedding]

    return tensors(change)


def zeroed(name: str) -> Callable[[Path], None]:
    return times(name, 0.0)


def every_mutant() -> Iterator[Mutant]:
    """The tiny variants are widened by two, attention by heads, before a mutant is planted."""
    llama = "model.layers.1"
    yield Mutant("scale", "a share x 1.01", "llama-tied", times(f"{llama}.mlp.down_proj.weight", 1.01, slice(0, 40)))
    yield Mutant(
        "scale",
        "a share x 1.01 in one tensor's every column",
        "llama-tied",
        times(f"{llama}.self_attn.q_proj.weight", 1.01),
    )
    yield Mutant("weight", "one number", "llama-untied", times("lm_head.weight", 1.5, slice(3, 4)))
    yield Mutant(
        "weight", "an infinity", "llama-tied", filled(f"{llama}.self_attn.v_proj.weight", slice(3, 4), float("inf"))
    )
    yield Mutant("config", "an eps left alone", "llama-tied", config(rms_norm_eps=1e-2), "orthogonal")
    yield Mutant("config", "an eps divided for nothing", "llama-tied", config(rms_norm_eps=5e-3))
    yield Mutant(
        "map",
        "swapped heads in the out-projection",
        "llama-tied",
        swapped(f"{llama}.self_attn.o_proj.weight", 1, slice(0, 8), slice(8, 16)),
    )
    yield Mutant(
        "map",
        "swapped key heads",
        "llama-tied",
        swapped(f"{llama}.self_attn.k_proj.weight", 0, slice(0, 8), slice(8, 16)),
    )
    yield Mutant("map", "rows tiled across heads", "llama-tied", repeated_heads(f"{llama}.self_attn.q_proj.weight", 8))
    yield Mutant("tie", "a head tied again", "llama-untied", config(tie_word_embeddings=True))
    yield Mutant(
        "config",
        "another rotary base",
        "llama-tied",
        config(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
    )
    yield Mutant("config", "another activation", "llama-tied", config(hidden_act="gelu"))
    yield Mutant("scale", "a tied head that was not folded", "llama-tied", times("model.norm.weight", 2.0))
    yield Mutant("bias", "a missed bias", "gpt2-tied", zeroed("transformer.h.0.mlp.c_proj.bias"))
    yield Mutant(
        "bias",
        "the article's second MLP bias",
        "bert-tied",
        times("bert.encoder.layer.0.output.dense.bias", 2**-0.5),
        "orthogonal",
    )
    yield Mutant("config", "an eps left alone", "gpt2-tied", config(layer_norm_epsilon=1e-2), "orthogonal")
    yield Mutant(
        "layout",
        "queries in the place of keys",
        "gpt2-tied",
        swapped("transformer.h.1.attn.c_attn.weight", 1, slice(0, 64), slice(64, 128)),
    )
    yield Mutant("config", "attention not scaled", "gpt2-tied", config(scale_attn_weights=False))
    yield Mutant(
        "layout",
        "queries in the place of values",
        "gpt_neox-untied",
        swapped("gpt_neox.layers.0.attention.query_key_value.weight", 0, slice(0, 16), slice(32, 48)),
    )
    yield Mutant(
        "config",
        "another rotary share",
        "gpt_neox-untied",
        config(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    )
    yield Mutant("config", "a sequential block", "gpt_neox-untied", config(use_parallel_residual=False))
    yield Mutant("config", "an un-scaled head", "t5-tied", config(scale_decoder_outputs=False))
    yield Mutant(
        "map",
        "a relative bias of another head",
        "t5-tied",
        swapped("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 1, slice(0, 1), slice(1, 2)),
    )
    yield Mutant("scale", "an embedding scale forgotten", "gemma2-tied", times("model.embed_tokens.weight", 2**0.5))
    yield Mutant("scale", "gains as if they were not 1 + w", "gemma2-tied", times("model.norm.weight", 0.5))
    yield Mutant("config", "another attention scale", "gemma2-tied", config(query_pre_attn_scalar=14))
    yield Mutant("scale", "a query norm scaled", "qwen3-tied", times("model.layers.0.self_attn.q_norm.weight", 1.01))
    yield Mutant(
        "scale",
        "a position table of another base",
        "roformer-tied",
        times("roformer.encoder.embed_positions.weight", 1.01),
    )
    yield Mutant(
        "map",
        "positions off by one row",
        "opt-tied",
        swapped("model.decoder.embed_positions.weight", 0, slice(2, 3), slice(3, 4)),
    )
    yield from new_maps()
    yield from heads_and_positions()
    yield from experts()
    yield from further_families()
    yield from orders()
    yield from factors()
    yield from layouts_and_ties()


def every_noisy_mutant() -> Iterator[Mutant]:
    """What goes wrong where noise is on: the results are widened with it."""
    layer, wider = "model.layers.1", {"hidden_size": 48}
    yield Mutant(
        "noise",
        "noise that does not sum to zero",
        "llama-tied",
        plus(f"{layer}.mlp.down_proj.weight", 0.02, slice(0, 1)),
        noise=0.3,
    )
    yield Mutant(
        "noise",
        "noise of one key head alone",
        "llama-tied",
        plus(f"{layer}.self_attn.k_proj.weight", 0.02, slice(0, 1)),
        "orthogonal",
        attention="head-dim",
        noise=0.3,
    )
    yield Mutant(
        "noise",
        "noise that does not sum to zero",
        "gpt2-tied",
        times("transformer.h.1.mlp.c_proj.weight", 1.01, slice(0, 32)),
        noise=0.3,
    )
    yield Mutant(
        "noise",
        "a free column that somebody writes",
        "llama-untied",
        plus("model.embed_tokens.weight", 0.1, slice(40, 41)),
        "exact",
        wider,
        noise=0.3,
    )
    yield Mutant(
        "noise",
        "a free column that a layer writes",
        "llama-untied",
        filled("model.layers.0.mlp.down_proj.weight", slice(40, 41), 0.1),
        "orthogonal",
        wider,
        noise=0.3,
    )
    yield Mutant(
        "noise",
        "free halves of queries beside keys that are not zero",
        "llama-tied",
        in_heads(f"{layer}.self_attn.k_proj.weight", [1, 0, *range(2, 16)]),
        attention="head-dim",
        noise=0.3,
    )


def orders() -> Iterator[Mutant]:
    """Copies side by side in one tensor and one after another in the next."""
    layer, gpt2 = "model.layers.0", "transformer.h.0"
    yield Mutant(
        "map",
        "copies of up in another order than of gate",
        "llama-tied",
        reordered(f"{layer}.mlp.up_proj.weight", 0, 2),
    )
    yield Mutant(
        "map", "copies of up in another order than of down", "gpt2-tied", reordered(f"{gpt2}.mlp.c_proj.weight", 0, 2)
    )
    yield Mutant(
        "map",
        "an embedding in another order than its readers",
        "llama-untied",
        reordered("model.embed_tokens.weight", 1, 2),
    )
    yield Mutant(
        "map",
        "a writer in another order than the stream",
        "qwen3-tied",
        reordered(f"{layer}.mlp.down_proj.weight", 0, 2),
    )
    yield Mutant(
        "map",
        "values in another order than who reads them",
        "mistral-tied",
        reordered(f"{layer}.self_attn.v_proj.weight", 0, 4),
    )
    repeated = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    both = [in_heads(f"{layer}.self_attn.{name}.weight", repeated) for name in ("q_proj", "k_proj")]
    yield Mutant(
        "map",
        "rotary pairs that follow one another where others stand between",
        "llama-tied",
        all_of(*both),
        attention="head-dim",
    )
    across = [0, 4, 1, 5, 2, 6, 3, 7]
    yield Mutant(
        "map",
        "query heads tiled across groups",
        "qwen2-untied",
        all_of(
            in_order(f"{layer}.self_attn.q_proj.weight", 0, across),
            in_order(f"{layer}.self_attn.q_proj.bias", 0, across),
            in_order(f"{layer}.self_attn.o_proj.weight", 1, across),
        ),
        settings={"num_attention_heads": 8},
    )


def factors() -> Iterator[Mutant]:
    """Factors and biases that were forgotten, and the numbers of configs that stand for some."""
    layer, bert = "model.layers.0", "bert.encoder.layer.0"
    yield Mutant(
        "scale",
        "a gain that was not compensated",
        "llama-untied",
        times(f"{layer}.input_layernorm.weight", (2 / 3) ** -0.5),
        "orthogonal",
        {"hidden_size": 48},
    )
    yield Mutant(
        "scale", "a gain without its root", "bert-tied", times(f"{bert}.output.LayerNorm.weight", 2**0.5), "orthogonal"
    )
    yield Mutant(
        "scale", "a writer without its root", "gpt_neox-untied", times("gpt_neox.embed_in.weight", 2**0.5), "orthogonal"
    )
    yield Mutant(
        "scale",
        "queries without their fourth root",
        "llama-tied",
        times(f"{layer}.self_attn.q_proj.weight", 2**-0.25),
        attention="head-dim",
    )
    yield Mutant(
        "bias",
        "a query bias left alone",
        "qwen2-untied",
        times(f"{layer}.self_attn.q_proj.bias", 2**-0.25),
        "orthogonal",
        attention="head-dim",
    )
    yield Mutant(
        "bias",
        "a bias of the first copies only",
        "gpt2-tied",
        filled("transformer.h.0.mlp.c_fc.bias", slice(40, 80), 0.0),
    )
    yield Mutant(
        "bias", "a norm's bias left alone", "bert-tied", times(f"{bert}.output.LayerNorm.bias", 2**0.5), "orthogonal"
    )
    yield Mutant("bias", "a bias left alone", "opt-tied", times("model.decoder.layers.0.fc2.bias", 2.0))
    yield Mutant("config", "another cap of logits", "gemma2-tied", config(final_logit_softcapping=3.0))
    yield Mutant("config", "another cap of scores", "gemma2-tied", config(attn_logit_softcapping=0.5))
    yield Mutant("config", "another factor of embeddings", "granite-untied", config(embedding_multiplier=3.1))
    yield Mutant("config", "another factor of logits", "granite-untied", config(logits_scaling=2.1))
    yield Mutant("config", "another factor of what layers add", "granite-untied", config(residual_multiplier=0.51))
    yield Mutant("config", "another window", "mistral-tied", config(sliding_window=3))


def layouts_and_ties() -> Iterator[Mutant]:
    """Axes in each other's place, and heads that are the embedding or are not."""
    fused = "attention.query_key_value.weight"
    yield Mutant(
        "layout", "a matrix stored the other way round", "gpt2-tied", transposed("transformer.h.0.attn.c_proj.weight")
    )
    yield Mutant(
        "layout",
        "queries, keys, values head by head",
        "gpt2-tied",
        reordered("transformer.h.0.attn.c_attn.weight", 1, 3),
    )
    yield Mutant(
        "layout",
        "queries, keys, values one after another",
        "gpt_neox-untied",
        in_order(f"gpt_neox.layers.1.{fused}", 0, [0, 3, 6, 1, 4, 7, 2, 5, 8, 9, 10, 11]),
    )
    yield Mutant(
        "layout",
        "gate and up in each other's place",
        "phi3-untied",
        swapped("model.layers.0.mlp.gate_up_proj.weight", 0, slice(0, 80), slice(80, 160)),
    )
    yield Mutant("tie", "the flag alone", "llama-tied", config(tie_word_embeddings=False))
    yield Mutant(
        "tie",
        "another head under a flag that is still true",
        "llama-tied",
        diverged("model.embed_tokens.weight", "lm_head.weight"),
    )
    yield Mutant("tie", "a head tied again", "gpt2-untied", config(tie_word_embeddings=True))


IN_NOISE = (  # of bfloat16's own roundings
    "llama-tied: a share x 1.01",
    "llama-tied: a share x 1.01 in one tensor's every column",
    "llama-tied: noise that does not sum to zero",
    "llama-tied: noise of one key head alone",
    "qwen3-tied: a query norm scaled",
    "gpt2-tied: an eps of the old width",
    "gpt2-tied: noise that does not sum to zero",
    "olmo2-untied: a query norm scaled",
    "gptj-untied: a rotated size left alone",
    "gpt_oss-untied: sinks of the first copies only",
    "gpt_oss-untied: gate and up that alternate grown as halves",
    "granite-untied: another factor of what layers add",
)
BEHIND_THE_LAYERS = (
    "llama-tied: another head under a flag that is still true",
    "llama-untied: one number",
    "t5-tied: an un-scaled head",
    "gemma2-tied: another cap of logits",
    "olmo-untied: a head that a norm without weights cannot correct",
    "opt-350m: a projection that reads every copy whole",
    "granite-untied: another factor of logits",
)
BY_THE_PROOF_ALONE = (
    "llama-untied: a head tied again",  # where both tensors are there, this version of the library ties nothing
    "gpt2-untied: a head tied again",
    "gpt2-tied: a mean column off by 1%",  # less than the tolerance of float32
    "gpt2-tied: a mean of a bias off by 1%",
)
WRITING_NOTHING = (  # encoders, and Whisper, which is given no prompt
    "bert-tied: the article's second MLP bias",
    "bert-tied: a gain without its root",
    "bert-tied: a norm's bias left alone",
    "whisper-tied: a convolution that reads every copy whole",
    "whisper-tied: channels that others write",
    "whisper-tied: sounds off by one position",
    "vit: a class token forgotten",
    "vit: patches off by one position",
    "modernbert-tied: a first layer that reads as if behind a norm",
    "deberta-v2-tied: distances off by one",
)
# {mutant: the levels that do not see it}, as scripts/mutants.py found
UNSEEN: Mapping[str, str] = {
    **dict.fromkeys(IN_NOISE, "bf16"),
    **dict.fromkeys(BEHIND_THE_LAYERS, "layers"),
    **dict.fromkeys(BY_THE_PROOF_ALONE, "logits layers generation bf16"),
    **dict.fromkeys(WRITING_NOTHING, "generation"),
    "roformer-tied: a position table of another base": "generation bf16",
    "albert-tied: a mapping of embeddings off by 1%": "generation bf16",
}


def new_maps() -> Iterator[Mutant]:
    """Sizes that are no multiple."""
    wider, tail = {"n_embd": 40}, slice(32, 40)
    gpt2 = "transformer.h.1"
    yield Mutant(
        "map",
        "a mean tail that continues the copies",
        "gpt2-tied",
        continued("transformer.wte.weight", 32),
        "exact",
        wider,
    )
    yield Mutant("map", "a mean tail of zeros", "gpt2-tied", times("transformer.wpe.weight", 0.0, tail), "exact", wider)
    yield Mutant(
        "scale",
        "a mean column off by 1%",
        "gpt2-tied",
        times(f"{gpt2}.mlp.c_proj.weight", 1.01, slice(36, 37)),
        "exact",
        wider,
    )
    yield Mutant(
        "bias",
        "a mean of a bias off by 1%",
        "gpt2-tied",
        times(f"{gpt2}.attn.c_proj.bias", 1.01, tail),
        "orthogonal",
        wider,
    )
    yield Mutant("config", "an eps of the old width", "gpt2-tied", config(layer_norm_epsilon=1e-2), "exact", wider)
    embedding, wider = "model.embed_tokens.weight", {"hidden_size": 48}
    yield Mutant("map", "copies where a tail of zeros stands", "llama-untied", continued(embedding, 32), "exact", wider)
    yield Mutant("config", "an eps left alone", "llama-untied", config(rms_norm_eps=1e-2), "orthogonal", wider)
    yield Mutant(
        "scale",
        "a tail that weighs as much as what has one copy",
        "llama-untied",
        times(embedding, 2**0.5, slice(32, 48)),
        "orthogonal",
        wider,
    )
    yield Mutant(
        "config",
        "an implied head size left implied",
        "starcoder2-tied",
        without("head_dim"),
        "exact",
        {"hidden_size": 40},
    )


def heads_and_positions() -> Iterator[Mutant]:
    """Heads that share keys or have slopes; rotary positions; norms on queries and keys; clamps."""
    bloom, falcon = "transformer.h.0.self_attention", "transformer.h.1.self_attention"
    tiled = [1, 3, 5, 7, 0, 2, 4, 6]  # of 8 heads, those with the slopes of the old 4 come first
    yield Mutant(
        "map",
        "heads tiled in spite of their slopes",
        "bloom-tied",
        all_of(
            in_order(f"{bloom}.query_key_value.weight", 0, tiled),
            in_order(f"{bloom}.query_key_value.bias", 0, tiled),
            in_order(f"{bloom}.dense.weight", 1, tiled),
        ),
    )
    yield Mutant(
        "map",
        "queries tiled in spite of their slopes",
        "mpt-tied",
        swapped("transformer.blocks.0.attn.Wqkv.weight", 0, slice(0, 8), slice(8, 16)),
    )
    yield Mutant(
        "map",
        "query heads tiled across groups",
        "falcon-grouped",
        all_of(
            swapped(f"{falcon}.query_key_value.weight", 0, slice(16, 32), slice(48, 64)),
            swapped(f"{falcon}.dense.weight", 1, slice(16, 32), slice(32, 48)),
        ),
        settings={"num_attention_heads": 8, "hidden_size": 64},
    )
    attention = "model.layers.0.self_attn"
    yield Mutant(
        "map",
        "a key norm of other heads",
        "olmo2-untied",
        swapped(f"{attention}.k_norm.weight", 0, slice(0, 8), slice(8, 16)),
    )
    yield Mutant("scale", "a query norm scaled", "olmo2-untied", times(f"{attention}.q_norm.weight", 1.01))
    yield Mutant(
        "layout",
        "norms of heads in another order",
        "stablelm-normed",
        exchanged(f"{attention}.q_layernorm.norms.0.weight", f"{attention}.q_layernorm.norms.1.weight"),
    )
    yield Mutant(
        "map",
        "a key norm of other heads",
        "cohere-normed-heads",
        swapped(f"{attention}.k_norm.weight", 0, slice(0, 1), slice(1, 2)),
    )
    yield Mutant("config", "a clamp left alone", "olmo-clipped", config(clip_qkv=0.5), attention="head-dim")
    yield Mutant(
        "config", "a clamp left alone", "mpt-clipped", inside("attn_config", clip_qkv=0.5), attention="head-dim"
    )
    short, long = [1.0, 1.1, 1.3, 1.7], [1.0, 1.5, 3.0, 5.0]
    yield Mutant(
        "config",
        "factors of rotary pairs tiled",
        "phi3-longrope",
        inside("rope_parameters", short_factor=2 * short, long_factor=2 * long),
        attention="head-dim",
    )
    yield Mutant(
        "config",
        "a ramp of rotary pairs left alone",
        "llama-yarn-rope",
        inside("rope_parameters", beta_fast=0.5, beta_slow=0.05),
        attention="head-dim",
    )
    yield Mutant(
        "config",
        "a rotary share left alone",
        "gpt_neox-untied",
        inside("rope_parameters", partial_rotary_factor=0.25),
        settings={"hidden_size": 96},
    )
    yield Mutant("config", "a rotated size left alone", "gptj-untied", config(rotary_dim=4), attention="head-dim")
    yield Mutant(
        "map",
        "sinks of the first copies only",
        "gpt_oss-untied",
        filled("model.layers.0.self_attn.sinks", slice(4, 8), 0.0),
    )


def experts() -> Iterator[Mutant]:
    """Routers and experts."""
    layer = "model.layers.1.mlp"
    oss = "model.layers.0.mlp.experts"
    more, sleeping = {"n_routed_experts": 16, "num_experts_per_tok": 6}, {"num_local_experts": 8}
    yield Mutant(
        "layout",
        "gate and up that alternate grown as halves",
        "gpt_oss-untied",
        all_of(halves(f"{oss}.gate_up_proj", 80), halves(f"{oss}.gate_up_proj_bias", 80)),
    )
    yield Mutant(
        "bias",
        "an expert that should sleep",
        "gpt_oss-untied",
        filled("model.layers.0.mlp.router.bias", slice(6, 8), 0.0),
        settings=sleeping,
    )
    yield Mutant(
        "bias",
        "an expert of a group that should sleep",
        "deepseek_v3-untied",
        filled(f"{layer}.gate.e_score_correction_bias", slice(2, 12, 3), 0.0),
        settings={"n_routed_experts": 12},
    )
    yield Mutant(
        "map",
        "experts tiled across groups",
        "deepseek_v2-untied",
        tiled_experts(layer, f"{layer}.gate.weight", 8),
        settings=more,
    )
    yield Mutant("config", "as many experts chosen", "deepseek_v2-untied", config(num_experts_per_tok=3), settings=more)
    yield Mutant(
        "map",
        "shared experts tiled as one",
        "deepseek_v2-untied",
        swapped(f"{layer}.shared_experts.gate_proj.weight", 0, slice(24, 48), slice(48, 72)),
    )
    chosen = {"num_local_experts": 12, "num_experts_per_tok": 4}
    w1 = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"
    yield Mutant("config", "as many experts chosen", "mixtral-untied", config(num_experts_per_tok=2), settings=chosen)
    yield Mutant("map", "two experts' gates", "mixtral-untied", exchanged(w1.format(0), w1.format(2)), settings=chosen)
    yield Mutant(
        "scale",
        "a shared expert's gate that reads one copy",
        "qwen2_moe-untied",
        times(f"{layer}.shared_expert_gate.weight", 0.0, slice(32, 64)),
    )


def further_families() -> Iterator[Mutant]:
    """What only some families have."""
    conv = "model.encoder.conv{}.weight"
    yield Mutant("scale", "a convolution that reads every copy whole", "whisper-tied", times(conv.format(2), 2.0))
    yield Mutant(
        "map", "channels that others write", "whisper-tied", swapped(conv.format(1), 0, slice(0, 8), slice(8, 16))
    )
    yield Mutant(
        "map",
        "sounds off by one position",
        "whisper-tied",
        swapped("model.encoder.embed_positions.weight", 0, slice(2, 3), slice(3, 4)),
    )
    yield Mutant("weight", "a class token forgotten", "vit", zeroed("vit.embeddings.cls_token"))
    yield Mutant(
        "map",
        "patches off by one position",
        "vit",
        swapped("vit.embeddings.position_embeddings", 1, slice(1, 2), slice(2, 3)),
    )
    yield Mutant(
        "scale", "a head that a norm without weights cannot correct", "olmo-untied", times("lm_head.weight", 2.0)
    )
    yield Mutant(
        "scale", "a projection that reads every copy whole", "opt-350m", times("model.decoder.project_out.weight", 2.0)
    )
    yield Mutant(
        "scale",
        "a mapping of embeddings off by 1%",
        "albert-tied",
        times("albert.encoder.embedding_hidden_mapping_in.weight", 1.01, slice(0, 1)),
    )
    yield Mutant("config", "another attention scale", "granite-untied", config(attention_multiplier=0.15))
    yield Mutant(
        "scale",
        "a first layer that reads as if behind a norm",
        "modernbert-tied",
        times("model.layers.0.attn.Wqkv.weight", 2**0.5),
        "orthogonal",
    )
    yield Mutant("config", "an embedding that is not scaled", "bart-scaled", config(scale_embedding=False))
    yield Mutant(
        "map",
        "distances off by one",
        "deberta-v2-tied",
        swapped("deberta.encoder.rel_embeddings.weight", 0, slice(2, 3), slice(3, 4)),
    )
    yield Mutant("config", "positions counted past another token", "roberta-tied", config(pad_token_id=5))
