"""OPT: pre-norm, learned positions with two rows of padding before them, norms whose eps is fixed in the code (1e-5).

The post-norm layout with projected embeddings (opt-350m) is refused.
Upstream: transformers/models/opt/modeling_opt.py.
"""

from modelsurgeon.architecture import Architecture, Axis, Tie, labels, quotient

ARCHITECTURE = Architecture(
    model="OPTForCausalLM",
    norm="layer",
    eps=None,
    prefix="model.",
    tie=Tie("lm_head.weight", "model.decoder.embed_tokens.weight"),
    axes={
        "vocab": Axis("vocab_size"),
        "positions": Axis(default=lambda c: c["max_position_embeddings"] + 2),
        "labels": Axis(default=labels),
        "stream": Axis("hidden_size", through="residual"),
        "hidden": Axis("hidden_size", through="residual"),
        "final": Axis("hidden_size", through="residual"),
        "mlp": Axis("ffn_dim", through="pointwise"),
        "heads": Axis("num_attention_heads", through="heads"),
        "head": Axis(default=quotient("hidden_size", "num_attention_heads"), through="inner", scaled=-0.5),
        "value": Axis(default=quotient("hidden_size", "num_attention_heads"), through="linear"),
    },
    tensors={
        "model.decoder.embed_tokens.weight": "vocab -> stream",
        "model.decoder.embed_positions.weight": "positions -> stream",
        "model.decoder.layers.{layer}.self_attn_layer_norm.{weight,bias}": "stream => hidden",
        "model.decoder.layers.{layer}.self_attn.q_proj.{weight,bias?}": "(heads head~) <- hidden",
        "model.decoder.layers.{layer}.self_attn.k_proj.{weight,bias?}": "(heads head) <- hidden",
        "model.decoder.layers.{layer}.self_attn.v_proj.{weight,bias?}": "(heads value) <- hidden",
        "model.decoder.layers.{layer}.self_attn.out_proj.{weight,bias?}": "stream <- (heads value)",
        "model.decoder.layers.{layer}.final_layer_norm.{weight,bias}": "stream => hidden",
        "model.decoder.layers.{layer}.fc1.{weight,bias?}": "mlp <- hidden",
        "model.decoder.layers.{layer}.fc2.{weight,bias?}": "stream <- mlp",
        "model.decoder.final_layer_norm.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
    },
    keys=("activation_function", "enable_bias", "max_position_embeddings"),
    requires={
        "do_layer_norm_before": (None, True),
        "_remove_final_layer_norm": (None, False),
        "layer_norm_elementwise_affine": (None, True),
    },
    defaults={"tie_word_embeddings": lambda c: True},
    equal={"word_embed_proj_dim": "hidden_size"},
)
