"""The charts of a verification: errors by layer, logits, losses by position, cosines of copies.

>>> by_position({"before": [4.7, 4.6], "after": [4.7, 4.6]}).series[0].ys
(4.7, 4.6)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from modelsurgeon.reports.chart import SERIES, Chart, Kind, Limit, Series

APART = 0.07  # of the distance between two axes: from their middle to the mark of gradients, and of weights

Document = Mapping[str, Any]


def against(points: Document) -> Chart:
    """Each logit of the result over the same one of the source; equal ones lie on the diagonal."""
    pairs = [(float(a), float(b)) for a, b in zip(points["before"], points["after"], strict=True)]
    placed = [(a, b) if math.isfinite(a) else (0.0, math.nan) for a, b in pairs]
    xs, ys = tuple(a for a, _ in placed), tuple(b for _, b in placed)
    series = Series("logits", xs, ys, "cloud", tuple(f"{a:.4g} -> {b:.4g}" for a, b in pairs), colour=0)
    title = "logit of the result over those of the source"
    return Chart("logits", title, "logit of the source", "logit of the result", (series,), square=True)


def by_position(losses: Document) -> Chart:
    """The loss at each position: of the source a broad line, of the result a thin one on top of it."""
    lines: tuple[tuple[str, str, Kind, int], ...] = ("source", "before", "broad", 0), ("result", "after", "line", 1)
    series = []
    for label, side, kind, colour in lines:
        points = ((at, loss) for at, loss in enumerate(losses[side]) if loss is not None)
        series.append(Series.through(label, points, kind, colour))
    return Chart(
        "loss-by-position",
        "loss by position",
        "position, tokens",
        "loss, nats",
        tuple(series),
        whole=True,
    )


def by_layer(layers: Document) -> Chart:
    """The error at each place of the model, in the order of computation, with the tolerance; logarithmic."""
    rows = layers["rows"]
    parts: dict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        parts["outside of layers" if row["layer"] is None else str(row["part"]) or "whole layer"].append(at)
    series = tuple(
        Series(
            part,
            tuple(map(float, places)),
            tuple(float(rows[at]["max_rel"]) for at in places),
            "dots",
            tuple(str(rows[at]["name"]) for at in places),
            colour=number % SERIES,
        )
        for number, (part, places) in enumerate(parts.items())
    )
    before = [None, *(row["layer"] for row in rows)]
    begins = [at for at, row in enumerate(rows) if row["layer"] not in (None, before[at])]
    limit = Limit(float(layers["tolerance"]), "tolerance", bad=True)
    ticks = tuple((float(at), str(rows[at]["layer"])) for at in begins)
    x, y = "layer, in the order of computation", "error, of the deviation"
    return Chart("error-by-layer", "Error by layer", x, y, series, (limit,), y_log=True, ticks=ticks)


def cosines(axes: Sequence[Document]) -> Chart:
    """For each axis that grew, from the least to the largest cosine of two copies: of gradients and of weights."""
    series = []
    for label, key, side, colour in (("gradients", "cosine", -APART, 0), ("weights", "weight_cosine", APART, 1)):
        found = [(at + side, axis[key]) for at, axis in enumerate(axes) if axis[key] and axis[key]["mean"] is not None]
        xs, means = tuple(x for x, _ in found), tuple(float(cosine["mean"]) for _, cosine in found)
        reach = tuple((float(cosine["min"]), float(cosine["max"])) for _, cosine in found)
        series.append(Series(label, xs, means, "dots", (label,) * len(xs), reach, colour))
    edges = (-0.5, ""), (len(axes) - 0.5, "")
    ticks = (edges[0], *((float(at), str(axis["axis"])) for at, axis in enumerate(axes)), edges[1])
    limit = Limit(1.0, "1: equal for ever", bad=True)
    return Chart("cosines", "Cosines of copies", "axis", "cosine of two copies", tuple(series), (limit,), ticks=ticks)
