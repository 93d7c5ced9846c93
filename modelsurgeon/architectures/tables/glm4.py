"""GLM-4: norms before and after each branch, half of each head rotated in adjacent pairs, gate and up in one tensor."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, residual, tokens

ARCHITECTURE = Architecture(
    model="Glm4ForCausalLM",
    norm="rms",
    rotary=Rotary("interleaved", partial=0.5),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size", "stream hidden branch final"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(kv=2, key="head_dim", size=128),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "branch <- (heads value)",
        "model.layers.{layer}.post_self_attn_layernorm.weight": "branch => stream",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate_up_proj.weight": "(mlp + mlp) <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "branch <- mlp",
        "model.layers.{layer}.post_mlp_layernorm.weight": "branch => stream",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys="attention_bias hidden_act max_position_embeddings",
)
