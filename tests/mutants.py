"""Planted mistakes: what surgery gets wrong elsewhere, done on purpose to a finished result.

Each takes the folder of a result and changes it on disk. The proof must call every one of them wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    name       what is wrong
    family     the tiny variant it is planted in
    plant      what changes the folder of a widened result
    rule       the rule that it was widened by
    settings   the sizes that it was widened to; by two where there are none
    attention  how attention was widened by two
    too_small  whether float32 logits cannot tell it from rounding: the proof alone sees it
    """

    name: str
    family: str
    plant: Callable[[Path], None]
    rule: str = "exact"
    settings: Mapping[str, int] = field(default_factory=dict)
    attention: str = "heads"
    too_small: bool = False

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
    yield Mutant("an infinity", "llama-tied", filled(f"{llama}.self_attn.v_proj.weight", slice(3, 4), float("inf")))
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
    yield from new_maps()
    yield from heads_and_positions()
    yield from experts()
    yield from further_families()


def new_maps() -> Iterator[Mutant]:
    """Sizes that are no multiple."""
    wider, tail = {"n_embd": 40}, slice(32, 40)
    gpt2 = "transformer.h.1"
    yield Mutant(
        "a mean tail that continues the copies", "gpt2-tied", continued("transformer.wte.weight", 32), "exact", wider
    )
    yield Mutant("a mean tail of zeros", "gpt2-tied", times("transformer.wpe.weight", 0.0, tail), "exact", wider)
    yield Mutant(
        "a mean column off by 1%",
        "gpt2-tied",
        times(f"{gpt2}.mlp.c_proj.weight", 1.01, slice(36, 37)),
        "exact",
        wider,
        too_small=True,
    )
    yield Mutant(
        "a mean of a bias off by 1%",
        "gpt2-tied",
        times(f"{gpt2}.attn.c_proj.bias", 1.01, tail),
        "orthogonal",
        wider,
        too_small=True,
    )
    yield Mutant("an eps left alone", "gpt2-tied", config(layer_norm_epsilon=1e-2), "exact", wider)
    embedding, wider = "model.embed_tokens.weight", {"hidden_size": 48}
    yield Mutant("copies where a tail of zeros stands", "llama-untied", continued(embedding, 32), "exact", wider)
    yield Mutant("an eps left alone", "llama-untied", config(rms_norm_eps=1e-2), "orthogonal", wider)
    yield Mutant(
        "a tail that weighs as much as what has one copy",
        "llama-untied",
        times(embedding, 2**0.5, slice(32, 48)),
        "orthogonal",
        wider,
    )
    yield Mutant(
        "an implied head size left implied", "starcoder2-tied", without("head_dim"), "exact", {"hidden_size": 40}
    )


def heads_and_positions() -> Iterator[Mutant]:
    """Heads that share keys or have slopes; rotary positions; norms on queries and keys; clamps."""
    bloom, falcon = "transformer.h.0.self_attention", "transformer.h.1.self_attention"
    tiled = [1, 3, 5, 7, 0, 2, 4, 6]  # of 8 heads, those with the slopes of the old 4 come first
    yield Mutant(
        "heads tiled in spite of their slopes",
        "bloom-tied",
        all_of(
            in_order(f"{bloom}.query_key_value.weight", 0, tiled),
            in_order(f"{bloom}.query_key_value.bias", 0, tiled),
            in_order(f"{bloom}.dense.weight", 1, tiled),
        ),
    )
    yield Mutant(
        "queries tiled in spite of their slopes",
        "mpt-tied",
        swapped("transformer.blocks.0.attn.Wqkv.weight", 0, slice(0, 8), slice(8, 16)),
    )
    yield Mutant(
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
        "a key norm of other heads",
        "olmo2-untied",
        swapped(f"{attention}.k_norm.weight", 0, slice(0, 8), slice(8, 16)),
    )
    yield Mutant("a query norm scaled", "olmo2-untied", times(f"{attention}.q_norm.weight", 1.01))
    yield Mutant(
        "norms of heads in another order",
        "stablelm-normed",
        exchanged(f"{attention}.q_layernorm.norms.0.weight", f"{attention}.q_layernorm.norms.1.weight"),
    )
    yield Mutant(
        "a key norm of other heads",
        "cohere-normed-heads",
        swapped(f"{attention}.k_norm.weight", 0, slice(0, 1), slice(1, 2)),
    )
    yield Mutant("a clamp left alone", "olmo-clipped", config(clip_qkv=0.5), attention="head-dim")
    yield Mutant("a clamp left alone", "mpt-clipped", inside("attn_config", clip_qkv=0.5), attention="head-dim")
    short, long = [1.0, 1.1, 1.3, 1.7], [1.0, 1.5, 3.0, 5.0]
    yield Mutant(
        "factors of rotary pairs tiled",
        "phi3-longrope",
        inside("rope_parameters", short_factor=2 * short, long_factor=2 * long),
        attention="head-dim",
    )
    yield Mutant(
        "a ramp of rotary pairs left alone",
        "llama-yarn-rope",
        inside("rope_parameters", beta_fast=0.5, beta_slow=0.05),
        attention="head-dim",
    )
    yield Mutant(
        "a rotary share left alone",
        "gpt_neox-untied",
        inside("rope_parameters", partial_rotary_factor=0.25),
        settings={"hidden_size": 96},
    )
    yield Mutant("a rotated size left alone", "gptj-untied", config(rotary_dim=4), attention="head-dim")
    yield Mutant(
        "sinks of the first copies only", "gpt_oss-untied", filled("model.layers.0.self_attn.sinks", slice(4, 8), 0.0)
    )


def experts() -> Iterator[Mutant]:
    """Routers and experts."""
    layer = "model.layers.1.mlp"
    oss = "model.layers.0.mlp.experts"
    more, sleeping = {"n_routed_experts": 16, "num_experts_per_tok": 6}, {"num_local_experts": 8}
    yield Mutant(
        "gate and up that alternate grown as halves",
        "gpt_oss-untied",
        all_of(halves(f"{oss}.gate_up_proj", 80), halves(f"{oss}.gate_up_proj_bias", 80)),
    )
    yield Mutant(
        "an expert that should sleep",
        "gpt_oss-untied",
        filled("model.layers.0.mlp.router.bias", slice(6, 8), 0.0),
        settings=sleeping,
    )
    yield Mutant(
        "an expert of a group that should sleep",
        "deepseek_v3-untied",
        filled(f"{layer}.gate.e_score_correction_bias", slice(2, 12, 3), 0.0),
        settings={"n_routed_experts": 12},
    )
    yield Mutant(
        "experts tiled across groups",
        "deepseek_v2-untied",
        tiled_experts(layer, f"{layer}.gate.weight", 8),
        settings=more,
    )
    yield Mutant("as many experts chosen", "deepseek_v2-untied", config(num_experts_per_tok=3), settings=more)
    yield Mutant(
        "shared experts tiled as one",
        "deepseek_v2-untied",
        swapped(f"{layer}.shared_experts.gate_proj.weight", 0, slice(24, 48), slice(48, 72)),
    )
    chosen = {"num_local_experts": 12, "num_experts_per_tok": 4}
    w1 = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"
    yield Mutant("as many experts chosen", "mixtral-untied", config(num_experts_per_tok=2), settings=chosen)
    yield Mutant("two experts' gates", "mixtral-untied", exchanged(w1.format(0), w1.format(2)), settings=chosen)
    yield Mutant(
        "a shared expert's gate that reads one copy",
        "qwen2_moe-untied",
        times(f"{layer}.shared_expert_gate.weight", 0.0, slice(32, 64)),
    )


def further_families() -> Iterator[Mutant]:
    """What only some families have."""
    conv = "model.encoder.conv{}.weight"
    yield Mutant("a convolution that reads every copy whole", "whisper-tied", times(conv.format(2), 2.0))
    yield Mutant("channels that others write", "whisper-tied", swapped(conv.format(1), 0, slice(0, 8), slice(8, 16)))
    yield Mutant(
        "sounds off by one position",
        "whisper-tied",
        swapped("model.encoder.embed_positions.weight", 0, slice(2, 3), slice(3, 4)),
    )
    yield Mutant("a class token forgotten", "vit", zeroed("vit.embeddings.cls_token"))
    yield Mutant(
        "patches off by one position",
        "vit",
        swapped("vit.embeddings.position_embeddings", 1, slice(1, 2), slice(2, 3)),
    )
    yield Mutant("a head that a norm without weights cannot correct", "olmo-untied", times("lm_head.weight", 2.0))
    yield Mutant("a projection that reads every copy whole", "opt-350m", times("model.decoder.project_out.weight", 2.0))
    yield Mutant(
        "a mapping of embeddings off by 1%",
        "albert-tied",
        times("albert.encoder.embedding_hidden_mapping_in.weight", 1.01, slice(0, 1)),
    )
    yield Mutant("another attention scale", "granite-untied", config(attention_multiplier=0.15))
    yield Mutant(
        "a first layer that reads as if behind a norm",
        "modernbert-tied",
        times("model.layers.0.attn.Wqkv.weight", 2**0.5),
        "orthogonal",
    )
    yield Mutant("an embedding that is not scaled", "bart-scaled", config(scale_embedding=False))
    yield Mutant(
        "distances off by one",
        "deberta-v2-tied",
        swapped("deberta.encoder.rel_embeddings.weight", 0, slice(2, 3), slice(3, 4)),
    )
    yield Mutant("positions counted past another token", "roberta-tied", config(pad_token_id=5))
