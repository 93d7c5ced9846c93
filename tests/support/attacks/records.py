"""Records that say what is not so, or say nothing: a record is a claim, and every field of it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator

from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.operations.widen import Widen
from support.attacks.attack import Attack, Made, Plant, copied, widened
from support.false_records import (
    arguments,
    axis,
    axis_without,
    claimed,
    forged,
    forgery,
    identity,
    record,
    rounding,
    step,
    step_without,
    top,
    widening,
)
from support.planting import S, config, nothing, rows_times, times

TOKENS, UP, DOWN = (
    "model.embed_tokens.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
)
NORM = "model.norm.weight"


def chains() -> Iterator[Attack]:
    """Steps that never were, so that a mistake could pass as what they rounded."""
    llama, untied = widened("llama-tied"), widened("llama-untied")
    small = widened("llama-untied", dtype="bfloat16")
    yield small.differs(
        "record", "150 steps that rounded, and a row x 1.5", forgery(rows_times(DOWN, 1.5, 3), rounding(150)), "proof"
    )
    yield small.differs(
        "record", "600 steps that rounded, and a row x -1", forgery(rows_times(DOWN, -1, 3), rounding(600)), "proof"
    )
    yield small.differs(
        "record",
        "130 steps that rounded, and a token of zeros",
        forgery(rows_times(TOKENS, 0, 9), rounding(130)),
        "proof",
    )
    yield small.differs(
        "record", "20 steps that rounded, and a gain x 1.1", forgery(times(NORM, 1.1), rounding(20)), "proof"
    )
    yield llama.differs(
        "record",
        "150 detours by bfloat16, and a row x 1.5",
        forgery(rows_times(DOWN, 1.5, 3), rounding(150, dtype="bfloat16")),
        "proof",
    )
    yield untied.differs(
        "record",
        "one detour by bfloat16, and a gain by 0.4%",
        forgery(times(NORM, 1.004), rounding(1, dtype="bfloat16")),
        "proof",
    )
    yield untied.differs(
        "record",
        "a detour by float16, and a gain by 0.04%",
        forgery(times(NORM, 1.0004), rounding(1, dtype="float16")),
        "outputs",
    )
    yield untied.differs(
        "record",
        "detours on another axis",
        forgery(rows_times(DOWN, 1.5, 3), rounding(150, 16, "kv", "bfloat16")),
        "record",
    )
    yield llama.differs(
        "record", "a step that untied what is tied", claimed({"operation": "untie-embeddings"}), "proof"
    )
    yield llama.differs("record", "a step twice", forged(lambda d: d["steps"].append(d["steps"][0])), "proof")
    yield llama.proven("record", "one step that changed nothing", rounding(1))
    yield copied("llama-tied").proven("record", "a record of a step that changed nothing", _unchanged(nothing))
    yield copied("llama-tied").differs(
        "record", "a step that changed nothing, and a token", _unchanged(rows_times(TOKENS, -1, 4)), "proof outputs"
    )
    yield copied("llama-tied").differs(
        "record", "a record of rounding for a copy", _unchanged(rows_times(TOKENS, 1.002, 4)), "proof"
    )


def maps() -> Iterator[Attack]:
    """Maps that are not those of the weights."""
    llama = widened("llama-tied")
    reversed_, first = [[31, -1, 32]] * 2, [[0, 1, 40], [1, 1, 39], [0, 0, 1]]
    yield llama.differs("record", "a stream in another order", axis("stream", source=reversed_), "proof")
    yield llama.differs("record", "a norm's output in another order", axis("hidden", source=reversed_), "proof")
    yield llama.differs("record", "neurons in another order", axis("mlp", source=first), "proof")
    yield llama.differs("record", "readers and writers of neurons exchanged", _stretched("mlp", 2.0), "proof")
    yield llama.differs("record", "no map of neurons", axis_without("mlp"), "proof")
    yield llama.differs("record", "no map of heads", axis_without("heads"), "proof")
    yield llama.differs("record", "shares that break the law", axis("mlp", share=[[0.505, 80]]), "record", "mlp")
    yield llama.differs("record", "a gain that is not theirs", axis("mlp", gain=2.0), "record", "mlp")
    yield llama.differs("record", "a map that says split among nobody", axis("mlp", split="nobody"), "record", "split")
    yield llama.differs("record", "a map from more neurons than there are", axis("mlp", size=44), "record", "mlp")
    yield llama.differs("record", "a map to another size", axis("mlp", new_size=90), "record", "mlp")
    yield llama.differs(
        "record", "a map of 10^12 coordinates", axis("mlp", new_size=10**12, source=[[0, 0, 10**12]]), "record", "mlp"
    )
    yield llama.differs(
        "record", "a map from coordinates outside", axis("mlp", source=[[0, 1, 40], [5, 1, 40]]), "record", "mlp"
    )
    yield llama.differs("record", "a map with NaN", axis("mlp", scale=[[float("nan"), 80]]), "record", "mlp")
    yield llama.differs(
        "record", "a map with infinity", axis("mlp", scale=[[float("inf"), 80]], share=[[0.0, 80]]), "record", "mlp"
    )
    yield llama.differs("record", "a map without a size", axis_without("mlp", "size"), "record", "size")
    yield llama.differs("record", "a map without a source", axis_without("mlp", "source"), "record", "source")
    yield llama.differs("record", "runs that are words", axis("mlp", source="all of them"), "record", "source")
    yield llama.differs("record", "runs that are empty lists", axis("mlp", share=[[]]), "record", "share")
    yield llama.differs("record", "a size that is a word", axis("mlp", size="forty"), "record", "size")
    yield llama.differs(
        "record",
        "a map of an axis that no model has",
        forged(lambda d: d["steps"][0]["maps"].update(wings=identity(4))),
        "record",
        "wings",
    )
    yield llama.differs("record", "maps that are a list", step(maps=[1, 2]), "record", "maps")
    yield llama.differs("record", "maps that are null", step(maps=None), "record", "maps")
    yield llama.differs(
        "record", "a map that is a number", forged(lambda d: d["steps"][0]["maps"].update(mlp=7)), "record", "mlp"
    )


def fields() -> Iterator[Attack]:
    """Fields of a step that are missing, or hold what they cannot."""
    llama = widened("llama-tied")
    yield llama.differs(
        "record", "an operation that does not exist", step(operation="transmogrify"), "record", "transmogrify"
    )
    yield llama.differs("record", "an operation that is null", step(operation=None), "record", "operation")
    yield llama.differs("record", "an operation that is a number", step(operation=3), "record", "operation")
    yield llama.differs("record", "an operation that is a list", step(operation=["widen"]), "record", "operation")
    yield llama.differs("record", "no operation", step_without("operation"), "record", "operation")
    yield llama.differs(
        "record", "inserted layers without arguments", step(operation="insert-layers", arguments={}), "record", "layers"
    )
    yield llama.differs(
        "record",
        "inserted layers that are a number",
        step(operation="insert-layers", arguments={"layers": 5}),
        "record",
        "layers",
    )
    yield llama.differs(
        "record", "inserted layers of an unknown counter", _inserted({"floors": [0, 1]}), "record", "floors"
    )
    yield llama.differs(
        "record", "inserted layers from places outside", _inserted({"num_hidden_layers": [0, 9]}), "record", "layers"
    )
    yield llama.differs(
        "record",
        "inserted layers that are words",
        _inserted({"num_hidden_layers": ["zero", "one"]}),
        "record",
        "layers",
    )
    yield llama.differs("record", "inserted layers that are a word", _inserted("all"), "record", "layers")
    yield llama.differs(
        "record",
        "kinds of layers that are a number",
        step(operation="insert-layers", arguments={"layers": {"num_hidden_layers": [0, 1]}, "kinds": 3}),
        "record",
        "kinds",
    )
    yield llama.differs("record", "arguments that are null", step(arguments=None), "record", "arguments")
    yield llama.differs("record", "arguments that are a word", step(arguments="twice"), "record", "arguments")
    yield llama.differs("record", "arguments that are a list", step(arguments=[1]), "record", "arguments")
    yield llama.differs("record", "no arguments", step_without("arguments"), "record", "arguments")
    yield llama.differs("record", "a dtype that does not exist", arguments(dtype="float9"), "record", "dtype")
    yield llama.differs("record", "a dtype that is a number", arguments(dtype=16), "record", "dtype")
    yield llama.differs("record", "a seed that is a word", step(seed="often"), "record", "seed")
    yield llama.differs("record", "no seed", step_without("seed"), "record", "seed")
    yield llama.differs("record", "no version", step_without("version"), "record", "version")
    yield llama.differs("record", "a version that is a number", step(version=1), "record", "version")
    yield llama.differs("record", "no source", step_without("source"), "record", "source")
    yield llama.differs("record", "a source that is a word", step(source="llama"), "record", "source")
    yield llama.differs("record", "reasons that are a word", step(lossy="yes"), "record", "lossy")
    yield llama.differs("record", "no reasons", step_without("lossy"), "record", "lossy")
    yield llama.differs(
        "record", "lossless, and reasons why not", step(lossless=True, lossy=["rounded"]), "record", "loss"
    )
    yield llama.differs(
        "record", "learning rates that are a number", step(learning_rates=5), "record", "learning_rates"
    )
    yield llama.differs("record", "a step that is null", forged(lambda d: d["steps"].append(None)), "record", "steps")
    yield llama.differs("record", "a step that is a list", forged(lambda d: d["steps"].append([])), "record", "steps")
    yield llama.differs(
        "record",
        "an untying head of no kind",
        claimed({"operation": "untie-embeddings", "arguments": {"head": "bald"}}),
        "record",
        "head",
    )
    yield llama.differs(
        "record",
        "an argument that its operation has not",
        claimed({"operation": "untie-embeddings", "arguments": {"hat": 1}}),
        "record",
        "hat",
    )


def documents() -> Iterator[Attack]:
    """The document as a whole."""
    llama = widened("llama-tied")
    yield llama.differs("record", "no steps", forged(lambda d: d.pop("steps")), "record", "steps")
    yield llama.differs("record", "steps that are null", top(steps=None), "record", "steps")
    yield llama.differs("record", "steps that are an object", top(steps={"0": {}}), "record", "steps")
    yield llama.differs("record", "steps that are a word", top(steps="widen"), "record", "steps")
    yield llama.refused("record", "a format of later", top(format=2), "record", "format")
    yield llama.differs("record", "a format that is a word", top(format="one"), "record", "format")
    yield llama.differs("record", "no format", forged(lambda d: d.pop("format")), "record", "format")
    yield llama.refused("record", "an empty file", record(""), "record")
    yield llama.refused("record", "no JSON", record("steps: [widen]"), "record")
    yield llama.refused("record", "a list", record("[]"), "record")
    yield llama.refused("record", "null", record("null"), "record")
    yield llama.refused("record", "brackets, 100,000 deep", record("[" * 100_000), "record")
    yield llama.proven("record", "steps that are an empty list", top(steps=[]))
    yield llama.differs(
        "record", "no steps at all, and a token", forgery(rows_times(TOKENS, -1, 4), top(steps=[])), "outputs"
    )
    yield llama.differs("record", "another tool's name", top(tool="somebody"), "record", "tool")
    yield llama.differs("record", "a key that nobody reads", top(note="hello"), "record", "note")


def other_results() -> Iterator[Attack]:
    """True records of other results."""
    llama = widened("llama-tied")
    triple, wider = _record_of("widen", "mlp", 120), _record_of("widen", "mlp", 90)
    yield llama.differs("record", "the record of a model three times as wide", triple, "proof")
    yield llama.differs("record", "the record of other neurons", wider, "proof")
    yield copied("llama-tied").differs(
        "record",
        "the record of a wider model beside a copy",
        claimed(widening({"mlp": _copies(40, 80)})),
        "proof",
    )
    yield copied("llama-tied").differs(
        "record", "a record that untied a copy", claimed({"operation": "untie-embeddings"}), "proof"
    )
    fresh = Made("llama-tied", (UntieEmbeddings(head="half-swap"),))
    yield fresh.differs("record", "a fresh head called lossless", step(lossless=True, lossy=[]), "outputs")
    yield fresh.differs(
        "record", "a fresh head called a copy", step(arguments={}, lossless=True, lossy=[]), "proof outputs"
    )
    random = {"operation": "init", "arguments": {"method": "fresh"}, "seed": 1}
    yield copied("llama-tied").differs(
        "record",
        "weights that are said to be drawn anew",
        forgery(rows_times(TOKENS, -1, 4), claimed(random)),
        "outputs",
    )
    yield copied("llama-tied").differs("record", "a copy that is said to be drawn anew", claimed(random), "record")
    chained = widened("llama-tied", UntieEmbeddings(), Widen(factor=2, noise=0.0, rule="exact"))
    yield chained.proven("nothing", "three operations, one after another", nothing)
    yield chained.proven(
        "record", "two steps in each other's place", forged(lambda d: d["steps"].insert(0, d["steps"].pop(1)))
    )
    yield chained.differs("record", "one step of three left out", forged(lambda d: d["steps"].pop(1)), "proof")
    yield chained.differs("record", "the last step left out", forged(lambda d: d["steps"].pop()), "proof")
    yield chained.differs("scale", "a mistake behind three operations", times(DOWN, 1.01, S[0:9]), "proof outputs")
    yield llama.differs(
        "record",
        "maps of an honest record and another eps",
        forgery(config(rms_norm_eps=1e-3), step(version="0.1")),
        "config",
    )


def _inserted(layers: object) -> Plant:
    return step(operation="insert-layers", arguments={"layers": layers})


def _unchanged(plant: Plant) -> Plant:
    return forgery(plant, claimed(widening({"mlp": identity(40)})))


def _stretched(name: str, by: float) -> Plant:
    """Writers times a factor and readers divided by it: the law holds, the activation between does not."""
    return axis(name, scale=[[by, 80]], share=[[0.5 / by, 80]])


def _copies(size: int, new: int) -> dict[str, object]:
    times, left = divmod(new, size)
    source = [[0, 1, size]] * times + ([[0, 1, left]] if left else [])
    counts = [1 / (times + (i < left)) for i in range(size)]
    share = [[counts[i % size], 1] for i in range(new)]
    return {
        "size": size,
        "new_size": new,
        "gain": 1.0,
        "split": "readers",
        "source": source,
        "scale": [[1.0, new]],
        "share": share,
    }


def _record_of(operation: str, name: str, new: int) -> Plant:
    return forged(lambda d: d["steps"][0]["maps"].update({name: json.loads(json.dumps(_copies(40, new)))}))
