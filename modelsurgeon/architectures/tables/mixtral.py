"""Mixtral: Mistral with a router and experts in place of each MLP; the weights of the chosen ones always sum to 1."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Key, Null, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, fused_experts, residual, tokens

ARCHITECTURE = Architecture(
    model="MixtralForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "experts": Axis("num_local_experts", 8, through="experts", active="num_experts_per_tok"),
        **attention(kv=Null("num_key_value_heads", absent=8, null=Key("num_attention_heads")), key="head_dim"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.weight": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.weight": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.weight": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.{w1,w3}.weight": "mlp <- hidden",  # gate, up
        "model.layers.{layer}.mlp.experts.{experts}.w2.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    forms=(fused_experts("mlp", "w1", "w3", "w2"),),
    keys="""hidden_act max_position_embeddings output_router_logits router_aux_loss_coef router_jitter_noise
        sliding_window""",
    defaults={"num_experts_per_tok": 2},
    aliases={"num_experts": "num_local_experts"},
    synonyms=((".block_sparse_moe.", ".mlp."),),
)
