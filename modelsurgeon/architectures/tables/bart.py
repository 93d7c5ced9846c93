"""BART: a post-norm encoder and decoder, learned positions with two rows of padding before them, a fixed eps (1e-5)."""

from modelsurgeon.architectures.architecture import Architecture, Axis, Form, Tie, labels
from modelsurgeon.architectures.recurring import attention, residual


def layer(at: str, side: str, attentions: tuple[str, ...], last: str = "hidden") -> dict[str, str]:
    """The tensors of a layer of one side, whose heads and MLP have sizes of their own; `last`: what it writes."""
    parts = {
        "q_proj": f"({side}_heads {side}_head~) <- hidden",
        "k_proj": f"({side}_heads {side}_head) <- hidden",
        "v_proj": f"({side}_heads {side}_value) <- hidden",
        "out_proj": f"hidden <- ({side}_heads {side}_value)",
    }
    return {
        **{f"{at}.{name}.{part}.{{weight,bias}}": text for name in attentions for part, text in parts.items()},
        **{f"{at}.{name}_layer_norm.{{weight,bias}}": "hidden => hidden" for name in attentions},
        f"{at}.fc1.{{weight,bias}}": f"{side}_mlp <- hidden",
        f"{at}.fc2.{{weight,bias}}": f"hidden <- {side}_mlp",
        f"{at}.final_layer_norm.{{weight,bias}}": "hidden => hidden",
    }


ENCODER = {
    "model.encoder.embed_tokens.weight?": "vocab -> hidden",
    "model.encoder.embed_positions.weight": "positions -> hidden",
    "model.encoder.layernorm_embedding.{weight,bias}": "hidden => hidden",
    **layer("model.encoder.layers.{layer}", "encoder", ("self_attn",)),
}

ARCHITECTURE = Architecture(
    model="BartForConditionalGeneration",
    norm="layer",
    eps=None,
    counters={"layer": "encoder_layers", "decoder_layer": "decoder_layers"},
    tie=Tie(
        "lm_head.weight",
        "model.shared.weight",
        also={f"model.{side}.embed_tokens.weight": "model.shared.weight" for side in ("encoder", "decoder")},
        default=True,
    ),
    axes={
        "vocab": Axis("vocab_size"),
        "positions": Axis(default=lambda c: c["max_position_embeddings"] + 2),
        "labels": Axis(default=labels),
        **residual("d_model", "hidden final"),
        "pooled": Axis("d_model", through="pointwise"),
        "encoder_mlp": Axis("encoder_ffn_dim", through="pointwise"),
        **attention("d_model", "encoder_attention_heads", side="encoder_"),
        "decoder_mlp": Axis("decoder_ffn_dim", through="pointwise"),
        **attention("d_model", "decoder_attention_heads", side="decoder_"),
    },
    tensors={
        "model.shared.weight": "vocab -> hidden",
        **ENCODER,
        "model.decoder.embed_tokens.weight?": "vocab -> hidden",
        "model.decoder.embed_positions.weight": "positions -> hidden",
        "model.decoder.layernorm_embedding.{weight,bias}": "hidden => hidden",
        **layer("model.decoder.layers.{decoder_layer}", "decoder", ("self_attn", "encoder_attn")),
        "model.decoder.layers.{decoder_layer.last}.final_layer_norm.{weight,bias}": "hidden => final",
        "final_logits_bias?": "1 vocab <-",
        "lm_head.weight?": "vocab <- final",
        "classification_head.dense.{weight,bias}?": "pooled <- final",
        "classification_head.out_proj.{weight,bias}?": "labels <- pooled",
        "qa_outputs.{weight,bias}?": "labels <- final",
    },
    outputs={"last_hidden_state": "final", "encoder_last_hidden_state": "hidden"},
    multiplied={
        f"model.{name}.weight": ("hidden", 0.5, "scale_embedding")
        for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    },
    keys="""activation_dropout activation_function decoder_layerdrop encoder_layerdrop is_decoder
        max_position_embeddings""",
    defaults={"scale_embedding": False},
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    ignored=(r"(model\.)?(encoder|decoder)\.version",),
    forms=(
        Form(
            "decoder alone",
            when=lambda config, names: not any(name.startswith("model.encoder.") for name in names),
            tensors={
                **dict.fromkeys(ENCODER),
                "model.shared.weight": None,
                "model.decoder.embed_tokens.weight?": None,
                "model.decoder.embed_tokens.weight": "vocab -> hidden",
            },
            fields={
                "tie": Tie("lm_head.weight", "model.decoder.embed_tokens.weight", default=True),
                "multiplied": {"model.decoder.embed_tokens.weight": ("hidden", 0.5, "scale_embedding")},
            },
        ),
    ),
)
