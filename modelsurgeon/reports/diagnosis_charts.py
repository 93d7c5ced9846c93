"""The plots of a diagnosis: one chart each, with all models of the document in it, where there is something to draw.

    head-spectrum     singular values of the head, over their root mean square: flat at 1, or spiking at the left
    gains             what norms multiply by, layer by layer
    anisotropy        mean cosine of hidden states, layer by layer (arXiv 2404.07647, figure 2)
    ...

>>> [chart.name for chart in charts({"models": [model]})]
['head-spectrum', 'row-norms', 'gains', 'deviations']
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from modelsurgeon.reports.chart import SERIES, Chart, Limit, Series

Document = Mapping[str, Any]

APART = 0.14  # of a layer: between dots of several series at one layer
OUTSIDE = ("embedding", "last", "head")  # places of norms that are no layer's, in the order of the model
DEPTH = "layers passed; 0: the embedding, at the end: the last norm"
LONGEST = 40  # characters of a model's name in a legend


def charts(document: Document) -> list[Chart]:
    """All that there is something to draw of, in the order of the page."""
    drawn = (draw(_named(document)) for draw in DRAWN.values())
    return [chart for chart in drawn if chart is not None]


def names(models: Sequence[Document]) -> list[str]:
    """What each model is called in a legend or above a column: the end of its source, with a number where that is no
    name of its own.
    """
    found = [str(model["source"]).rstrip("/").rpartition("/")[2] or str(model["source"]) for model in models]
    found = [name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}" for name in found]
    return found if len(set(found)) == len(found) else [f"{name} ({at})" for at, name in enumerate(found, 1)]


Named = list[tuple[str, Document]]


def _named(document: Document) -> Named:
    return list(zip(names(document["models"]), document["models"], strict=True))


def _of(named: Named, key: str) -> list[tuple[int, str, Any]]:
    """(place of the model, its name, the part of its document), where there is one."""
    return [(at, name, model[key]) for at, (name, model) in enumerate(named) if model[key]]


def _head_spectrum(named: Named) -> Chart | None:
    found = _of(named, "spectrum")
    series = [_spectrum(at, name, one) for at, name, one in found]
    edges = {1 + math.sqrt(min(one["shape"]) / max(*one["shape"], 1)): name for _, name, one in found}
    said = "largest of a random matrix"
    limits = [Limit(edge, said if len(edges) == 1 else f"{said}, {name}") for edge, name in edges.items()]
    ranks = {float(one["effective_rank"]): name for _, name, one in found}
    limits += [Limit(at, f"effective rank, {ranks[at]}", vertical=True) for at in ranks if math.isfinite(at)]
    title = "Singular values of the head, or of the embedding where that is the head"
    return _chart("head-spectrum", title, "index", "value, of the root mean square", series, limits, y_log=True)


def _spectrum(at: int, name: str, found: Document) -> Series:
    """Over the root mean square a random matrix lies within 1 - sqrt(d/n) and 1 + sqrt(d/n), whatever its deviation."""
    values = [float(value) for value in found["values"]]
    finite = [value for value in values if math.isfinite(value)]
    size = math.sqrt(sum(value**2 for value in finite) / max(1, len(finite))) or 1.0
    least = float(found["resolution"]) * max(finite, default=0.0)  # below it nothing can be told from zero
    over = tuple(0.0 if value <= least else value / size for value in values)
    return Series(name, tuple(map(float, range(1, len(values) + 1))), over, colour=at)


def _row_norms(named: Named) -> Chart | None:
    series = []
    for key in ("embedding", "head"):
        for _, name, table in _of(named, key):
            quantiles = tuple(map(float, table["norms"]["quantiles"]))
            places = tuple(100 * i / max(1, len(quantiles) - 1) for i in range(len(quantiles)))
            series.append(Series(f"{name}: {key}", places, quantiles))
    title = "Norms of the rows of embedding and head, ordered"
    return _chart("row-norms", title, "rows up to here, percent", "L2 norm", series, y_log=True)


def _gains(named: Named) -> Chart | None:
    models = _of(named, "gains")
    gains = [(at, name, gain) for at, name, found in models for gain in found if gain["kind"] == "gain"]
    layers = [gain["layer"] for _, _, gain in gains if gain["place"] == "body" and gain["layer"] is not None]
    end = max(layers, default=-1)
    outside = {place: {"embedding": -1, "last": end + 1, "head": end + 2}[place] for place in OUTSIDE}
    groups: dict[str, list[tuple[float, Document]]] = defaultdict(list)
    parts = _parts(gain for _, _, gain in gains)
    for _, name, gain in gains:
        x = outside["embedding"] if gain["layer"] is None else gain["layer"]
        x, part = (outside[gain["place"]], "no layer's") if gain["place"] in OUTSIDE else (x, parts[gain["template"]])
        groups[part if len(named) == 1 else name].append((x, gain))
    if len(groups) > SERIES:  # more kinds of norms than colours
        groups = {named[0][0]: [one for found in groups.values() for one in found]}
    series = _beside(groups, "mean", reach=("min", "max"))
    present = {gain["place"] for _, _, gain in gains}
    ticks = _layer_ticks(layers, {outside[place]: place for place in OUTSIDE if place in present})
    return _chart("gains", "Gains of norms: mean, from least to largest", "layer", "gain", series, ticks=ticks)


def _parts(rows: Iterable[Document]) -> dict[str, str]:
    """{template: its part of a layer}; the template itself where several share a part."""
    parts = {row["template"]: row["part"] for row in rows}
    shared = list(parts.values())
    return {name: part if part and shared.count(part) == 1 else name for name, part in parts.items()}


def _deviations(named: Named) -> Chart | None:
    groups: dict[str, list[tuple[float, Document]]] = defaultdict(list)
    layers = set()
    for _, name, found in _of(named, "matrices"):
        kinds = dict.fromkeys(one["template"] for one in found if one["layer"] is not None)
        for one in found:
            x = -1 if one["layer"] is None else one["layer"]
            layers |= {x} - {-1}
            inside = one["template"] if len(kinds) < SERIES else "matrices of layers"
            label = inside if one["layer"] is not None else "outside of layers"
            groups[label if len(named) == 1 else name].append((x, one))
    series = _beside(groups, "times_xavier")
    outside = {-1: "none"} if any(x == -1 for found in groups.values() for x, _ in found) else {}
    title, limits = "Deviation of matrices against Xavier", (Limit(1.0, "1 / sqrt(fan in)"),)
    ticks = _layer_ticks(layers, outside)
    return _chart("deviations", title, "layer", "times Xavier's", series, limits, ticks=ticks, y_log=True)


def _beside(groups: Mapping[str, list[tuple[float, Document]]], key: str, reach: tuple[str, ...] = ()) -> list[Series]:
    """Dots of each group; those of several groups at one layer are side by side."""
    return [
        Series(
            label,
            tuple(x + APART * (place - (len(groups) - 1) / 2) for x, _ in found),
            tuple(float(one[key]) for _, one in found),
            "dots",
            tuple(str(one["tensor"]) for _, one in found),
            tuple((float(one[reach[0]]), float(one[reach[1]])) for _, one in found) if reach else (),
        )
        for place, (label, found) in enumerate(groups.items())
    ]


def _states(named: Named) -> Iterator[tuple[str, list[Document]]]:
    """(label, states) of each stack of each model that was run; what the last norm returns stands after the layers."""
    for _, name, running in _of(named, "running"):
        sides: dict[str, list[Document]] = defaultdict(list)
        for state in running["states"]:
            found = sides[state["side"]]
            after = found[-1]["layer"] + 1 if found else 0
            found.append({**state, "layer": max(after, state["layer"])})
        yield from ((f"{name}: {side}" if side else name, states) for side, states in sides.items())


def _anisotropy(named: Named) -> Chart | None:
    series = [_by_layer(label, states, "anisotropy") for label, states in _states(named)]
    limits = _limits(named, "anisotropy")
    title = "Anisotropy: mean cosine of hidden states at two positions"
    return _chart("anisotropy", title, DEPTH, "mean cosine", series, limits, whole=True)


def _residual(named: Named) -> Chart | None:
    series = []
    for label, states in _states(named):
        reach = tuple((float(state["norm_mean"]), float(state["norm_max"])) for state in states)
        series.append(replace(_by_layer(label, states, "norm_mean"), reach=reach))
    title = "Norm of hidden states: mean, up to the largest"
    return _chart("residual-norm", title, DEPTH, "L2 norm", series, whole=True, y_log=True)


def _by_layer(label: str, rows: Sequence[Document], key: str, kind: Literal["line", "dots"] = "line") -> Series:
    rows = [row for row in rows if row[key] is not None]
    xs = tuple(float(row["layer"]) for row in rows)
    values, told = tuple(float(row[key]) for row in rows), tuple(str(row["name"]) for row in rows)
    return Series(label, xs, values, kind, told)


def _attention(named: Named) -> Chart | None:
    running = _of(named, "running")
    rows = [(name, [row for row in found["attention"] if row["layer"] is not None]) for _, name, found in running]
    series = [_by_layer(name, found, "largest", "dots") for name, found in rows]
    limits, title = _limits(named, "attention"), "Largest attention logit"
    return _chart("attention-logits", title, "layer", "largest logit", series, limits, whole=True, y_log=True)


def _head_cut(named: Named) -> Chart | None:
    cuts = [(at, name, found["head_cut"]) for at, name, found in _of(named, "running") if found["head_cut"]]
    series = [
        Series.through(name, ((point["rank"], point["loss"]) for point in cut["points"]), colour=at)
        for at, name, cut in cuts
    ]
    limits = tuple(Limit(float(cut["full"]), f"whole head, {name}") for _, name, cut in cuts)
    limits = tuple(limit for limit in limits if math.isfinite(limit.at))
    title = "Loss when the head is cut to a rank"
    return _chart("head-cut", title, "rank of the head", "loss, nats", series, limits, x_log=True)


def _losses(named: Named) -> Chart | None:
    series = []
    for at, name, found in _of(named, "running"):
        points = ((i, loss) for i, loss in enumerate(found["loss_by_position"] or ()) if loss is not None)
        series.append(Series.through(name, points, colour=at))
    return _chart("loss-by-position", "Loss by position", "position, tokens", "loss, nats", series, whole=True)


def _limits(named: Named, theme: str) -> tuple[Limit, ...]:
    """The limits that the theme's first verdict names."""
    verdicts = [verdict for _, model in named for verdict in model["verdicts"] if verdict["theme"] == theme]
    found = verdicts[0]["limits"] if verdicts else {}
    return tuple(Limit(float(at), word, bad=word == "act") for word, at in found.items() if math.isfinite(float(at)))


def _layer_ticks(layers: Iterable[int], outside: Mapping[int, str]) -> tuple[tuple[float, str], ...]:
    places = {**{layer: str(layer) for layer in layers}, **outside}
    return tuple((float(at), places[at]) for at in sorted(places))


def _chart(
    name: str, title: str, x: str, y: str, series: Iterable[Series], limits: Iterable[Limit] = (), **how: Any
) -> Chart | None:
    drawn = tuple(one for one in series if one.xs)
    return Chart(name, title, x, y, drawn, tuple(limits), **how) if drawn else None


DRAWN: Mapping[str, Callable[[Named], Chart | None]] = {
    "head-spectrum": _head_spectrum,
    "row-norms": _row_norms,
    "gains": _gains,
    "deviations": _deviations,
    "loss-by-position": _losses,
    "head-cut": _head_cut,
    "anisotropy": _anisotropy,
    "residual-norm": _residual,
    "attention-logits": _attention,
}
