"""A chart as SVG: its colours follow the page's style sheet, light and dark; no library, no script.

    >>> str(draw(Chart("loss", "Loss", "position", "nats", (Series("demo", (0, 1), (5.1, 4.8)),))))[:4]
    '<svg'

Every point has a title, which a pointer shows and a screen reader reads. `Markup.format` escapes every text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from modelsurgeon.reports.chart import Chart, Limit, Scale, Series
from modelsurgeon.text import shown

WIDTH, HEIGHT, SIDE = 720, 300, 480  # of a chart; of a square one
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44  # margins of the plotting area: tick labels and titles
NEAR = 0.4  # in units of the page: a point of a line that is nearer to the one before cannot be seen
CHARACTER = 6.2  # the width of a character of a tick, about


def draw(chart: Chart) -> Markup:
    """The whole drawing; of a chart without points, its axes."""
    width, height = (SIDE, SIDE) if chart.square else (WIDTH, HEIGHT)
    x = Scale(*chart.x_range, LEFT, width - RIGHT, chart.x_log)
    y = Scale(*chart.y_range, height - BOTTOM, TOP, chart.y_log)
    limits = [_limit(limit, x, y, other=bool(at % 2)) for at, limit in enumerate(chart.limits)]
    marks = [*_axes(chart, x, y), *(line for line, _ in limits)]
    marks += [_line(x.start, y.start, x.stop, y.stop, "reference")] if chart.square else []
    for at, series in enumerate(chart.series):
        marks += _series(series, x, y, chart.colour(at))
    marks += [label for _, label in limits]  # over everything else, so that they can be read
    counts = "; ".join(f"{series.label}: {len(series.xs)} points" for series in chart.series)
    values = [f"{limit.label} at {limit.at:.3g}" for limit in chart.limits]
    described = shown("; ".join([f"{chart.y} over {chart.x}", counts, *values]))
    begin = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img"><title>{}</title><desc>{}</desc>')
    return begin.format(width, height, width, chart.title, described) + Markup("").join(marks) + Markup("</svg>")


def legend(chart: Chart) -> list[tuple[str, str]]:
    """(label, class of its key) of each series but clouds, for the caption."""
    return [(one.label, f"k{chart.colour(at)}") for at, one in enumerate(chart.series) if one.kind != "cloud"]


def _axes(chart: Chart, x: Scale, y: Scale) -> Iterable[Markup]:
    for value, label in y.ticks:
        yield _line(x.start, y(value), x.stop, y(value), "grid")
        yield _text("tick", x.start - 8, y(value) + 4, "end", label)
    upright = Markup('<text text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>')
    yield upright.format(round((y.start + y.stop) / 2, 1), shown(chart.y))
    edge = -math.inf
    for value, label in chart.ticks or [tick for tick in x.ticks if tick[0] == int(tick[0]) or not chart.whole]:
        half = len(label) * CHARACTER / 2
        if x(value) - half > edge:  # else it would cover part of the one before
            yield _text("tick", x(value), y.start + 18, "middle", label)
            edge = x(value) + half + CHARACTER
    yield _text("", round((x.start + x.stop) / 2, 1), y.start + BOTTOM - 6, "middle", chart.x)


def _limit(limit: Limit, x: Scale, y: Scale, other: bool) -> tuple[Markup, Markup]:
    """(line, label); the label is at one of two places, for limits may be close together."""
    kind = "limit" if limit.bad else "reference"
    if limit.vertical:
        at = x(limit.at)
        return _line(at, y.start, at, y.stop, kind), _text(kind, at - 5, TOP + 10 + 14 * other, "end", limit.label)
    at, (place, anchor) = y(limit.at), (x.start + 6, "start") if other else (x.stop - 4, "end")
    return _line(x.start, at, x.stop, at, kind), _text(kind, place, at - 5, anchor, limit.label)


def _series(series: Series, x: Scale, y: Scale, colour: int) -> Iterable[Markup]:
    places = [(x(a), y(b)) for a, b in zip(series.xs, series.ys, strict=True)]
    finite = [place for place, value in zip(places, series.ys, strict=True) if math.isfinite(value)]
    for (at, _), (least, most) in zip(places, series.reach, strict=False):
        if math.isfinite(least) and math.isfinite(most):
            yield _line(at, y(least), at, y(most), f"reach c{colour}")
    if series.kind in ("line", "broad"):
        points = " ".join(f"{a},{b}" for a, b in _seen(finite))
        yield Markup('<polyline class="{} c{}" points="{}"/>').format(series.kind, colour, points)
    if series.kind == "cloud":
        points = "".join(f"M{a} {b}h0" for a, b in finite)
        yield Markup('<path class="cloud c{}" d="{}"/>').format(colour, points)
    for at, ((a, b), value) in enumerate(zip(places, series.ys, strict=True)):
        name = series.names[at] if series.names else f"{series.label}, {series.xs[at]:g}"
        spread = " ({:.3g} to {:.3g})".format(*series.reach[at]) if series.reach else ""
        title = shown(f"{name}: {value:.4g}{spread}")
        if not math.isfinite(value):
            cross = Markup('<path class="cross" d="M{} {}m-4 -4l8 8m0 -8l-8 8"><title>{}</title></path>')
            yield cross.format(a, b, title)
        elif series.dotted:
            dot = Markup('<circle class="dot c{}" cx="{}" cy="{}" r="4"><title>{}</title></circle>')
            yield dot.format(colour, a, b, title)


def _seen(places: list[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """The points of a line that are not too near to the one before, and the last."""
    seen = None
    for place in places:
        if seen is None or place is places[-1] or math.dist(place, seen) >= NEAR:
            yield (seen := place)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, anchor: str, text: str) -> Markup:
    drawn = Markup('<text class="{}" text-anchor="{}" x="{}" y="{}">{}</text>')
    return drawn.format(kind, anchor, x, y, shown(text))
