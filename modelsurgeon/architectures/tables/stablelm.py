"""StableLM: Llama with LayerNorm, a quarter of each head rotated, and optionally a norm of its own for every head."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, decoder

ARCHITECTURE = Architecture(
    model="StableLmForCausalLM",
    norm="layer",
    eps="layer_norm_eps",
    rotary=Rotary("half", partial=0.25),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes=decoder(kv=32),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.{weight,bias}": "stream => hidden",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    forms=(
        Form(
            "parallel",
            when=lambda c, names: bool(c.get("use_parallel_residual")),
            tensors={"model.layers.{layer}.post_attention_layernorm.{weight,bias}": None},
        ),
        Form(
            "qk norm",
            when=lambda c, names: bool(c.get("qk_layernorm")),
            tensors={
                "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads prehead) <- hidden",
                "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv prehead) <- hidden",
                "model.layers.{layer}.self_attn.q_layernorm.norms.{heads}.weight": "prehead => head~",
                "model.layers.{layer}.self_attn.k_layernorm.norms.{kv}.weight": "prehead => head",
            },
            axes={"prehead": Axis(default=HEAD_SIZE, through="normed", follows="head")},
        ),
    ),
    keys="hidden_act max_position_embeddings qk_layernorm use_parallel_residual use_qkv_bias",
)
