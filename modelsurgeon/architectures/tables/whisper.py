"""Whisper: a pre-norm encoder of sound behind two convolutions, and a pre-norm decoder of tokens."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Tie, labels
from modelsurgeon.architectures.recurring import attention, residual


def layer(at: str, side: str, stream: str, attentions: tuple[str, ...]) -> dict[str, str]:
    """The tensors of a layer of one side, whose heads and MLP have sizes of their own."""
    parts = {
        "q_proj.{weight,bias}": f"({side}_heads {side}_head~) <- hidden",
        "k_proj.weight": f"({side}_heads {side}_head) <- hidden",
        "v_proj.{weight,bias}": f"({side}_heads {side}_value) <- hidden",
        "out_proj.{weight,bias}": f"{stream} <- ({side}_heads {side}_value)",
    }
    return {
        **{f"{at}.{name}_layer_norm.{{weight,bias}}": f"{stream} => hidden" for name in attentions},
        **{f"{at}.{name}.{part}": text for name in attentions for part, text in parts.items()},
        f"{at}.final_layer_norm.{{weight,bias}}": f"{stream} => hidden",
        f"{at}.fc1.{{weight,bias}}": f"{side}_mlp <- hidden",
        f"{at}.fc2.{{weight,bias}}": f"{stream} <- {side}_mlp",
    }


ENCODER = {
    "model.encoder.conv1.{weight,bias}": "stem <- mels 3",
    "model.encoder.conv2.{weight,bias}": "encoder <- stem 3",
    "model.encoder.embed_positions.weight": "frames -> encoder",
    **layer("model.encoder.layers.{layer}", "encoder", "encoder", ("self_attn",)),
    "model.encoder.layer_norm.{weight,bias}": "encoder => hidden",
}
DECODER = {
    "model.decoder.embed_tokens.weight": "vocab -> stream",
    "model.decoder.embed_positions.weight": "positions -> stream",
    **layer("model.decoder.layers.{decoder_layer}", "decoder", "stream", ("self_attn", "encoder_attn")),
    "model.decoder.layer_norm.{weight,bias}": "stream => final",
}

ARCHITECTURE = Architecture(
    model="WhisperForConditionalGeneration",
    norm="layer",
    eps=None,
    counters={"layer": "encoder_layers", "decoder_layer": "decoder_layers"},
    tie=Tie("proj_out.weight", "model.decoder.embed_tokens.weight", default=True),
    axes={
        "vocab": Axis("vocab_size"),
        "positions": Axis("max_target_positions"),
        "frames": Axis("max_source_positions"),
        "mels": Axis("num_mel_bins"),
        "labels": Axis(default=labels),
        "stem": Axis("d_model", through="pointwise"),
        "encoder": Axis("d_model", through="pointwise residual"),  # the second convolution ends in a GELU
        **residual("d_model"),
        "pooled": Axis("classifier_proj_size", 256, why="the projection has a size of its own"),
        "encoder_mlp": Axis("encoder_ffn_dim", through="pointwise"),
        **attention("d_model", "encoder_attention_heads", side="encoder_"),
        "decoder_mlp": Axis("decoder_ffn_dim", through="pointwise"),
        **attention("d_model", "decoder_attention_heads", side="decoder_"),
    },
    tensors={
        **ENCODER,
        **DECODER,
        "proj_out.weight?": "vocab <- final",
        "projector.{weight,bias}?": "pooled <- hidden",
        "classifier.{weight,bias}?": "labels <- pooled",
    },
    outputs={"last_hidden_state": "final", "encoder_last_hidden_state": "hidden"},
    keys="""activation_dropout activation_function apply_spec_augment begin_suppress_tokens decoder_layerdrop
        encoder_layerdrop forced_decoder_ids is_decoder mask_feature_length mask_feature_min_masks mask_feature_prob
        mask_time_length mask_time_min_masks mask_time_prob max_length median_filter_width scale_embedding
        suppress_tokens""",
    requires={"use_weighted_layer_sum": (None, False)},  # it adds what norms have and have not passed
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
        "num_key_value_heads": "encoder_attention_heads",
    },
    forms=(
        Form(
            "decoder alone",
            when=lambda config, names: not any(name.startswith("model.encoder.") for name in names),
            tensors=dict.fromkeys(ENCODER),
        ),
        Form(
            "encoder alone",
            when=lambda config, names: not any(name.startswith("model.decoder.") for name in names),
            tensors=dict.fromkeys([*DECODER, "proj_out.weight?"]),
            fields={"tie": None},
        ),
    ),
)
