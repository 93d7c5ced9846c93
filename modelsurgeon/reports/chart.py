"""A chart as data, which svg.py draws for a page and png.py for a file.

    Chart("loss", "Loss by position", "position, tokens", "loss, nats", (Series("demo", (0, 1, 2), (5.1, 4.8, 4.7)),))

A number that is not finite is drawn as a cross at the upper edge; on a logarithmic scale, a number that is not above
zero is on the lower edge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

TICKS = 6  # about so many of them
DECADES = 8  # of a logarithmic scale, before some of its labels are left out
SERIES = 6  # colours in the style sheet
MOST_DOTS = 60  # of a line, before only the line is drawn

Kind = Literal["line", "broad", "dots", "cloud"]


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    xs, ys  [n] each; xs are finite
    kind    a line, a broad line (on which another one can be seen), dots, or a cloud of many dots without names
    names   [n] the name of each point; empty: the label is enough
    reach   [n] (least, largest) of the values that a point is the mean of; empty: no such bar is drawn
    colour  the number of its colour in the style sheet, modulo SERIES; None: the place of the series in the chart
    """

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    kind: Kind = "line"
    names: tuple[str, ...] = ()
    reach: tuple[tuple[float, float], ...] = ()
    colour: int | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ys), *(len(more) for more in (self.names, self.reach) if more)}
        if lengths != {len(self.xs)} or not all(map(math.isfinite, self.xs)):
            raise ValueError(f"series {self.label!r}: {len(self.xs)} finite xs expected, one to each of {lengths}")

    @classmethod
    def through(
        cls,
        label: str,
        points: Iterable[tuple[Any, Any]],
        kind: Kind = "line",
        colour: int | None = None,
        names: Iterable[Any] = (),
        reach: Iterable[tuple[Any, Any]] = (),
    ) -> Series:
        """A series of points (x, y) as a document has them: y is a number, or its name if it is not finite."""
        pairs = tuple((float(x), float(y)) for x, y in points)
        xs, ys = zip(*pairs, strict=True) if pairs else ((), ())
        ends = tuple((float(least), float(largest)) for least, largest in reach)
        return cls(label, xs, ys, kind, tuple(map(str, names)), ends, colour)

    @property
    def dotted(self) -> bool:
        """Whether each point is drawn: points of dots always, points of a line if they are few."""
        return self.kind == "dots" or (self.kind == "line" and len(self.xs) <= MOST_DOTS)


@dataclass(frozen=True)
class Limit:
    """A line across the chart: a bound (`bad`), or a value to compare with."""

    at: float
    label: str
    vertical: bool = False
    bad: bool = False


@dataclass(frozen=True)
class Chart:
    """One plot.

    name    the name of its file, without the ending: small letters, digits, hyphens
    x, y    what is measured along the axes, with its unit
    ticks   (x, label) along the x axis; empty: round numbers
    whole   x counts something: ticks only at whole numbers
    square  x and y have one scale, and a line shows where they are equal
    """

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    limits: tuple[Limit, ...] = ()
    x_log: bool = False
    y_log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    whole: bool = False
    square: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", self.name):
            raise ValueError(f"chart {self.name!r}: a name of small letters, digits and hyphens expected")

    def colour(self, at: int) -> int:
        """The number of the colour of the series at this place, below SERIES."""
        own = self.series[at].colour
        return (at if own is None else own) % SERIES

    @property
    def x_range(self) -> tuple[float, float]:
        """(first, last) of the x axis, room at the ends included."""
        if self.square:
            return self.y_range
        limits = (limit.at for limit in self.limits if limit.vertical)
        xs = [x for series in self.series for x in series.xs]
        dots = any(series.kind == "dots" for series in self.series)
        return _range([*xs, *limits, *(x for x, _ in self.ticks)], self.x_log, room=0.03 if dots else 0.005)

    @property
    def y_range(self) -> tuple[float, float]:
        """(first, last) of the y axis, room at the ends included."""
        limits = (limit.at for limit in self.limits if not limit.vertical)
        reaches = (end for series in self.series for ends in series.reach for end in ends)
        values = [value for series in self.series for value in (*series.ys, *(series.xs if self.square else ()))]
        return _range([*values, *reaches, *limits], self.y_log, room=0.06)


@dataclass(frozen=True)
class Scale:
    """Map the numbers low..high to the places start..stop on the page.

    >>> Scale(0, 10, 64, 720)(5)
    392.0
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if not math.isfinite(value):
            return self.stop
        ends = self.low, self.high, max(value, self.low)
        low, high, at = map(math.log10, ends) if self.logarithmic else ends
        share = min(1.0, (at - low) / (high - low))
        return round(self.start + share * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(value, label): round numbers; on a logarithmic scale 1, 2 and 5 times powers of ten, or these alone."""
        found = _logarithmic_ticks(self.low, self.high) if self.logarithmic else []
        return found if len(found) > 1 else _even_ticks(self.low, self.high)


def _logarithmic_ticks(low: float, high: float) -> list[tuple[float, str]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, math.ceil((last - first) / DECADES))
    values = [time * 10.0**exponent for exponent in range(first, last + 1, every) for time in times]
    return [(value, _short(value)) for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def _even_ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step)))
    values = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:,.{digits}f}") for value in values]


def _short(value: float) -> str:
    """0.05, 2,000, 1e-07"""
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:g}" if 1e-3 <= value < 1 else f"{value:.0e}"


def _range(values: Iterable[float], logarithmic: bool, room: float) -> tuple[float, float]:
    """The range of the finite values, above zero if it is logarithmic, and at each end `room`, a share of the range."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
    if logarithmic:
        low, high = _range(map(math.log10, finite), False, room) if finite else (0.0, 1.0)
        return 10.0**low, 10.0**high
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return low - more, high + more
