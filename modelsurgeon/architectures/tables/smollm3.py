"""SmolLM3: Llama with tied embeddings; every fourth layer has no rotary positions, and grows as the others do."""

from modelsurgeon.architectures.architecture import Architecture, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="SmolLM3ForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=True),
    axes=decoder(kv=4, key="head_dim"),
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
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="""attention_bias hidden_act layer_types max_position_embeddings max_window_layers mlp_bias
        no_rope_layer_interval no_rope_layers pretraining_tp sliding_window use_sliding_window""",
    synonyms=(("transformer.", "model."),),
)
