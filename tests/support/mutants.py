"""Planted mistakes: errors of other tools, made on purpose in a finished result.

Each takes the folder of a result and changes it on disk. The proof must call every one of them wrong; UNSEEN of
`mutant.py` says which other levels of verification see it, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.family_mutants import experts, further_families, heads_and_positions, new_maps
from support.mutant import Mutant
from support.planting import (
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
    """Mistakes in results that were widened with noise."""
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
    """Forgotten factors and biases, also those that are numbers of a config."""
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
    """Axes in each other's place, and heads that are wrongly tied or untied."""
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
