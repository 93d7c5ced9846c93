"""OPT: pre-norm, learned positions with two rows of padding before them, norms whose eps is fixed in the code (1e-5).

Opt-350m is post-norm, without a norm at the end, and projects its narrower embedding in and out.
"""

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Form, Tie, labels
from modelsurgeon.architectures.recurring import attention, residual

NORMS = ("layers.{layer}.self_attn_layer_norm", "layers.{layer}.final_layer_norm", "final_layer_norm")
AS_PUBLISHED = {"_remove_final_layer_norm": (None, False), "layer_norm_elementwise_affine": (None, True)}

PROJECTED = {name: Axis("word_embed_proj_dim", through="rank") for name in ("embedded", "final")}
POST_NORM = {
    "model.decoder.embed_tokens.weight": "vocab -> hidden",
    "model.decoder.embed_positions.weight": "positions -> hidden",
    "model.decoder.layers.{layer}.self_attn.out_proj.{weight,bias?}": "hidden <- (heads value)",
    "model.decoder.layers.{layer}.self_attn_layer_norm.{weight,bias}": "hidden => hidden",
    "model.decoder.layers.{layer}.fc2.{weight,bias?}": "hidden <- mlp",
    "model.decoder.layers.{layer}.final_layer_norm.{weight,bias}": "hidden => hidden",
    "model.decoder.final_layer_norm.{weight,bias}": None,
}


def projects(config: Config) -> bool:
    return config.get("word_embed_proj_dim") not in (None, config.get("hidden_size"))


def is_post_norm(config: Config) -> bool:
    return config.get("do_layer_norm_before") is False


ARCHITECTURE = Architecture(
    model="OPTForCausalLM",
    norm="layer",
    eps=None,
    tie=Tie("lm_head.weight", "model.decoder.embed_tokens.weight", default=True),
    axes={
        "vocab": Axis("vocab_size"),
        "positions": Axis(default=lambda c: c["max_position_embeddings"] + 2),
        "labels": Axis(default=labels),
        **residual("hidden_size"),
        "mlp": Axis("ffn_dim", through="pointwise"),
        **attention(),
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
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    forms=(
        Form(
            "norms without weights",
            when=lambda config, names: config.get("layer_norm_elementwise_affine") is False,
            tensors={f"model.decoder.{norm}.{{weight,bias}}": None for norm in NORMS},
            fields={"weightless": ("stream => hidden", "stream => final")},
        ),
        Form(
            "projected",
            when=lambda config, names: projects(config) and not is_post_norm(config),
            axes=PROJECTED,
            tensors={
                "model.decoder.embed_tokens.weight": "vocab -> embedded",
                "model.decoder.project_in.weight": "stream <- embedded",
                "model.decoder.final_layer_norm.{weight,bias}": "stream => hidden",
                "model.decoder.project_out.weight": "final <- hidden",
            },
            fields={"equal": {}, "requires": AS_PUBLISHED},
        ),
        Form(
            "post-norm",
            when=lambda config, names: is_post_norm(config) and not projects(config),
            tensors={
                **POST_NORM,
                "model.decoder.layers.{layer.last}.final_layer_norm.{weight,bias}": "hidden => final",
            },
            fields={"requires": AS_PUBLISHED},
        ),
        Form(
            "post-norm, projected",
            when=lambda config, names: is_post_norm(config) and projects(config),
            axes=PROJECTED,
            tensors={
                **POST_NORM,
                "model.decoder.embed_tokens.weight": "vocab -> embedded",
                "model.decoder.project_in.weight": "hidden <- embedded",
                "model.decoder.project_out.weight": "final <- hidden",
            },
            fields={"equal": {}, "requires": AS_PUBLISHED},
        ),
    ),
    keys="activation_function do_layer_norm_before enable_bias layer_norm_elementwise_affine max_position_embeddings",
    requires={"_remove_final_layer_norm": (None, False)},
    projected=("embedded", "stream"),
    equal={"word_embed_proj_dim": "hidden_size"},
)
