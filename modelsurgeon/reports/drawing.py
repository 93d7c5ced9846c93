"""Marks of a drawing as SVG, made from numbers alone: no library, no script, colours from the page's style sheet.

    >>> Scale(0, 10, LEFT, WIDTH)(5)
    392.0

Every text goes through `Markup.format`, which escapes it: names come from files. A number that is not finite is drawn
at the upper edge as a cross; on a logarithmic scale, zero is drawn on the lower edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from modelsurgeon.text import shown

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


def span_of(values: Iterable[float]) -> tuple[float, float]:
    """The finite ones' range, with a little room."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def decades(values: Iterable[float]) -> Scale:
    """A logarithmic scale of whole decades that holds all that are above zero."""
    positive = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    low, high = math.floor(min(positive, default=-8) - 0.3), math.ceil(max(positive, default=0) + 0.3)
    return Scale(10.0**low, 10.0**high, HEIGHT - BOTTOM, TOP, logarithmic=True)


def svg(title: str, told: str, marks: Iterable[Markup], width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """The whole drawing, with what a reader who does not see it is told."""
    begin = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img"><title>{}</title><desc>{}</desc>')
    return begin.format(width, height, width, title, told) + Markup("").join(marks) + Markup("</svg>")


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def axis_y(y: Scale, title: str, width: float = WIDTH) -> list[Markup]:
    """A line and a label for each tick, and what is measured, upright at the left edge."""
    marks = [line(LEFT, y(value), width - RIGHT, y(value), "grid") for value, _ in y.ticks]
    marks += [label(LEFT - 8, y(value) + 4, said) for value, said in y.ticks]
    at = round((y.start + y.stop) / 2, 1)
    upright = Markup('<text class="said" text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>')
    return [*marks, upright.format(at, title)]


def label(x: float, y: float, text: str) -> Markup:
    return Markup('<text class="tick" text-anchor="end" x="{}" y="{}">{}</text>').format(x, y, shown(text))


def tick_x(x: float, text: str, height: float = HEIGHT) -> Markup:
    at = height - BOTTOM + 18
    return Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>').format(x, at, text)


def title_x(text: str, width: float = WIDTH, height: float = HEIGHT, start: float = LEFT) -> Markup:
    said = Markup('<text class="said" text-anchor="middle" x="{}" y="{}">{}</text>')
    return said.format(round((start + width - RIGHT) / 2, 1), height - 6, text)


def mark(x: float, y: float, value: float, colour: int, told: str) -> Markup:
    """A dot, or a cross for what is not finite; `told` is shown under the pointer."""
    if not math.isfinite(value):
        return cross(x, y, told)
    dot = Markup('<circle class="dot c{}" cx="{}" cy="{}" r="4"><title>{}</title></circle>')
    return dot.format(colour % SERIES, x, y, shown(told))


def cross(x: float, y: float, told: str) -> Markup:
    drawn = Markup('<path class="cross" d="M{} {}m-4 -4l8 8m0 -8l-8 8"><title>{}</title></path>')
    return drawn.format(x, y, shown(told))


def _step(rough: float) -> float:
    """The nearest larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
