"""What was run, in numbers: how much of what a model can look up was fed.

    Coverage(positions=9_728, tokens=(4096, 4096), position_rows=None, token_types=None, experts=None, longest=2048,
             trained=2048)

A row of a table that no input reads can hold anything, and an expert that no token reaches can do anything: outputs do
not show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelsurgeon.running.reader import Batch

Share = tuple[int, int]  # (how many, of how many)


@dataclass(frozen=True)
class Coverage:
    """What the source was run on, in one dtype.

    positions      how many were read or written, padding left out
    tokens         (token ids that were fed, of the vocabulary); (0, 0) of a model that takes none
    position_rows  (rows of a position table that were read, of those that any input reads); None: it has no such table
    token_types    (token types that were fed, of all); None: it has none
    experts        (experts of all layers that some token was sent to, of all); None: it has none
    longest        positions of the longest row
    trained        positions that the config names as the most; None: it names none
    """

    positions: int
    tokens: Share = (0, 0)
    position_rows: Share | None = None
    token_types: Share | None = None
    experts: Share | None = None
    longest: int = 0
    trained: int | None = None


def positions_in(batches: Iterable[Batch]) -> tuple[int, int]:
    """(positions of all rows, of the longest row); of an encoder-decoder those of the side that has more."""
    found = [(0, 0)]
    for batch in batches:
        sides = [side.sum(1) for side in (batch.real, batch.read) if side.numel()]
        found.append(max(((int(rows.sum()), int(rows.max())) for rows in sides), default=(0, 0)))
    return sum(total for total, _ in found), max(longest for _, longest in found)
