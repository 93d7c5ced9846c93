"""DeepSeek-V2: queries, keys and values from low-rank latents, and experts after the first dense layers.

Each head's key is a part of its own (`nope`) and a rotated part (`rope`) that all heads share; the two parts together
set the attention's scale. The shared experts are one MLP, `n_shared_experts` times as wide as an expert.
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Rotary, Tie
from modelsurgeon.architectures.recurring import by_layer, fused_experts, residual, tokens

DIRECT = "its queries come straight from the hidden state"
DIRECT_QUERIES = Form(
    "direct queries",
    when=lambda config, names: "q_lora_rank" in config and config["q_lora_rank"] is None,
    tensors={
        "model.layers.{layer}.self_attn.q_a_proj.{weight,bias?}": None,
        "model.layers.{layer}.self_attn.q_a_layernorm.weight": None,
        "model.layers.{layer}.self_attn.q_b_proj.weight": None,
        "model.layers.{layer}.self_attn.q_proj.weight": "(heads (nope~ + rope~)) <- hidden",
    },
    axes={name: Axis("q_lora_rank", 1536, why=DIRECT) for name in ("pre_q_rank", "q_rank")},
    fields={"fixed_eps": ("model.layers.{layer}.self_attn.kv_a_layernorm.weight",)},
)

ARCHITECTURE = Architecture(
    model="DeepseekV2ForCausalLM",
    norm="rms",
    rotary=Rotary("interleaved", axis="rope"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "expert_mlp": Axis("moe_intermediate_size", through="pointwise"),
        "shared_mlp": Axis("n_shared_experts", 2, why="shared experts widen with moe_intermediate_size"),
        "experts": Axis("n_routed_experts", 64, through="experts", active="num_experts_per_tok", groups="n_group"),
        **{name: Axis("q_lora_rank", 1536, through="rank") for name in ("pre_q_rank", "q_rank")},
        **{name: Axis("kv_lora_rank", 512, through="rank") for name in ("pre_kv_rank", "kv_rank")},
        "heads": Axis("num_attention_heads", through="heads"),
        "nope": Axis("qk_nope_head_dim", 128, through="inner", scaled=-0.5, over=("nope", "rope")),
        "rope": Axis("qk_rope_head_dim", 64, through="inner", scaled=-0.5, over=("nope", "rope")),
        "value": Axis("v_head_dim", 128, through="linear"),
    },
    tensors={
        "model.embed_tokens.weight": "vocab -> stream",
        "model.layers.{layer}.input_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.self_attn.q_a_proj.{weight,bias?}": "pre_q_rank <- hidden",
        "model.layers.{layer}.self_attn.q_a_layernorm.weight": "pre_q_rank => q_rank",
        "model.layers.{layer}.self_attn.q_b_proj.weight": "(heads (nope~ + rope~)) <- q_rank",
        "model.layers.{layer}.self_attn.kv_a_proj_with_mqa.{weight,bias?}": "(pre_kv_rank + rope) <- hidden",
        "model.layers.{layer}.self_attn.kv_a_layernorm.weight": "pre_kv_rank => kv_rank",
        "model.layers.{layer}.self_attn.kv_b_proj.weight": "(heads (nope + value)) <- kv_rank",
        "model.layers.{layer}.self_attn.o_proj.{weight,bias?}": "stream <- (heads value)",
        "model.layers.{layer}.post_attention_layernorm.weight": "stream => hidden",
        "model.layers.{layer}.mlp.gate.weight": "experts <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.{gate,up}_proj.weight": "expert_mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": "stream <- expert_mlp",
        "model.layers.{layer}.mlp.shared_experts.{gate,up}_proj.{weight,bias?}": "(shared_mlp expert_mlp) <- hidden",
        "model.layers.{layer}.mlp.shared_experts.down_proj.{weight,bias?}": "stream <- (shared_mlp expert_mlp)",
        "model.layers.{layer}.mlp.{gate,up}_proj.{weight,bias?}": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.{weight,bias?}": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
    },
    only=by_layer(lambda c, layer: layer >= c.get("first_k_dense_replace", 0), "gate experts shared_experts"),
    forms=(DIRECT_QUERIES, fused_experts("expert_mlp")),
    fixed_eps=tuple(f"model.layers.{{layer}}.self_attn.{norm}_layernorm.weight" for norm in ("q_a", "kv_a")),
    keys="""attention_bias first_k_dense_replace hidden_act max_position_embeddings mlp_bias n_group norm_topk_prob
        num_experts_per_tok output_router_logits pretraining_tp routed_scaling_factor topk_group""",
    requires={"topk_method": ("greedy", "group_limited_greedy")},
    defaults={"topk_method": "greedy"},
    multiples={
        "hidden_size": "num_attention_heads",
        "kv_lora_rank": 2,
        "qk_nope_head_dim": 2,
    },  # rotated pairs come after them
    equal={
        "head_dim": "qk_rope_head_dim",
        "num_key_value_heads": "num_attention_heads",
        "qk_head_dim": lambda c: int(c["qk_nope_head_dim"] + c["qk_rope_head_dim"]),
    },
    aliases={"num_experts": "n_routed_experts"},
)
