"""OLMo: Llama with LayerNorms that hold no tensor (eps 1e-5 in the code), and a clamp on queries, keys and values."""

from modelsurgeon.architectures.architecture import Architecture, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="OlmoForCausalLM",
    norm="layer",
    eps=None,
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    weightless=("stream => hidden", "stream => final"),  # no gain takes up a factor: a tied residual cannot grow
    clip="clip_qkv",
    axes=decoder(kv=Key("num_attention_heads"), key="head_dim"),
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
    },
    keys="attention_bias hidden_act max_position_embeddings",
)
