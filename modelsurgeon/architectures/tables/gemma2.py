"""Gemma 2: Gemma with norms before and after every branch, and attention scaled by a number in the config.

Upstream: transformers/models/gemma2/modeling_gemma2.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis
from modelsurgeon.architectures.tables.gemma import ARCHITECTURE as GEMMA

ARCHITECTURE = replace(
    GEMMA,
    model="Gemma2ForCausalLM",
    multiples={"hidden_size": "num_attention_heads"},
    axes={
        **GEMMA.axes,
        "branch": Axis("hidden_size", through="residual"),
        "kv": Axis("num_key_value_heads", 4, through="heads", follows="heads"),
        "head": Axis("head_dim", 256, through="inner"),  # scaled by query_pre_attn_scalar, whatever its size
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "branch <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "branch => stream",
        "model.layers.{layer}.pre_feedforward_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "branch <- mlp",
        "model.layers.{layer}.post_feedforward_layernorm.weight": "branch => stream",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    softcap=("final_logit_softcapping", 30.0),
    keys="""
        attention_bias attn_logit_softcapping cache_implementation final_logit_softcapping hidden_act hidden_activation
        layer_types max_position_embeddings query_pre_attn_scalar sliding_window use_bidirectional_attention
    """,
)
