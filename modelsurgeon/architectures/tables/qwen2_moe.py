"""Qwen2-MoE: Qwen2 with experts in some layers, beside them one shared expert behind a gate of its own.

A layer is sparse unless `mlp_only_layers` names it or `decoder_sparse_step` skips it; the others hold a plain MLP.
Upstream: transformers/models/qwen2_moe/modeling_qwen2_moe.py.
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Quotient, Rotary, Tie, labels


def sparse(config: Config, layer: int) -> bool:
    """Whether a layer holds experts."""
    step = config.get("decoder_sparse_step", 1)
    return layer not in (config.get("mlp_only_layers") or ()) and (layer + 1) % step == 0


def dense(config: Config, layer: int) -> bool:
    """Whether a layer holds a plain MLP."""
    return not sparse(config, layer)


ARCHITECTURE = Architecture(
    model="Qwen2MoeForCausalLM",
    norm="rms",
    eps="rms_norm_eps",
    prefix="model.",
    rotary=Rotary("half"),
    tie=Tie("lm_head.weight", "model.embed_tokens.weight"),
    axes={
        "vocab": Axis("vocab_size"),
        "labels": Axis(default=labels),
        "stream": Axis("hidden_size", through="residual"),
        "hidden": Axis("hidden_size", through="residual"),
        "final": Axis("hidden_size", through="residual"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        "expert_mlp": Axis("moe_intermediate_size", lambda c: 1408, through="pointwise"),
        "shared_mlp": Axis("shared_expert_intermediate_size", lambda c: 5632, through="pointwise"),
        "experts": Axis("num_experts", lambda c: 60, through="experts", active="num_experts_per_tok"),
        "heads": Axis("num_attention_heads", through="heads"),
        "kv": Axis("num_key_value_heads", lambda c: 16, through="heads", follows="heads"),
        "head": Axis("head_dim", Quotient("hidden_size", "num_attention_heads"), through="inner", scaled=-0.5),
        "value": Axis("head_dim", Quotient("hidden_size", "num_attention_heads"), through="linear"),
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
        "model.layers.{layer}.mlp.experts.{experts}.gate_proj.weight": "expert_mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.up_proj.weight": "expert_mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": "stream <- expert_mlp",
        "model.layers.{layer}.mlp.shared_expert_gate.weight": "1 <- hidden",
        "model.layers.{layer}.mlp.shared_expert.gate_proj.weight": "shared_mlp <- hidden",
        "model.layers.{layer}.mlp.shared_expert.up_proj.weight": "shared_mlp <- hidden",
        "model.layers.{layer}.mlp.shared_expert.down_proj.weight": "stream <- shared_mlp",
        "model.layers.{layer}.mlp.gate_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.up_proj.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.down_proj.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    only={
        ".mlp.gate.": sparse,
        ".mlp.experts.": sparse,
        ".mlp.shared_expert": sparse,
        ".mlp.gate_proj.": dense,
        ".mlp.up_proj.": dense,
        ".mlp.down_proj.": dense,
    },
    forms=(
        Form(
            "fused experts",
            when=lambda config, names: any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
            tensors={
                "model.layers.{layer}.mlp.experts.{experts}.gate_proj.weight": None,
                "model.layers.{layer}.mlp.experts.{experts}.up_proj.weight": None,
                "model.layers.{layer}.mlp.experts.{experts}.down_proj.weight": None,
                "model.layers.{layer}.mlp.experts.gate_up_proj": "experts (expert_mlp + expert_mlp) <- hidden",
                "model.layers.{layer}.mlp.experts.down_proj": "experts stream <- expert_mlp",
            },
        ),
    ),
    keys=(
        "decoder_sparse_step",
        "hidden_act",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "mlp_only_layers",
        "norm_topk_prob",
        "output_router_logits",
        "qkv_bias",
        "router_aux_loss_coef",
        "sliding_window",
        "use_sliding_window",
    ),
    defaults={"num_experts_per_tok": lambda c: 4, "tie_word_embeddings": lambda c: False},
    ignored=(r".*rotary_emb\.inv_freq",),
)
