"""What recurs in tables: axes under their usual names, the tie of BERT's head, and layouts.

    axes={**tokens(), **residual("hidden_size"), "mlp": ..., **attention(kv=8, key="head_dim")}

are vocab and labels; stream, hidden and final; the MLP; heads, kv, head and value. `decoder(kv=8, key="head_dim")` is
all of them, `encoder()` is all of BERT's.
"""

from __future__ import annotations

from collections.abc import Callable

from modelsurgeon.architectures.architecture import Form
from modelsurgeon.architectures.words import Axis, Config, Default, Quotient, Rule, Slopes, Tie, labels

HEAD_SIZE = Quotient("hidden_size", "num_attention_heads")
CLASSIFIER = "classifier.{weight,bias}?"
OF_STREAM = {CLASSIFIER: "labels <- hidden"}


def tokens(positions: str = "", types: str = "") -> dict[str, Axis]:
    """The vocabulary; positions and token types, each by its config key; the labels of a classifier."""
    counted = {"vocab": "vocab_size", "positions": positions, "types": types}
    return {**{name: Axis(key) for name, key in counted.items() if key}, "labels": Axis(default=labels)}


def residual(key: str, names: str = "stream hidden final") -> dict[str, Axis]:
    """Axes of sums and norms of one size: the residual stream, what norms write, what the head reads."""
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
    """Heads, the size that queries and keys have in each, and the size that values have.

    width, heads  config keys: a head's size is their quotient, unless `key` or `size` give it
    kv            what a config without `num_key_value_heads` means; None: every head has keys and values of its own
    key, size     the config key of a head's size, and what its absence means
    side          a prefix of all names, where encoder and decoder differ: "encoder_"
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
    """All usual axes of BERT: its norms write the stream, `hidden`; `transform` is in the masked-LM head."""
    return {
        **tokens(positions="max_position_embeddings", types="type_vocab_size"),
        **residual("hidden_size", "hidden final"),
        **{name: Axis("hidden_size", through="pointwise") for name in ("transform", "pooled")},
        "mlp": Axis("intermediate_size", through="pointwise"),
        **attention(),
    }


def embeddings(default: Default | None = None) -> dict[str, Axis]:
    """Axes of embeddings, and of a masked-LM head, of `embedding_size`; `default` is what its absence means."""
    through = {"embedded": "rank", "transform": "pointwise", "final": "rank"}
    return {name: Axis("embedding_size", default, through=kind) for name, kind in through.items()}


def bert_tie(prefix: str) -> Tie:
    """The tie of BERT's masked-LM head, whose bias is stored twice."""
    return Tie(
        "cls.predictions.decoder.weight",
        f"{prefix}embeddings.word_embeddings.weight",
        also={"cls.predictions.decoder.bias": "cls.predictions.bias"},
        requires="cls.predictions.transform.dense.weight",
        default=True,
    )


def projected(prefix: str, default: Default | None = None) -> Form:
    """Embeddings of a size of their own, with a projection to the stream's."""
    return Form(
        "projected",
        when=lambda config, names: f"{prefix}embeddings_project.weight" in names,
        tensors={f"{prefix}embeddings.LayerNorm.{{weight,bias}}": "embedded => embedded"},
        axes=embeddings(default),
        fields={"equal": {}},
    )


def names_task(config: Config, task: str) -> bool:
    """Whether the class that config.json names is for this task: heads of several tasks share their tensors' names."""
    return any(task in str(kind) for kind in config.get("architectures") or ())


def multiple_choice(axis: str) -> Form:
    """A classifier that reads this axis and writes one score for each choice."""
    return Form("multiple choice", lambda c, names: names_task(c, "MultipleChoice"), {CLASSIFIER: f"1 <- {axis}"})


def unpooled(pooler: str) -> Form:
    """Classifiers of checkpoints without a tensor whose name ends like this read the stream itself."""
    return Form("without pooler", lambda c, names: not any(name.endswith(pooler) for name in names), OF_STREAM)


def classifiers(pooler: str) -> tuple[Form, ...]:
    """BERT's classifiers. Files of old token classifiers hold a pooler, too, which they do not use."""
    of_tokens = Form("token classifier", lambda c, names: names_task(c, "TokenClassification"), OF_STREAM)
    return unpooled(pooler), of_tokens, multiple_choice("pooled")


def fused_experts(width: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> Form:
    """All experts of a layer in two tensors, as the library's own modules hold them; `width`: the axis of an expert."""
    at = "model.layers.{layer}.mlp.experts"
    return Form(
        "fused experts",
        when=lambda config, names: any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
        tensors={
            f"{at}.{{experts}}.{{{gate},{up},{down}}}.weight": None,
            f"{at}.gate_up_proj": f"experts ({width} + {width}) <- hidden",
            f"{at}.down_proj": f"experts stream <- {width}",
        },
    )


def by_layer(sparse: Callable[[Config, int], bool], names: str) -> dict[str, Callable[[Config, int], bool]]:
    """`Architecture.only` where the MLPs of sparse layers hold these modules, and the others a plain MLP's."""
    dense = dict.fromkeys(("gate_proj", "up_proj", "down_proj"), lambda config, layer: not sparse(config, layer))
    return {f".mlp.{name}.": rule for name, rule in {**dict.fromkeys(names.split(), sparse), **dense}.items()}
