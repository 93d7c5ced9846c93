"""Keys of the result's config that are not what the source's say, with the weights as they must be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.attacks.attack import Attack, Plant, copied, widened
from support.placing import edited
from support.planting import all_of, config, inside, nothing, without

OUT, KEY = "config outputs", "config"  # seen by both, or by the config alone


def by_family() -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """(family, what was changed, the keys, the levels that must see it)"""
    yield "llama-tied", "an eps ten times smaller", {"rms_norm_eps": 1e-3}, OUT
    yield "llama-tied", "an eps by 1%", {"rms_norm_eps": 1.01e-2}, KEY
    yield "llama-tied", "an activation that is nearly the same", {"hidden_act": "gelu_new"}, OUT
    yield "llama-tied", "an old key of the rotary base", {"rope_parameters": None, "rope_theta": 5e5}, OUT
    yield (
        "llama-tied",
        "shared keys dealt out otherwise",
        {"num_attention_heads": 2, "head_dim": 16, "num_key_value_heads": 1},
        OUT,
    )
    yield "mistral-tied", "no window", {"sliding_window": None}, OUT
    yield "mixtral-untied", "one expert fewer for each token", {"num_experts_per_tok": 1}, OUT
    yield "mixtral-untied", "one expert more for each token", {"num_experts_per_tok": 3}, OUT
    yield "qwen2_moe-untied", "shares of experts that add up to one", {"norm_topk_prob": True}, OUT
    yield "olmoe-untied", "shares that add up to one, clipped queries", {"norm_topk_prob": True}, OUT
    yield "olmoe-untied", "queries that are not clipped", {"clip_qkv": None}, OUT
    yield "qwen3_moe-untied", "shares of experts that add up to one", {"norm_topk_prob": True}, OUT
    yield "deepseek_v3-untied", "experts that weigh less", {"routed_scaling_factor": 1.0}, OUT
    yield "deepseek_v3-untied", "experts of every group", {"topk_group": 4}, OUT
    yield "deepseek_v3-untied", "shares that do not add up to one", {"norm_topk_prob": False}, OUT
    yield "deepseek_v3-untied", "rotary pairs that do not alternate", {"rope_interleave": False}, OUT
    yield "deepseek_v2-untied", "experts chosen without groups", {"topk_method": "greedy"}, OUT
    yield "gpt_oss-untied", "a wider window", {"sliding_window": 6}, OUT
    yield "gpt_oss-untied", "layers of the other kind", {"layer_types": ["full_attention", "sliding_attention"]}, OUT
    yield "gpt_oss-untied", "another slope of the gate", {"swiglu_alpha": 1.0}, OUT
    yield "gpt_oss-untied", "another limit of the gate", {"swiglu_limit": 7.0}, OUT
    yield "gemma2-tied", "no cap of scores", {"attn_logit_softcapping": None}, KEY
    yield "gemma2-tied", "no cap of logits", {"final_logit_softcapping": None}, KEY
    yield "gemma2-tied", "another scale of scores", {"query_pre_attn_scalar": 8}, OUT
    yield "gemma2-tied", "attention that sees what comes", {"use_bidirectional_attention": True}, KEY
    yield "gemma3_text-tied", "layers of one kind", {"layer_types": ["full_attention", "full_attention"]}, OUT
    yield "granite-untied", "another scale of scores", {"attention_multiplier": 0.35}, OUT
    yield "granite-untied", "a residual factor of one", {"residual_multiplier": 1.0}, OUT
    yield "cohere-tied", "another scale of logits", {"logit_scale": 0.1}, OUT
    yield "smollm3-tied", "positions in every layer", {"no_rope_layers": [1, 1]}, OUT
    yield "smollm3-tied", "layers without positions exchanged", {"no_rope_layers": [0, 1]}, OUT
    yield "gpt2-tied", "scores scaled by the layer", {"scale_attn_by_inverse_layer_idx": True}, OUT
    yield "gpt2-tied", "an exact activation", {"activation_function": "gelu"}, KEY
    yield "gpt2-tied", "another activation", {"activation_function": "relu"}, OUT
    yield (
        "gpt_neo-tied",
        "every layer global",
        {"attention_layers": ["global", "global"], "attention_types": [[["global"], 2]]},
        OUT,
    )
    yield "gpt_neo-tied", "a wider window", {"window_size": 6}, OUT
    yield "gpt_neox-untied", "another activation", {"hidden_act": "relu"}, OUT
    yield "bloom-tied", "a residual behind the norm", {"apply_residual_connection_post_layernorm": True}, OUT
    yield "falcon-sequential", "attention beside the MLP", {"parallel_attn": True}, OUT
    yield "falcon-alibi", "positions that turn", {"alibi": False}, OUT
    yield "mpt-tied", "another scale of scores", {"attn_config": {"softmax_scale": 0.9}}, OUT
    yield "bert-tied", "another activation", {"hidden_act": "relu"}, OUT
    yield "bert-tied", "an encoder that reads like a decoder", {"is_decoder": True}, KEY
    yield "bert-tied", "an eps of another library", {"layer_norm_eps": 1e-3}, OUT
    yield "roberta-tied", "positions past another token", {"pad_token_id": 1}, KEY
    yield "roformer-tied", "values that turn", {"rotary_value": True}, OUT
    yield "deberta-v2-tied", "queries that know no distance", {"pos_att_type": ["c2p"]}, OUT
    yield "deberta-v2-tied", "no relative attention", {"relative_attention": False}, OUT
    yield "modernbert-tied", "a wider local window", {"local_attention": 8}, OUT
    yield "t5-tied", "a decoder that begins with another token", {"decoder_start_token_id": 5}, KEY
    yield "t5-tied", "distances in other buckets", {"relative_attention_max_distance": 40}, KEY
    yield "t5-tied", "another activation", {"dense_act_fn": "gelu", "feed_forward_proj": "gelu"}, OUT
    yield "bart-tied", "a decoder that begins with another token", {"decoder_start_token_id": 0}, KEY
    yield "bart-tied", "an encoder without heads enough", {"encoder_attention_heads": 2}, "outputs"
    yield "bart-scaled", "embeddings that are not scaled", {"scale_embedding": False}, OUT
    yield "bart-tied", "another activation", {"activation_function": "relu"}, OUT
    yield "whisper-tied", "another activation", {"activation_function": "relu"}, OUT
    yield "whisper-tied", "a decoder that begins with another token", {"decoder_start_token_id": 2}, KEY
    yield "vit", "another activation", {"hidden_act": "relu"}, OUT
    yield "opt-tied", "norms behind", {"do_layer_norm_before": False}, OUT
    yield "opt-tied", "another activation", {"activation_function": "gelu"}, OUT
    yield (
        "phi3-longrope",
        "other factors of short rows",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [1.0, 1.5, 3.0, 5.0],
                "original_max_position_embeddings": 16,
            }
        },
        OUT,
    )
    yield (
        "llama-llama3-rope",
        "no rotary scaling",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        OUT,
    )
    yield (
        "llama-linear-rope",
        "another linear factor",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}},
        OUT,
    )
    yield (
        "llama-yarn-rope",
        "an attention factor",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 6,
                "beta_fast": 0.5,
                "beta_slow": 0.05,
                "attention_factor": 1.0,
            }
        },
        OUT,
    )
    yield (
        "qwen2-untied",
        "windows that are used",
        {
            "layer_types": ["sliding_attention"] * 2,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 0,
        },
        OUT,
    )
    yield (
        "stablelm-untied",
        "a smaller rotary share",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        OUT,
    )
    yield "gptj-untied", "a smaller rotated part", {"rotary_dim": 2}, OUT


def keys() -> Iterator[Attack]:
    for family, what, values, by in by_family():
        first = next(key for key in values if values[key] is not None or len(values) == 1)
        yield copied(family).differs("config", what, _plant(values), by, first)


def with_records() -> Iterator[Attack]:
    """The same kinds beside an honest record."""
    yield widened("llama-tied").differs(
        "config", "an eps by 1%, with a record", config(rms_norm_eps=1.01e-2 / 2), KEY, "rms_norm_eps"
    )
    yield widened("mistral-tied").differs(
        "config", "no window, with a record", config(sliding_window=None), OUT, "sliding_window"
    )
    yield widened("t5-tied").differs(
        "config", "another first token, with a record", config(decoder_start_token_id=5), KEY, "decoder_start_token_id"
    )
    yield widened("qwen2-sliding").differs(
        "config", "layers called full, with a record", config(layer_types=["full_attention"] * 2), OUT, "layer_types"
    )
    yield widened("gemma2-tied").differs(
        "config",
        "no cap of logits, with a record",
        config(final_logit_softcapping=None),
        KEY,
        "final_logit_softcapping",
    )
    yield widened("mixtral-untied").differs(
        "config", "an expert more, with a record", config(num_experts_per_tok=3), OUT, "num_experts_per_tok"
    )


def absent_keys() -> Iterator[Attack]:
    """Keys that only one of the files has: their default counts, not their absence."""
    window = copied("mistral-tied").prepared(without("sliding_window"))
    yield window.differs(
        "config",
        "a window that is absent means 4,096, null means none",
        config(sliding_window=None),
        KEY,
        "sliding_window",
    )
    yield window.proven("config", "a window that is absent means 4,096, written out", config(sliding_window=4096))
    yield window.differs("config", "a window that is absent is not 4", config(sliding_window=4), OUT, "sliding_window")
    recorded = widened("mistral-tied").prepared(without("sliding_window"))
    yield recorded.differs(
        "config", "the same beside an honest record", config(sliding_window=None), KEY, "sliding_window"
    )
    eps = copied("llama-tied", rms_norm_eps=1e-6)
    yield eps.proven("config", "an eps that is the default left out", without("rms_norm_eps"))
    yield copied("llama-tied").differs(
        "config", "an eps that is not the default left out", without("rms_norm_eps"), OUT, "rms_norm_eps"
    )
    yield copied("llama-tied").proven("config", "a size of heads that follows left out", without("head_dim"))
    yield copied("llama-wide-heads").differs(
        "config", "a size of heads that does not follow left out", without("head_dim"), KEY, "head_dim"
    )
    yield copied("gemma2-tied").differs(
        "config",
        "kinds of layers left out of a changed one",
        all_of(config(sliding_window=5), without("layer_types")),
        OUT,
        "sliding_window",
    )
    yield copied("gemma2-tied").proven("config", "kinds of layers that follow left out", without("layer_types"))
    yield copied("llama-tied").proven("config", "a rotary base under its old name", _old_rope(10000.0))
    yield copied("qwen2-untied").proven(
        "config", "a window that is switched off", config(sliding_window=4, max_window_layers=1)
    )
    yield copied("gpt2-tied").proven("config", "an MLP whose size is written out", nothing)
    yield copied("gpt2-implied-mlp").proven(
        "config", "an MLP of four times the width, written out", config(n_inner=128)
    )
    yield copied("t5-tied").proven("config", "a first token that is the default written out", nothing)


def refused() -> Iterator[Attack]:
    """Values that no model can have: one line with the key."""
    llama = copied("llama-tied")
    for key, value in (
        ("num_attention_heads", 0),
        ("vocab_size", 10**12),
        ("max_position_embeddings", 0),
        ("pad_token_id", -5),
        ("hidden_size", -32),
        ("num_key_value_heads", 3),
        ("head_dim", 0),
        ("intermediate_size", "40"),
        ("rms_norm_eps", "small"),
        ("vocab_size", None),
    ):
        yield llama.refused("config", f"{key} is {value!r}", config(**{key: value}), KEY, key)
    yield llama.differs("config", "no layers", config(num_hidden_layers=0), KEY, "num_hidden_layers")
    yield llama.differs("config", "an activation that does not exist", config(hidden_act="swoosh"), KEY, "hidden_act")


def inert() -> Iterator[Attack]:
    """Keys without an effect on the function."""
    llama = copied("llama-tied")
    yield llama.proven("nothing", "another cache option", config(use_cache=False))
    yield llama.proven("nothing", "another initial deviation", config(initializer_range=0.5))
    yield llama.proven("nothing", "another version of the library", config(transformers_version="4.40.0"))
    yield llama.proven("nothing", "a note in the config", config(_name_or_path="somewhere/else"))
    yield llama.proven("nothing", "a key that nobody reads", config(my_note="hello"))
    yield llama.proven("nothing", "another tensor parallelism", config(pretraining_tp=2))
    yield copied("mixtral-untied").proven(
        "nothing", "another weight of the router's loss", config(router_aux_loss_coef=0.5)
    )
    yield widened("llama-tied").proven(
        "nothing", "a note in the config, with a record", config(_name_or_path="somewhere")
    )


def _plant(values: dict[str, Any]) -> Plant:
    absent = [key for key, value in values.items() if value is None and len(values) > 1]
    if "attn_config" in values:
        return inside("attn_config", **values["attn_config"])
    if absent:
        return edited("config.json", **values)
    return config(**values)


def _old_rope(base: float) -> Plant:
    return edited("config.json", rope_parameters=None, rope_theta=base)
