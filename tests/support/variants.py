"""Every form of every family: with its head tied and untied, the bare body, the classifiers, and options of the config.

The classes of body and classifiers are those that `transformers` lists for the model type. Options, and other classes,
are entries of FORMS; a family that has none needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from modelsurgeon.architectures import architecture, registry
from support.tiny_config import OVERRIDES, large_eps


@dataclass(frozen=True)
class Variant:
    """One form of one family.

    kind       the transformers class
    own_head   whether the output head differs from the embedding without a flag of the library for it (T5)
    main       whether it is the family's usual form, tied or untied, which is tried with every choice
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
        if self.kind == "ElectraForPreTraining":  # finds replaced words
            return False
        return any(kind in self.kind for kind in ("CausalLM", "MaskedLM", "LMHead", "PreTraining", "Conditional"))

    @property
    def tied(self) -> bool:
        """Whether the library makes one tensor of embedding and head."""
        by_default = getattr(transformers.CONFIG_MAPPING[self.model_type](), "tie_word_embeddings", False)
        return self.has_head and not self.own_head and bool(self.config.get("tie_word_embeddings", by_default))


CLASSES: Mapping[str, Mapping[str, Any]] = {
    "body": modeling_auto.MODEL_MAPPING_NAMES,
    "sequence": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "question": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    "choice": modeling_auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
}
FORMS: Mapping[str, tuple[tuple[str, str, Mapping[str, Any]], ...]] = {
    "albert": (
        ("pretraining", "AlbertForPreTraining", {}),
    ),
    "bart": (
        ("scaled", "BartForConditionalGeneration", {"scale_embedding": True}),
        ("scaled-untied", "BartForConditionalGeneration", {"scale_embedding": True, "tie_word_embeddings": False}),
        ("causal", "BartForCausalLM", {"is_decoder": True, "is_encoder_decoder": False, "scale_embedding": True}),
        ("question", "BartForQuestionAnswering", {"num_labels": 2}),
    ),
    "bert": (
        ("pretraining", "BertForPreTraining", {}),
        ("causal", "BertLMHeadModel", {"is_decoder": True}),
        ("next-sentence", "BertForNextSentencePrediction", {}),
    ),
    "bloom": (
        ("post-norm", "BloomForCausalLM", {"apply_residual_connection_post_layernorm": True}),
        ("six-heads", "BloomForCausalLM", {"n_head": 6, "hidden_size": 48}),
    ),
    "cohere": (
        ("biased", "CohereForCausalLM", {"attention_bias": True}),
        ("normed-heads", "CohereForCausalLM", {"use_qk_norm": True}),
    ),
    "deberta-v2": (
        ("plain", "DebertaV2ForMaskedLM", {"relative_attention": False, "pos_att_type": None}),
        ("shared-keys", "DebertaV2ForMaskedLM", {"share_att_key": True, "norm_rel_ebd": "none", "type_vocab_size": 2}),
        ("conv", "DebertaV2ForMaskedLM", {"conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": False}),
        ("projected", "DebertaV2ForMaskedLM", {"embedding_size": 24, "pos_att_type": ["c2p"], "position_buckets": -1}),
        ("fixed-head", "DebertaV2ForMaskedLM", {"legacy": False}),
    ),
    "deepseek_v2": (
        ("body-modern", "DeepseekV2Model", {}),
        ("modern", "DeepseekV2ForCausalLM", {}),
        ("biased", "DeepseekV2ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("greedy", "DeepseekV2ForCausalLM", {"n_group": None, "topk_group": None, "topk_method": "greedy"}),
        ("no-query-rank", "DeepseekV2ForCausalLM", {"q_lora_rank": None}),
        ("no-dense", "DeepseekV2ForCausalLM", {"first_k_dense_replace": 0}),
    ),
    "deepseek_v3": (
        ("body-modern", "DeepseekV3Model", {}),
        ("modern", "DeepseekV3ForCausalLM", {}),
        ("biased", "DeepseekV3ForCausalLM", {"attention_bias": True}),
        ("half", "DeepseekV3ForCausalLM", {"rope_interleave": False}),
        ("no-query-rank", "DeepseekV3ForCausalLM", {"q_lora_rank": None}),
        ("no-dense", "DeepseekV3ForCausalLM", {"first_k_dense_replace": 0}),
        ("unnormalised", "DeepseekV3ForCausalLM", {"norm_topk_prob": False}),
        ("every-group", "DeepseekV3ForCausalLM", {"topk_group": 4}),
    ),
    "electra": (
        ("one-size", "ElectraForMaskedLM", {"embedding_size": 32}),
        ("one-size-untied", "ElectraForMaskedLM", {"embedding_size": 32, "tie_word_embeddings": False}),
        ("discriminator", "ElectraForPreTraining", {}),
        ("one-size-discriminator", "ElectraForPreTraining", {"embedding_size": 32}),
        ("causal", "ElectraForCausalLM", {"is_decoder": True}),
    ),
    "ernie": (
        ("pretraining", "ErnieForPreTraining", {}),
        ("causal", "ErnieForCausalLM", {"is_decoder": True}),
        ("one-task", "ErnieForMaskedLM", {"use_task_id": False}),
        ("next-sentence", "ErnieForNextSentencePrediction", {}),
    ),
    "falcon": (
        ("grouped", "FalconForCausalLM", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("grouped-one-norm", "FalconForCausalLM", {
            "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "bias": True}),
        ("per-head", "FalconForCausalLM", {"multi_query": False}),
        ("sequential", "FalconForCausalLM", {"parallel_attn": False}),
        ("alibi", "FalconForCausalLM", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
    ),
    "gemma": (
        ("biased", "GemmaForCausalLM", {"attention_bias": True}),
        ("wide-heads", "GemmaForCausalLM", {"head_dim": 12}),
    ),
    "gemma2": (
        ("biased", "Gemma2ForCausalLM", {"attention_bias": True}),
    ),
    "gemma3_text": (
        ("biased", "Gemma3ForCausalLM", {"attention_bias": True}),
        ("linear-rope", "Gemma3ForCausalLM", {"rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
        ("softcapped", "Gemma3ForCausalLM", {"final_logit_softcapping": 2.0}),
    ),
    "gpt2": (
        ("unscaled", "GPT2LMHeadModel", {"scale_attn_weights": False}),
        ("layer-scaled", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
        ("implied-mlp", "GPT2LMHeadModel", {"n_inner": None}),
    ),
    "gpt_neo": (
        ("implied-mlp", "GPTNeoForCausalLM", {"intermediate_size": None}),
    ),
    "gpt_neox": (
        ("sequential", "GPTNeoXForCausalLM", {"use_parallel_residual": False}),
        ("unbiased", "GPTNeoXForCausalLM", {"attention_bias": False}),
    ),
    "gpt_oss": (
        ("unbiased", "GptOssForCausalLM", {"attention_bias": False}),
        ("yarn", "GptOssForCausalLM", {"rope_parameters": {
            "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "truncate": False, "original_max_position_embeddings": 8}}),
    ),
    "gptj": (
        ("all-rotated", "GPTJForCausalLM", {"rotary_dim": 8}),
        ("implied-mlp", "GPTJForCausalLM", {"n_inner": None}),
    ),
    "granite": (
        ("biased", "GraniteForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    ),
    "llama": (
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
    ),
    "mistral": (
        ("wide-heads", "MistralForCausalLM", {"head_dim": 12}),
    ),
    "mixtral": (
        ("body-modern", "MixtralModel", {}),
        ("modern", "MixtralForCausalLM", {}),
        ("wide-heads", "MixtralForCausalLM", {"head_dim": 12, "num_key_value_heads": 4}),
    ),
    "modernbert": (
        ("body", "ModernBertModel", {"norm_eps": 1e-2}),
        ("biased", "ModernBertForMaskedLM", {
            "attention_bias": True, "classifier_bias": True, "mlp_bias": True, "norm_bias": True}),
        ("unbiased-head", "ModernBertForMaskedLM", {"decoder_bias": False}),
        ("sequence", "ModernBertForSequenceClassification", {"num_labels": 3, "classifier_pooling": "mean"}),
    ),
    "mpt": (
        ("clipped", "MptForCausalLM", {"attn_config": {"clip_qkv": 0.5}}),
        ("own-scale", "MptForCausalLM", {"attn_config": {"softmax_scale": 0.3}}),
        ("six-heads", "MptForCausalLM", {"n_heads": 6, "d_model": 48}),
    ),
    "mt5": (("relu", "MT5ForConditionalGeneration", {"feed_forward_proj": "relu"}),),
    "olmo": (
        ("biased", "OlmoForCausalLM", {"attention_bias": True}),
        ("clipped", "OlmoForCausalLM", {"clip_qkv": 0.5}),
    ),
    "olmo2": (
        ("biased", "Olmo2ForCausalLM", {"attention_bias": True}),
    ),
    "olmoe": (
        ("body-modern", "OlmoeModel", {}),
        ("modern", "OlmoeForCausalLM", {}),
        ("biased", "OlmoeForCausalLM", {"attention_bias": True, "num_key_value_heads": 4}),
        ("normalised", "OlmoeForCausalLM", {"norm_topk_prob": True}),
        ("unclipped", "OlmoeForCausalLM", {"clip_qkv": None}),
    ),
    "opt": (
        ("unbiased", "OPTForCausalLM", {"enable_bias": False}),
        ("weightless", "OPTForCausalLM", {"layer_norm_elementwise_affine": False, "tie_word_embeddings": False}),
        ("projected", "OPTForCausalLM", {"word_embed_proj_dim": 24}),
        ("post-norm", "OPTForCausalLM", {"do_layer_norm_before": False}),
        ("350m", "OPTForCausalLM", {"do_layer_norm_before": False, "word_embed_proj_dim": 24}),
    ),
    "phi": (
        ("normed", "PhiForCausalLM", {"qk_layernorm": True}),
        ("wide-heads", "PhiForCausalLM", {"head_dim": 12}),
    ),
    "phi3": (
        ("sliding", "Phi3ForCausalLM", {"sliding_window": 4}),
        ("wide-heads", "Phi3ForCausalLM", {"head_dim": 12}),
        ("partly-rotated", "Phi3ForCausalLM", {"partial_rotary_factor": 0.5}),
        ("longrope", "Phi3ForCausalLM", {"original_max_position_embeddings": 16, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3, 1.7],
            "long_factor": [1.0, 1.5, 3.0, 5.0], "original_max_position_embeddings": 16}}),
    ),
    "qwen2": (
        ("sliding", "Qwen2ForCausalLM", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    ),
    "qwen2_moe": (
        ("body-modern", "Qwen2MoeModel", {}),
        ("modern", "Qwen2MoeForCausalLM", {}),
        ("no-dense", "Qwen2MoeForCausalLM", {"mlp_only_layers": []}),
        ("normalised", "Qwen2MoeForCausalLM", {"norm_topk_prob": True}),
        ("sliding", "Qwen2MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("every-second", "Qwen2MoeForCausalLM", {"mlp_only_layers": [], "decoder_sparse_step": 2}),
        ("unbiased", "Qwen2MoeForCausalLM", {"qkv_bias": False}),
        ("wide-heads", "Qwen2MoeForCausalLM", {"head_dim": 12}),
    ),
    "qwen3": (
        ("biased", "Qwen3ForCausalLM", {"attention_bias": True}),
    ),
    "qwen3_moe": (
        ("body-modern", "Qwen3MoeModel", {}),
        ("modern", "Qwen3MoeForCausalLM", {}),
        ("biased", "Qwen3MoeForCausalLM", {"attention_bias": True}),
        ("every-second", "Qwen3MoeForCausalLM", {"mlp_only_layers": [], "decoder_sparse_step": 2}),
        ("normalised", "Qwen3MoeForCausalLM", {"norm_topk_prob": True}),
        ("no-dense", "Qwen3MoeForCausalLM", {"mlp_only_layers": []}),
        ("sliding", "Qwen3MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 4}),
    ),
    "roberta": (
        ("causal", "RobertaForCausalLM", {"is_decoder": True}),
    ),
    "roformer": (
        ("rotary-value", "RoFormerForMaskedLM", {"rotary_value": True}),
        ("projected", "RoFormerForMaskedLM", {"embedding_size": 24}),
        ("projected-untied", "RoFormerForMaskedLM", {"embedding_size": 24, "tie_word_embeddings": False}),
    ),
    "smollm3": (
        ("biased", "SmolLM3ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("sliding", "SmolLM3ForCausalLM", {"use_sliding_window": True, "sliding_window": 4}),
    ),
    "stablelm": (
        ("parallel", "StableLmForCausalLM", {"use_parallel_residual": True}),
        ("biased", "StableLmForCausalLM", {"use_qkv_bias": True}),
        ("normed", "StableLmForCausalLM", {"qk_layernorm": True}),
    ),
    "starcoder2": (
        ("unbiased", "Starcoder2ForCausalLM", {"use_bias": False}),
        ("sliding", "Starcoder2ForCausalLM", {"sliding_window": 4}),
    ),
    "t5": (("gated", "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"}),),
    "umt5": (("relu", "UMT5ForConditionalGeneration", {"feed_forward_proj": "relu"}),),
    "vit": (
        ("modern", "ViTForImageClassification", {"num_labels": 3}),
        ("unbiased", "ViTForImageClassification", {"qkv_bias": False}),
        ("masked", "ViTForMaskedImageModeling", {"encoder_stride": 4}),
    ),
    "whisper": (
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
    listed = [Variant(f"{model_type}-{name}", model_type, kind, extra) for name, kind, extra in _forms(model_type)]
    own_eps = table.eps in OVERRIDES.get(model_type, {})
    return [*found, *(one if one.has_head or own_eps else _without_head(one) for one in listed)]


def _forms(model_type: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(name, class, config): the body, options, classifiers. An entry of FORMS replaces the usual one of its name."""
    listed = {name: (kind, extra) for name, kind, extra in FORMS.get(model_type, ())}
    has_labels = "labels" in registry.find(model_type).axes
    usual: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, classes in CLASSES.items():
        if model_type in classes and (has_labels or name == "body"):
            usual[name] = (classes[model_type], {"num_labels": 3} if name in ("sequence", "token") else {})
    options = {name: form for name, form in listed.items() if name not in CLASSES}
    body = {"body": usual.pop("body")} if "body" in usual else {}
    return [(name, *form) for name, form in ({**body, **options, **usual} | listed).items()]


def _without_head(variant: Variant) -> Variant:
    return replace(variant, config={**large_eps(variant.table), **variant.config})
