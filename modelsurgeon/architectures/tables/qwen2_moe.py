"""Qwen2-MoE: Qwen2 with experts in some layers, beside them one shared expert behind a gate of its own."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Rotary, Tie
from modelsurgeon.architectures.recurring import attention, by_layer, fused_experts, residual, tokens


def sparse(config: Config, layer: int) -> bool:
    """Whether a layer holds experts: `mlp_only_layers` does not name it, `decoder_sparse_step` does not skip it."""
    step = config.get("decoder_sparse_step", 1)
    return layer not in (config.get("mlp_only_layers") or ()) and (layer + 1) % step == 0


ARCHITECTURE = Architecture(
    model="Qwen2MoeForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "expert_mlp": Axis("moe_intermediate_size", 1408, through="pointwise"),
        "shared_mlp": Axis("shared_expert_intermediate_size", 5632, through="pointwise"),
        "experts": Axis("num_experts", 60, through="experts", active="num_experts_per_tok"),
        **attention(kv=16, key="head_dim"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(kv head) <- hidden",
        "model.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(kv value) <- hidden",
        "model.layers.{layer}.self_attn.o_proj.weight": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.{gate,up}_proj.weight": "expert_mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": "stream <- expert_mlp",
        "model.layers.{layer}.mlp.shared_expert_gate.weight": "1 <- hidden",
        "model.layers.{layer}.mlp.shared_expert.{gate,up}_proj.weight": "shared_mlp <- hidden",
        "model.layers.{layer}.mlp.shared_expert.down_proj.weight": "stream <- shared_mlp",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    only=by_layer(sparse, "gate experts shared_expert shared_expert_gate"),
    forms=(fused_experts("expert_mlp"),),
    keys="""decoder_sparse_step hidden_act layer_types max_position_embeddings max_window_layers mlp_only_layers
        norm_topk_prob output_router_logits qkv_bias router_aux_loss_coef sliding_window use_sliding_window""",
    defaults={"num_experts_per_tok": 4},
)
