"""Mistral: Llama with a sliding window, no biases and other defaults.

Upstream: transformers/models/mistral/modeling_mistral.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

ARCHITECTURE = replace(
    LLAMA,
    model="MistralForCausalLM",
    multiples={},
    axes={**LLAMA.axes, "kv": Axis("num_key_value_heads", 8, through="heads", follows="heads")},
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.weight": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.weight": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.weight": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="hidden_act max_position_embeddings sliding_window",
    synonyms=(),
)
