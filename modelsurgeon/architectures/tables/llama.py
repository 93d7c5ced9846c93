"""Llama: pre-norm RMSNorm, rotary grouped-query attention, gated MLP."""

from modelsurgeon.architectures.architecture import Architecture, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import decoder

ARCHITECTURE = Architecture(
    model="LlamaForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes=decoder(kv=Key("num_attention_heads"), key="head_dim"),
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
    keys="attention_bias hidden_act max_position_embeddings mlp_bias pretraining_tp",
    multiples={"hidden_size": "num_attention_heads"},
    synonyms=(("transformer.", "model."),),  # files of the question-answering class
)
