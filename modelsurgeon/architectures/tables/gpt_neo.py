"""GPT-Neo: GPT-2 in nn.Linear layout, its attention global or local layer by layer and not scaled at all."""

from itertools import islice

from modelsurgeon.architectures.architecture import Architecture, Axis, Config, Multiple, Tie
from modelsurgeon.architectures.recurring import attention, residual, tokens
from modelsurgeon.errors import SourceError


def _attention_layers(config: Config) -> list[str]:
    """Each layer's kind, from runs of the form [[kind, ...], how often]; a wild count costs no more than one layer."""
    runs = config.get("attention_types") or [[["global", "local"], 12]]
    try:
        kinds = (kind for kinds, count in runs if kinds for _ in range(count) for kind in kinds)
        return list(islice(kinds, config.get("num_layers", 24) + 1))
    except (TypeError, ValueError):
        raise SourceError(
            f"config.json: attention_types is {runs!r}, expected [[[kind, ...], how often], ...]"
        ) from None


ARCHITECTURE = Architecture(
    model="GPTNeoForCausalLM",
    norm="layer",
    eps="layer_norm_epsilon",
    prefix="transformer.",
    counters={"layer": "num_layers"},
    tie=Tie("lm_head.weight", "transformer.wte.weight", default=True),
    axes={
        **tokens(positions="max_position_embeddings"),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", Multiple("hidden_size", 4), through="pointwise"),
        **attention("hidden_size", "num_heads", scaled=0.0),
    },
    tensors={
        "transformer.wte.weight": "vocab -> stream",
        "transformer.wpe.weight": "positions -> stream",
        "transformer.h.{layer}.ln_1.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.attn.attention.q_proj.weight": "(heads head~) <- hidden",
        "transformer.h.{layer}.attn.attention.k_proj.weight": "(heads head) <- hidden",
        "transformer.h.{layer}.attn.attention.v_proj.weight": "(heads value) <- hidden",
        "transformer.h.{layer}.attn.attention.out_proj.{weight,bias}": "stream <- (heads value)",
        "transformer.h.{layer}.ln_2.{weight,bias}": "stream => hidden",
        "transformer.h.{layer}.mlp.c_fc.{weight,bias}": "mlp <- hidden",
        "transformer.h.{layer}.mlp.c_proj.{weight,bias}": "stream <- mlp",
        "transformer.ln_f.{weight,bias}": "stream => final",
        "lm_head.weight?": "vocab <- final",
        "score.weight?": "labels <- final",
        "classifier.{weight,bias}?": "labels <- final",
        "qa_outputs.{weight,bias}?": "2 <- final",
    },
    keys="activation_function attention_types embed_dropout resid_dropout window_size",
    equal={"attention_layers": _attention_layers},
    aliases={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    ignored=(r".*\.attn\.attention\.(masked_)?bias",),
)
