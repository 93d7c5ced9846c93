"""The charts of a verification: errors by layer, logits, losses by position, cosines of copies.

>>> by_position({"before": [4.7, 4.6], "after": [4.7, 4.6]}).series[0].ys
(4.7, 4.6)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from modelsurgeon.architectures.plain_names import plain
from modelsurgeon.reports.chart import Chart, Limit, Series

APART = 0.07  # of the distance between two axes: between the tick of an axis and the marks of gradients and weights

Document = Mapping[str, Any]


def against(points: Document) -> Chart:
    """Each logit of the result over the same logit of the source; equal ones are on the diagonal."""
    pairs = [(float(a), float(b)) for a, b in zip(points["before"], points["after"], strict=True)]
    placed = ((a, b) if math.isfinite(a) else (0.0, math.nan) for a, b in pairs)
    series = Series.through("logits", placed, "cloud", 0, names=(f"{a:.4g} -> {b:.4g}" for a, b in pairs))
    title = "logit of the result over those of the source"
    return Chart("logits", title, "logit of the source", "logit of the result", (series,), square=True)


def by_position(losses: Document) -> Chart:
    """The loss at each position: of the source a broad line, of the result a thin one on top of it."""
    before, after = (
        [(at, loss) for at, loss in enumerate(losses[side]) if loss is not None] for side in ("before", "after")
    )
    series = Series.through("source", before, "broad", 0), Series.through("result", after, "line", 1)
    return Chart("loss-by-position", "loss by position", "position, tokens", "loss, nats", series, whole=True)


def by_layer(layers: Document) -> Chart:
    """The error at each place of the model, in the order of computation, with its limit; logarithmic.

    In 16 bits every place has a limit of its own, and a broad line shows them.
    """
    rows = layers["rows"]
    parts: dict[str, list[tuple[int, Document]]] = defaultdict(list)
    for at, row in enumerate(rows):
        parts["outside of layers" if row["layer"] is None else str(row["part"]) or "whole layer"].append((at, row))
    series = tuple(
        Series.through(
            part, ((at, row["max_rel"]) for at, row in found), "dots", number, names=(row["name"] for _, row in found)
        )
        for number, (part, found) in enumerate(parts.items())
    )
    before = [None, *(row["layer"] for row in rows)]
    begins = [at for at, row in enumerate(rows) if row["layer"] not in (None, before[at])]
    limits: tuple[Limit, ...] = (Limit(float(layers["tolerance"]), "tolerance", bad=True),)
    if noisy := [(at, row["limit"]) for at, row in enumerate(rows) if row.get("noise") is not None]:
        series, limits = (Series.through("limit by own noise", noisy, "broad", len(series)), *series), ()
    ticks = tuple((float(at), str(rows[at]["layer"])) for at in begins)
    x, y = "layer, in the order of computation", "error, of the deviation"
    return Chart("error-by-layer", "Error by layer", x, y, series, limits, y_log=True, ticks=ticks)


def cosines(axes: Sequence[Document]) -> Chart:
    """For each axis that grew, from the least to the largest cosine of two copies: of gradients and of weights."""
    series = []
    for label, key, side, colour in (("gradients", "cosine", -APART, 0), ("weights", "weight_cosine", APART, 1)):
        found = [(at + side, axis[key]) for at, axis in enumerate(axes) if axis[key] and axis[key]["mean"] is not None]
        means, reach = ((x, one["mean"]) for x, one in found), ((one["min"], one["max"]) for _, one in found)
        series.append(Series.through(label, means, "dots", colour, (label for _ in found), reach))
    ticks = (-0.5, ""), *((float(at), plain(str(axis["axis"]))) for at, axis in enumerate(axes)), (len(axes) - 0.5, "")
    limit = Limit(1.0, "1: equal for ever", bad=True)
    return Chart("cosines", "Cosines of copies", "axis", "cosine of two copies", tuple(series), (limit,), ticks=ticks)
