"""The library's own rotary embeddings of every family: the test of what a config means."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    ModernBertConfig,
    Phi3Config,
    StableLmConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.stablelm.modeling_stablelm import StableLmRotaryEmbedding

from modelsurgeon.architectures import rope

FAMILIES = {
    "deepseek_v2": (DeepseekV2Config, DeepseekV2RotaryEmbedding),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3RotaryEmbedding),
    "gemma3_text": (Gemma3TextConfig, Gemma3RotaryEmbedding),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXRotaryEmbedding),
    "gpt_oss": (GptOssConfig, GptOssRotaryEmbedding),
    "llama": (LlamaConfig, LlamaRotaryEmbedding),
    "modernbert": (ModernBertConfig, ModernBertRotaryEmbedding),
    "phi3": (Phi3Config, Phi3RotaryEmbedding),
    "stablelm": (StableLmConfig, StableLmRotaryEmbedding),
}
DEFAULT_PARTIAL = {"gpt_neox": 0.25, "phi3": 1.0, "stablelm": 0.25}
LENGTH = {"original_max_position_embeddings": 4096}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 8.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LENGTH},
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}
EPS32 = 2**-23


def sized(family: str, size: int) -> dict[str, Any]:
    """The part of config.json that says how large a head is, for two heads of one layer."""
    found: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 2 * size}
    if family.startswith("deepseek"):
        return found | {"qk_rope_head_dim": size}
    return found if family in ("gpt_neox", "stablelm", "modernbert") else found | {"head_dim": size}


def config_of(family: str, size: int, theta: float, record: dict[str, Any], spelling: str = "new") -> dict[str, Any]:
    """A config.json in the spelling of v5 ("new") or of v4 ("old")."""
    config = sized(family, size) | {"max_position_embeddings": 32768, "model_type": family, "hidden_act": "gelu"}
    if spelling == "new":
        return config | {"rope_parameters": {**record, "rope_theta": theta}}
    record = {key: value for key, value in record.items() if key != "rope_type"} | {"type": record["rope_type"]}
    return config | {"rope_theta": theta, "rope_scaling": record}


def embedding(config: dict[str, Any]) -> tuple[Any, torch.nn.Module]:
    """The library's reading of a config.json, and its rotary embedding."""
    kind, module = FAMILIES[config["model_type"]]
    loaded = kind(**json.loads(json.dumps(config)))
    return loaded, module(loaded)


def frequencies(config: dict[str, Any], layer: str = "", length: int | None = None) -> tuple[np.ndarray, float]:
    """(inverse frequencies [pairs], the factor of cosines and sines)."""
    loaded, module = embedding(config)
    if length is None:
        prefix = f"{layer}_" if layer else ""
        found, scaling = getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling")
    else:
        found, scaling = ROPE_INIT_FUNCTIONS[loaded.rope_parameters["rope_type"]](loaded, "cpu", seq_len=length)
    return found.double().numpy(), float(scaling)


def grown(config: dict[str, Any], size: int, rotated: int, count: int) -> dict[str, Any]:
    return {**config, **sized(config["model_type"], size * count), **rope.nested(config, rotated, count)}


def drift(before: dict[str, Any], after: dict[str, Any], count: int, **where: Any) -> float:
    """The largest relative change of an old pair's frequency."""
    (old, scaling), (new, new_scaling) = frequencies(before, **where), frequencies(after, **where)
    assert scaling == new_scaling
    assert len(new) == count * len(old)
    idle = old == 0
    assert np.array_equal(new[::count] == 0, idle)
    return float(np.abs(new[::count][~idle] / old[~idle] - 1).max(initial=0.0))


def yarn(**more: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": 8.0, **LENGTH, **more}


def longrope(size: int) -> dict[str, Any]:
    short = (1 + np.arange(size // 2) / 7).tolist()
    return {"rope_type": "longrope", "short_factor": short, "long_factor": [9 * f for f in short], **LENGTH}


# What float32 leaves of a frequency, relative. The exponents are equal to the last bit, but a power of one in a vector
# and of one that stands alone may be a unit apart; then each is inverted, and divided by a factor.
POWER = 4 * EPS32


def yarn_bound(record: dict[str, Any]) -> float:
    """The relative error of a YaRN frequency in float32.

    The ramp of both configs is rounded a few times to EPS32 of 1; where it has all but ended, an error of the full
    frequency is `factor` times as large beside the stretched one.
    """
    return 4 * EPS32 * record["factor"]
