"""Mistakes in parts that only some families have: partial rotations, experts, positions, scales."""

from __future__ import annotations

from collections.abc import Iterator

from support.attacks.attack import Attack, widened
from support.planting import (
    S,
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


def new_maps() -> Iterator[Attack]:
    """Sizes that are no multiple."""
    wider, tail = ({"n_embd": 40}, S[32:40])
    gpt2 = "transformer.h.1"
    yield widened("gpt2-tied", settings=wider).differs(
        "map", "a mean tail that continues the copies", continued("transformer.wte.weight", 32), "proof outputs"
    )
    yield widened("gpt2-tied", settings=wider).differs(
        "map", "a mean tail of zeros", times("transformer.wpe.weight", 0.0, tail), "proof outputs"
    )
    yield widened("gpt2-tied", settings=wider).differs(
        "scale", "a mean column off by 1%", times(f"{gpt2}.mlp.c_proj.weight", 1.01, S[36:37]), "proof"
    )
    yield widened("gpt2-tied", rule="orthogonal", settings=wider).differs(
        "scale", "a mean of a bias off by 1%", times(f"{gpt2}.attn.c_proj.bias", 1.01, tail), "proof"
    )
    yield widened("gpt2-tied", settings=wider).differs(
        "config", "an eps of the old width", config(layer_norm_epsilon=0.01), "config outputs"
    )
    embedding, wider = ("model.embed_tokens.weight", {"hidden_size": 48})
    yield widened("llama-untied", settings=wider).differs(
        "map", "copies where a tail of zeros stands", continued(embedding, 32), "proof outputs"
    )
    yield widened("llama-untied", rule="orthogonal", settings=wider).differs(
        "config", "an eps left alone", config(rms_norm_eps=0.01), "config outputs"
    )
    yield widened("llama-untied", rule="orthogonal", settings=wider).differs(
        "scale", "a tail that weighs as much as what has one copy", times(embedding, 2**0.5, S[32:48]), "proof outputs"
    )
    yield widened("starcoder2-tied", settings={"hidden_size": 40}).differs(
        "config", "an implied head size left implied", without("head_dim"), "config"
    )


def heads_and_positions() -> Iterator[Attack]:
    """Heads that share keys or have slopes; rotary positions; norms on queries and keys; clamps."""
    bloom, falcon = ("transformer.h.0.self_attention", "transformer.h.1.self_attention")
    tiled = [1, 3, 5, 7, 0, 2, 4, 6]
    yield widened("bloom-tied").differs(
        "map",
        "heads tiled in spite of their slopes",
        all_of(
            in_order(f"{bloom}.query_key_value.weight", 0, tiled),
            in_order(f"{bloom}.query_key_value.bias", 0, tiled),
            in_order(f"{bloom}.dense.weight", 1, tiled),
        ),
        "proof outputs",
    )
    yield widened("mpt-tied").differs(
        "map",
        "queries tiled in spite of their slopes",
        swapped("transformer.blocks.0.attn.Wqkv.weight", 0, S[0:8], S[8:16]),
        "proof outputs",
    )
    yield widened("falcon-grouped", settings={"num_attention_heads": 8, "hidden_size": 64}).differs(
        "map",
        "query heads tiled across groups",
        all_of(
            swapped(f"{falcon}.query_key_value.weight", 0, S[16:32], S[48:64]),
            swapped(f"{falcon}.dense.weight", 1, S[16:32], S[32:48]),
        ),
        "proof outputs",
    )
    attention = "model.layers.0.self_attn"
    yield widened("olmo2-untied").differs(
        "map", "a key norm of other heads", swapped(f"{attention}.k_norm.weight", 0, S[0:8], S[8:16]), "proof outputs"
    )
    yield widened("olmo2-untied").differs(
        "scale", "a query norm scaled", times(f"{attention}.q_norm.weight", 1.01), "proof outputs"
    )
    yield widened("stablelm-normed").differs(
        "map",
        "norms of heads in another order",
        exchanged(f"{attention}.q_layernorm.norms.0.weight", f"{attention}.q_layernorm.norms.1.weight"),
        "proof outputs",
    )
    yield widened("cohere-normed-heads").differs(
        "map", "a key norm of other heads", swapped(f"{attention}.k_norm.weight", 0, S[0:1], S[1:2]), "proof outputs"
    )
    yield widened("olmo-clipped", attention="head-dim").differs(
        "config", "a clamp left alone", config(clip_qkv=0.5), "config outputs"
    )
    yield widened("mpt-clipped", attention="head-dim").differs(
        "config", "a clamp left alone", inside("attn_config", clip_qkv=0.5), "config outputs"
    )
    short, long = ([1.0, 1.1, 1.3, 1.7], [1.0, 1.5, 3.0, 5.0])
    yield widened("phi3-longrope", attention="head-dim").differs(
        "config",
        "factors of rotary pairs tiled",
        inside("rope_parameters", short_factor=2 * short, long_factor=2 * long),
        "config outputs",
    )
    yield widened("llama-yarn-rope", attention="head-dim").differs(
        "config",
        "a ramp of rotary pairs left alone",
        inside("rope_parameters", beta_fast=0.5, beta_slow=0.05),
        "config outputs",
    )
    yield widened("gpt_neox-untied", settings={"hidden_size": 96}).differs(
        "config", "a rotary share left alone", inside("rope_parameters", partial_rotary_factor=0.25), "config outputs"
    )
    yield widened("gptj-untied", attention="head-dim").differs(
        "config", "a rotated size left alone", config(rotary_dim=4), "config outputs"
    )
    yield widened("gpt_oss-untied").differs(
        "map", "sinks of the first copies only", filled("model.layers.0.self_attn.sinks", S[4:8], 0.0), "proof outputs"
    )


def experts() -> Iterator[Attack]:
    """Routers and experts."""
    layer = "model.layers.1.mlp"
    oss = "model.layers.0.mlp.experts"
    more, sleeping = ({"n_routed_experts": 16, "num_experts_per_tok": 6}, {"num_local_experts": 8})
    yield widened("gpt_oss-untied").differs(
        "map",
        "gate and up that alternate grown as halves",
        all_of(halves(f"{oss}.gate_up_proj", 80), halves(f"{oss}.gate_up_proj_bias", 80)),
        "proof outputs",
    )
    yield widened("gpt_oss-untied", settings=sleeping).differs(
        "scale", "an expert that should sleep", filled("model.layers.0.mlp.router.bias", S[6:8], 0.0), "proof outputs"
    )
    yield widened("deepseek_v3-untied", settings={"n_routed_experts": 12}).differs(
        "scale",
        "an expert of a group that should sleep",
        filled(f"{layer}.gate.e_score_correction_bias", S[2:12:3], 0.0),
        "proof outputs",
    )
    yield widened("deepseek_v2-untied", settings=more).differs(
        "map", "experts tiled across groups", tiled_experts(layer, f"{layer}.gate.weight", 8), "proof outputs"
    )
    yield widened("deepseek_v2-untied", settings=more).differs(
        "config", "as many experts chosen", config(num_experts_per_tok=3), "config outputs"
    )
    yield widened("deepseek_v2-untied").differs(
        "map",
        "shared experts tiled as one",
        swapped(f"{layer}.shared_experts.gate_proj.weight", 0, S[24:48], S[48:72]),
        "proof outputs",
    )
    chosen = {"num_local_experts": 12, "num_experts_per_tok": 4}
    w1 = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"
    yield widened("mixtral-untied", settings=chosen).differs(
        "config", "as many experts chosen", config(num_experts_per_tok=2), "config outputs"
    )
    yield widened("mixtral-untied", settings=chosen).differs(
        "map", "two experts' gates", exchanged(w1.format(0), w1.format(2)), "proof outputs"
    )
    yield widened("qwen2_moe-untied").differs(
        "scale",
        "a shared expert's gate that reads one copy",
        times(f"{layer}.shared_expert_gate.weight", 0.0, S[32:64]),
        "proof outputs",
    )


def further_families() -> Iterator[Attack]:
    """What only some families have."""
    conv = "model.encoder.conv{}.weight"
    yield widened("whisper-tied").differs(
        "scale", "a convolution that reads every copy whole", times(conv.format(2), 2.0), "proof outputs"
    )
    yield widened("whisper-tied").differs(
        "map", "channels that others write", swapped(conv.format(1), 0, S[0:8], S[8:16]), "proof outputs"
    )
    yield widened("whisper-tied").differs(
        "map",
        "sounds off by one position",
        swapped("model.encoder.embed_positions.weight", 0, S[2:3], S[3:4]),
        "proof outputs",
    )
    yield widened("vit").differs(
        "weight", "a class token forgotten", zeroed("vit.embeddings.cls_token"), "proof outputs"
    )
    yield widened("vit").differs(
        "map",
        "patches off by one position",
        swapped("vit.embeddings.position_embeddings", 1, S[1:2], S[2:3]),
        "proof outputs",
    )
    yield widened("olmo-untied").differs(
        "scale", "a head that a norm without weights cannot correct", times("lm_head.weight", 2.0), "proof outputs"
    )
    yield widened("opt-350m").differs(
        "scale",
        "a projection that reads every copy whole",
        times("model.decoder.project_out.weight", 2.0),
        "proof outputs",
    )
    yield widened("albert-tied").differs(
        "scale",
        "a mapping of embeddings off by 1%",
        times("albert.encoder.embedding_hidden_mapping_in.weight", 1.01, S[0:1]),
        "proof outputs",
    )
    yield widened("granite-untied").differs(
        "config", "another attention scale", config(attention_multiplier=0.15), "config outputs"
    )
    yield widened("modernbert-tied", rule="orthogonal").differs(
        "scale",
        "a first layer that reads as if behind a norm",
        times("model.layers.0.attn.Wqkv.weight", 2**0.5),
        "proof outputs",
    )
    yield widened("bart-scaled").differs(
        "config", "an embedding that is not scaled", config(scale_embedding=False), "config outputs"
    )
    yield widened("deberta-v2-tied").differs(
        "map",
        "distances off by one",
        swapped("deberta.encoder.rel_embeddings.weight", 0, S[2:3], S[3:4]),
        "proof outputs",
    )
    yield widened("roberta-tied").differs(
        "config", "positions counted past another token", config(pad_token_id=5), "config"
    )
