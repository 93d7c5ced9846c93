"""The axis on which queries and keys meet: rotary pairs first, then what is not rotated.

Pairs are nested: pair j goes to pair k j, which has the same frequency in a head k times as large. Where only some
coordinates are rotated, the pairs may also stay in their places, with plain coordinates added behind them. A family
that rotates the whole axis grows by whole multiples only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.architecture import Architecture, Config, Rotary
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.norms import is_written_by_norm
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, kind_of, register
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, AxisMap

WHOLE_PAIRS = "rotary pairs keep their frequencies at whole multiples"


@register
class Inner(Kind):
    word = "inner"
    grown_by = ("head-dim",)
    in_heads = True

    def reach(self, table: Architecture, name: str) -> str:
        rotary = _rotary(table, name)
        return "xk" if rotary and not _is_partial(rotary) else "any"

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """The rotated pairs, then copies of what is not rotated, or gaps."""
        size, target, gain = growth.sizes[name], growth.targets[name], growth.gain(name)
        turned, rotated = _turned(growth, name)
        rest, plain, clamped = target - len(turned), size - rotated, is_clamped(growth)
        centred = growth.architecture.norm == "layer" and is_written_by_norm(growth.architecture, name)
        if clamped or centred or not plain:  # one factor for all: nothing is copied
            still = np.r_[np.arange(rotated, size), np.full(rest - plain, GAP)]
        else:
            still = rotated + orders.tiled(plain, rest)[0]
        source = np.r_[turned, still]
        rank, copies = orders.ranks(source)
        if growth.rule == "exact" and not clamped:
            return orders.gathered(size, source, np.full(target, gain), orders.shares(rank, copies), gain)
        even = np.sqrt(gain / copies)
        return orders.gathered(size, source, even, even, gain)

    def reasons_against(self, table: Architecture, config: Config, maps: Maps, name: str) -> tuple[str, ...]:
        """Repeated pairs are approximate. Raises PlanError for a growth of pairs that no config expresses."""
        grown = rotation(table, config, maps, name)
        if grown is None or grown.kind == "kept":
            return ()
        if reason := rope.reasons_against_nesting(config):
            raise PlanError(f"axis {name!r}: {reason}")
        approximate = "approximate: repeated rotary pairs turn at other frequencies (--rope nested keeps them)"
        return (approximate,) if grown.kind == "repeated" else ()

    def clamped(self, axis_map: AxisMap) -> tuple[np.ndarray, ...]:
        return axis_map.scale, axis_map.share

    def settings(self, table: Architecture, config: Config, maps: Maps, name: str) -> dict[str, Any]:
        """Factors for the nested pairs, or the share of coordinates that are rotated."""
        grown, rotary, new_size = rotation(table, config, maps, name), table.rotary, maps[name].new_size
        if grown is None or rotary is None:
            return {}
        if grown.kind == "kept":
            appended = new_size != maps[name].size and not rotary.size_key and rotary.partial is not None
            return rope.appended(config, grown.rotated, new_size) if appended else {}
        changed = rope.nested(config, grown.rotated, grown.times) if grown.kind == "nested" else {}
        if rotary.size_key and grown.times > 1:
            changed[rotary.size_key] = grown.rotated * grown.times
        return changed

    def orders(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
        """Every order of the rotated pairs, with copies or zeros behind them."""
        rotary, size, target = _rotary(growth.architecture, name), growth.sizes[name], growth.targets[name]
        if rotary is None or target < size:
            yield from super().orders(growth, name, maps)
            return
        before, after = rotated_size(rotary, growth.config, size), rotated_size(rotary, growth.target, target)
        pairs = {"rotary pairs kept": np.arange(before)}
        if before and after > before and not after % before:
            kept, nested, repeated = _pairs(rotary, growth.config, before, after // before).values()
            pairs = {"nested rotary pairs": nested, "rotary pairs kept": kept, "repeated rotary pairs": repeated}
        for order, source in pairs.items():
            rest, places = size - before, target - len(source)
            if rest and places >= rest:
                yield f"{order}, then copies in tiles", np.r_[source, before + orders.tiled(rest, places)[0]]
            zeros = np.full(max(0, places - rest), GAP)
            yield f"{order}, then zeros" if len(zeros) else order, np.r_[source, np.arange(before, size), zeros]

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """The factors of the keys; those of the queries follow."""
        gain, count = growth.gain(name), orders.ranks(source)[1]
        yield from (np.ones(len(source)), np.full(len(source), gain), np.sqrt(gain / count), 1 / count)


@dataclass(frozen=True)
class GrownPairs:
    """How the rotated coordinates of an axis grew."""

    kind: str  # "nested", "repeated", or "kept" (at most plain ones were added)
    rotated: int  # how many there were
    times: int  # how many times as many there are


def rotation(table: Architecture, config: Config, maps: Maps, name: str) -> GrownPairs | None:
    """How the rotated coordinates of an axis grew; None where none is. Raises PlanError for maps that mix pairs up."""
    rotary, axis_map = _rotary(table, name), maps[name]
    if rotary is None:
        return None
    rotated, count = rotated_size(rotary, config, axis_map.size), axis_map.new_size // axis_map.size
    pairs = _pairs(rotary, config, rotated, count)
    kind = next((kind for kind, turned in pairs.items() if _begins(axis_map.source, turned, rotated)), None)
    if kind is None:
        raise PlanError(f"axis {name!r}: rotary pairs are neither nested nor repeated")
    turned = len(pairs[kind])
    for factor in (axis_map.scale[:turned], axis_map.share[:turned]):
        one, other = factor.reshape(2, -1) if rotary.pairs(config) == "half" else factor.reshape(-1, 2).T
        if not np.array_equal(one, other):  # a rotation mixes them
            raise PlanError(f"axis {name!r}: the two coordinates of a rotary pair are multiplied by different factors")
    if kind == "kept" and axis_map.new_size != axis_map.size and not _is_partial(rotary):
        raise PlanError(f"axis {name!r}: this family rotates the whole of it, and plain coordinates were added")
    return GrownPairs(kind, rotated, turned // rotated if rotated else 1)


def rotated_size(rotary: Rotary, config: Config, size: int) -> int:
    """How many coordinates of the rotated axis are rotated."""
    return rope.rotated_size(config, size, rotary.partial, rotary.size_key)


def is_clamped(growth: Growth) -> bool:
    """Whether queries, keys and values are clamped: all three must then be multiplied by one factor."""
    clip = growth.architecture.clip
    return bool(clip and lookup(growth.config, clip) is not None)


def clamp_factor(growth: Growth) -> float:
    """The factor of queries, keys and values where one clamp bounds all three."""
    inner = next(name for name, axis in growth.architecture.axes.items() if isinstance(kind_of(axis), Inner))
    return sqrt(growth.gain(inner))


def _rotary(table: Architecture, name: str) -> Rotary | None:
    return table.rotary if table.rotary and table.rotary.axis == name else None


def _is_partial(rotary: Rotary) -> bool:
    """Whether the family can leave coordinates unrotated, so that plain ones can be added."""
    return rotary.partial is not None or rotary.size_key is not None


def _turned(growth: Growth, name: str) -> tuple[np.ndarray, int]:
    """(sources of the coordinates that will be rotated, how many were)."""
    rotary, size, target = _rotary(growth.architecture, name), growth.sizes[name], growth.targets[name]
    if rotary is None:
        return np.zeros(0, dtype=np.int64), 0
    before, after = rotated_size(rotary, growth.config, size), rotated_size(rotary, growth.target, target)
    reason = rope.reasons_against_nesting(growth.config)
    count, whole = target // size, target % size == 0
    if target == size or (_is_partial(rotary) and (reason or not whole or after != count * before)):
        if rotary.size_key and after != before:
            raise PlanError(f"{rotary.size_key} cannot be {after}: it stays {before}, or grows with the head")
        return np.arange(before), before
    if reason:
        raise growth.refusal(name, f"{reason}; whole heads can be copied", (size,))
    if not whole:
        raise growth.refusal(name, WHOLE_PAIRS, growth.multiples(name))
    pairs = _pairs(rotary, growth.config, before, count)
    return pairs["nested" if growth.rope == "nested" else "repeated"], before


def _pairs(rotary: Rotary, config: Config, rotated: int, count: int) -> dict[str, np.ndarray]:
    """{`GrownPairs.kind`: sources}; nested and repeated ones are `count` times as many.

    Raises PlanError where half a pair is rotated.
    """
    if rotated % 2:
        raise PlanError(f"axis {rotary.axis!r}: {rotated} of its coordinates are rotated, expected pairs")
    layout = rotary.pairs(config)
    nested, repeated = (pairs(rotated, count, layout) for pairs in (orders.nested_pairs, orders.repeated_pairs))
    return {"kept": np.arange(rotated), "nested": nested, "repeated": repeated}


def _begins(source: np.ndarray, turned: np.ndarray, rotated: int) -> bool:
    """Whether the sources are these rotated coordinates, then others."""
    still = source[len(turned) :]
    return np.array_equal(source[: len(turned)], turned) and not np.any((still >= 0) & (still < rotated))
