"""Tiny configs: sizes from a family's table, and further settings that it needs.

Sizes differ from one another where the family allows it, so that a swapped axis cannot fit by chance. Settings that a
table does not imply are entries of OVERRIDES; most families need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from modelsurgeon.architectures import architecture, registry

VOCAB, LENGTH, POSITIONS = 61, 9, 24

# Sizes of a table's axes and counters: heads of 8 (four rotary pairs), sizes that no other axis has by chance.
BY_AXIS = {
    "vocab": VOCAB,
    "positions": POSITIONS,
    "types": 2,
    "buckets": 8,
    "heads": 4,
    "kv": 2,
    "head": 8,
    "value": 8,
    "mlp": 40,
}
BY_KIND = {"residual": 32, "pointwise": 40}
_SIDES = {"decoder_attention_heads": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 40}
_T5 = {"d_kv": 6, "num_decoder_layers": 3, "relative_attention_max_distance": 12}
_MLA = {
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "albert": {"embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2},
    "bart": {**_SIDES, "decoder_ffn_dim": 48},
    "deberta-v2": {
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 4,
        "relative_attention": True,
    },
    "deepseek_v2": {
        **_MLA,
        "n_group": 4,
        "n_shared_experts": 2,
        "routed_scaling_factor": 1.5,
        "topk_group": 2,
        "topk_method": "group_limited_greedy",
    },
    "deepseek_v3": {**_MLA, "n_group": 4, "n_shared_experts": 2, "topk_group": 2},
    "electra": {"embedding_size": 24},
    "ernie": {"use_task_id": True},
    "gemma2": {"query_pre_attn_scalar": 7, "sliding_window": 4},
    "gemma3_text": {
        "query_pre_attn_scalar": 7,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gpt_neox": {"hidden_size": 64},  # heads of 16, of which a quarter turns
    "gpt_oss": {
        "num_experts_per_tok": 2,
        "num_local_experts": 6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0},
        "sliding_window": 4,
        "swiglu_limit": 1.0,
    },
    "gptj": {"rotary_dim": 4},
    "granite": {
        "attention_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.5,
    },
    "mistral": {"sliding_window": 4},
    "mixtral": {"num_experts_per_tok": 2, "num_local_experts": 6, "sliding_window": 4},
    "modernbert": {"cls_token_id": 1, "local_attention": 4, "norm_eps": 1e-12, "sep_token_id": 2},
    "mpt": {"max_seq_len": POSITIONS},
    "mt5": {**_T5, "feed_forward_proj": "gated-gelu"},
    "olmoe": {"clip_qkv": 1.0, "num_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "mlp_only_layers": [0],
        "moe_intermediate_size": 24,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 28,
    },
    "qwen3": {"head_dim": 12},
    "qwen3_moe": {
        "head_dim": 12,
        "mlp_only_layers": [0],
        "moe_intermediate_size": 24,
        "num_experts_per_tok": 2,
        "num_local_experts": 6,
    },
    "roformer": {"embedding_size": 32},
    "seed_oss": {"attention_out_bias": True, "mlp_bias": True},
    "smollm3": {"no_rope_layers": [1, 0]},
    "stablelm": {"hidden_size": 64},  # as gpt_neox
    "t5": {**_T5, "feed_forward_proj": "relu"},
    "umt5": {**_T5, "feed_forward_proj": "gated-gelu"},
    "vit": {"image_size": 12, "patch_size": 4, "pooler_output_size": 20},
    "whisper": {
        **_SIDES,
        "classifier_proj_size": 20,
        "d_model": 32,
        "decoder_ffn_dim": 48,
        "decoder_start_token_id": 1,
        "max_source_positions": 10,
        "max_target_positions": POSITIONS,
        "num_mel_bins": 6,
    },
}


def large_eps(table: architecture.Architecture) -> dict[str, float]:
    """An eps so large that one left alone is seen."""
    return {table.eps: 1e-2} if table.eps else {}


def shares_eps_with_head(table: architecture.Architecture) -> bool:
    """Whether a masked-LM head's norm has the eps of all others: both cannot grow unless it is negligible."""
    normed = {axis for _, signature in table.norms if signature.normalises for axis in signature.normalises.axes()}
    return any(table.axes[name].through == "pointwise" for name in normed)


def sizes(model_type: str) -> dict[str, Any]:
    """A tiny config of a family, from its table and OVERRIDES."""
    table = registry.find(model_type)
    known = transformers.CONFIG_MAPPING[model_type]().to_dict()
    found: dict[str, Any] = dict.fromkeys(table.counters.values(), 2)
    for name, axis in table.axes.items():
        size = BY_AXIS.get(name, BY_KIND.get(axis.through))
        if axis.key and axis.key in known and size:
            found.setdefault(axis.key, size)
    found |= {key: POSITIONS for key in ("max_position_embeddings",) if key in known}
    found |= large_eps(table)
    if table.eps and shares_eps_with_head(table):
        found[table.eps] = 1e-12
    found |= OVERRIDES.get(model_type, {})
    derived = {
        ours: found[rule]
        for ours, rule in table.equal.items()
        if ours in known and isinstance(rule, str) and rule in found
    }
    return {**derived, **found}
