"""StarCoder2: rotary grouped-query attention as in Llama, with LayerNorms, a plain MLP, and biases everywhere."""

from modelsurgeon.architectures.architecture import Architecture, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="Starcoder2ForCausalLM",
    norm="layer",
    eps="norm_epsilon",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=True),
    axes=decoder(kv=2, key="head_dim"),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.{weight,bias}": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.{weight,bias}": "stream => hidden",
        "model.layers.{layer}.mlp.c_fc.{weight,bias?}": "mlp <- hidden",
        "model.layers.{layer}.mlp.c_proj.{weight,bias?}": "stream <- mlp",
        "model.norm.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
    },
    keys="embedding_dropout hidden_act max_position_embeddings residual_dropout sliding_window use_bias",
)
