"""How a tensor is cut: into pieces that are computed one at a time, and into spans that are read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from modelsurgeon.maps.axis_map import GAP
from modelsurgeon.maps.dimension import Dimension

LEAST = 1 << 14  # bytes: reading fewer takes no less time


@dataclass(frozen=True)
class Piece:
    """Consecutive numbers of a tensor: whole rows, or a part of one row.

    start, stop  rows, of dimension 0
    first, last  of dimension 1: all of it unless the piece is a part of a row; 0 and 1 in a vector
    again        the row at which equal rows begin earlier in this tensor; None where there are none
    """

    start: int
    stop: int
    first: int
    last: int
    again: int | None = None


class Span(NamedTuple):
    """New coordinates start:stop, made of old ones from low:high."""

    start: int
    stop: int
    low: int
    high: int


def spans(source: np.ndarray, start: int, stop: int, size: int, few: int) -> list[Span]:
    """New coordinates start:stop in spans that read at most twice as many old ones as there are new ones, or `few`.

    Old coordinates and means (from `size` on) have spans of their own.
    """
    mean = source[start:stop] >= size
    cuts = [start, *(start + 1 + np.flatnonzero(np.diff(mean))), stop]
    return [span for a, b in pairwise(cuts) for span in _near(source, int(a), int(b), few)]


def least(column: int) -> int:
    """How many coordinates of `column` bytes each can be read in the time of one."""
    return LEAST // max(1, column)


def _near(source: np.ndarray, start: int, stop: int, few: int) -> list[Span]:
    sources = source[start:stop][source[start:stop] != GAP]
    low, high = (int(sources.min()), int(sources.max()) + 1) if len(sources) else (0, 0)
    if high - low <= max(2 * (stop - start), few) or stop - start <= 1:
        return [Span(start, stop, low, high)]
    middle = (start + stop) // 2
    return _near(source, start, middle, few) + _near(source, middle, stop, few)


def rows_or_parts(run: Piece, row: int, most: int) -> Iterator[Piece]:
    """Rows in pieces of at most `most` bytes, where a row has `row` bytes; larger rows in parts, unless repeated.

    A part has at least one coordinate.
    """
    rows, width = max(1, most // max(1, row)), run.last - run.first
    columns = max(1, most * width // row) if row > most and run.again is None else max(1, width)
    for start in range(run.start, run.stop, rows):
        again = None if run.again is None else run.again + start - run.start
        for first in range(run.first, max(run.last, run.first + 1), columns):
            last = min(first + columns, run.last)
            yield Piece(start, min(start + rows, run.stop), first, last, again)


def runs_of_rows(dimension: Dimension, columns: int) -> Iterator[Piece]:
    """A piece for each run of rows, in order; `again` where an earlier run has the same source and factor."""
    seen: dict[tuple[int, int, float], int] = {}
    for run in dimension.runs:
        earlier = seen.setdefault((run.source, run.stop - run.start, run.factor), run.start)
        again = None if earlier == run.start or run.source == GAP else earlier
        yield Piece(run.start, run.stop, 0, columns, again)
