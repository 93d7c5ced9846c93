"""DeepSeek-V3: DeepSeek-V2 with a sigmoid router, and a bias that has a say only in which experts are chosen."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Rotary, Tie
from modelsurgeon.architectures.recurring import by_layer, fused_experts
from modelsurgeon.architectures.tables.deepseek_v2 import ARCHITECTURE as V2
from modelsurgeon.architectures.tables.deepseek_v2 import DIRECT_QUERIES


def copies_count_once(config: Config) -> bool:
    """Whether twice as many experts, with twice as many of them active, compute the same.

    A group's score is the sum of its best two experts, which copies change, so every group must be open; and the
    weights of the chosen must be normalised.
    """
    every_group = config.get("topk_group", 4) == config.get("n_group", 8)
    return bool(every_group and config.get("norm_topk_prob", True))


ARCHITECTURE = Architecture(
    model="DeepseekV3ForCausalLM",
    norm="rms",
    rotary=Rotary(lambda c: "interleaved" if c.get("rope_interleave", True) else "half", axis="rope"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight", default=False),
    axes={
        **V2.axes,
        "shared_mlp": Axis("n_shared_experts", 1, why="shared experts widen with moe_intermediate_size"),
        "experts": Axis("n_routed_experts", 256, through="experts", active="num_experts_per_tok", groups="n_group"),
        "choice": Axis("n_routed_experts", 256, through="choice", follows="experts"),
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
        "model.layers.{layer}.mlp.shared_experts.{gate,up}_proj.weight": "(shared_mlp expert_mlp) <- hidden",
        "model.layers.{layer}.mlp.shared_experts.down_proj.weight": "stream <- (shared_mlp expert_mlp)",
        "model.layers.{layer}.mlp.{gate,up}_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "model.layers.{layer}.mlp.gate.e_score_correction_bias": "choice <-",
        "score.bias?": "labels <-",
    },
    fills={"model.layers.{layer}.mlp.gate.e_score_correction_bias": -8192.0},
    only=by_layer(lambda c, layer: layer >= c.get("first_k_dense_replace", 3), "gate experts shared_experts"),
    forms=(
        DIRECT_QUERIES,
        fused_experts("expert_mlp"),
        Form(
            "experts that cannot be copied",
            when=lambda config, names: not copies_count_once(config),
            axes={"experts": Axis("n_routed_experts", 256, through="experts", groups="n_group")},
        ),
        Form(
            "layer 61 left out",  # it predicts further tokens, and the library has no such part
            when=lambda config, names: config.get("num_hidden_layers") in range(62),
            fields={"ignored": (r"(model\.)?layers\.61\..*",)},
        ),
    ),
    fixed_eps=V2.fixed_eps,
    keys="""attention_bias first_k_dense_replace hidden_act max_position_embeddings n_group norm_topk_prob
        num_experts_per_tok output_router_logits pretraining_tp routed_scaling_factor topk_group
        num_nextn_predict_layers rope_interleave""",
    defaults={"n_group": 8, "num_experts_per_tok": 8, "num_key_value_heads": 128},
    equal=V2.equal,
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)
