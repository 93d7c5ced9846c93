"""Values that no setting of config.json can have: refused by their key before anything is computed from them.

    check_settings({"model_type": "llama", "num_attention_heads": 0, ...}, LLAMA)
    SourceError: config.json: num_attention_heads is 0, expected a whole number of 1 to 16777216

Keys mean the same in all families, so there is one list for each kind of number; `tests/architectures/test_values.py`
holds it against what the library's config classes declare. A family's own table adds the keys of its sizes. Keys that
the table does not account for are no business of this file, nor is what a value means beside others (`check.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.errors import SourceError

LARGEST_SIZE = 2**24  # of an axis; maps take 16 bytes and more for each coordinate
MOST_LAYERS = 2**12
LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = 2.0**127  # of float32, in which the models compute

# Whole numbers of 1 or more; null where the library allows it, too.
COUNTS = frozenset(
    """
    classifier_proj_size d_ff d_kv d_model decoder_attention_heads decoder_ffn_dim decoder_sparse_step dim
    embedding_size encoder_attention_heads encoder_ffn_dim encoder_stride expansion_ratio ffn_dim ffn_hidden_size
    head_dim hidden_dim hidden_size inner_group_num intermediate_size kv_lora_rank local_attention mask_feature_length
    mask_time_length max_position_embeddings max_seq_len max_source_positions max_target_positions
    median_filter_width moe_intermediate_size n_embd n_head n_heads n_inner n_positions no_rope_layer_interval
    num_attention_heads num_channels num_experts_per_tok num_heads num_hidden_groups num_key_value_heads num_kv_heads
    num_ln_in_parallel_attn num_mel_bins original_max_position_embeddings pooler_output_size pretraining_tp
    q_lora_rank qk_nope_head_dim qk_rope_head_dim query_pre_attn_scalar relative_attention_max_distance
    relative_attention_num_buckets shared_expert_intermediate_size v_head_dim vocab_size window_size
    word_embed_proj_dim
    """.split()
)
# Whole numbers of 0 or more.
WHOLES = frozenset(
    """
    chunk_size_feed_forward decoder_layers encoder_layers first_k_dense_replace mask_feature_min_masks
    mask_time_min_masks max_window_layers n_group n_layer n_layers n_routed_experts n_shared_experts
    num_decoder_layers num_experts num_hidden_layers num_layers num_local_experts num_mtp_layers rotary_dim
    sliding_window task_type_vocab_size topk_group type_vocab_size
    """.split()
)
# Whole numbers of -1 or more, where -1 means none.
OR_NONE = frozenset(
    """
    bos_token_id cls_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id
    mask_token_id max_relative_positions pad_token_id position_buckets sep_token_id unk_token_id
    """.split()
)
LISTED = frozenset("eos_token_id forced_eos_token_id image_size patch_size".split())  # one number, or a list of them
ANY_WHOLES = frozenset(["sparse_pred_ignore_index"])
# Numbers of 0 or more.
AMOUNTS = frozenset(
    """
    activation_dropout attention_dropout attention_probs_dropout_prob attn_pdrop classifier_dropout
    classifier_dropout_prob decoder_layerdrop dropout dropout_rate emb_pdrop embd_pdrop embed_dropout
    embedding_dropout encoder_layerdrop hidden_dropout hidden_dropout_prob init_std initializer_cutoff_factor
    initializer_factor initializer_range layer_norm_eps layer_norm_epsilon layerdrop mask_feature_prob mask_time_prob
    mlp_dropout norm_eps norm_epsilon pooler_dropout qa_dropout resid_dropout resid_pdrop residual_dropout
    rms_norm_eps router_aux_loss_coef router_jitter_noise seq_classif_dropout summary_first_dropout
    summary_last_dropout
    """.split()
)
# Numbers above 0: something is divided by them, or raised to a power.
DIVISORS = frozenset(
    """
    attn_logit_softcapping clip_qkv factor final_logit_softcapping global_rope_theta local_rope_theta logits_scaling
    rope_local_base_freq rope_theta rotary_emb_base swiglu_limit
    """.split()
)
WORDED = frozenset(["logit_scale"])  # a number, or the name of one
# Any numbers.
NUMBERS = frozenset(
    """
    attention_factor attention_multiplier beta_fast beta_slow embedding_fraction embedding_multiplier high_freq_factor
    logit_scale low_freq_factor mscale mscale_all_dim partial_rotary_factor residual_multiplier rotary_pct
    routed_scaling_factor swiglu_alpha
    """.split()
)
FLAGS = frozenset(
    """
    _remove_final_layer_norm add_cross_attention alibi apply_residual_connection_post_layernorm apply_spec_augment
    attention_bias attention_out_bias bias classifier_bias decoder_bias deterministic_flash_attn do_layer_norm_before
    enable_bias is_decoder is_encoder_decoder layer_norm_elementwise_affine learned_pos_emb legacy mlp_bias
    multi_query new_decoder_architecture no_bias norm_bias norm_topk_prob output_hidden_states output_router_logits
    parallel_attn position_biased_input qk_layernorm qkv_bias relative_attention reorder_and_upcast_attn return_dict
    rope_interleave rotary_value scale_attn_by_inverse_layer_idx scale_attn_weights scale_embedding
    sinusoidal_pos_embds slow_but_exact sparse_prediction summary_proj_to_labels summary_use_proj tie_word_embeddings
    use_bias use_bidirectional_attention use_cache use_parallel_residual use_qk_norm use_qkv_bias use_sliding_window
    use_task_id use_weighted_layer_sum
    """.split()
)
NESTED = ("attn_config", "rope_parameters", "rope_scaling")  # objects that hold further settings


def check_settings(config: Mapping[str, Any], table: Architecture) -> None:
    """Raise SourceError, with the key, for the first value that its setting cannot have."""
    for key, native, value in _settings(config, table):
        if value is None:
            continue
        if native in LISTED and isinstance(value, list):
            value = next((one for one in value if _wrong(native, one, table)), None)
            if value is None:
                continue
        if expected := _wrong(native, value, table) or _wrong(key, value, table):
            text = repr(value) if len(repr(value)) <= 80 else f"{value!r:.80}..."
            raise SourceError(f"config.json: {key} is {text}, expected {expected}")


def _settings(config: Mapping[str, Any], table: Architecture) -> Iterator[tuple[str, str, Any]]:
    """(key, the family's name of it, value) of every setting that the table accounts for."""
    for key, value in config.items():
        if key not in table.accounted_keys:
            continue
        yield key, table.aliases.get(key, key), value
        if key in NESTED:
            yield from _inside(key, value)


def _inside(key: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        yield f"{key}.{name}", str(name), inner
        yield from _inside(f"{key}.{name}", inner)


def _wrong(key: str, value: Any, table: Architecture) -> str:
    """What a value should be; empty where it is that."""
    sized = {axis.key for axis in table.axes.values()}
    if key in FLAGS:
        return "" if isinstance(value, bool) else "true or false"
    if key in table.counters.values():
        return _whole(value, 0, MOST_LAYERS)
    if key in COUNTS or key == "image_size" or key == "patch_size":
        return _whole(value, 1, LARGEST_SIZE if key in sized else LARGEST_INTEGER)
    if key in WHOLES or key in OR_NONE:
        return _whole(value, 0 if key in WHOLES else -1, LARGEST_SIZE if key in sized else LARGEST_INTEGER)
    if key in ANY_WHOLES:
        return _whole(value, -LARGEST_INTEGER, LARGEST_INTEGER)
    if key in AMOUNTS:
        return "" if _is_number(value) and value >= 0 else "a number of 0 or more"
    if key in DIVISORS:
        return "" if _is_number(value) and value > 0 else "a number above 0, or null"
    if key in NUMBERS:
        is_word = key in WORDED and isinstance(value, str)
        return "" if is_word or _is_number(value) else "a number"
    return ""


def _whole(value: Any, least: int, most: int) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return "" if fits else f"a whole number of {least} to {most}"


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that float32 holds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and abs(value) <= LARGEST_NUMBER
