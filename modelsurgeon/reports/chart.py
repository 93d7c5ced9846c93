"""A chart as data, which chart_svg.py draws for a page and chart_png.py for a file.

    Chart("loss", "Loss by position", "position, tokens", "loss, nats", (Series("demo", (0, 1, 2), (5.1, 4.8, 4.7)),))

A number that is not finite is drawn as a cross at the upper edge; on a logarithmic scale, what is not above zero lies
on the lower edge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from modelsurgeon.reports.drawing import DECADES, Scale


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    xs, ys  [n] each; xs are finite
    kind    joined by a line, or dots alone
    names   [n] what each point is; none: the label says enough
    reach   [n] (least, largest) of what a point is the mean of; none: nothing is drawn of it
    colour  its number in the style sheet, counted around; None: the series' own place in the chart
    """

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    kind: Literal["line", "dots"] = "line"
    names: tuple[str, ...] = ()
    reach: tuple[tuple[float, float], ...] = ()
    colour: int | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ys), *(len(more) for more in (self.names, self.reach) if more)}
        if lengths != {len(self.xs)} or not all(map(math.isfinite, self.xs)):
            raise ValueError(f"series {self.label!r}: {len(self.xs)} finite xs expected, one to each of {lengths}")


@dataclass(frozen=True)
class Limit:
    """A line across the chart: a bound (`bad`: not to be crossed), or what something is compared with."""

    at: float
    label: str
    vertical: bool = False
    bad: bool = False


@dataclass(frozen=True)
class Chart:
    """One plot.

    name    of its file, without the ending: small letters, digits, hyphens
    x, y    what is measured along the axes, with its unit
    ticks   (x, label) along the x axis; none: round numbers
    whole   x counts something: ticks only at whole numbers
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", self.name):
            raise ValueError(f"chart {self.name!r}: a name of small letters, digits and hyphens expected")

    def colour(self, at: int) -> int:
        """The number of the colour of one of its series."""
        own = self.series[at].colour
        return at if own is None else own

    @property
    def x_range(self) -> tuple[float, float]:
        """What the x axis must hold, room at the ends included."""
        limits = (limit.at for limit in self.limits if limit.vertical)
        xs = [x for series in self.series for x in series.xs]
        dots = any(series.kind == "dots" for series in self.series)
        return _range([*xs, *limits, *(x for x, _ in self.ticks)], self.x_log, room=0.03 if dots else 0.005)

    @property
    def y_range(self) -> tuple[float, float]:
        limits = (limit.at for limit in self.limits if not limit.vertical)
        reaches = (end for series in self.series for ends in series.reach for end in ends)
        return _range([*(y for series in self.series for y in series.ys), *reaches, *limits], self.y_log, room=0.06)


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """(value, label) along a logarithmic axis: 1, 2 and 5 times powers of ten, or these alone where they are enough."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, math.ceil((last - first) / DECADES))
    values = [time * 10.0**exponent for exponent in range(first, last + 1, every) for time in times]
    found = [(value, short(value)) for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found if len(found) > 1 else Scale(low, high, 0, 1).ticks


def short(value: float) -> str:
    """A tick of a logarithmic axis: 0.05, 2,000, 1e-07."""
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:g}" if 1e-3 <= value < 1 else f"{value:.0e}"


def _range(values: Iterable[float], logarithmic: bool, room: float) -> tuple[float, float]:
    """The finite ones' range, above zero where it is logarithmic; with a little room, a share of it at each end."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
    if logarithmic:
        low, high = _range(map(math.log10, finite), False, room) if finite else (0.0, 1.0)
        return 10.0**low, 10.0**high
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return low - more, high + more
