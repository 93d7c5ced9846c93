"""Which old head each new head copies, where query heads share key-value heads and where positions are slopes.

    >>> shared(4, 8, 2, 4)      # four query heads, two for each key-value head, twice over
    (array([0, 1, 2, 3, 0, 1, 2, 3]), array([0, 1, 0, 1]))

Query head h uses key-value head h // group. A new query head may copy h where the new key-value head that it uses
copies the one that h used: that is the whole law of grouped queries.
"""

from __future__ import annotations

import numpy as np

from modelsurgeon.architectures import alibi
from modelsurgeon.maps.orders import tiled


class NoHeadsError(Exception):
    """There is no such growth: why, and the nearest counts that work. Raised to those who can name the axis."""

    def __init__(self, reason: str, nearest: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.nearest = reason, nearest


def alone(before: int, after: int, slopes: np.ndarray | None = None, wanted: np.ndarray | None = None) -> np.ndarray:
    """[after] int64: sources of heads that have keys and values of their own.

    slopes, wanted  ALiBi's slopes of so many heads before and after: a head then goes where its slope is
    Raises NoHeadsError where a slope is not among the new ones.
    """
    if slopes is None or wanted is None or before == after:
        return tiled(before, after)[0]
    placed = alibi.placed(slopes, wanted)
    if placed is None:
        raise NoHeadsError(f"the ALiBi slopes of {before} heads are not among those of {after}", ())
    return placed


def shared(before: int, after: int, kv_before: int, kv_after: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources of query heads [after] int64, sources of key-value heads [kv_after] int64).

    Raises NoHeadsError where the old groups do not fit into the new ones.
    """
    if after % kv_after:
        reason = f"{after} query heads cannot share {kv_after} key-value heads evenly"
        raise NoHeadsError(reason, _near(before, after, kv_before, kv_after))
    group, slots = before // kv_before, after // kv_after
    needed = -(-group // slots)  # new key-value heads that an old one's queries take
    if needed * kv_before > kv_after:
        reason = f"{slots} query heads share a key-value head where {group} did: {kv_after} key-value heads are too few"
        raise NoHeadsError(reason, _near(before, after, kv_before, kv_after))
    whole = kv_after % kv_before == 0 and slots >= group
    keys = tiled(kv_before, kv_after)[0] if whole else np.arange(kv_after) * kv_before // kv_after
    queries, used = np.empty((kv_after, slots), dtype=np.int64), np.zeros(kv_before, dtype=np.int64)
    for place, key in enumerate(keys):
        turn = used[key] if slots < group or not whole else 0
        queries[place] = key * group + (turn + np.arange(slots)) % group
        used[key] = turn + slots
    return queries.ravel(), keys


def _near(before: int, after: int, kv_before: int, kv_after: int) -> tuple[int, ...]:
    """The counts of query heads next to `after` that `kv_after` key-value heads can serve."""
    group = before // kv_before

    def works(slots: int) -> bool:
        return slots > 0 and slots * kv_after >= before and -(-group // slots) * kv_before <= kv_after

    middle, most = after // kv_after, max(after, before) + group
    below = next((slots for slots in range(middle, 0, -1) if works(slots)), 0)
    above = next((slots for slots in range(middle + 1, most + 2) if works(slots)), 0)
    return tuple(slots * kv_after for slots in (below, above) if slots)


def check_slopes(sources: np.ndarray, slopes: np.ndarray | None, wanted: np.ndarray | None) -> None:
    """Raises NoHeadsError unless every copy has the ALiBi slope of its source."""
    if slopes is None or wanted is None:
        return
    kept = sources >= 0
    if not np.allclose(wanted[kept], slopes[sources[kept]], rtol=1e-6, atol=0):
        raise NoHeadsError("copies of a head would have other ALiBi slopes")
