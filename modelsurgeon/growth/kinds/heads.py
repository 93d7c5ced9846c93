"""Heads: which old head each new one copies, with shared key-value heads and with ALiBi's slopes.

    >>> shared(4, 8, 2, 4)      # four query heads, two for each key-value head, twice over
    (array([0, 1, 2, 3, 0, 1, 2, 3]), array([0, 1, 0, 1]))

Query head h uses key-value head h // group. A new query head may copy h where the new key-value head that it uses
copies the one that h used: that is the whole law of grouped queries. Axes of key-value heads follow their query heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, kind_of, register
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import AxisMap


@register
class Heads(Kind):
    word = "heads"
    grown_by = ("heads",)
    unit_scale = True
    is_head = True

    def reach(self, table: Architecture, name: str) -> str:
        rules = {"grouped": table.axes[name].follows or _served(table, name), "slopes": table.axes[name].slopes}
        return " ".join(rule for rule, holds in rules.items() if holds) or "any"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Whole copies; query heads and the key-value heads that they share are planned together."""
        leader = growth.axis(name).follows or name
        before, after = growth.sizes[leader], growth.targets[leader]
        (slopes, wanted), serving = _slopes(growth, leader), _served(growth.architecture, leader)
        try:
            if serving:
                queries, keys = shared(before, after, growth.sizes[serving[0]], growth.targets[serving[0]])
                check_slopes(queries, slopes, wanted)
                placed = keys if name == serving[0] else queries
            else:
                placed = alone(before, after, slopes, wanted)
        except NoHeadsError as error:
            raise growth.refusal(leader, error.reason, error.nearest) from None
        parts = growth.parts(*orders.ranks(placed))
        return orders.gathered(growth.sizes[name], placed, np.ones(len(placed)), parts, 1.0)

    def reasons_against(self, table: Architecture, config: Config, maps: Maps, name: str) -> tuple[str, ...]:
        """Raise PlanError unless copies of a query head use copies of its key-value head, and have its ALiBi slope."""
        axis, keys = table.axes[name], maps[name]
        if axis.slopes and not keys.is_identity:
            try:
                check_slopes(keys.source, axis.slopes(config, keys.size), axis.slopes(config, keys.new_size))
            except NoHeadsError as error:
                raise PlanError(f"axis {name!r}: {error.reason}") from None
        if axis.follows is None:
            return ()
        queries = maps[axis.follows]
        if queries.new_size % keys.new_size:
            raise PlanError(f"axis {name!r}: {queries.new_size} query heads cannot share {keys.new_size}")
        copied = np.flatnonzero(queries.copied)
        used = keys.source[copied // max(1, queries.new_size // keys.new_size)]
        if not np.array_equal(used, queries.source[copied] // max(1, queries.size // keys.size)):
            raise PlanError(f"axis {axis.follows!r}: a copy of a query head uses another key-value head")
        return ()

    def orders(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
        """Query heads in any order that leaves each with its key-value head; key-value heads follow."""
        before, after, leader = growth.sizes[name], growth.targets[name], growth.axis(name).follows
        if leader:
            source = _key_heads(maps[leader].source, maps[leader].size, before, after)
            if source is not None and len(np.unique(source)) == before:
                yield "as their query heads", source
            return
        slopes, wanted = _slopes(growth, name)
        serving = [(growth.sizes[kv], growth.targets[kv]) for kv in _served(growth.architecture, name)]
        if slopes is not None:
            tried = [("copies by their slopes", alone(before, after, slopes, wanted))]
        else:
            tried = [(order, source) for order, source in super().orders(growth, name, maps) if not np.any(source < 0)]
            tried += [pair for kv in serving for pair in _grouped(before, after, *kv)]
        for order, source in tried:
            whole = len(source) == after and len(np.unique(source[source >= 0])) == before
            if whole and all(_key_heads(source, before, *kv) is not None for kv in serving):
                yield order, source


class NoHeadsError(PlanError):
    """No such growth: the reason and the nearest counts that work. Callers add the axis' name."""

    def __init__(self, reason: str, nearest: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.nearest = reason, nearest


def alone(before: int, after: int, slopes: np.ndarray | None = None, wanted: np.ndarray | None = None) -> np.ndarray:
    """[after] int64: sources of heads that have keys and values of their own.

    slopes, wanted  ALiBi's slopes before and after: each head goes where its slope is
    Raises NoHeadsError where a slope is not among the new ones.
    """
    if slopes is None or wanted is None or before == after:
        return orders.tiled(before, after)[0]
    placed = alibi.placed(slopes, wanted)
    if placed is None:
        raise NoHeadsError(f"the ALiBi slopes of {before} heads are not among those of {after}")
    return placed


def shared(before: int, after: int, kv_before: int, kv_after: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources of query heads [after] int64, sources of key-value heads [kv_after] int64).

    Raises NoHeadsError where the old groups are uneven, or do not fit into the new ones.
    """
    if before % kv_before:
        raise NoHeadsError(f"{before} query heads cannot share {kv_before} key-value heads evenly")
    (group, (slots, rest)), reason = (before // kv_before, divmod(after, kv_after)), ""
    if rest:
        reason = f"{after} query heads cannot share {kv_after} key-value heads evenly"
    elif -(-group // slots) * kv_before > kv_after:  # the queries of an old key-value head need several new ones
        reason = f"{slots} query heads share a key-value head where {group} did: {kv_after} key-value heads are too few"
    if reason:
        raise NoHeadsError(reason, _near(before, after, kv_before, kv_after))
    whole = kv_after % kv_before == 0 and slots >= group
    keys = orders.tiled(kv_before, kv_after)[0] if whole else np.arange(kv_after) * kv_before // kv_after
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
    """Raise NoHeadsError unless every copy has the ALiBi slope of its source."""
    copied = sources >= 0
    if slopes is None or wanted is None or np.allclose(wanted[copied], slopes[sources[copied]], rtol=1e-6, atol=0):
        return
    raise NoHeadsError("copies of a head would have other ALiBi slopes")


def _served(table: Architecture, name: str) -> list[str]:
    """The axes of key-value heads that query heads share."""
    return [other for other, axis in table.axes.items() if axis.follows == name and kind_of(axis).is_head]


def _slopes(growth: Growth, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """ALiBi's slopes before and after."""
    slopes = growth.axis(name).slopes
    before, after = (slopes(growth.config, n[name]) if slopes else None for n in (growth.sizes, growth.targets))
    return before, after


def _grouped(before: int, after: int, kv: int, kv_after: int) -> Iterator[tuple[str, np.ndarray]]:
    """Orders of query heads that share key-value heads."""
    group, slots = before // kv, after // kv_after
    keys = np.arange(kv_after)[:, None] * kv // kv_after
    yield "copies side by side in each group", (keys * group + np.arange(slots) * group // slots).ravel()
    with contextlib.suppress(NoHeadsError):
        yield "copies in tiles in each group", shared(before, after, kv, kv_after)[0]


def _key_heads(source: np.ndarray, heads_before: int, before: int, after: int) -> np.ndarray | None:
    """[after] int64: the key-value heads that serve these query heads; None where two of one group want others."""
    if len(source) % after or heads_before % before:
        return None
    wanted = (source // (heads_before // before)).reshape(after, -1)
    return wanted[:, 0] if np.all(wanted == wanted[:, :1]) else None
