"""OLMoE: experts in every layer, and an RMSNorm over all queries together and all keys together, then a clamp."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, fused_experts, residual

ARCHITECTURE = Architecture(
    model="OlmoeForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        "vocab": Axis("vocab_size"),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "experts": Axis("num_experts", 64, through="experts", active="num_experts_per_tok"),
        "heads": Axis("num_attention_heads", through="heads"),
        "preheads": Axis("num_attention_heads", through="normed", follows="heads"),
        "kv": Axis("num_key_value_heads", Key("num_attention_heads"), through="heads", follows="heads"),
        "prekv": Axis("num_key_value_heads", Key("num_attention_heads"), through="normed", follows="kv"),
        "head": Axis(default=HEAD_SIZE, through="inner", scaled=-0.5),
        "prehead": Axis(default=HEAD_SIZE, through="normed", follows="head"),
        "value": Axis(default=HEAD_SIZE, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(preheads prehead) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(prekv prehead) <- hidden",
        "model.layers.{layer}.self_attn.q_norm.weight": "(preheads prehead) => (heads head~)",
        "model.layers.{layer}.self_attn.k_norm.weight": "(prekv prehead) => (kv head)",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
    },
    forms=(fused_experts("mlp"),),
    clip="clip_qkv",
    keys="attention_bias hidden_act max_position_embeddings norm_topk_prob output_router_logits router_aux_loss_coef",
    defaults={"num_experts_per_tok": 8},
    equal={"head_dim": HEAD_SIZE},  # the queries' norm is as wide as the stream
    aliases={"num_local_experts": "num_experts"},
)
