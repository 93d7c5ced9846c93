"""Granite: Llama with four multipliers in the config, of the embedding, the scores, each branch and the logits."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, residual

ARCHITECTURE = Architecture(
    model="GraniteForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        "vocab": Axis("vocab_size"),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(kv=Key("num_attention_heads"), key="head_dim", scaled=0.0),  # attention_multiplier scales instead
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.{gate,up}_proj.{weight,bias?}": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.{weight,bias?}": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
    },
    keys="""attention_bias attention_multiplier embedding_multiplier hidden_act logits_scaling max_position_embeddings
        mlp_bias residual_multiplier""",
    factors={"embedding_multiplier": ("model.embed_tokens.weight", 1.0), "logits_scaling": ("lm_head.weight", -1.0)},
    defaults={"embedding_multiplier": 1.0, "logits_scaling": 1.0},
)
