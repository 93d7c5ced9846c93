"""Gemma: Llama with gains of the form (1 + w), embeddings times sqrt(hidden), and a head size of its own.

Upstream: transformers/models/gemma/modeling_gemma.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

ARCHITECTURE = replace(
    LLAMA,
    model="GemmaForCausalLM",
    multiples={},
    offset=1.0,
    multiplied={"model.embed_tokens.weight": ("stream", 0.5)},
    axes={
        **LLAMA.axes,
        "kv": Axis("num_key_value_heads", 16, through="heads", follows="heads"),
        "head": Axis("head_dim", 256, through="inner", scaled=-0.5),
        "value": Axis("head_dim", 256, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys="attention_bias hidden_act hidden_activation max_position_embeddings use_bidirectional_attention",
    defaults={"tie_word_embeddings": True},
    synonyms=(),
)
