"""Qwen2: Llama with biases on queries, keys and values.

Upstream: transformers/models/qwen2/modeling_qwen2.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

ARCHITECTURE = replace(
    LLAMA,
    model="Qwen2ForCausalLM",
    multiples={},
    axes={**LLAMA.axes, "kv": Axis("num_key_value_heads", 32, through="heads", follows="heads")},
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias}": "(kv value) <- hidden",
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
    keys="hidden_act layer_types max_position_embeddings max_window_layers sliding_window use_mrope use_sliding_window",
)
