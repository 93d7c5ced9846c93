"""Layouts that recur in several tables: classifiers, and experts that are fused or in some layers only."""

from __future__ import annotations

from collections.abc import Callable

from modelsurgeon.architectures.architecture import Form
from modelsurgeon.architectures.words import Config

DENSE = (".mlp.gate_proj.", ".mlp.up_proj.", ".mlp.down_proj.")


def names_task(config: Config, task: str) -> bool:
    """Whether the class that config.json names is for this task: heads of several tasks share their tensors' names."""
    return any(task in str(kind) for kind in config.get("architectures") or ())


def multiple_choice(read: str) -> Form:
    """One score for each choice, from this axis."""
    return Form(
        "multiple choice",
        when=lambda config, names: names_task(config, "MultipleChoice"),
        tensors={"classifier.{weight,bias}?": f"1 <- {read}"},
    )


# Files of old token classifiers hold a pooler, too, which they do not use.
TOKENS = Form(
    "token classifier",
    when=lambda config, names: names_task(config, "TokenClassification"),
    tensors={"classifier.{weight,bias}?": "labels <- hidden"},
)


def unpooled(pooler: str) -> Form:
    """Classifiers of checkpoints without a tensor of this ending read the stream itself."""
    return Form(
        "without pooler",
        when=lambda config, names: not any(name.endswith(pooler) for name in names),
        tensors={"classifier.{weight,bias}?": "labels <- hidden"},
    )


def fused_experts(width: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> Form:
    """All experts of a layer in two tensors, as the library's own modules hold them; `width`: the axis of an expert."""
    at = "model.layers.{layer}.mlp.experts"
    return Form(
        "fused experts",
        when=lambda config, names: any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
        tensors={
            **{f"{at}.{{experts}}.{part}.weight": None for part in (gate, up, down)},
            f"{at}.gate_up_proj": f"experts ({width} + {width}) <- hidden",
            f"{at}.down_proj": f"experts stream <- {width}",
        },
    )


def by_layer(sparse: Callable[[Config, int], bool], *pieces: str) -> dict[str, Callable[[Config, int], bool]]:
    """`Architecture.only` where sparse layers hold these pieces, and the others a plain MLP."""

    def dense(config: Config, layer: int) -> bool:
        return not sparse(config, layer)

    return {**dict.fromkeys(pieces, sparse), **dict.fromkeys(DENSE, dense)}
