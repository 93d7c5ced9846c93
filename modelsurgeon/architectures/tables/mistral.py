"""Mistral: Llama with a sliding window, no biases and other defaults."""

from modelsurgeon.architectures.architecture import Architecture, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="MistralForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes=decoder(kv=8, key="head_dim"),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.weight": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.weight": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.weight": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="hidden_act max_position_embeddings sliding_window",
)
