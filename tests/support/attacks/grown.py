"""Mistakes of other tools, planted in the right result of a widening that keeps its record: the proof must see them."""

from __future__ import annotations

from collections.abc import Iterator

from support.attacks.attack import Attack, widened
from support.attacks.grown_families import experts, further_families, heads_and_positions, new_maps
from support.planting import (
    S,
    all_of,
    config,
    diverged,
    filled,
    in_heads,
    in_order,
    plus,
    reordered,
    repeated_heads,
    swapped,
    times,
    transposed,
    zeroed,
)


def every_mistake() -> Iterator[Attack]:
    """The tiny variants are widened by two, attention by heads, before a mistake is planted."""
    llama = "model.layers.1"
    yield widened("llama-tied").differs(
        "scale", "a share x 1.01", times(f"{llama}.mlp.down_proj.weight", 1.01, S[0:40]), "proof outputs"
    )
    yield widened("llama-tied").differs(
        "scale",
        "a share x 1.01 in one tensor's every column",
        times(f"{llama}.self_attn.q_proj.weight", 1.01),
        "proof outputs",
    )
    yield widened("llama-untied").differs("weight", "one number", times("lm_head.weight", 1.5, S[3:4]), "proof outputs")
    yield widened("llama-tied").differs(
        "weight", "an infinity", filled(f"{llama}.self_attn.v_proj.weight", S[3:4], float("inf")), "proof outputs"
    )
    yield widened("llama-tied", rule="orthogonal").differs(
        "config", "an eps left alone", config(rms_norm_eps=0.01), "config outputs"
    )
    yield widened("llama-tied").differs(
        "config", "an eps divided for nothing", config(rms_norm_eps=0.005), "config outputs"
    )
    yield widened("llama-tied").differs(
        "map",
        "swapped heads in the out-projection",
        swapped(f"{llama}.self_attn.o_proj.weight", 1, S[0:8], S[8:16]),
        "proof outputs",
    )
    yield widened("llama-tied").differs(
        "map", "swapped key heads", swapped(f"{llama}.self_attn.k_proj.weight", 0, S[0:8], S[8:16]), "proof outputs"
    )
    yield widened("llama-tied").differs(
        "map", "rows tiled across heads", repeated_heads(f"{llama}.self_attn.q_proj.weight", 8), "proof outputs"
    )
    yield widened("llama-untied").differs("tie", "a head tied again", config(tie_word_embeddings=True), "config")
    yield widened("llama-tied").differs(
        "config",
        "another rotary base",
        config(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
        "config outputs",
    )
    yield widened("llama-tied").differs("config", "another activation", config(hidden_act="gelu"), "config outputs")
    yield widened("llama-tied").differs(
        "scale", "a tied head that was not folded", times("model.norm.weight", 2.0), "proof outputs"
    )
    yield widened("gpt2-tied").differs(
        "scale", "a missed bias", zeroed("transformer.h.0.mlp.c_proj.bias"), "proof outputs"
    )
    yield widened("bert-tied", rule="orthogonal").differs(
        "scale",
        "the article's second MLP bias",
        times("bert.encoder.layer.0.output.dense.bias", 2 ** (-0.5)),
        "proof outputs",
    )
    yield widened("gpt2-tied", rule="orthogonal").differs(
        "config", "an eps left alone", config(layer_norm_epsilon=0.01), "config outputs"
    )
    yield widened("gpt2-tied").differs(
        "map",
        "queries in the place of keys",
        swapped("transformer.h.1.attn.c_attn.weight", 1, S[0:64], S[64:128]),
        "proof outputs",
    )
    yield widened("gpt2-tied").differs(
        "config", "attention not scaled", config(scale_attn_weights=False), "config outputs"
    )
    yield widened("gpt_neox-untied").differs(
        "map",
        "queries in the place of values",
        swapped("gpt_neox.layers.0.attention.query_key_value.weight", 0, S[0:16], S[32:48]),
        "proof outputs",
    )
    yield widened("gpt_neox-untied").differs(
        "config",
        "another rotary share",
        config(rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
        "config outputs",
    )
    yield widened("gpt_neox-untied").differs(
        "config", "a sequential block", config(use_parallel_residual=False), "config outputs"
    )
    yield widened("t5-tied").differs(
        "config", "an un-scaled head", config(scale_decoder_outputs=False), "config outputs"
    )
    yield widened("t5-tied").differs(
        "map",
        "a relative bias of another head",
        swapped("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 1, S[0:1], S[1:2]),
        "proof outputs",
    )
    yield widened("gemma2-tied").differs(
        "scale", "an embedding scale forgotten", times("model.embed_tokens.weight", 2**0.5), "proof outputs"
    )
    yield widened("gemma2-tied").differs(
        "scale", "gains as if they were not 1 + w", times("model.norm.weight", 0.5), "proof outputs"
    )
    yield widened("gemma2-tied").differs(
        "config", "another attention scale", config(query_pre_attn_scalar=14), "config outputs"
    )
    yield widened("qwen3-tied").differs(
        "scale", "a query norm scaled", times("model.layers.0.self_attn.q_norm.weight", 1.01), "proof outputs"
    )
    yield widened("roformer-tied").differs(
        "scale",
        "a position table of another base",
        times("roformer.encoder.embed_positions.weight", 1.01),
        "proof outputs",
    )
    yield widened("opt-tied").differs(
        "map",
        "positions off by one row",
        swapped("model.decoder.embed_positions.weight", 0, S[2:3], S[3:4]),
        "proof outputs",
    )
    yield from new_maps()
    yield from heads_and_positions()
    yield from experts()
    yield from further_families()
    yield from orders()
    yield from factors()
    yield from layouts_and_ties()


def every_noisy_mistake() -> Iterator[Attack]:
    """Mistakes in results that were widened with noise."""
    layer, wider = ("model.layers.1", {"hidden_size": 48})
    yield widened("llama-tied", noise=0.3).differs(
        "scale", "noise that does not sum to zero", plus(f"{layer}.mlp.down_proj.weight", 0.02, S[0:1]), "proof outputs"
    )
    yield widened("llama-tied", rule="orthogonal", attention="head-dim", noise=0.3).differs(
        "scale", "noise of one key head alone", plus(f"{layer}.self_attn.k_proj.weight", 0.02, S[0:1]), "proof outputs"
    )
    yield widened("gpt2-tied", noise=0.3).differs(
        "scale",
        "noise that does not sum to zero",
        times("transformer.h.1.mlp.c_proj.weight", 1.01, S[0:32]),
        "proof outputs",
    )
    yield widened("llama-untied", settings=wider, noise=0.3).differs(
        "scale", "a free column that somebody writes", plus("model.embed_tokens.weight", 0.1, S[40:41]), "proof outputs"
    )
    yield widened("llama-untied", rule="orthogonal", settings=wider, noise=0.3).differs(
        "scale",
        "a free column that a layer writes",
        filled("model.layers.0.mlp.down_proj.weight", S[40:41], 0.1),
        "proof outputs",
    )
    yield widened("llama-tied", attention="head-dim", noise=0.3).differs(
        "scale",
        "free halves of queries beside keys that are not zero",
        in_heads(f"{layer}.self_attn.k_proj.weight", [1, 0, *range(2, 16)]),
        "proof outputs",
    )


def orders() -> Iterator[Attack]:
    """Copies side by side in one tensor and one after another in the next."""
    layer, gpt2 = ("model.layers.0", "transformer.h.0")
    yield widened("llama-tied").differs(
        "map",
        "copies of up in another order than of gate",
        reordered(f"{layer}.mlp.up_proj.weight", 0, 2),
        "proof outputs",
    )
    yield widened("gpt2-tied").differs(
        "map",
        "copies of up in another order than of down",
        reordered(f"{gpt2}.mlp.c_proj.weight", 0, 2),
        "proof outputs",
    )
    yield widened("llama-untied").differs(
        "map",
        "an embedding in another order than its readers",
        reordered("model.embed_tokens.weight", 1, 2),
        "proof outputs",
    )
    yield widened("qwen3-tied").differs(
        "map",
        "a writer in another order than the stream",
        reordered(f"{layer}.mlp.down_proj.weight", 0, 2),
        "proof outputs",
    )
    yield widened("mistral-tied").differs(
        "map",
        "values in another order than who reads them",
        reordered(f"{layer}.self_attn.v_proj.weight", 0, 4),
        "proof outputs",
    )
    repeated = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    both = [in_heads(f"{layer}.self_attn.{name}.weight", repeated) for name in ("q_proj", "k_proj")]
    yield widened("llama-tied", attention="head-dim").differs(
        "map", "rotary pairs that follow one another where others stand between", all_of(*both), "proof outputs"
    )
    across = [0, 4, 1, 5, 2, 6, 3, 7]
    yield widened("qwen2-untied", settings={"num_attention_heads": 8}).differs(
        "map",
        "query heads tiled across groups",
        all_of(
            in_order(f"{layer}.self_attn.q_proj.weight", 0, across),
            in_order(f"{layer}.self_attn.q_proj.bias", 0, across),
            in_order(f"{layer}.self_attn.o_proj.weight", 1, across),
        ),
        "proof outputs",
    )


def factors() -> Iterator[Attack]:
    """Forgotten factors and biases, also those that are numbers of a config."""
    layer, bert = ("model.layers.0", "bert.encoder.layer.0")
    yield widened("llama-untied", rule="orthogonal", settings={"hidden_size": 48}).differs(
        "scale",
        "a gain that was not compensated",
        times(f"{layer}.input_layernorm.weight", (2 / 3) ** (-0.5)),
        "proof outputs",
    )
    yield widened("bert-tied", rule="orthogonal").differs(
        "scale", "a gain without its root", times(f"{bert}.output.LayerNorm.weight", 2**0.5), "proof outputs"
    )
    yield widened("gpt_neox-untied", rule="orthogonal").differs(
        "scale", "a writer without its root", times("gpt_neox.embed_in.weight", 2**0.5), "proof outputs"
    )
    yield widened("llama-tied", attention="head-dim").differs(
        "scale",
        "queries without their fourth root",
        times(f"{layer}.self_attn.q_proj.weight", 2 ** (-0.25)),
        "proof outputs",
    )
    yield widened("qwen2-untied", rule="orthogonal", attention="head-dim").differs(
        "scale", "a query bias left alone", times(f"{layer}.self_attn.q_proj.bias", 2 ** (-0.25)), "proof outputs"
    )
    yield widened("gpt2-tied").differs(
        "scale",
        "a bias of the first copies only",
        filled("transformer.h.0.mlp.c_fc.bias", S[40:80], 0.0),
        "proof outputs",
    )
    yield widened("bert-tied", rule="orthogonal").differs(
        "scale", "a norm's bias left alone", times(f"{bert}.output.LayerNorm.bias", 2**0.5), "proof outputs"
    )
    yield widened("opt-tied").differs(
        "scale", "a bias left alone", times("model.decoder.layers.0.fc2.bias", 2.0), "proof outputs"
    )
    yield widened("gemma2-tied").differs(
        "config", "another cap of logits", config(final_logit_softcapping=3.0), "config outputs"
    )
    yield widened("gemma2-tied").differs(
        "config", "another cap of scores", config(attn_logit_softcapping=0.5), "config outputs"
    )
    yield widened("granite-untied").differs(
        "config", "another factor of embeddings", config(embedding_multiplier=3.1), "config outputs"
    )
    yield widened("granite-untied").differs(
        "config", "another factor of logits", config(logits_scaling=2.1), "config outputs"
    )
    yield widened("granite-untied").differs(
        "config", "another factor of what layers add", config(residual_multiplier=0.51), "config outputs"
    )
    yield widened("mistral-tied").differs("config", "another window", config(sliding_window=3), "config outputs")


def layouts_and_ties() -> Iterator[Attack]:
    """Axes in each other's place, and heads that are wrongly tied or untied."""
    fused = "attention.query_key_value.weight"
    yield widened("gpt2-tied").differs(
        "map", "a matrix stored the other way round", transposed("transformer.h.0.attn.c_proj.weight"), "proof outputs"
    )
    yield widened("gpt2-tied").differs(
        "map",
        "queries, keys, values head by head",
        reordered("transformer.h.0.attn.c_attn.weight", 1, 3),
        "proof outputs",
    )
    yield widened("gpt_neox-untied").differs(
        "map",
        "queries, keys, values one after another",
        in_order(f"gpt_neox.layers.1.{fused}", 0, [0, 3, 6, 1, 4, 7, 2, 5, 8, 9, 10, 11]),
        "proof outputs",
    )
    yield widened("phi3-untied").differs(
        "map",
        "gate and up in each other's place",
        swapped("model.layers.0.mlp.gate_up_proj.weight", 0, S[0:80], S[80:160]),
        "proof outputs",
    )
    yield widened("llama-tied").differs("tie", "the flag alone", config(tie_word_embeddings=False), "config")
    yield widened("llama-tied").differs(
        "tie",
        "another head under a flag that is still true",
        diverged("model.embed_tokens.weight", "lm_head.weight"),
        "proof outputs",
    )
    yield widened("gpt2-untied").differs("tie", "a head tied again", config(tie_word_embeddings=True), "config")
