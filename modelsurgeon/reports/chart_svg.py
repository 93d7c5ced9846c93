"""A chart as SVG in the page's style: its colours follow the style sheet, light and dark.

    >>> str(draw(Chart("loss", "Loss", "position", "nats", (Series("demo", (0, 1), (5.1, 4.8)),))))[:4]
    '<svg'

What a point is stands in its title, which is shown under the pointer and read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from modelsurgeon.reports import drawing as marks
from modelsurgeon.reports.chart import Chart, Limit, Series, ticks
from modelsurgeon.reports.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, SERIES, TOP, WIDTH, Scale
from modelsurgeon.text import shown

MOST_DOTS = 60  # of a line, before only the line is drawn
NEAR = 0.4  # of the page's units: a point of a line that lies nearer to the one before is not seen
CHARACTER = 6.2  # width of a tick's, about


def draw(chart: Chart) -> Markup:
    """The whole drawing; where there is no point at all, its axes."""
    x = Scale(*chart.x_range, LEFT, WIDTH - RIGHT, chart.x_log)
    y = Scale(*chart.y_range, HEIGHT - BOTTOM, TOP, chart.y_log)
    lines, texts = _limits(chart.limits, x, y)
    drawn = [*_axes(chart, x, y), *lines]
    for at, series in enumerate(chart.series):
        drawn += _series(series, x, y, chart.colour(at) % SERIES)
    drawn += texts  # over everything else, or they could not be read
    said = "; ".join(f"{series.label}: {len(series.xs)} points" for series in chart.series)
    limits = [f"{limit.label} at {limit.at:.3g}" for limit in chart.limits]
    return marks.svg(chart.title, shown("; ".join([f"{chart.y} over {chart.x}", said, *limits])), drawn)


def legend(chart: Chart) -> list[tuple[str, str]]:
    """(label, class of its key) of each series, for the caption."""
    return [(series.label, f"k{chart.colour(at) % SERIES}") for at, series in enumerate(chart.series)]


def _axes(chart: Chart, x: Scale, y: Scale) -> Iterable[Markup]:
    for value, said in _ticks(y):
        yield marks.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")
        yield marks.label(LEFT - 8, y(value) + 4, said)
    upright = Markup('<text class="said" text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>')
    yield upright.format(round((y.start + y.stop) / 2, 1), chart.y)
    places = chart.ticks or [(value, said) for value, said in _ticks(x) if value == int(value) or not chart.whole]
    edge = -math.inf
    for value, said in places:
        half = len(said) * CHARACTER / 2
        if x(value) - half > edge:  # else it would be written over the one before
            yield marks.tick_x(x(value), said)
            edge = x(value) + half + CHARACTER
    yield marks.title_x(chart.x)


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    return ticks(scale.low, scale.high) if scale.logarithmic else scale.ticks


def _limits(limits: Iterable[Limit], x: Scale, y: Scale) -> tuple[list[Markup], list[Markup]]:
    """(a line each, what they are); that stands at two places by turns, for limits may lie close together."""
    text = Markup('<text class="said {}" x="{}" y="{}" text-anchor="{}">{}</text>')
    lines, texts = [], []
    for at, limit in enumerate(limits):
        kind, said = "limit" if limit.bad else "reference", shown(limit.label)
        if limit.vertical:
            lines.append(marks.line(x(limit.at), y.start, x(limit.at), y.stop, kind))
            texts.append(text.format(kind, x(limit.at) - 5, TOP + 10 + 14 * (at % 2), "end", said))
        else:
            place, anchor = (LEFT + 6, "start") if at % 2 else (WIDTH - RIGHT - 4, "end")
            lines.append(marks.line(x.start, y(limit.at), x.stop, y(limit.at), kind))
            texts.append(text.format(kind, place, y(limit.at) - 5, anchor, said))
    return lines, texts


def _series(series: Series, x: Scale, y: Scale, colour: int) -> Iterable[Markup]:
    places = [(x(a), y(b)) for a, b in zip(series.xs, series.ys, strict=True)]
    for (at, _), (least, most) in zip(places, series.reach, strict=False):
        if math.isfinite(least) and math.isfinite(most):
            yield marks.line(at, y(least), at, y(most), f"reach c{colour}")
    if series.kind == "line":
        finite = [place for place, value in zip(places, series.ys, strict=True) if math.isfinite(value)]
        points = " ".join(f"{a},{b}" for a, b in _seen(finite))
        yield Markup('<polyline class="curve c{}" points="{}"/>').format(colour, points)
    few = series.kind == "dots" or len(places) <= MOST_DOTS
    for at, (place, value) in enumerate(zip(places, series.ys, strict=True)):
        if few or not math.isfinite(value):
            yield marks.mark(*place, value, colour, _told(series, at))


def _seen(places: list[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """The points of a line that can be told from the ones before, and the last."""
    kept = None
    for place in places:
        if kept is None or place is places[-1] or math.dist(place, kept) >= NEAR:
            kept = place
            yield place


def _told(series: Series, at: int) -> str:
    name = series.names[at] if series.names else f"{series.label}, {series.xs[at]:g}"
    spread = " ({:.3g} to {:.3g})".format(*series.reach[at]) if series.reach else ""
    return f"{name}: {series.ys[at]:.4g}{spread}"
