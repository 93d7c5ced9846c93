"""Cohere: LayerNorms without biases, one for attention and MLP, which run side by side; interleaved rotary pairs."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, attention, residual

ARCHITECTURE = Architecture(
    model="CohereForCausalLM",
    norm="layer",
    eps="layer_norm_eps",
    rotary=Rotary("interleaved"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=True),
    axes={
        "vocab": Axis("vocab_size"),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(kv=Key("num_attention_heads"), key="head_dim"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
    },
    forms=(
        Form(
            "qk norm",
            when=lambda config, names: bool(config.get("use_qk_norm")),
            axes={"prehead": Axis("head_dim", HEAD_SIZE, through="normed", follows="head")},
            tensors={
                "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads prehead) <- hidden",
                "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv prehead) <- hidden",
                "model.layers.{layer}.self_attn.q_norm.weight": "prehead => heads head~",
                "model.layers.{layer}.self_attn.k_norm.weight": "prehead => kv head",
            },
        ),
    ),
    keys="attention_bias hidden_act logit_scale max_position_embeddings use_qk_norm",
    factors={"logit_scale": ("lm_head.weight", 1.0)},
    defaults={"logit_scale": 0.0625},
)
