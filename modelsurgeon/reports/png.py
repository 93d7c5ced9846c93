"""Charts as PNG files, drawn by matplotlib: an extra, `pip install 'modelsurgeon[plots]'`.

    check_folder(folder, names)    # before anything is measured
    write_charts(folder, charts)   # folder/loss-by-position.png ...

It does not touch pyplot's global state, and needs no display. Names come from files: none is read as a formula, and no
plot replaces a file that is not a plot of ours.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from modelsurgeon.errors import OutputError
from modelsurgeon.reports.chart import Chart, Limit, Scale, Series
from modelsurgeon.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6bb0", "#cf5500", "#00875f", "#a63e84", "#6a4fc0", "#6b7280")  # as page.css has them
BAD, SOFT, GRID = "#b3261e", "#5a6472", "#e8ebef"
MARK = b"tEXtSoftware\x00modelsurgeon"  # of a plot of ours, which another plot may replace
BEGINNING = 4096  # bytes of a file within which the mark is
INCHES, DOTS = (8.0, 4.2), 150  # size of a plot; dots of an inch
LONGEST = 60  # characters of a label
MOST_TICKS = 24  # numbers along the x axis


def check_folder(folder: Path, names: Iterable[str]) -> None:
    """Raise OutputError where plots of these names cannot be written, or would replace a file that is not a plot."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        way_out = "pip install 'modelsurgeon[plots]', or leave it out"
        raise OutputError(f"--plots {folder}: needs matplotlib ({error}); {way_out}") from None
    try:
        foreign = [path.name for name in names if (path := folder / f"{name}.png").exists() and not _is_ours(path)]
        problem = f"{foreign[0]} exists and is no plot of ours; name another folder" if foreign else ""
        if not folder.is_dir() and (folder.exists() or not folder.parent.is_dir()):
            problem = "exists and is no folder" if folder.exists() else f"no folder {folder.parent}; make it first"
        elif not foreign and not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
            problem = "cannot be written (no permission); name another place"
    except OSError as error:
        problem = f"cannot be written ({error.strerror}); name another place"
    if problem:
        raise OutputError(f"--plots {folder}: {problem}")


def write_charts(folder: Path, charts: Iterable[Chart], names: Collection[str] = ()) -> list[Path]:
    """Draw each chart into a file of its name, whole or not at all; remove plots of `names` that have no chart now.

    Raises OSError where the disk fails.
    """
    import matplotlib.style

    folder.mkdir(exist_ok=True)
    written = []
    for chart in charts:
        path = folder / f"{chart.name}.png"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with matplotlib.style.context("default"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that no font here has
                draw(chart).savefig(temporary, format="png", dpi=DOTS, metadata={"Software": "modelsurgeon"})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        written.append(path)
    for path in (folder / f"{name}.png" for name in names):
        if path not in written and _is_ours(path):
            path.unlink()
    return written


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return MARK in file.read(BEGINNING)


def draw(chart: Chart) -> Figure:
    """The figure, which no window shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes, colours = figure.add_subplot(), [COLOURS[chart.colour(at)] for at in range(len(chart.series))]
    _frame(axes, chart)
    for at, limit in enumerate(chart.limits):
        _limit(axes, limit, other=bool(at % 2))
    for series, colour in zip(chart.series, colours, strict=True):
        _series(axes, series, colour, chart)
    _legend(figure, [_cut(series.label) for series in chart.series], colours)
    return figure


def _limit(axes: Axes, limit: Limit, other: bool) -> None:
    """A line; its label is at one of two places, for limits may be close together."""
    colour = BAD if limit.bad else SOFT
    line = axes.axvline if limit.vertical else axes.axhline
    line(limit.at, color=colour, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
    text = axes.text(limit.at, 0.93 if other else 0.99, "", ha="right", va="top", transform=axes.get_xaxis_transform())
    if not limit.vertical:
        text.set(position=(0.01 if other else 0.99, limit.at), transform=axes.get_yaxis_transform(), va="bottom")
        text.set_horizontalalignment("left" if other else "right")
    text.set(text=f"{_cut(limit.label)} ", parse_math=False, color=colour, fontsize=8)


def _frame(axes: Axes, chart: Chart) -> None:
    """Scales, ticks and titles."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(shown(chart.title), fontsize=11, parse_math=False)
    axes.set_xlabel(shown(chart.x), color=SOFT, parse_math=False)
    axes.set_ylabel(shown(chart.y), color=SOFT, parse_math=False)
    for axis, logarithmic, span in ((axes.xaxis, chart.x_log, chart.x_range), (axes.yaxis, chart.y_log, chart.y_range)):
        if logarithmic:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            axis.set_ticks(*zip(*Scale(*span, 0, 1, True).ticks, strict=True))
            axis.set_ticks([], minor=True)
    axes.set_xlim(*chart.x_range)
    axes.set_ylim(*chart.y_range)
    if chart.ticks:
        every = math.ceil(len(chart.ticks) / MOST_TICKS)
        ticks = (tick for at, tick in enumerate(chart.ticks) if at % every == 0 or not tick[1].isdigit())
        axes.set_xticks(*zip(*ticks, strict=True))
    elif chart.whole and not chart.x_log:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT, labelsize=9)


def _series(axes: Axes, series: Series, colour: str, chart: Chart) -> None:
    low = chart.y_range[0] if chart.y_log else -math.inf
    finite = [(x, max(y, low)) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(y)]
    line, mark = ("-" if series.kind in ("line", "broad") else ""), ("o" if series.dotted else "")
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    axes.plot(xs, ys, color=colour, linestyle=line, marker=mark, markersize=4, linewidth=1.4, clip_on=False)
    for x, (least, most) in zip(series.xs, series.reach, strict=False):
        if math.isfinite(least) and math.isfinite(most):
            axes.plot([x, x], [max(least, low), most], color=colour, alpha=0.4, linewidth=2.5)
    if odd := [x for x, y in zip(series.xs, series.ys, strict=True) if not math.isfinite(y)]:
        edge = axes.get_xaxis_transform()
        axes.plot(odd, [1.0] * len(odd), linestyle="", marker="x", color=BAD, transform=edge, clip_on=False)


def _legend(figure: Figure, labels: list[str], colours: list[str]) -> None:
    """Below the plotting area."""
    from matplotlib.lines import Line2D

    if labels:
        keys = [Line2D([], [], color=colour, marker="o", markersize=5, linestyle="") for colour in colours]
        legend = figure.legend(keys, colours, loc="outside lower center", frameon=False, ncols=2)
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_parse_math(False)
            text.set(text=label, fontsize=9)  # only now: matplotlib leaves out labels that begin with _


def _cut(text: str) -> str:
    """One line that has room, with what would move text about spelled out."""
    line = shown(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2 - 2]}...{line[2 - LONGEST // 2 :]}"
