"""Qwen3-MoE: Qwen3's attention, with an RMSNorm on each head's query and key, and experts in some layers."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary, Tie
from modelsurgeon.architectures.recurring import HEAD_SIZE, by_layer, fused_experts, residual, tokens
from modelsurgeon.architectures.tables.qwen2_moe import sparse

ARCHITECTURE = Architecture(
    model="Qwen3MoeForCausalLM",
    norm="rms",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "expert_mlp": Axis("moe_intermediate_size", 768, through="pointwise"),
        "experts": Axis("num_local_experts", 128, through="experts", active="num_experts_per_tok"),
        "heads": Axis("num_attention_heads", through="heads"),
        "kv": Axis("num_key_value_heads", 4, through="heads", follows="heads"),
        "head": Axis("head_dim", HEAD_SIZE, through="inner", scaled=-0.5),
        "prehead": Axis("head_dim", HEAD_SIZE, through="normed", follows="head"),
        "value": Axis("head_dim", HEAD_SIZE, through="linear"),
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
        "model.layers.{layer}.mlp.gate.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.{gate,up}_proj.weight": "expert_mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": "stream <- expert_mlp",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    only=by_layer(sparse, "gate experts"),
    forms=(fused_experts("expert_mlp"),),
    keys="""attention_bias decoder_sparse_step hidden_act max_position_embeddings max_window_layers mlp_only_layers
        norm_topk_prob output_router_logits router_aux_loss_coef sliding_window use_sliding_window""",
    defaults={"num_experts_per_tok": 8},
    aliases={"num_experts": "num_local_experts"},
    synonyms=(("transformer.", "model."),),
)
