"""Tiny models of every architecture, every parameter random: the oracle that surgery is tried on.

Fresh models have gains of 1 and biases of 0, which hides most errors; here gains lie around 1 by 0.3, biases around
0 by 0.3, and matrices have the deviation that keeps activations near 1. Sizes differ from one another where the family
allows it, so that a swapped axis cannot fit by chance.

A new table in architectures/tables/ needs one line in SIZES; it is then tried tied and untied. Further forms of
a family (bare bodies, classifiers, other flags) are lines in FORMS.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.pytorch_utils import Conv1D

from modelsurgeon.architectures import architecture, registry
from support.oracle import in_float64

VOCAB, LENGTH, POSITIONS = 61, 9, 24

# Float32 passes of one function that sum in another order, in units of the outputs' deviation. Some thirty sums of up
# to a hundred numbers follow one another, each rounded either way by half of float32's eps: five deviations of such a
# walk are 140 eps. Attention that is sharp, T5's without a scale, magnifies that about three times.
ROUNDING = 400 * 2.0**-23

# What a table's axes and counters get: heads of 8 (four rotary pairs), sizes that no other axis has by chance.
BY_AXIS = {"vocab": VOCAB, "positions": POSITIONS, "types": 2, "buckets": 8, "heads": 4, "kv": 2, "head": 8, "value": 8}
BY_KIND = {"residual": 32, "pointwise": 40}
_BERT = {"layer_norm_eps": 1e-12}  # its masked-LM head's norm cannot share an eps that is not negligible
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
    "albert": {**_BERT, "embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2},
    "bart": {**_SIDES, "decoder_ffn_dim": 48},
    "bert": _BERT,
    "deberta-v2": {
        **_BERT,
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
    "electra": {**_BERT, "embedding_size": 24},
    "ernie": {**_BERT, "use_task_id": True},
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
    "roberta": _BERT,
    "roformer": {**_BERT, "embedding_size": 32},
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


def sizes(model_type: str) -> dict[str, Any]:
    """A tiny config of a family, from its table alone where OVERRIDES has nothing to say."""
    table = registry.find(model_type)
    known = transformers.CONFIG_MAPPING[model_type]().to_dict()
    found: dict[str, Any] = dict.fromkeys(table.counters.values(), 2)
    for name, axis in table.axes.items():
        size = BY_AXIS.get(name, BY_KIND.get(axis.through))
        if axis.key and axis.key in known and size:
            found.setdefault(axis.key, size)
    found |= {key: POSITIONS for key in ("max_position_embeddings",) if key in known}
    found |= {table.eps: 1e-2} if table.eps else {}  # large, so that one left alone is seen
    found |= OVERRIDES.get(model_type, {})
    derived = {
        ours: found[rule]
        for ours, rule in table.equal.items()
        if ours in known and isinstance(rule, str) and rule in found
    }
    return {**derived, **found}


@dataclass(frozen=True)
class Variant:
    """One form of one family.

    kind       the transformers class
    own_head   the output head differs from the embedding, and the library cannot be told so by a flag (T5)
    main       the family's usual form, tied or untied: tried with every choice, the others with fewer
    """

    name: str
    model_type: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    own_head: bool = False
    main: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def table(self) -> architecture.Architecture:
        return registry.find(self.model_type)

    @property
    def modern(self) -> bool:
        """Whether it is saved under the names of the library's modules, where files usually have others."""
        return self.name.endswith("-modern")

    @property
    def has_head(self) -> bool:
        if self.kind == "ElectraForPreTraining":  # tells replaced words from others
            return False
        return any(kind in self.kind for kind in ("CausalLM", "MaskedLM", "LMHead", "PreTraining", "Conditional"))

    @property
    def tied(self) -> bool:
        """Whether the library makes one tensor of embedding and head."""
        by_default = getattr(transformers.CONFIG_MAPPING[self.model_type](), "tie_word_embeddings", False)
        return self.has_head and not self.own_head and bool(self.config.get("tie_word_embeddings", by_default))


_EPS = {"layer_norm_eps": 1e-2}  # no masked-LM head: one eps serves all
FORMS: Mapping[str, tuple[tuple[str, str, Mapping[str, Any]], ...]] = {
    "albert": (
        ("pretraining", "AlbertForPreTraining", {}),
        ("body", "AlbertModel", {}),
        ("sequence", "AlbertForSequenceClassification", {"num_labels": 3}),
        ("token", "AlbertForTokenClassification", {"num_labels": 3}),
        ("question", "AlbertForQuestionAnswering", {}),
        ("choice", "AlbertForMultipleChoice", {}),
    ),
    "bart": (
        ("body", "BartModel", {}),
        ("scaled", "BartForConditionalGeneration", {"scale_embedding": True}),
        ("scaled-untied", "BartForConditionalGeneration", {"scale_embedding": True, "tie_word_embeddings": False}),
        ("causal", "BartForCausalLM", {"is_decoder": True, "is_encoder_decoder": False, "scale_embedding": True}),
        ("sequence", "BartForSequenceClassification", {"num_labels": 3}),
        ("question", "BartForQuestionAnswering", {"num_labels": 2}),
    ),
    "bert": (
        ("pretraining", "BertForPreTraining", {}),
        ("causal", "BertLMHeadModel", {"is_decoder": True}),
        ("body", "BertModel", _EPS),
        ("next-sentence", "BertForNextSentencePrediction", _EPS),
        ("sequence", "BertForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "BertForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "BertForQuestionAnswering", _EPS),
        ("choice", "BertForMultipleChoice", _EPS),
    ),
    "bloom": (
        ("body", "BloomModel", {}),
        ("post-norm", "BloomForCausalLM", {"apply_residual_connection_post_layernorm": True}),
        ("six-heads", "BloomForCausalLM", {"n_head": 6, "hidden_size": 48}),
        ("sequence", "BloomForSequenceClassification", {"num_labels": 3}),
        ("token", "BloomForTokenClassification", {"num_labels": 3}),
        ("question", "BloomForQuestionAnswering", {}),
    ),
    "cohere": (
        ("body", "CohereModel", {}),
        ("biased", "CohereForCausalLM", {"attention_bias": True}),
        ("normed-heads", "CohereForCausalLM", {"use_qk_norm": True}),
    ),
    "deberta-v2": (
        ("plain", "DebertaV2ForMaskedLM", {"relative_attention": False, "pos_att_type": None}),
        ("shared-keys", "DebertaV2ForMaskedLM", {"share_att_key": True, "norm_rel_ebd": "none", "type_vocab_size": 2}),
        ("conv", "DebertaV2ForMaskedLM", {"conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": False}),
        ("projected", "DebertaV2ForMaskedLM", {"embedding_size": 24, "pos_att_type": ["c2p"], "position_buckets": -1}),
        ("fixed-head", "DebertaV2ForMaskedLM", {"legacy": False}),
        ("body", "DebertaV2Model", _EPS),
        ("sequence", "DebertaV2ForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "DebertaV2ForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "DebertaV2ForQuestionAnswering", _EPS),
        ("choice", "DebertaV2ForMultipleChoice", _EPS),
    ),
    "deepseek_v2": (
        ("body", "DeepseekV2Model", {}),
        ("body-modern", "DeepseekV2Model", {}),
        ("modern", "DeepseekV2ForCausalLM", {}),
        ("sequence", "DeepseekV2ForSequenceClassification", {"num_labels": 3}),
        ("biased", "DeepseekV2ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("greedy", "DeepseekV2ForCausalLM", {"n_group": None, "topk_group": None, "topk_method": "greedy"}),
        ("no-query-rank", "DeepseekV2ForCausalLM", {"q_lora_rank": None}),
        ("no-dense", "DeepseekV2ForCausalLM", {"first_k_dense_replace": 0}),
    ),
    "deepseek_v3": (
        ("body", "DeepseekV3Model", {}),
        ("body-modern", "DeepseekV3Model", {}),
        ("modern", "DeepseekV3ForCausalLM", {}),
        ("sequence", "DeepseekV3ForSequenceClassification", {"num_labels": 3}),
        ("token", "DeepseekV3ForTokenClassification", {"num_labels": 3}),
        ("biased", "DeepseekV3ForCausalLM", {"attention_bias": True}),
        ("half", "DeepseekV3ForCausalLM", {"rope_interleave": False}),
        ("no-query-rank", "DeepseekV3ForCausalLM", {"q_lora_rank": None}),
        ("no-dense", "DeepseekV3ForCausalLM", {"first_k_dense_replace": 0}),
        ("unnormalised", "DeepseekV3ForCausalLM", {"norm_topk_prob": False}),
        ("every-group", "DeepseekV3ForCausalLM", {"topk_group": 4}),
    ),
    "distilbert": (
        ("body", "DistilBertModel", {}),
        ("sequence", "DistilBertForSequenceClassification", {"num_labels": 3}),
        ("token", "DistilBertForTokenClassification", {"num_labels": 3}),
        ("question", "DistilBertForQuestionAnswering", {}),
        ("choice", "DistilBertForMultipleChoice", {}),
    ),
    "electra": (
        ("one-size", "ElectraForMaskedLM", {"embedding_size": 32}),
        ("one-size-untied", "ElectraForMaskedLM", {"embedding_size": 32, "tie_word_embeddings": False}),
        ("discriminator", "ElectraForPreTraining", {}),
        ("one-size-discriminator", "ElectraForPreTraining", {**_EPS, "embedding_size": 32}),
        ("causal", "ElectraForCausalLM", {"is_decoder": True}),
        ("body", "ElectraModel", {}),
        ("sequence", "ElectraForSequenceClassification", {"num_labels": 3}),
        ("token", "ElectraForTokenClassification", {"num_labels": 3}),
        ("question", "ElectraForQuestionAnswering", {}),
        ("choice", "ElectraForMultipleChoice", {}),
    ),
    "ernie": (
        ("pretraining", "ErnieForPreTraining", {}),
        ("causal", "ErnieForCausalLM", {"is_decoder": True}),
        ("one-task", "ErnieForMaskedLM", {"use_task_id": False}),
        ("body", "ErnieModel", _EPS),
        ("next-sentence", "ErnieForNextSentencePrediction", _EPS),
        ("sequence", "ErnieForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "ErnieForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "ErnieForQuestionAnswering", _EPS),
        ("choice", "ErnieForMultipleChoice", _EPS),
    ),
    "falcon": (
        ("body", "FalconModel", {}),
        ("grouped", "FalconForCausalLM", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("grouped-one-norm", "FalconForCausalLM", {
            "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "bias": True}),
        ("per-head", "FalconForCausalLM", {"multi_query": False}),
        ("sequential", "FalconForCausalLM", {"parallel_attn": False}),
        ("alibi", "FalconForCausalLM", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
        ("sequence", "FalconForSequenceClassification", {"num_labels": 3}),
        ("token", "FalconForTokenClassification", {"num_labels": 3}),
        ("question", "FalconForQuestionAnswering", {}),
    ),
    "gemma": (
        ("body", "GemmaModel", {}),
        ("biased", "GemmaForCausalLM", {"attention_bias": True}),
        ("wide-heads", "GemmaForCausalLM", {"head_dim": 12}),
        ("token", "GemmaForTokenClassification", {"num_labels": 3}),
    ),
    "gemma2": (
        ("body", "Gemma2Model", {}),
        ("biased", "Gemma2ForCausalLM", {"attention_bias": True}),
        ("token", "Gemma2ForTokenClassification", {"num_labels": 3}),
    ),
    "gemma3_text": (
        ("body", "Gemma3TextModel", {}),
        ("biased", "Gemma3ForCausalLM", {"attention_bias": True}),
        ("linear-rope", "Gemma3ForCausalLM", {"rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
        ("softcapped", "Gemma3ForCausalLM", {"final_logit_softcapping": 2.0}),
        ("sequence", "Gemma3TextForSequenceClassification", {"num_labels": 3}),
    ),
    "gpt2": (
        ("body", "GPT2Model", {}),
        ("sequence", "GPT2ForSequenceClassification", {"num_labels": 3}),
        ("token", "GPT2ForTokenClassification", {"num_labels": 3}),
        ("question", "GPT2ForQuestionAnswering", {}),
        ("unscaled", "GPT2LMHeadModel", {"scale_attn_weights": False}),
        ("layer-scaled", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
        ("implied-mlp", "GPT2LMHeadModel", {"n_inner": None}),
    ),
    "gpt_neo": (
        ("body", "GPTNeoModel", {}),
        ("implied-mlp", "GPTNeoForCausalLM", {"intermediate_size": None}),
        ("sequence", "GPTNeoForSequenceClassification", {"num_labels": 3}),
        ("token", "GPTNeoForTokenClassification", {"num_labels": 3}),
        ("question", "GPTNeoForQuestionAnswering", {}),
    ),
    "gpt_neox": (
        ("body", "GPTNeoXModel", {}),
        ("sequential", "GPTNeoXForCausalLM", {"use_parallel_residual": False}),
        ("unbiased", "GPTNeoXForCausalLM", {"attention_bias": False}),
        ("sequence", "GPTNeoXForSequenceClassification", {"num_labels": 3}),
        ("token", "GPTNeoXForTokenClassification", {"num_labels": 3}),
        ("question", "GPTNeoXForQuestionAnswering", {}),
    ),
    "gpt_oss": (
        ("body", "GptOssModel", {}),
        ("sequence", "GptOssForSequenceClassification", {"num_labels": 3}),
        ("token", "GptOssForTokenClassification", {"num_labels": 3}),
        ("unbiased", "GptOssForCausalLM", {"attention_bias": False}),
        ("yarn", "GptOssForCausalLM", {"rope_parameters": {
            "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "truncate": False, "original_max_position_embeddings": 8}}),
    ),
    "gptj": (
        ("body", "GPTJModel", {}),
        ("all-rotated", "GPTJForCausalLM", {"rotary_dim": 8}),
        ("implied-mlp", "GPTJForCausalLM", {"n_inner": None}),
        ("sequence", "GPTJForSequenceClassification", {"num_labels": 3}),
        ("question", "GPTJForQuestionAnswering", {}),
    ),
    "granite": (
        ("body", "GraniteModel", {}),
        ("biased", "GraniteForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    ),
    "llama": (
        ("body", "LlamaModel", {}),
        ("biased", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("wide-heads", "LlamaForCausalLM", {"head_dim": 12, "num_key_value_heads": 4}),
        ("linear-rope", "LlamaForCausalLM", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
        ("dynamic-rope", "LlamaForCausalLM", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}),
        ("llama3-rope", "LlamaForCausalLM", {"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
        ("longrope", "LlamaForCausalLM", {"rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 6,
            "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0]}}),
        ("yarn-rope", "LlamaForCausalLM", {"rope_parameters": {  # betas for a ramp inside so short a head
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 6,
            "beta_fast": 0.5, "beta_slow": 0.05}}),
        ("sequence", "LlamaForSequenceClassification", {"num_labels": 3}),
        ("token", "LlamaForTokenClassification", {"num_labels": 3}),
        ("question", "LlamaForQuestionAnswering", {}),
    ),
    "mistral": (
        ("body", "MistralModel", {}),
        ("wide-heads", "MistralForCausalLM", {"head_dim": 12}),
        ("token", "MistralForTokenClassification", {"num_labels": 3}),
        ("question", "MistralForQuestionAnswering", {}),
    ),
    "mixtral": (
        ("body", "MixtralModel", {}),
        ("body-modern", "MixtralModel", {}),
        ("modern", "MixtralForCausalLM", {}),
        ("sequence", "MixtralForSequenceClassification", {"num_labels": 3}),
        ("token", "MixtralForTokenClassification", {"num_labels": 3}),
        ("question", "MixtralForQuestionAnswering", {}),
        ("wide-heads", "MixtralForCausalLM", {"head_dim": 12, "num_key_value_heads": 4}),
    ),
    "modernbert": (
        ("biased", "ModernBertForMaskedLM", {
            "attention_bias": True, "classifier_bias": True, "mlp_bias": True, "norm_bias": True}),
        ("unbiased-head", "ModernBertForMaskedLM", {"decoder_bias": False}),
        ("body", "ModernBertModel", {"norm_eps": 1e-2}),
        ("sequence", "ModernBertForSequenceClassification", {"num_labels": 3, "classifier_pooling": "mean"}),
        ("token", "ModernBertForTokenClassification", {"num_labels": 3}),
        ("question", "ModernBertForQuestionAnswering", {}),
        ("choice", "ModernBertForMultipleChoice", {}),
    ),
    "mpt": (
        ("body", "MptModel", {}),
        ("clipped", "MptForCausalLM", {"attn_config": {"clip_qkv": 0.5}}),
        ("own-scale", "MptForCausalLM", {"attn_config": {"softmax_scale": 0.3}}),
        ("six-heads", "MptForCausalLM", {"n_heads": 6, "d_model": 48}),
        ("sequence", "MptForSequenceClassification", {"num_labels": 3}),
        ("token", "MptForTokenClassification", {"num_labels": 3}),
        ("question", "MptForQuestionAnswering", {}),
    ),
    "mt5": (("body", "MT5Model", {}), ("relu", "MT5ForConditionalGeneration", {"feed_forward_proj": "relu"})),
    "olmo": (
        ("body", "OlmoModel", {}),
        ("biased", "OlmoForCausalLM", {"attention_bias": True}),
        ("clipped", "OlmoForCausalLM", {"clip_qkv": 0.5}),
        ("sequence", "OlmoForSequenceClassification", {"num_labels": 3}),
    ),
    "olmo2": (
        ("body", "Olmo2Model", {}),
        ("biased", "Olmo2ForCausalLM", {"attention_bias": True}),
        ("sequence", "Olmo2ForSequenceClassification", {"num_labels": 3}),
    ),
    "olmoe": (
        ("body", "OlmoeModel", {}),
        ("body-modern", "OlmoeModel", {}),
        ("modern", "OlmoeForCausalLM", {}),
        ("biased", "OlmoeForCausalLM", {"attention_bias": True, "num_key_value_heads": 4}),
        ("normalised", "OlmoeForCausalLM", {"norm_topk_prob": True}),
        ("unclipped", "OlmoeForCausalLM", {"clip_qkv": None}),
    ),
    "opt": (
        ("body", "OPTModel", {}),
        ("unbiased", "OPTForCausalLM", {"enable_bias": False}),
        ("weightless", "OPTForCausalLM", {"layer_norm_elementwise_affine": False, "tie_word_embeddings": False}),
        ("projected", "OPTForCausalLM", {"word_embed_proj_dim": 24}),
        ("post-norm", "OPTForCausalLM", {"do_layer_norm_before": False}),
        ("350m", "OPTForCausalLM", {"do_layer_norm_before": False, "word_embed_proj_dim": 24}),
        ("sequence", "OPTForSequenceClassification", {"num_labels": 3}),
        ("question", "OPTForQuestionAnswering", {}),
    ),
    "phi": (
        ("body", "PhiModel", {}),
        ("normed", "PhiForCausalLM", {"qk_layernorm": True}),
        ("wide-heads", "PhiForCausalLM", {"head_dim": 12}),
        ("sequence", "PhiForSequenceClassification", {"num_labels": 3}),
        ("token", "PhiForTokenClassification", {"num_labels": 3}),
    ),
    "phi3": (
        ("body", "Phi3Model", {}),
        ("sliding", "Phi3ForCausalLM", {"sliding_window": 4}),
        ("wide-heads", "Phi3ForCausalLM", {"head_dim": 12}),
        ("partly-rotated", "Phi3ForCausalLM", {"partial_rotary_factor": 0.5}),
        ("longrope", "Phi3ForCausalLM", {"original_max_position_embeddings": 16, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3, 1.7],
            "long_factor": [1.0, 1.5, 3.0, 5.0], "original_max_position_embeddings": 16}}),
        ("sequence", "Phi3ForSequenceClassification", {"num_labels": 3}),
        ("token", "Phi3ForTokenClassification", {"num_labels": 3}),
    ),
    "qwen2": (
        ("body", "Qwen2Model", {}),
        ("sliding", "Qwen2ForCausalLM", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("token", "Qwen2ForTokenClassification", {"num_labels": 3}),
        ("question", "Qwen2ForQuestionAnswering", {}),
    ),
    "qwen2_moe": (
        ("body", "Qwen2MoeModel", {}),
        ("body-modern", "Qwen2MoeModel", {}),
        ("modern", "Qwen2MoeForCausalLM", {}),
        ("sequence", "Qwen2MoeForSequenceClassification", {"num_labels": 3}),
        ("token", "Qwen2MoeForTokenClassification", {"num_labels": 3}),
        ("question", "Qwen2MoeForQuestionAnswering", {}),
        ("no-dense", "Qwen2MoeForCausalLM", {"mlp_only_layers": []}),
        ("normalised", "Qwen2MoeForCausalLM", {"norm_topk_prob": True}),
        ("sliding", "Qwen2MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("every-second", "Qwen2MoeForCausalLM", {"mlp_only_layers": [], "decoder_sparse_step": 2}),
        ("unbiased", "Qwen2MoeForCausalLM", {"qkv_bias": False}),
        ("wide-heads", "Qwen2MoeForCausalLM", {"head_dim": 12}),
    ),
    "qwen3": (
        ("body", "Qwen3Model", {}),
        ("biased", "Qwen3ForCausalLM", {"attention_bias": True}),
        ("token", "Qwen3ForTokenClassification", {"num_labels": 3}),
        ("question", "Qwen3ForQuestionAnswering", {}),
    ),
    "qwen3_moe": (
        ("body", "Qwen3MoeModel", {}),
        ("body-modern", "Qwen3MoeModel", {}),
        ("modern", "Qwen3MoeForCausalLM", {}),
        ("sequence", "Qwen3MoeForSequenceClassification", {"num_labels": 3}),
        ("token", "Qwen3MoeForTokenClassification", {"num_labels": 3}),
        ("question", "Qwen3MoeForQuestionAnswering", {}),
        ("biased", "Qwen3MoeForCausalLM", {"attention_bias": True}),
        ("every-second", "Qwen3MoeForCausalLM", {"mlp_only_layers": [], "decoder_sparse_step": 2}),
        ("normalised", "Qwen3MoeForCausalLM", {"norm_topk_prob": True}),
        ("no-dense", "Qwen3MoeForCausalLM", {"mlp_only_layers": []}),
        ("sliding", "Qwen3MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 4}),
    ),
    "roberta": (
        ("causal", "RobertaForCausalLM", {"is_decoder": True}),
        ("body", "RobertaModel", _EPS),
        ("sequence", "RobertaForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "RobertaForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "RobertaForQuestionAnswering", _EPS),
        ("choice", "RobertaForMultipleChoice", _EPS),
    ),
    "roformer": (
        ("body", "RoFormerModel", _EPS),
        ("sequence", "RoFormerForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "RoFormerForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "RoFormerForQuestionAnswering", _EPS),
        ("choice", "RoFormerForMultipleChoice", _EPS),
        ("rotary-value", "RoFormerForMaskedLM", {"rotary_value": True}),
        ("projected", "RoFormerForMaskedLM", {"embedding_size": 24}),
        ("projected-untied", "RoFormerForMaskedLM", {"embedding_size": 24, "tie_word_embeddings": False}),
    ),
    "smollm3": (
        ("body", "SmolLM3Model", {}),
        ("biased", "SmolLM3ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("sliding", "SmolLM3ForCausalLM", {"use_sliding_window": True, "sliding_window": 4}),
        ("token", "SmolLM3ForTokenClassification", {"num_labels": 3}),
        ("question", "SmolLM3ForQuestionAnswering", {}),
    ),
    "stablelm": (
        ("body", "StableLmModel", {}),
        ("parallel", "StableLmForCausalLM", {"use_parallel_residual": True}),
        ("biased", "StableLmForCausalLM", {"use_qkv_bias": True}),
        ("normed", "StableLmForCausalLM", {"qk_layernorm": True}),
        ("sequence", "StableLmForSequenceClassification", {"num_labels": 3}),
        ("token", "StableLmForTokenClassification", {"num_labels": 3}),
    ),
    "starcoder2": (
        ("body", "Starcoder2Model", {}),
        ("unbiased", "Starcoder2ForCausalLM", {"use_bias": False}),
        ("sliding", "Starcoder2ForCausalLM", {"sliding_window": 4}),
        ("token", "Starcoder2ForTokenClassification", {"num_labels": 3}),
    ),
    "t5": (("body", "T5Model", {}), ("gated", "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"})),
    "umt5": (("body", "UMT5Model", {}), ("relu", "UMT5ForConditionalGeneration", {"feed_forward_proj": "relu"})),
    "vit": (
        ("body", "ViTModel", {}),
        ("modern", "ViTForImageClassification", {"num_labels": 3}),
        ("unbiased", "ViTForImageClassification", {"qkv_bias": False}),
        ("masked", "ViTForMaskedImageModeling", {"encoder_stride": 4}),
    ),
    "whisper": (
        ("body", "WhisperModel", {}),
        ("causal", "WhisperForCausalLM", {"is_decoder": True, "is_encoder_decoder": False}),
        ("sound", "WhisperForAudioClassification", {"num_labels": 3}),
    ),
}  # fmt: skip


def variants() -> tuple[Variant, ...]:
    """Every form of every family that has a table."""
    return tuple(variant for model_type in registry.known() for variant in _of(model_type))


def named(name: str) -> Variant:
    return next(v for v in variants() if v.name == name)


def _of(model_type: str) -> list[Variant]:
    table = registry.find(model_type)
    found = []
    if table.tie is not None:
        for tied in (True, False):
            own = bool(table.tie.forced and not tied)
            extra = {"tie_word_embeddings": tied}
            if own:
                extra = {"feed_forward_proj": "gated-gelu", **extra}
            name = f"{model_type}-{'tied' if tied else 'untied'}"
            found.append(Variant(name, model_type, table.model, extra, own_head=own, main=True))
    else:
        found.append(Variant(model_type, model_type, table.model, main=True))
    for name, kind, extra in FORMS.get(model_type, ()):
        found.append(Variant(f"{model_type}-{name}", model_type, kind, extra))
    return found


def build(variant: Variant) -> Any:
    """The model in float32, random and the same in every run."""
    torch.manual_seed(zlib.crc32(variant.name.encode()))
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config_class = transformers.CONFIG_MAPPING[variant.model_type]
    config = config_class(**{**tokens, **sizes(variant.model_type), **variant.config})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = getattr(transformers, variant.kind)(config).eval()
    if variant.own_head:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    randomise(model)
    return model


def randomise(model: Any) -> None:
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:  # RoFormer's table of sines is frozen
                continue
            seen.add(id(parameter))
            with torch.no_grad():
                if parameter.ndim == 1:
                    start = parameter if name == "weight" else 0.0  # a gain's own start: 1, or 0 where it is 1 + w
                    parameter.copy_(start + 0.6 * (torch.rand(parameter.shape) - 0.5))
                else:
                    parameter.normal_(0.0, _deviation(module, name, parameter))
        for name, buffer in module.named_buffers(recurse=False):
            if name == "e_score_correction_bias":  # stored, and large enough to change which experts are chosen
                buffer.uniform_(-0.3, 0.3)


def _deviation(module: Any, name: str, parameter: torch.Tensor) -> float:
    if isinstance(module, torch.nn.Embedding):
        return 0.5
    if name.endswith("_bias"):  # of all experts together
        return 0.2
    if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
        return float(parameter[0].numel() ** -0.5)
    transposed = isinstance(module, Conv1D) or getattr(module, "is_transposed", False)
    return float(parameter.shape[-2 if transposed else -1] ** -0.5)


def save(variant: Variant, folder: Path, dtype: str = "float32") -> Path:
    """A saved checkpoint of the variant in `dtype`."""
    build(variant).to(getattr(torch, dtype)).save_pretrained(folder, save_original_format=not variant.modern)
    return folder


def load(folder: Path, kind: str) -> Any:
    """The model from disk, in float32. Nothing may be missing, made up or left over."""
    return _load(folder, kind, dtype=torch.float32)


def load64(folder: Path, kind: str) -> Any:
    """The same in float64, to be run inside `oracle.in_float64()` too."""
    with in_float64():
        return _load(folder, kind, dtype=torch.float64, experts_implementation="eager")


def _load(folder: Path, kind: str, **options: Any) -> Any:
    model, info = getattr(transformers, kind).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True, **options
    )
    wrong = {key: value for key, value in info.items() if value and key != "unexpected_keys"}
    assert not wrong, f"{folder}: {wrong}"
    for parameter in model.parameters():  # in a file, weights lie at any address: BLAS may round by their alignment
        parameter.data = parameter.data.clone()
    return model.eval()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Two rows of random ids, the second one padded; random pictures or sounds for a model of such."""
    config, generator = model.config, torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        size = (config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(2, *size, generator=generator).to(model.dtype)}
    ids = torch.randint(3, config.vocab_size, (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    ids[1, -2:] = 0
    takes = inspect.signature(model.forward).parameters
    written = {"decoder_input_ids": ids.flip(1)} if "decoder_input_ids" in takes else {}
    if model.main_input_name == "input_features":
        size = (config.num_mel_bins, 2 * config.max_source_positions)  # frames: the second convolution halves them
        return {"input_features": torch.randn(2, *size, generator=generator).to(model.dtype), **written}
    if written:
        ids[:, 3] = config.eos_token_id  # where BART's classifier reads
    found = {"input_ids": ids, "attention_mask": mask, **written}
    if getattr(config, "type_vocab_size", 0):
        found["token_type_ids"] = torch.arange(LENGTH).expand(2, -1) % config.type_vocab_size
    if "MultipleChoice" in type(model).__name__:
        return {name: value[None] for name, value in found.items()}  # one question, two choices
    return found


def outputs(model: Any) -> dict[str, torch.Tensor]:
    """{name: float tensor} of everything that a forward pass returns, caches left out."""
    with torch.no_grad():
        found = model(**inputs(model), use_cache=False) if _caches(model) else model(**inputs(model))
    return {name: value.double() for name, value in found.items() if isinstance(value, torch.Tensor)}


def folded(output: torch.Tensor, axis_map: Any) -> torch.Tensor:
    """An output whose last axis grew, as its source would have returned it: D h / gain."""
    spread = output[..., torch.from_numpy(~axis_map.gaps)] * torch.from_numpy(axis_map.share[~axis_map.gaps])
    index = torch.from_numpy(axis_map.source[~axis_map.gaps])
    return output.new_zeros(*output.shape[:-1], axis_map.size).index_add(-1, index, spread) / axis_map.gain


def error(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    variant: Variant,
    maps: Mapping[str, Any] | None = None,
) -> float:
    """The largest difference of any output, in units of that output's deviation. NaN counts as infinite."""
    assert before.keys() == after.keys()
    worst = 0.0
    for name, old in before.items():
        axis = variant.table.outputs.get(name)
        new = folded(after[name], maps[axis]) if maps and axis in maps else after[name]
        assert old.shape == new.shape, name
        worst = max(worst, float(torch.nan_to_num((old - new).abs().max() / old.std(), nan=torch.inf)))
    return worst


def _caches(model: Any) -> bool:
    return bool(getattr(model.config, "use_cache", False))


def run(folder: Path, kind: str) -> Mapping[str, torch.Tensor]:
    """What the model on disk computes in float32."""
    return _run(folder, kind, _written(folder))


def run64(folder: Path, kind: str) -> Mapping[str, torch.Tensor]:
    """What the model on disk computes in float64; save it in float64, or the file's rounding is seen."""
    return _run64(folder, kind, _written(folder))


def _written(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells the files of a folder from others that were there before."""
    found = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found)


@lru_cache(maxsize=256)  # the sources of all families: each test compares with them
def _run(folder: Path, kind: str, written: object) -> Mapping[str, torch.Tensor]:
    return outputs(load(folder, kind))


@lru_cache(maxsize=256)
def _run64(folder: Path, kind: str, written: object) -> Mapping[str, torch.Tensor]:
    with in_float64():
        return outputs(load64(folder, kind))
