"""Qwen3: Llama with an RMSNorm on each head's query and key, and a head size of its own.

Upstream: transformers/models/qwen3/modeling_qwen3.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.llama import ARCHITECTURE as LLAMA

ARCHITECTURE = replace(
    LLAMA,
    model="Qwen3ForCausalLM",
    multiples={},
    axes={
        **LLAMA.axes,
        "kv": Axis("num_key_value_heads", 32, through="heads", follows="heads"),
        "head": Axis("head_dim", 128, through="inner", scaled=-0.5),
        "prehead": Axis("head_dim", 128, through="normed", follows="head"),
        "value": Axis("head_dim", 128, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads prehead) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv prehead) <- hidden",
        "model.layers.{layer}.self_attn.q_norm.weight": "prehead => head~",
        "model.layers.{layer}.self_attn.k_norm.weight": "prehead => head",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="""
        attention_bias hidden_act layer_types max_position_embeddings max_window_layers sliding_window
        use_sliding_window
    """,
)
