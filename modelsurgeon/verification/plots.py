"""Plots of a report as SVG, drawn from numbers alone: no library, no script, colours from the page's style sheet.

    >>> str(by_position([4.7, 4.6], [4.7, 4.6], "loss"))[:4]
    '<svg'

Every text goes through `Markup.format`, which escapes it: names come from files. A number that is not finite is drawn
at the upper edge as a cross; on a logarithmic scale, zero is drawn on the lower edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from modelsurgeon.files import shown

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44  # margins of the plotting area: tick labels and titles
TICKS = 6  # about so many of them
DECADES = 8  # of a logarithmic scale, before some of its labels are left out
SERIES = 6  # colours in the style sheet


@dataclass(frozen=True)
class Scale:
    """Numbers low..high to places start..stop on the page."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if not math.isfinite(value):
            return self.stop
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = min(1.0, max(0.0, (at - low) / (high - low)))
        return round(self.start + share * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(value, label)."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first) / DECADES))
            return [(10.0**exponent, f"1e{exponent}") for exponent in range(first, last + 1, every)]
        step = _step((self.high - self.low) / TICKS)
        digits = max(0, -math.floor(math.log10(step)))
        first = math.ceil(self.low / step - 1e-9)
        values = [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(value, f"{value:,.{digits}f}") for value in values]


def by_layer(layers: Mapping[str, Any]) -> Markup:
    """The error at each place of the model, in the order of computation, with the tolerance; logarithmic."""
    rows, tolerance = layers["rows"], float(layers["tolerance"])
    errors = [float(row["max_rel"]) for row in rows]
    colours = dict(parts_of(layers))
    x = Scale(-0.5, max(len(rows), 1) - 0.5, LEFT, WIDTH - RIGHT)
    y = _decades([*errors, tolerance])
    marks = [*_axis_y(y, "error, of the deviation"), _line(x(-0.5), y(tolerance), x(len(rows)), y(tolerance), "limit")]
    marks.append(Markup('<text class="said limit" x="{}" y="{}">tolerance</text>').format(LEFT + 6, y(tolerance) - 5))
    for at, (row, error) in enumerate(zip(rows, errors, strict=True)):
        told = f"{row['name']}: {error:.1e}"
        marks.append(_mark(x(at), y(error), error, colours[_part(row)], told))
    marks += [_tick_x(x(at), label) for at, label in _layer_ticks(rows)]
    marks.append(_title_x("layer, in the order of computation"))
    return _svg("Error by layer", f"{len(rows)} places, the tolerance is {tolerance:.0e}", marks)


def parts_of(layers: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(part of a layer, number of its colour): the legend of `by_layer`."""
    return [(part, at % SERIES) for at, part in enumerate(dict.fromkeys(map(_part, layers["rows"])))]


def _part(row: Mapping[str, Any]) -> str:
    return "outside of layers" if row["layer"] is None else str(row["part"]) or "whole layer"


def against(before: Sequence[Any], after: Sequence[Any], what: str) -> Markup:
    """Each number of the result over the same one of the source; equal ones lie on the diagonal."""
    pairs = [(float(a), float(b)) for a, b in zip(before, after, strict=True)]
    low, high = _range([value for pair in pairs for value in pair])
    side = WIDTH - 240
    x, y = Scale(low, high, LEFT, side - RIGHT), Scale(low, high, side - BOTTOM, TOP)
    dots = "".join(f"M{x(a)} {y(b)}h0" for a, b in pairs if math.isfinite(a) and math.isfinite(b))
    crosses = [_cross(x(a), y(b), f"{a} -> {b}") for a, b in pairs if not (math.isfinite(a) and math.isfinite(b))]
    marks = [
        *_axis_y(y, f"{what} of the result", side),
        *(_tick_x(x(value), label, side) for value, label in x.ticks),
        _title_x(f"{what} of the source", side, side),
        _line(x(low), y(low), x(high), y(high), "same"),
        Markup('<path class="dots" d="{}"/>').format(dots),
        *crosses,
    ]
    return _svg(f"{what} of the result over those of the source", f"{len(pairs)} points", marks, side, side)


def by_position(before: Sequence[Any], after: Sequence[Any], what: str) -> Markup:
    """Two lines over positions: the source's broad, the result's thin on top of it."""
    lines = [[(at, float(value)) for at, value in enumerate(values) if value is not None] for values in (before, after)]
    low, high = _range([value for line in lines for _, value in line])
    count = max(len(before), len(after))
    x, y = Scale(0, max(count - 1, 1), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP)
    marks = [*_axis_y(y, f"{what}, nats"), *(_tick_x(x(v), label) for v, label in x.ticks if v == int(v))]
    for line, kind in zip(lines, ("before", "after"), strict=True):
        places = " ".join(f"{x(at)},{y(value)}" for at, value in line if math.isfinite(value))
        marks.append(Markup('<polyline class="{}" points="{}"/>').format(kind, places))
        marks += [_cross(x(at), y(value), f"position {at}: {value}") for at, value in line if not math.isfinite(value)]
    marks.append(_title_x("position, tokens"))
    return _svg(f"{what} by position", f"{count} positions, source and result", marks)


def cosines(axes: Sequence[Mapping[str, Any]]) -> Markup:
    """For each axis, from the least to the largest cosine of two copies: of gradients, and under them of weights."""
    height = TOP + 54 * len(axes) + BOTTOM
    x = Scale(-1, 1, LEFT + 110, WIDTH - RIGHT - 10)
    marks: list[Markup] = []
    for value, label in x.ticks:
        marks.append(_line(x(value), TOP, x(value), height - BOTTOM, "limit" if value == 1 else "grid"))
        marks.append(_tick_x(x(value), label, height))
    for at, axis in enumerate(axes):
        middle = TOP + 54 * at + 27
        marks.append(_label(x.start - 12, middle + 4, axis["axis"]))
        marks += _span(x, middle - 8, axis["cosine"], 0, "gradients")
        marks += _span(x, middle + 9, axis["weight_cosine"], 1, "weights")
    marks.append(_title_x("cosine of two copies (1: equal for ever)", height=height, start=x.start))
    return _svg("Cosines of copies", f"{len(axes)} axes; gradients and weights, least to largest", marks, WIDTH, height)


def _span(x: Scale, y: float, cosine: Mapping[str, Any] | None, colour: int, what: str) -> list[Markup]:
    if not cosine or cosine["mean"] is None:
        return []
    least, mean, most = (float(cosine[key]) for key in ("min", "mean", "max"))
    told = f"{what}: {least:.4f} to {most:.4f}, mean {mean:.4f}"
    bar = Markup('<line class="span c{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(colour, x(least), y, x(most), y)
    return [bar, _mark(x(mean), y, mean, colour, told)]


def _layer_ticks(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """(row, layer) where each layer begins, as many as have room."""
    layers = [row["layer"] for row in rows]
    begins = [at for at, layer in enumerate(layers) if layer is not None and layer != ([None, *layers])[at]]
    every = max(1, math.ceil(len(begins) / (4 * TICKS)))
    return [(at, str(layers[at])) for at in begins[::every]]


def _range(values: Iterable[float]) -> tuple[float, float]:
    """The finite ones' range, with a little room."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _decades(values: Iterable[float]) -> Scale:
    """A logarithmic scale of whole decades that holds all that are above zero."""
    positive = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    low, high = math.floor(min(positive, default=-8) - 0.3), math.ceil(max(positive, default=0) + 0.3)
    return Scale(10.0**low, 10.0**high, HEIGHT - BOTTOM, TOP, logarithmic=True)


def _step(rough: float) -> float:
    """The nearest larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))


# --- marks -----------------------------------------------------------------------------------------------------------


def _svg(title: str, told: str, marks: Iterable[Markup], width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """The whole drawing, with what a reader who does not see it is told."""
    begin = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img"><title>{}</title><desc>{}</desc>')
    return begin.format(width, height, width, title, told) + Markup("").join(marks) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _axis_y(y: Scale, title: str, width: float = WIDTH) -> list[Markup]:
    """A line and a label for each tick, and what is measured, upright at the left edge."""
    marks = [_line(LEFT, y(value), width - RIGHT, y(value), "grid") for value, _ in y.ticks]
    marks += [_label(LEFT - 8, y(value) + 4, label) for value, label in y.ticks]
    at = round((y.start + y.stop) / 2, 1)
    upright = Markup('<text class="said" text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>')
    return [*marks, upright.format(at, title)]


def _label(x: float, y: float, text: str) -> Markup:
    return Markup('<text class="tick" text-anchor="end" x="{}" y="{}">{}</text>').format(x, y, shown(text))


def _tick_x(x: float, text: str, height: float = HEIGHT) -> Markup:
    at = height - BOTTOM + 18
    return Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>').format(x, at, text)


def _title_x(text: str, width: float = WIDTH, height: float = HEIGHT, start: float = LEFT) -> Markup:
    said = Markup('<text class="said" text-anchor="middle" x="{}" y="{}">{}</text>')
    return said.format(round((start + width - RIGHT) / 2, 1), height - 6, text)


def _mark(x: float, y: float, value: float, colour: int, told: str) -> Markup:
    """A dot, or a cross for what is not finite; `told` is shown under the pointer."""
    if not math.isfinite(value):
        return _cross(x, y, told)
    dot = Markup('<circle class="dot c{}" cx="{}" cy="{}" r="4"><title>{}</title></circle>')
    return dot.format(colour % SERIES, x, y, shown(told))


def _cross(x: float, y: float, told: str) -> Markup:
    drawn = Markup('<path class="cross" d="M{} {}m-4 -4l8 8m0 -8l-8 8"><title>{}</title></path>')
    return drawn.format(x, y, shown(told))
