"""OLMo2: Llama that norms what each branch returns, not what it reads; queries and keys are normed over all heads."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, attention, residual, tokens

ARCHITECTURE = Architecture(
    model="Olmo2ForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size", "stream final"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(kv=Key("num_attention_heads"), key="head_dim"),
        "branch": Axis("hidden_size", through="residual"),
        "preheads": Axis("num_attention_heads", through="normed", follows="heads"),
        "prekv": Axis("num_key_value_heads", Key("num_attention_heads"), through="normed", follows="kv"),
        "prehead": Axis("head_dim", HEAD_SIZE, through="normed", follows="head"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(preheads prehead) <- stream",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(prekv prehead) <- stream",
        "model.layers.{layer}.self_attn.q_norm.weight": "(preheads prehead) => (heads head~)",
        "model.layers.{layer}.self_attn.k_norm.weight": "(prekv prehead) => (kv head)",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- stream",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "branch <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "branch => stream",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- stream",
        "model.layers.{layer}.mlp.down_proj.weight": "branch <- mlp",
        "model.layers.{layer}.post_feedforward_layernorm.weight": "branch => stream",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
    },
    keys="attention_bias hidden_act max_position_embeddings",
)
