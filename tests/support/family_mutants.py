"""Planted mistakes in parts that only some families have: partial rotations, experts, positions, scales."""

from __future__ import annotations

from collections.abc import Iterator

from support.mutant import Mutant
from support.planting import (
    all_of,
    config,
    continued,
    exchanged,
    filled,
    halves,
    in_order,
    inside,
    swapped,
    tiled_experts,
    times,
    without,
    zeroed,
)


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
