"""A chart as SVG in the page's style: its colours follow the style sheet, light and dark; no library, no script.

    >>> str(draw(Chart("loss", "Loss", "position", "nats", (Series("demo", (0, 1), (5.1, 4.8)),))))[:4]
    '<svg'

The title of a point, which a pointer shows and a screen reader reads, says what the point is. Every text goes through
`Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from modelsurgeon.reports.chart import Chart, Limit, Scale, Series
from modelsurgeon.text import shown

WIDTH, HEIGHT, SIDE = 720, 300, 480  # of a chart; of a square one
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44  # margins of the plotting area: tick labels and titles
NEAR = 0.4  # of the page's units: a point of a line that is nearer to the one before is not seen
CHARACTER = 6.2  # width of a tick's, about


def draw(chart: Chart) -> Markup:
    """The whole drawing; where there is no point at all, its axes."""
    width, height = (SIDE, SIDE) if chart.square else (WIDTH, HEIGHT)
    x = Scale(*chart.x_range, LEFT, width - RIGHT, chart.x_log)
    y = Scale(*chart.y_range, height - BOTTOM, TOP, chart.y_log)
    lines, texts = _limits(chart.limits, x, y)
    marks = [*_axes(chart, x, y), *lines]
    marks += [_line(x.start, y.start, x.stop, y.stop, "reference")] if chart.square else []
    for at, series in enumerate(chart.series):
        marks += _series(series, x, y, chart.colour(at))
    marks += texts  # over everything else, or they could not be read
    counts = "; ".join(f"{series.label}: {len(series.xs)} points" for series in chart.series)
    limits = [f"{limit.label} at {limit.at:.3g}" for limit in chart.limits]
    described = shown("; ".join([f"{chart.y} over {chart.x}", counts, *limits]))
    begin = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img"><title>{}</title><desc>{}</desc>')
    return begin.format(width, height, width, chart.title, described) + Markup("").join(marks) + Markup("</svg>")


def legend(chart: Chart) -> list[tuple[str, str]]:
    """(label, class of its key) of each series but clouds, for the caption."""
    named = [(at, series) for at, series in enumerate(chart.series) if series.kind != "cloud"]
    return [(series.label, f"k{chart.colour(at)}") for at, series in named]


def _axes(chart: Chart, x: Scale, y: Scale) -> Iterable[Markup]:
    for value, label in y.ticks:
        yield _line(x.start, y(value), x.stop, y(value), "grid")
        yield _text("tick", x.start - 8, y(value) + 4, "end", label)
    upright = Markup('<text text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>')
    yield upright.format(round((y.start + y.stop) / 2, 1), shown(chart.y))
    edge = -math.inf
    for value, label in chart.ticks or [tick for tick in x.ticks if tick[0] == int(tick[0]) or not chart.whole]:
        half = len(label) * CHARACTER / 2
        if x(value) - half > edge:  # else it would be written over the one before
            yield _text("tick", x(value), y.start + 18, "middle", label)
            edge = x(value) + half + CHARACTER
    yield _text("", round((x.start + x.stop) / 2, 1), y.start + BOTTOM - 6, "middle", chart.x)


def _limits(limits: Iterable[Limit], x: Scale, y: Scale) -> tuple[list[Markup], list[Markup]]:
    """(a line each, their labels): labels alternate between two places, for limits may be close together."""
    lines, texts = [], []
    for at, limit in enumerate(limits):
        kind = "limit" if limit.bad else "reference"
        if limit.vertical:
            lines.append(_line(x(limit.at), y.start, x(limit.at), y.stop, kind))
            texts.append(_text(kind, x(limit.at) - 5, TOP + 10 + 14 * (at % 2), "end", limit.label))
        else:
            place, anchor = (x.start + 6, "start") if at % 2 else (x.stop - 4, "end")
            lines.append(_line(x.start, y(limit.at), x.stop, y(limit.at), kind))
            texts.append(_text(kind, place, y(limit.at) - 5, anchor, limit.label))
    return lines, texts


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
        if not math.isfinite(value):
            cross = Markup('<path class="cross" d="M{} {}m-4 -4l8 8m0 -8l-8 8"><title>{}</title></path>')
            yield cross.format(a, b, shown(_described(series, at)))
        elif series.dotted:
            dot = Markup('<circle class="dot c{}" cx="{}" cy="{}" r="4"><title>{}</title></circle>')
            yield dot.format(colour, a, b, shown(_described(series, at)))


def _seen(places: list[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """The points of a line that can be told from the ones before, and the last."""
    kept = None
    for place in places:
        if kept is None or place is places[-1] or math.dist(place, kept) >= NEAR:
            kept = place
            yield place


def _described(series: Series, at: int) -> str:
    name = series.names[at] if series.names else f"{series.label}, {series.xs[at]:g}"
    spread = " ({:.3g} to {:.3g})".format(*series.reach[at]) if series.reach else ""
    return f"{name}: {series.ys[at]:.4g}{spread}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, anchor: str, text: str) -> Markup:
    drawn = Markup('<text class="{}" text-anchor="{}" x="{}" y="{}">{}</text>')
    return drawn.format(kind, anchor, x, y, shown(text))
