"""Qwen3: Llama with an RMSNorm on each head's query and key, and a head size of its own."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="Qwen3ForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **decoder(kv=32, key="head_dim", size=128),
        "prehead": Axis("head_dim", 128, through="normed", follows="head"),
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
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="""attention_bias hidden_act layer_types max_position_embeddings max_window_layers sliding_window
        use_sliding_window""",
    synonyms=(("transformer.", "model."),),
)
