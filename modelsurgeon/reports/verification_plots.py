"""Plots of a report as SVG, drawn from numbers alone: no library, no script, colours from the page's style sheet.

    >>> str(by_position([4.7, 4.6], [4.7, 4.6], "loss"))[:4]
    '<svg'

The marks are those of drawing.py: every text is escaped, what is not finite is a cross.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from modelsurgeon.reports import drawing as draw
from modelsurgeon.reports.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, SERIES, TICKS, TOP, WIDTH, Scale


def by_layer(layers: Mapping[str, Any]) -> Markup:
    """The error at each place of the model, in the order of computation, with the tolerance; logarithmic."""
    rows, tolerance = layers["rows"], float(layers["tolerance"])
    errors = [float(row["max_rel"]) for row in rows]
    colours = dict(parts_of(layers))
    x = Scale(-0.5, max(len(rows), 1) - 0.5, LEFT, WIDTH - RIGHT)
    y = draw.decades([*errors, tolerance])
    marks = [
        *draw.axis_y(y, "error, of the deviation"),
        draw.line(x(-0.5), y(tolerance), x(len(rows)), y(tolerance), "limit"),
    ]
    marks.append(Markup('<text class="said limit" x="{}" y="{}">tolerance</text>').format(LEFT + 6, y(tolerance) - 5))
    for at, (row, error) in enumerate(zip(rows, errors, strict=True)):
        told = f"{row['name']}: {error:.1e}"
        marks.append(draw.mark(x(at), y(error), error, colours[_part(row)], told))
    marks += [draw.tick_x(x(at), label) for at, label in _layer_ticks(rows)]
    marks.append(draw.title_x("layer, in the order of computation"))
    return draw.svg("Error by layer", f"{len(rows)} places, the tolerance is {tolerance:.0e}", marks)


def parts_of(layers: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(part of a layer, number of its colour): the legend of `by_layer`."""
    return [(part, at % SERIES) for at, part in enumerate(dict.fromkeys(map(_part, layers["rows"])))]


def _part(row: Mapping[str, Any]) -> str:
    return "outside of layers" if row["layer"] is None else str(row["part"]) or "whole layer"


def against(before: Sequence[Any], after: Sequence[Any], what: str) -> Markup:
    """Each number of the result over the same one of the source; equal ones lie on the diagonal."""
    pairs = [(float(a), float(b)) for a, b in zip(before, after, strict=True)]
    low, high = draw.span_of([value for pair in pairs for value in pair])
    side = WIDTH - 240
    x, y = Scale(low, high, LEFT, side - RIGHT), Scale(low, high, side - BOTTOM, TOP)
    dots = "".join(f"M{x(a)} {y(b)}h0" for a, b in pairs if math.isfinite(a) and math.isfinite(b))
    crosses = [draw.cross(x(a), y(b), f"{a} -> {b}") for a, b in pairs if not (math.isfinite(a) and math.isfinite(b))]
    marks = [
        *draw.axis_y(y, f"{what} of the result", side),
        *(draw.tick_x(x(value), label, side) for value, label in x.ticks),
        draw.title_x(f"{what} of the source", side, side),
        draw.line(x(low), y(low), x(high), y(high), "same"),
        Markup('<path class="dots" d="{}"/>').format(dots),
        *crosses,
    ]
    return draw.svg(f"{what} of the result over those of the source", f"{len(pairs)} points", marks, side, side)


def by_position(before: Sequence[Any], after: Sequence[Any], what: str) -> Markup:
    """Two lines over positions: the source's broad, the result's thin on top of it."""
    lines = [[(at, float(value)) for at, value in enumerate(values) if value is not None] for values in (before, after)]
    low, high = draw.span_of([value for line in lines for _, value in line])
    count = max(len(before), len(after))
    x, y = Scale(0, max(count - 1, 1), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP)
    marks = [*draw.axis_y(y, f"{what}, nats"), *(draw.tick_x(x(v), label) for v, label in x.ticks if v == int(v))]
    for line, kind in zip(lines, ("before", "after"), strict=True):
        places = " ".join(f"{x(at)},{y(value)}" for at, value in line if math.isfinite(value))
        marks.append(Markup('<polyline class="{}" points="{}"/>').format(kind, places))
        marks += [
            draw.cross(x(at), y(value), f"position {at}: {value}") for at, value in line if not math.isfinite(value)
        ]
    marks.append(draw.title_x("position, tokens"))
    return draw.svg(f"{what} by position", f"{count} positions, source and result", marks)


def cosines(axes: Sequence[Mapping[str, Any]]) -> Markup:
    """For each axis, from the least to the largest cosine of two copies: of gradients, and under them of weights."""
    height = TOP + 54 * len(axes) + BOTTOM
    x = Scale(-1, 1, LEFT + 110, WIDTH - RIGHT - 10)
    marks: list[Markup] = []
    for value, label in x.ticks:
        marks.append(draw.line(x(value), TOP, x(value), height - BOTTOM, "limit" if value == 1 else "grid"))
        marks.append(draw.tick_x(x(value), label, height))
    for at, axis in enumerate(axes):
        middle = TOP + 54 * at + 27
        marks.append(draw.label(x.start - 12, middle + 4, axis["axis"]))
        marks += _span(x, middle - 8, axis["cosine"], 0, "gradients")
        marks += _span(x, middle + 9, axis["weight_cosine"], 1, "weights")
    marks.append(draw.title_x("cosine of two copies (1: equal for ever)", height=height, start=x.start))
    return draw.svg(
        "Cosines of copies", f"{len(axes)} axes; gradients and weights, least to largest", marks, WIDTH, height
    )


def _span(x: Scale, y: float, cosine: Mapping[str, Any] | None, colour: int, what: str) -> list[Markup]:
    if not cosine or cosine["mean"] is None:
        return []
    least, mean, most = (float(cosine[key]) for key in ("min", "mean", "max"))
    told = f"{what}: {least:.4f} to {most:.4f}, mean {mean:.4f}"
    bar = Markup('<line class="span c{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(colour, x(least), y, x(most), y)
    return [bar, draw.mark(x(mean), y, mean, colour, told)]


def _layer_ticks(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """(row, layer) where each layer begins, as many as have room."""
    layers = [row["layer"] for row in rows]
    begins = [at for at, layer in enumerate(layers) if layer is not None and layer != ([None, *layers])[at]]
    every = max(1, math.ceil(len(begins) / (4 * TICKS)))
    return [(at, str(layers[at])) for at in begins[::every]]
