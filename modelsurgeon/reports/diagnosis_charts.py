"""The plots of a diagnosis: each chart shows all models of the document; one with nothing to draw is left out.

    head-spectrum     singular values of the head, over their root mean square: flat at 1, or spiking at the left
    gains             gains of norms, layer by layer
    anisotropy        mean cosine of hidden states, layer by layer (arXiv 2404.07647, figure 2)
    ...

>>> [chart.name for chart in charts({"models": [model]})]
['head-spectrum', 'row-norms', 'gains', 'deviations']
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelsurgeon.reports.chart import SERIES, Chart, Kind, Limit, Series

Document = Mapping[str, Any]

APART = 0.14  # of a layer: between dots of several series at one layer
DEPTH = "layers passed; 0: the embedding, at the end: the last norm"
LONGEST = 40  # characters of a model's name in a legend


def charts(document: Document) -> list[Chart]:
    """All charts that have something to draw, in the order of the page."""
    named = list(zip(names(document["models"]), document["models"], strict=True))
    drawn = (draw(named) for draw in DRAWN.values())
    charts = (replace(chart, series=tuple(series for series in chart.series if series.xs)) for chart in drawn)
    return [chart for chart in charts if chart.series]


def names(models: Sequence[Document]) -> list[str]:
    """The name of each model in a legend or above a column: the end of its source, numbered if two are equal."""
    found = [str(model["source"]).rstrip("/").rpartition("/")[2] or str(model["source"]) for model in models]
    found = [name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}" for name in found]
    return found if len(set(found)) == len(found) else [f"{name} ({at})" for at, name in enumerate(found, 1)]


Named = list[tuple[str, Document]]
Groups = dict[str, list[tuple[float, Document]]]  # {label: [(x, what was measured there)]}


def _of(named: Named, key: str) -> list[tuple[int, str, Any]]:
    """(place of the model, its name, a part of its document), for models that have this part."""
    return [(at, name, model[key]) for at, (name, model) in enumerate(named) if model[key]]


def _head_spectrum(named: Named) -> Chart:
    found = _of(named, "spectrum")
    series = tuple(_spectrum(at, name, one) for at, name, one in found)
    edges = {1 + math.sqrt(min(one["shape"]) / max(*one["shape"], 1)): name for _, name, one in found}
    label = "largest of a random matrix"
    limits = [Limit(edge, label if len(edges) == 1 else f"{label}, {name}") for edge, name in edges.items()]
    ranks = {float(one["effective_rank"]): name for _, name, one in found}
    limits += [Limit(at, f"effective rank, {ranks[at]}", vertical=True) for at in ranks if math.isfinite(at)]
    title = "Singular values of the head, or of the embedding where that is the head"
    y = "value, of the root mean square"
    return Chart("head-spectrum", title, "index", y, series, tuple(limits), y_log=True)


def _spectrum(at: int, name: str, found: Document) -> Series:
    """Over the root mean square a random matrix lies within 1 - sqrt(d/n) and 1 + sqrt(d/n), whatever its deviation."""
    values = [float(value) for value in found["values"]]
    finite = [value for value in values if math.isfinite(value)]
    size = math.sqrt(sum(value**2 for value in finite) / max(1, len(finite))) or 1.0
    least = float(found["resolution"]) * max(finite, default=0.0)  # a smaller value is rounding
    return Series.through(name, enumerate((0.0 if value <= least else value / size for value in values), 1), colour=at)


def _row_norms(named: Named) -> Chart:
    tables = [(f"{name}: {key}", table) for key in ("embedding", "head") for _, name, table in _of(named, key)]
    series = []
    for label, table in tables:
        norms = table["norms"]["quantiles"]
        series.append(Series.through(label, ((100 * i / max(1, len(norms) - 1), norm) for i, norm in enumerate(norms))))
    title = "Norms of the rows of embedding and head, ordered"
    return Chart("row-norms", title, "rows up to here, percent", "L2 norm", tuple(series), y_log=True)


def _gains(named: Named) -> Chart:
    gains = [(name, gain) for _, name, found in _of(named, "gains") for gain in found if gain["kind"] == "gain"]
    layers = [gain["layer"] for _, gain in gains if gain["place"] == "body" and gain["layer"] is not None]
    end = max(layers, default=-1)
    outside = {"embedding": -1, "last": end + 1, "head": end + 2}  # in the order of the model
    groups: Groups = defaultdict(list)
    parts = {gain["template"]: gain["part"] for _, gain in gains}
    shared = Counter(parts.values())  # templates of one layer that share a part have the template as label
    for name, gain in gains:
        x, part = -1 if gain["layer"] is None else gain["layer"], gain["part"]
        label = part if part and shared[part] == 1 else gain["template"]
        x, label = (outside[gain["place"]], "no layer's") if gain["place"] in outside else (x, label)
        groups[label if len(named) == 1 else name].append((x, gain))
    if len(groups) > SERIES:  # more kinds of norms than colours
        groups = {named[0][0]: [one for found in groups.values() for one in found]}
    series = _beside(groups, "mean", ("min", "max"))
    present = {gain["place"] for _, gain in gains}
    ticks = _layer_ticks(layers, {x: place for place, x in outside.items() if place in present})
    return Chart("gains", "Gains of norms: mean, from least to largest", "layer", "gain", series, ticks=ticks)


def _deviations(named: Named) -> Chart:
    groups: Groups = defaultdict(list)
    for _, name, found in _of(named, "matrices"):
        kinds = {one["template"] for one in found if one["layer"] is not None}
        for one in found:
            inside = one["template"] if len(kinds) < SERIES else "matrices of layers"
            x, label = (-1, "outside of layers") if one["layer"] is None else (one["layer"], inside)
            groups[label if len(named) == 1 else name].append((x, one))
    series = _beside(groups, "times_xavier")
    layers = {int(x) for found in groups.values() for x, _ in found}
    ticks = _layer_ticks(layers, {-1: "none"} if -1 in layers else {})
    title, limits = "Deviation of matrices against Xavier", (Limit(1.0, "1 / sqrt(fan in)"),)
    return Chart("deviations", title, "layer", "times Xavier's", series, limits, ticks=ticks, y_log=True)


def _beside(groups: Groups, key: str, reach: Sequence[str] = ()) -> tuple[Series, ...]:
    """Dots of each group; those of several groups at one layer are side by side."""
    middle = (len(groups) - 1) / 2
    return tuple(
        Series.through(
            label,
            ((x + APART * (place - middle), one[key]) for x, one in found),
            "dots",
            names=(one["tensor"] for _, one in found),
            reach=((one[reach[0]], one[reach[1]]) for _, one in found) if reach else (),
        )
        for place, (label, found) in enumerate(groups.items())
    )


def _states(named: Named) -> Iterator[tuple[str, list[Document]]]:
    """(label, states) of each stack of each model that was run; what the last norm returns comes after the layers."""
    for _, name, running in _of(named, "running"):
        sides: dict[str, list[Document]] = defaultdict(list)
        for state in running["states"]:
            found = sides[state["side"]]
            after = found[-1]["layer"] + 1 if found else 0
            found.append({**state, "layer": max(after, state["layer"])})
        yield from ((f"{name}: {side}" if side else name, states) for side, states in sides.items())


def _anisotropy(named: Named) -> Chart:
    series = tuple(_by_layer(label, states, "anisotropy") for label, states in _states(named))
    limits = _limits(named, "anisotropy")
    title = "Anisotropy: mean cosine of hidden states at two positions"
    return Chart("anisotropy", title, DEPTH, "mean cosine", series, limits, whole=True)


def _residual_norm(named: Named) -> Chart:
    series = tuple(_by_layer(label, states, "norm_mean", largest="norm_max") for label, states in _states(named))
    title = "Norm of hidden states: mean, up to the largest"
    return Chart("residual-norm", title, DEPTH, "L2 norm", series, whole=True, y_log=True)


def _by_layer(label: str, rows: Sequence[Document], key: str, kind: Kind = "line", largest: str = "") -> Series:
    rows = [row for row in rows if row[key] is not None]
    points, reach = ((row["layer"], row[key]) for row in rows), ((row[key], row[largest]) for row in rows if largest)
    return Series.through(label, points, kind, names=(row["name"] for row in rows), reach=reach)


def _attention_logits(named: Named) -> Chart:
    running = _of(named, "running")
    rows = [(name, [row for row in found["attention"] if row["layer"] is not None]) for _, name, found in running]
    series = tuple(_by_layer(name, found, "largest", "dots") for name, found in rows)
    limits, title = _limits(named, "attention"), "Largest attention logit"
    return Chart("attention-logits", title, "layer", "largest logit", series, limits, whole=True, y_log=True)


def _head_cut(named: Named) -> Chart:
    cuts = [(at, name, found["head_cut"]) for at, name, found in _of(named, "running") if found["head_cut"]]
    curves = ((at, name, ((point["rank"], point["loss"]) for point in cut["points"])) for at, name, cut in cuts)
    series = tuple(Series.through(name, points, colour=at) for at, name, points in curves)
    limits = (Limit(float(cut["full"]), f"whole head, {name}") for _, name, cut in cuts)
    finite = tuple(limit for limit in limits if math.isfinite(limit.at))
    title = "Loss when the head is cut to a rank"
    return Chart("head-cut", title, "rank of the head", "loss, nats", series, finite, x_log=True)


def _loss_by_position(named: Named) -> Chart:
    series = []
    for at, name, found in _of(named, "running"):
        points = ((i, loss) for i, loss in enumerate(found["loss_by_position"] or ()) if loss is not None)
        series.append(Series.through(name, points, colour=at))
    return Chart("loss-by-position", "Loss by position", "position, tokens", "loss, nats", tuple(series), whole=True)


def _limits(named: Named, theme: str) -> tuple[Limit, ...]:
    """The limits that the theme's first verdict names."""
    verdicts = [verdict for _, model in named for verdict in model["verdicts"] if verdict["theme"] == theme]
    found = verdicts[0]["limits"] if verdicts else {}
    return tuple(Limit(float(at), word, bad=word == "act") for word, at in found.items() if math.isfinite(float(at)))


def _layer_ticks(layers: Iterable[int], outside: Mapping[int, str]) -> tuple[tuple[float, str], ...]:
    places = {**{layer: str(layer) for layer in layers}, **outside}
    return tuple((float(at), places[at]) for at in sorted(places))


DRAWN: Mapping[str, Callable[[Named], Chart]] = {
    draw.__name__[1:].replace("_", "-"): draw
    for draw in (
        *(_head_spectrum, _row_norms, _gains, _deviations),
        *(_loss_by_position, _head_cut, _anisotropy, _residual_norm, _attention_logits),
    )
}
"""{name of a chart: what draws it}, in the order of the page."""
