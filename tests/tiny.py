"""Tiny models of every architecture, every parameter random: the oracle that surgery is tried on.

Fresh models have gains of 1 and biases of 0, which hides most errors; here gains lie around 1 by 0.3, biases around
0 by 0.3, and matrices have the deviation that keeps activations near 1. Sizes differ from one another where the family
allows it, so that a swapped axis cannot fit by chance.

A new table in modelsurgeon/architectures/ needs one line in SIZES; it is then tried tied and untied. Further forms of
a family (bare bodies, classifiers, other flags) are lines in FORMS.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.pytorch_utils import Conv1D

from modelsurgeon import architecture

VOCAB, LENGTH, POSITIONS = 61, 9, 24

# What a table's axes and counters get: heads of 8 (four rotary pairs), sizes that no other axis has by chance.
BY_AXIS = {"vocab": VOCAB, "positions": POSITIONS, "types": 2, "buckets": 8, "heads": 4, "kv": 2, "head": 8, "value": 8}
BY_KIND = {"residual": 32, "pointwise": 40}
_BERT = {"layer_norm_eps": 1e-12}  # its masked-LM head's norm cannot share an eps that is not negligible
_T5 = {"d_kv": 6, "num_decoder_layers": 3, "relative_attention_max_distance": 12}
OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "bert": _BERT,
    "gemma2": {"query_pre_attn_scalar": 7, "sliding_window": 4},
    "gpt_neox": {"hidden_size": 64},  # heads of 16, of which a quarter turns
    "mistral": {"sliding_window": 4},
    "mt5": {**_T5, "feed_forward_proj": "gated-gelu"},
    "qwen3": {"head_dim": 12},
    "roformer": _BERT,
    "t5": {**_T5, "feed_forward_proj": "relu"},
}


def sizes(model_type: str) -> dict[str, Any]:
    """A tiny config of a family, from its table alone where OVERRIDES has nothing to say."""
    table = architecture.find(model_type)
    known = transformers.CONFIG_MAPPING[model_type]().to_dict()
    found: dict[str, Any] = dict.fromkeys(table.counters.values(), 2)
    for name, axis in table.axes.items():
        size = BY_AXIS.get(name, BY_KIND.get(axis.through))
        if axis.key and axis.key in known and size:
            found.setdefault(axis.key, size)
    found |= {key: POSITIONS for key in ("max_position_embeddings",) if key in known}
    found |= {table.eps: 1e-2} if table.eps else {}  # large, so that one left alone is seen
    found |= {ours: found[theirs] for ours, theirs in table.equal.items()}
    return {**found, **OVERRIDES.get(model_type, {})}


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
        return architecture.find(self.model_type)

    @property
    def has_head(self) -> bool:
        return any(kind in self.kind for kind in ("CausalLM", "MaskedLM", "LMHead", "PreTraining", "Conditional"))

    @property
    def tied(self) -> bool:
        """Whether the library makes one tensor of embedding and head."""
        by_default = transformers.CONFIG_MAPPING[self.model_type]().tie_word_embeddings
        return self.has_head and not self.own_head and bool(self.config.get("tie_word_embeddings", by_default))


_EPS = {"layer_norm_eps": 1e-2}  # no masked-LM head: one eps serves all
FORMS: Mapping[str, tuple[tuple[str, str, Mapping[str, Any]], ...]] = {
    "bert": (
        ("pretraining", "BertForPreTraining", {}),
        ("causal", "BertLMHeadModel", {"is_decoder": True}),
        ("body", "BertModel", _EPS),
        ("next-sentence", "BertForNextSentencePrediction", _EPS),
        ("sequence", "BertForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "BertForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "BertForQuestionAnswering", _EPS),
    ),
    "gemma2": (
        ("body", "Gemma2Model", {}),
        ("biased", "Gemma2ForCausalLM", {"attention_bias": True}),
        ("token", "Gemma2ForTokenClassification", {"num_labels": 3}),
    ),
    "gpt2": (
        ("body", "GPT2Model", {}),
        ("sequence", "GPT2ForSequenceClassification", {"num_labels": 3}),
        ("unscaled", "GPT2LMHeadModel", {"scale_attn_weights": False}),
        ("layer-scaled", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
        ("implied-mlp", "GPT2LMHeadModel", {"n_inner": None}),
    ),
    "gpt_neox": (
        ("body", "GPTNeoXModel", {}),
        ("sequential", "GPTNeoXForCausalLM", {"use_parallel_residual": False}),
        ("unbiased", "GPTNeoXForCausalLM", {"attention_bias": False}),
        ("sequence", "GPTNeoXForSequenceClassification", {"num_labels": 3}),
    ),
    "llama": (
        ("body", "LlamaModel", {}),
        ("biased", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("wide-heads", "LlamaForCausalLM", {"head_dim": 12, "num_key_value_heads": 4}),
        ("linear-rope", "LlamaForCausalLM", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
        ("llama3-rope", "LlamaForCausalLM", {"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
        ("sequence", "LlamaForSequenceClassification", {"num_labels": 3}),
        ("token", "LlamaForTokenClassification", {"num_labels": 3}),
    ),
    "mistral": (("body", "MistralModel", {}), ("token", "MistralForTokenClassification", {"num_labels": 3})),
    "mt5": (("body", "MT5Model", {}), ("relu", "MT5ForConditionalGeneration", {"feed_forward_proj": "relu"})),
    "opt": (
        ("body", "OPTModel", {}),
        ("unbiased", "OPTForCausalLM", {"enable_bias": False}),
        ("sequence", "OPTForSequenceClassification", {"num_labels": 3}),
    ),
    "qwen2": (
        ("body", "Qwen2Model", {}),
        ("sliding", "Qwen2ForCausalLM", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("token", "Qwen2ForTokenClassification", {"num_labels": 3}),
    ),
    "qwen3": (
        ("body", "Qwen3Model", {}),
        ("biased", "Qwen3ForCausalLM", {"attention_bias": True}),
        ("token", "Qwen3ForTokenClassification", {"num_labels": 3}),
    ),
    "roformer": (
        ("body", "RoFormerModel", _EPS),
        ("sequence", "RoFormerForSequenceClassification", {**_EPS, "num_labels": 3}),
        ("token", "RoFormerForTokenClassification", {**_EPS, "num_labels": 3}),
        ("question", "RoFormerForQuestionAnswering", _EPS),
    ),
    "t5": (("body", "T5Model", {}), ("gated", "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"})),
}  # fmt: skip


def variants() -> tuple[Variant, ...]:
    """Every form of every family that has a table."""
    return tuple(variant for model_type in architecture.known() for variant in _of(model_type))


def named(name: str) -> Variant:
    return next(v for v in variants() if v.name == name)


def _of(model_type: str) -> list[Variant]:
    table = architecture.find(model_type)
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
                    parameter.normal_(0.0, _deviation(module, parameter))


def _deviation(module: Any, parameter: torch.Tensor) -> float:
    if isinstance(module, torch.nn.Embedding):
        return 0.5
    return float(parameter.shape[0 if isinstance(module, Conv1D) else -1] ** -0.5)


def save(variant: Variant, folder: Path, dtype: str = "float32") -> Path:
    """A saved checkpoint of the variant in `dtype`."""
    build(variant).to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def load(folder: Path, kind: str) -> Any:
    """The model from disk, in float32. Nothing may be missing, made up or left over."""
    model, info = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {key: value for key, value in info.items() if value and key != "unexpected_keys"}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


def inputs(config: Any) -> dict[str, torch.Tensor]:
    """Two rows of random ids, the second one padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, config.vocab_size, (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    ids[1, -2:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0):
        found["token_type_ids"] = torch.arange(LENGTH).expand(2, -1) % config.type_vocab_size
    if config.is_encoder_decoder:
        found["decoder_input_ids"] = ids.flip(1)
    return found


def outputs(model: Any) -> dict[str, torch.Tensor]:
    """{name: float tensor} of everything that a forward pass returns, caches left out."""
    with torch.no_grad():
        found = model(**inputs(model.config), use_cache=False) if _caches(model) else model(**inputs(model.config))
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


def run(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    return outputs(load(folder, kind))
