"""Gemma 3 (text): Gemma 2 with an RMSNorm on each head's query and key, and rotary parameters for each kind of layer.

Upstream: transformers/models/gemma3/modeling_gemma3.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.gemma2 import ARCHITECTURE as GEMMA2

ARCHITECTURE = replace(
    GEMMA2,
    model="Gemma3ForCausalLM",
    axes={**GEMMA2.axes, "prehead": Axis("head_dim", 256, through="normed", follows="head")},
    tensors={
        **{name: signature for name, signature in GEMMA2.tensors.items() if not name.startswith("score.")},
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads prehead) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv prehead) <- hidden",
        "model.layers.{layer}.self_attn.q_norm.weight": "prehead => head~",
        "model.layers.{layer}.self_attn.k_norm.weight": "prehead => head",
        "score.weight?": "labels <- final",
    },
    softcap=("final_logit_softcapping", None),
    keys=GEMMA2.keys + " _sliding_window_pattern rope_local_base_freq sliding_window_pattern",
)
