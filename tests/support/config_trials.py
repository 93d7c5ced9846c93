"""Config fuzz, the values: every key of a config class with other plausible values, by its type and by its name.

for trial in trials(config, as_read(config)):  # rms_norm_eps=0.02, hidden_act=gelu, sliding_window=(removed) ...
    trial.of(config)
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.architectures.config import assigned, lookup

REMOVED = "(removed)"

# Keys that are called different though no run here shows it, and why. Decided by reading.
DECIDED: Mapping[str, str] = {
    "architectures": "the class is what is compared; the runs here take that of the source where a file names none",
    "attention_chunk_size": "a cache's: this class may keep none, and others of the same weights do",
    "layer_types": "a cache's, where the config class has no such key: as above, or the kinds that it has anyway",
    "logit_scale": "another family computes with it, and such a source is refused",
    "max_seq_len": "a limit of positions: all rows here are within both limits or beyond both",
    "n_positions": "a limit of positions: all rows here are within both limits or beyond both",
    "no_rope_layers": "another family computes with it, and such a source is refused",
    "norm_topk_prob": "another family computes with it, and such a source is refused",
    "position_embedding_type": "older versions of the library compute relative positions",
    "pruned_heads": "older versions of the library remove these heads",
    "sliding_window": "a cache's, where the config class has no such key: as above",
    "tie_word_embeddings": "this version reads a head that the file holds, whatever the key says; others do not",
    "use_bidirectional_attention": "Gemma 2 reads it for kernels that its caps rule out here",
}

ACTIVATIONS = ("gelu", "gelu_new", "gelu_python", "relu", "silu", "swish", "tanh")
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "architectures": (None,),
    "attention_types": ([[["global"], 2]], [[["local"], 2]]),
    "classifier_pooling": ("cls", "mean"),
    "dtype": ("float16", "bfloat16", "float32"),
    "feed_forward_proj": ("relu", "gated-gelu", "gated-relu", "gated-silu", "gelu"),
    "id2label": ({"0": "a", "1": "b"}, {"0": "a", "1": "b", "2": "c"}),
    "init_device": ("meta",),
    "layer_types": (["full_attention"] * 2, ["sliding_attention"] * 2, ["sliding_attention", "full_attention"]),
    "no_rope_layers": ([1, 1], [0, 0], [0, 1]),
    "norm_rel_ebd": ("none", "layer_norm"),
    "norm_type": ("layernorm",),
    "pos_att_type": (["c2p"], ["p2c"], ["c2p", "p2c"], "c2p|p2c", []),
    "problem_type": ("regression", "single_label_classification", "multi_label_classification"),
    "summary_type": ("last", "first", "mean", "cls_index"),
    "tokenizer_class": ("LlamaTokenizer",),
    "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
    "position_embedding_type": ("relative_key", "relative_key_query"),
    "attn_implementation": ("sdpa", "eager"),
    "mlp_only_layers": ([], [0], [1]),
    "begin_suppress_tokens": ([5],),
    "suppress_tokens": ([5],),
}
# Keys that a class does not list and that some code of the library reads, or that older files have.
FURTHER: Mapping[str, tuple[Any, ...]] = {
    "attention_chunk_size": (4,),
    "attn_implementation": ("sdpa",),
    "decoder_start_token_id": (3,),
    "experts_implementation": ("eager",),
    "finetuning_task": ("sst2",),
    "gradient_checkpointing": (True,),
    "is_causal": (False, True),
    "label_smoothing": (0.1,),
    "layer_types": (["sliding_attention"] * 2,),
    "position_embedding_type": ("absolute", "relative_key"),
    "pruned_heads": ({"0": [1]},),
    "rope_scaling": ({"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
    "rope_theta": (500.0,),
    "sliding_window": (4,),
    "tie_encoder_decoder": (True,),
    "tie_last_hidden_states": (True, False),
    "torch_dtype": ("float16",),
    "torchscript": (True,),
    "use_bidirectional_attention": (True,),
    "an_unknown_key": (1,),
    "num_labels": (2, 3, 5),
    "partial_rotary_factor": (0.5,),
    "head_dim": (4, 8, 16),
    "hidden_dropout": (0.3,),
    "classifier_dropout": (0.3,),
    "no_rope_layers": ([0, 1],),
    "attention_bias": (True,),
    "mlp_bias": (True,),
    "logit_scale": (0.5,),
    "norm_topk_prob": (True, False),
}
ROPES: tuple[Mapping[str, Any], ...] = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 12},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
)


@dataclass(frozen=True)
class Trial:
    """One key (`outer.inner` if nested) with another value, or REMOVED."""

    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.key}={self.value}"

    def of(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with this value."""
        if self.value != REMOVED:
            return assigned(copy.deepcopy(dict(config)), self.key, copy.deepcopy(self.value))
        outer, _, last = self.key.rpartition(".")
        holder = lookup(config, outer) if outer else config
        kept = {name: value for name, value in dict(holder or {}).items() if name != last}
        return assigned(dict(config), outer, kept) if outer else kept


def trials(config: Mapping[str, Any], read: Mapping[str, Any]) -> list[Trial]:
    """Every key of a file's config, of what the library reads of it, and of FURTHER, with other values."""
    found: dict[str, Trial] = {}
    for key in dict.fromkeys([*read, *config, *FURTHER]):
        value = read.get(key, config.get(key))
        known = _values(key, value) if key in read or key in config else ()
        for other in [*known, *FURTHER.get(key, ())]:
            if key == "model_type" or (other == value and type(other) is type(value) and other != REMOVED):
                continue
            trial = Trial(key, other)
            found.setdefault(json.dumps([key, other], default=str), trial)
        if isinstance(value, Mapping) and key not in ("id2label", "label2id"):
            for trial in _nested(key, value):
                found.setdefault(str(trial), trial)
    return [trial for trial in found.values() if trial.value != REMOVED or lookup(config, trial.key) is not None]


def _values(key: str, value: Any) -> Iterator[Any]:
    """Other plausible values of a key, by what it has now."""
    yield from (REMOVED, None)
    yield from CHOICES.get(key, ())
    if isinstance(value, str) and key.endswith(("act", "activation", "act_fn", "activation_function")):
        yield from ACTIVATIONS
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (2 * value, value // 2, value + 1) if value else (1, 2)
    elif isinstance(value, float):
        yield from (2 * value, value / 2, value + 1)
    elif value is None and key not in CHOICES:
        yield from (True, False, 2, 0.5)


def _nested(key: str, value: Mapping[str, Any]) -> Iterator[Trial]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _nested(f"{key}.{name}", inner)
        elif isinstance(name, str):
            yield from (Trial(f"{key}.{name}", other) for other in _values(name, inner) if other != inner)
    if "rope_theta" in value:
        theta = {"rope_theta": value["rope_theta"]}
        yield from (Trial(key, {**rope, **theta}) for rope in ROPES)
        yield from (Trial(f"{key}.{name}", 0.5) for name in ("partial_rotary_factor", "factor"))
