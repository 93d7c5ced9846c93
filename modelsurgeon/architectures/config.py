"""Keys of config.json: those that never change what a model computes, those that may, and dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys with no say in what a model of one width computes (dropout, tokens, labels, bookkeeping), in any family.
INERT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels add_cross_attention
    architectures attention_dropout attention_probs_dropout_prob auto_map bos_token_id chunk_size_feed_forward
    classifier_dropout cross_attention_hidden_size decoder_start_token_id dropout dropout_rate dtype eos_token_id
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout hidden_dropout_prob
    id2label init_std initializer_factor initializer_range is_encoder_decoder label2id layerdrop model_type num_labels
    output_attentions output_hidden_states output_past pad_token_id prefix problem_type return_dict sep_token_id
    task_specific_params tie_word_embeddings tokenizer_class torch_dtype torchscript transformers_version
    unk_token_id use_cache use_return_dict vocab_size
    """.split()
)

# Keys that change what some family computes: they are refused in a family whose table does not name them.
EFFECTIVE = frozenset(
    """
    alibi attention_multiplier attn_config clip_qkv embedding_multiplier logit_scale logits_scaling
    no_rope_layers norm_topk_prob per_layer_config pruned_heads qk_layernorm residual_multiplier routed_scaling_factor
    """.split()
)

# Keys that some code of the library reads though a model type's config class may not list them, and what their absence
# means: masks and caches are made by the first four, whatever the model.
ABSENT = "(absent)"  # nothing that any value means
READ_BESIDE: Mapping[str, Any] = {
    "is_causal": ABSENT,
    "attention_chunk_size": None,
    "layer_types": None,
    "sliding_window": None,
    "head_dim": ABSENT,
    "attention_head_size": None,
    "conv_act": "tanh",
    "conv_groups": 1,
    "conv_kernel_size": 0,
    "decoder_start_token_id": None,
    "fusion_config": None,
    "norm_rel_ebd": "none",
    "position_buckets": -1,
    "position_embedding_type": "absolute",
    "quantization_config": None,
    "share_att_key": False,
    "summary_activation": None,
    "summary_proj_to_labels": None,
    "summary_type": "last",
    "summary_use_proj": None,
    "token_classification_bias": True,
    "transformers_weights": None,
}

# Numbers by which a model multiplies: growth of a width may change them.
SCALINGS = frozenset(
    """
    attention_multiplier attn_config embedding_multiplier logit_scale logits_scaling query_pre_attn_scalar
    residual_multiplier routed_scaling_factor scale_embedding swiglu_alpha
    """.split()
)

# Names that the library gives to one activation, up to the rounding of float32: test_config_keys.py computes them.
SYNONYMS = (
    frozenset({"silu", "swish"}),
    frozenset({"gelu", "gelu_python"}),
    frozenset({"gelu_accurate", "gelu_fast", "gelu_new", "gelu_python_tanh", "gelu_pytorch_tanh"}),
)


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key; `outer.inner` looks into a nested object. None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def assigned(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the config in which the key has this value; `outer.inner` copies what is nested, too."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**config, first: value}
    inner = config.get(first)
    return {**config, first: assigned(inner if isinstance(inner, Mapping) else {}, rest, value)}
