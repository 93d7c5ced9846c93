"""The numbers that are judged: each function reads one of them off a diagnosis' document.

    MEASURES["head_width"](model)  ->  Finding(128, {"width": 128, "vocab": 4096, ...})

Its name is an entry of thresholds.toml, whose sentences take the fields. A function returns None where nothing was
measured, or where the measure has no meaning for this model.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any

Document = Mapping[str, Any]

MASSIVE = 100.0  # the least size of a massive activation (arXiv 2402.17762)
PROMINENT = 1000.0  # and its least ratio to the median
EXAMPLES = 3  # named in a sentence
FEWEST = 4  # positions of a quarter of the window, whose mean and spread are reported
ERRORS = 3  # standard errors within which two mean losses may be the same
COLLAPSED = 2.0  # of stable ranks: below it one direction has half of the energy and more


@dataclass(frozen=True)
class Finding:
    """A number, and what sentences about it name."""

    value: float
    fields: Mapping[str, Any]


MEASURES: dict[str, Callable[[Document], Finding | None]] = {}  # {entry of thresholds.toml: what reads its number}


def _measure(read: Callable[[Document], Finding | None]) -> Callable[[Document], Finding | None]:
    MEASURES[read.__name__.removeprefix("_")] = read
    return read


def _largest(found: Iterable[Finding]) -> Finding | None:
    return max(found, key=lambda one: one.value, default=None)


@_measure
def _not_finite(model: Document) -> Finding | None:
    numbers = model["numbers"]
    bad = [row for row in numbers["tensors"] if row["nan"] + row["inf"]]
    return Finding(numbers["nan"] + numbers["inf"], {"tensor": bad[0]["tensor"] if bad else ""})


def _lost(model: Document, loss: str) -> Finding:
    """How many numbers float16 loses to overflow or underflow."""
    numbers = model["numbers"]
    worst = max(numbers["tensors"], key=lambda row: row["float16"][loss], default={"tensor": ""})
    return Finding(numbers["float16"][loss], {"tensor": worst["tensor"]})


MEASURES["float16_overflow"] = partial(_lost, loss="overflow")


@_measure
def _float16_underflow(model: Document) -> Finding | None:
    lost = _lost(model, "underflow")
    return Finding(lost.value / max(1, model["numbers"]["count"]), lost.fields)


@_measure
def _far_components(model: Document) -> Finding | None:
    found = []
    for name, table in _tables(model):
        far = table["far_components"]
        if far["largest"] is not None:
            value = f"{float(far['examples'][0]['value']):.3g}" if far["examples"] else "none"
            fields = {"table": name, "count": f"{far['count']:,}", "value_of": value}
            found.append(Finding(float(far["largest"]), fields))
    return _largest(found)


@_measure
def _far_rows(model: Document) -> Finding | None:
    found = ((name, table["vocab"], table["far_rows"]["count"]) for name, table in _tables(model))
    return _largest(Finding(count / vocab, {"table": name, "count": count}) for name, vocab, count in found)


@_measure
def _untrained_tokens(model: Document) -> Finding | None:
    table = model["embedding"]
    if not table or not table["tokenizer"]:
        return None
    untrained = table["untrained"]
    named = [one["token"] or str(one["row"]) for one in untrained["examples"][:EXAMPLES]]
    return Finding(untrained["added"], {"examples": ", ".join(named)})


@_measure
def _initial_loss(model: Document) -> Finding | None:
    """Of untrained weights: the measured loss where the model ran, the prediction by the tied rule where it did not."""
    loss, running = model["initial_loss"], model["running"] or {}
    if not loss or not loss["applies"] or not loss["tied"]:
        return None
    if not model["fresh"]:
        return Finding(1.0, {"why": "trained already: what it started from no longer counts"})
    ran = running.get("loss") is not None
    nats = float(running["loss"] if ran else loss["predicted"])
    uniform, how = loss["uniform"], "measured" if ran else "predicted"
    rule = f"the tied rule says {float(loss['predicted']):.2f}"
    why = f"{how}: {nats:.2f} nats, log n is {uniform:.2f}; {rule}"
    return Finding(nats / uniform, {"nats": nats, "uniform": uniform, "how": how, "why": why})


@_measure
def _head_width(model: Document) -> Finding | None:
    table = model["head"] or model["embedding"]
    if not table or model["initial_loss"] is None:  # no head over a vocabulary
        return None
    width, vocab = table["width"], table["vocab"]
    if vocab <= width:
        return Finding(math.inf, {"why": f"only {vocab:,} tokens"})
    return Finding(width, {"width": f"{width:,}", "vocab": f"{vocab:,}", "why": f"{width:,} directions"})


@_measure
def _head_cut(model: Document) -> Finding | None:
    cut = (model["running"] or {}).get("head_cut")
    table = model["head"] or model["embedding"]
    if not cut or not table or not cut["full"]:
        return None
    points = {point["rank"]: float(point["loss"]) for point in cut["points"]}
    rank = min(points, key=lambda rank: abs(rank - 7 * table["width"] / 8))
    return Finding(100 * (points[rank] / float(cut["full"]) - 1), {"tokens": f"{model['running']['tokens']:,}"})


@_measure
def _effective_rank(model: Document) -> Finding | None:
    spectrum = model["spectrum"]
    if not spectrum or not _finite(spectrum["effective_rank"]):
        return None
    fields = {"random": math.exp(-float(spectrum["random_entropy"])), "largest": spectrum["largest_share"]}
    return Finding(spectrum["effective_rank"] / min(spectrum["shape"]), fields)


@_measure
def _last_gain(model: Document) -> Finding | None:
    gains = [gain for gain in model["gains"] if gain["kind"] == "gain" and _finite(gain["mean"])]
    last = [gain for gain in gains if gain["place"] == "last"]
    body = [abs(gain["mean"]) for gain in gains if gain["place"] == "body"]
    middle = statistics.median(body) if last and body else 0.0
    if not middle:
        return None
    tensor, gain = last[-1]["tensor"], last[-1]["mean"]
    return Finding(abs(gain) / middle, {"tensor": tensor, "gain": gain, "body": middle})


@_measure
def _gain_spread(model: Document) -> Finding | None:
    return _largest(
        Finding(max(abs(gain["min"]), abs(gain["max"])) / gain["rms"], {"tensor": gain["tensor"]})
        for gain in model["gains"]
        if gain["kind"] == "gain" and gain["rms"] and all(_finite(gain[key]) for key in ("min", "max", "rms"))
    )


@_measure
def _rank_collapse(model: Document) -> Finding | None:
    ranked = [one for one in _body(model) if _finite(one["stable_rank"]) and min(one["shape"][-2:]) > COLLAPSED]
    least = min(ranked, key=lambda one: float(one["stable_rank"]), default=None)
    if least is None:
        return None
    collapsed = sum(float(one["stable_rank"]) < COLLAPSED for one in ranked)
    return Finding(collapsed, {"tensor": least["tensor"], "least": least["stable_rank"]})


@_measure
def _drift(model: Document) -> Finding | None:
    found = [one for one in _body(model) if _finite(one["times_xavier"])]
    if not found:
        return None
    most = max(found, key=lambda one: float(one["times_xavier"]))
    fields = {
        "times": statistics.median(one["times_truncated"] for one in found),
        "low": min(one["times_xavier"] for one in found),
        "high": most["times_xavier"],
        "tensor": most["tensor"],
        "fresh": "; never trained: every gain is 1, every bias 0" if model["fresh"] else "",
    }
    return Finding(statistics.median(one["times_xavier"] for one in found), fields)


def _coordinates(model: Document, key: str) -> Finding:
    counts = Counter[str]()
    for row in model["copies"]:
        counts[row["axis"]] += row[key]
    axes = ", ".join(f"{count:,} of {axis}" for axis, count in counts.items() if count)
    return Finding(counts.total(), {"axes": axes})


MEASURES |= {key: partial(_coordinates, key=key) for key in ("copies", "dead")}


@_measure
def _anisotropy(model: Document) -> Finding | None:
    last = (model["running"] or {}).get("last")
    if not last or not _finite(last["anisotropy"]):
        return None
    states = [state for state in model["running"]["states"] if _finite(state["anisotropy"])]
    most = max(states, key=lambda state: float(state["anisotropy"]), default=None)
    return Finding(last["anisotropy"], {"deepest": f"most in {most['name']}: {most['anisotropy']:.2f}" if most else ""})


@_measure
def _late_loss(model: Document) -> Finding | None:
    losses = [loss for loss in (model["running"] or {}).get("loss_by_position") or () if _finite(loss)]
    quarter = len(losses) // 4
    if quarter < FEWEST:
        return None
    ends = losses[:quarter], losses[-quarter:]
    first, last = map(statistics.mean, ends)
    error = math.sqrt(sum(statistics.variance(end) / quarter for end in ends))
    return Finding(max(0.0, last - ERRORS * error) / first, {"first": first, "last": last})


@_measure
def _attention_logits(model: Document) -> Finding | None:
    rows = (model["running"] or {}).get("attention") or ()
    return _largest(Finding(float(row["largest"]), {"name": row["name"]}) for row in rows)


@_measure
def _massive_activations(model: Document) -> Finding | None:
    states = _states(model)
    if not states:
        return None
    sizes = {state["name"]: state["largest"] for state in states if state["largest"] > MASSIVE and state["median"]}
    if not sizes:
        return Finding(0, {"why": f"none is above {MASSIVE:.0f}"})
    times = {state["name"]: state["largest"] / state["median"] for state in states if state["name"] in sizes}
    most = max(times, key=lambda name: times[name])
    first = next((name for name in times if times[name] >= PROMINENT), most)
    return Finding(times[most], {"why": f"in {most}", "first": first, "size": sizes[most]})


@_measure
def _residual_growth(model: Document) -> Finding | None:
    return _largest(
        Finding(after["norm_mean"] / before["norm_mean"], {"name": after["name"]})
        for _, side in groupby(_states(model), key=lambda state: state["side"])
        for before, after in pairwise([*side][1:-1])  # embeddings grow, the norm shrinks
        if before["norm_mean"]
    )


def _tables(model: Document) -> list[tuple[str, Document]]:
    return [(name, model[name]) for name in ("embedding", "head") if model[name]]


def _body(model: Document) -> list[Document]:
    return [one for one in model["matrices"] if one["layer"] is not None]


def _states(model: Document) -> list[Document]:
    keys = ("largest", "median", "norm_mean")
    return [state for state in (model["running"] or {}).get("states") or () if all(_finite(state[key]) for key in keys)]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
