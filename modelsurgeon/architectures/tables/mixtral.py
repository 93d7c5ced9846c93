"""Mixtral: Mistral with a router and experts in place of each MLP; the weights of the chosen ones always sum to 1.

Upstream: transformers/models/mixtral/modeling_mixtral.py. Files name each expert's matrices `w1` (gate), `w3` (up) and
`w2` (down); the module's own names hold all experts in one tensor.
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Quotient, Rotary, Tie, labels

ARCHITECTURE = Architecture(
    model="MixtralForCausalLM",
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
        "experts": Axis("num_local_experts", lambda c: 8, through="experts", active="num_experts_per_tok"),
        "heads": Axis("num_attention_heads", through="heads"),
        "kv": Axis(
            "num_key_value_heads",
            lambda c: c["num_attention_heads"] if "num_key_value_heads" in c else 8,
            through="heads",
            follows="heads",
        ),
        "head": Axis("head_dim", Quotient("hidden_size", "num_attention_heads"), through="inner", scaled=-0.5),
        "value": Axis("head_dim", Quotient("hidden_size", "num_attention_heads"), through="linear"),
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
        "model.layers.{layer}.mlp.experts.{experts}.w1.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.w3.weight": "mlp <- hidden",
        "model.layers.{layer}.mlp.experts.{experts}.w2.weight": "stream <- mlp",
        "model.norm.weight": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    forms=(
        Form(
            "fused experts",
            when=lambda config, names: any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
            tensors={
                "model.layers.{layer}.mlp.experts.{experts}.w1.weight": None,
                "model.layers.{layer}.mlp.experts.{experts}.w3.weight": None,
                "model.layers.{layer}.mlp.experts.{experts}.w2.weight": None,
                "model.layers.{layer}.mlp.experts.gate_up_proj": "experts (mlp + mlp) <- hidden",
                "model.layers.{layer}.mlp.experts.down_proj": "experts stream <- mlp",
            },
        ),
    ),
    keys=(
        "hidden_act",
        "max_position_embeddings",
        "output_router_logits",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "sliding_window",
    ),
    defaults={"num_experts_per_tok": lambda c: 2, "tie_word_embeddings": lambda c: False},
    aliases={"num_experts": "num_local_experts"},
    synonyms=((".block_sparse_moe.", ".mlp."),),
    ignored=(r".*rotary_emb\.inv_freq",),
)
