"""Axes that recur in nearly every table, each under its usual name.

    axes={**tokens(), **residual("hidden_size"), "mlp": ..., **attention(kv=8, key="head_dim")}

are vocab and labels; stream, hidden and final; the MLP; heads, kv, head and value. `decoder(kv=8, key="head_dim")` is
all of them, `encoder()` is all of BERT's.
"""

from __future__ import annotations

from modelsurgeon.architectures.words import Axis, Default, Quotient, Rule, Slopes, labels


def tokens(positions: str = "", types: str = "") -> dict[str, Axis]:
    """What embeddings count, by config key, and what a classifier tells apart."""
    counted = {"vocab": "vocab_size", "positions": positions, "types": types}
    return {**{name: Axis(key) for name, key in counted.items() if key}, "labels": Axis(default=labels)}


def residual(key: str, names: str = "stream hidden final") -> dict[str, Axis]:
    """Axes of sums and norms of one size: the residual stream, what norms make of it, what the head reads."""
    return {name: Axis(key, through="residual") for name in names.split()}


def attention(
    width: str = "hidden_size",
    heads: str = "num_attention_heads",
    *,
    kv: Default | None = None,
    key: str | None = None,
    size: Default | None = None,
    scaled: float = -0.5,
    when: str | Rule | None = None,
    slopes: Slopes | None = None,
    side: str = "",
) -> dict[str, Axis]:
    """Heads, and the sizes of one head's queries with its keys, and of its values.

    width, heads  config keys: a head's size is their quotient where nothing else is said
    kv            what a config without `num_key_value_heads` means; None: every head has keys and values of its own
    key, size     the config key of a head's size, and what its absence means
    side          before all names, where encoder and decoder differ: "encoder_"
    """
    size = Quotient(width, heads) if size is None else size
    grouped = {} if kv is None else {"kv": Axis("num_key_value_heads", kv, through="heads", follows="heads")}
    return {
        f"{side}heads": Axis(heads, through="heads", slopes=slopes),
        **grouped,
        f"{side}head": Axis(key, size, through="inner", scaled=scaled, when=when),
        f"{side}value": Axis(key, size, through="linear"),
    }


def decoder(
    *, kv: Default | None = None, key: str | None = None, size: Default | None = None, scaled: float = -0.5
) -> dict[str, Axis]:
    """All usual axes of a decoder of `hidden_size` and `intermediate_size`; the options are those of `attention`."""
    return {
        **tokens(),
        **residual("hidden_size"),
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(kv=kv, key=key, size=size, scaled=scaled),
    }


def encoder() -> dict[str, Axis]:
    """All usual axes of BERT: the stream is what its norms write; `transform` is in the masked-LM head."""
    return {
        **tokens(positions="max_position_embeddings", types="type_vocab_size"),
        **residual("hidden_size", "hidden final"),
        **{name: Axis("hidden_size", through="pointwise") for name in ("transform", "pooled")},
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(),
    }
