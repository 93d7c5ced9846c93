"""Gemma 2: Gemma with norms before and after every branch, and attention scaled by a number in the config."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="Gemma2ForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=True),
    offset=1.0,
    multiplied={"model.embed_tokens.weight": ("stream", 0.5)},
    softcap=("final_logit_softcapping", 30.0),
    axes={
        **decoder(kv=4, key="head_dim", size=256, scaled=0.0),  # query_pre_attn_scalar scales, whatever the size
        "branch": Axis("hidden_size", through="residual"),
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
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "branch <- mlp",
        "model.layers.{layer}.post_feedforward_layernorm.weight": "branch => stream",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys="""attention_bias attn_logit_softcapping cache_implementation final_logit_softcapping hidden_act
        hidden_activation layer_types max_position_embeddings query_pre_attn_scalar sliding_window
        use_bidirectional_attention""",
    multiples={"hidden_size": "num_attention_heads"},
)
