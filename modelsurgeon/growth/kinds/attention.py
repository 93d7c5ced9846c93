"""Maps of attention's axes: heads, what queries and keys meet on, values.

Heads are whole copies. The axis of q.k is made of rotary pairs first, which are nested (or stay, and plain coordinates
are added behind), then of what is not rotated. An axis before a norm of its own follows the one behind it.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.words import Axis
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds import heads
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap


def heads_map(growth: Growth, name: str) -> AxisMap:
    """Query heads, or the key-value heads that follow them: whole copies, each with what it attends with."""
    leader = growth.axis(name).follows or name
    follower = next((n for n, axis in growth.architecture.axes.items() if _serves(axis, leader)), None)
    before, after = growth.sizes[leader], growth.targets[leader]
    try:
        if follower is None:
            placed = heads.alone(before, after, _slopes(growth, leader, before), _slopes(growth, leader, after))
        else:
            shared = heads.shared(before, after, growth.sizes[follower], growth.targets[follower])
            placed = shared[1] if name == follower else shared[0]
            if _slopes(growth, leader, before) is not None:
                heads.check_slopes(shared[0], _slopes(growth, leader, before), _slopes(growth, leader, after))
    except heads.NoHeadsError as error:
        raise growth.refusal(leader, error.reason, error.nearest) from None
    rank, count = orders.ranks(placed)
    parts = growth.parts(rank, count)
    return orders.gathered(growth.sizes[name], placed, np.ones(len(placed)), parts, 1.0)


def _serves(axis: Axis, leader: str) -> bool:
    return axis.through == "heads" and axis.follows == leader


def _slopes(growth: Growth, name: str, count: int) -> np.ndarray | None:
    slopes = growth.axis(name).slopes
    return slopes(growth.config, count) if slopes else None


def inner_map(growth: Growth, name: str) -> AxisMap:
    """The axis of an inner product: rotary pairs first, then what is not rotated."""
    size, target, gain = growth.sizes[name], growth.targets[name], growth.gain(name)
    turned, rotated = _turned(growth, name)
    rest = target - len(turned)
    if _is_clipped(growth) or _is_centred(growth, name):  # one factor for all: nothing is copied
        still = np.r_[np.arange(rotated, size), np.full(rest - (size - rotated), GAP)]
    elif size == rotated:
        still = np.full(rest, GAP)
    else:
        still = rotated + orders.tiled(size - rotated, rest)[0]
    source = np.r_[turned, still]
    rank, copies = orders.ranks(source)
    if growth.rule == "exact" and not _is_clipped(growth):
        return orders.gathered(size, source, np.full(target, gain), orders.shares(rank, copies), gain)
    even = np.sqrt(gain / copies)
    return orders.gathered(size, source, even, even, gain)


def _turned(growth: Growth, name: str) -> tuple[np.ndarray, int]:
    """(sources of the coordinates that will be rotated, how many were)."""
    rotary, size, target = growth.architecture.rotary, growth.sizes[name], growth.targets[name]
    if rotary is None or rotary.axis != name:
        return np.zeros(0, dtype=np.int64), 0
    rotated = rope.rotated_size(growth.config, size, rotary.partial, rotary.size_key)
    wanted = rope.rotated_size(growth.target, target, rotary.partial, rotary.size_key)
    reason = rope.reasons_against_nesting(growth.config)
    count, whole = target // size, target % size == 0
    partly = rotary.partial is not None or rotary.size_key is not None
    if target == size or (partly and (reason or not whole or wanted != count * rotated)):
        if rotary.size_key and wanted != rotated:
            raise PlanError(f"{rotary.size_key} cannot be {wanted}: it stays {rotated}, or grows with the head")
        return np.arange(rotated), rotated
    if reason:
        raise growth.refusal(name, f"{reason}; whole heads can be copied", (size,))
    if not whole:
        raise growth.refusal(name, "rotary pairs keep their frequencies at whole multiples", growth.multiples(name))
    pairs = orders.nested_pairs if growth.rope == "nested" else orders.repeated_pairs
    return pairs(rotated, count, rotary.pairs(growth.config)), rotated


def _is_centred(growth: Growth, name: str) -> bool:
    """Whether a LayerNorm of its own reads this inner product's axis."""
    normed = [axis for axis in growth.architecture.axes.values() if axis.through == "normed"]
    return growth.architecture.norm == "layer" and any(axis.follows == name for axis in normed)


def normed_map(growth: Growth, name: str, leader: AxisMap) -> AxisMap:
    """The axis that a norm of its own reads, stretched so that the norm wants the same eps as all others.

    That holds where the leader itself does not grow, too.
    """
    source = np.where(leader.gaps, MEAN, leader.source) if growth.architecture.norm == "layer" else leader.source
    inner = growth.axis(str(growth.axis(name).follows)).through == "inner"
    wanted = _eps_ratio(growth) if inner else 1.0
    count = orders.ranks(source)[1]
    scale = np.sqrt(wanted * leader.new_size / (leader.size * count))
    return orders.gathered(leader.size, source, scale, 1 / (count * scale), 1.0)


def _eps_ratio(growth: Growth) -> float:
    """By what the mean square of the residual changes, and so the eps of the config."""
    name = next(n for n, axis in growth.architecture.axes.items() if axis.through == "residual")
    if growth.architecture.eps is None:
        return 1.0
    ratio = growth.sizes[name] / growth.targets[name]
    return ratio * (growth.targets[name] // growth.sizes[name]) if growth.rule == "exact" else ratio


def angles_map(growth: Growth, name: str) -> AxisMap:
    size, target = growth.sizes[name], growth.targets[name]
    if target % size:
        raise growth.refusal(name, "rotary pairs keep their frequencies at whole multiples", growth.multiples(name))
    source = orders.nested_pairs(size, target // size, "half")
    return orders.gathered(size, source, np.ones(len(source)), np.ones(len(source)), 1.0)


def value_map(growth: Growth, name: str) -> AxisMap:
    """What attention carries from the values to the out-projection."""
    size, target = growth.sizes[name], growth.targets[name]
    source, rank, count = orders.tiled(size, target)
    parts = growth.parts(rank, count)
    if _is_clipped(growth):
        scale = np.full(target, _clip_factor(growth))
    else:
        scale = np.ones(target) if growth.rule == "exact" else np.sqrt(1 / count)
    return orders.gathered(size, source, scale, parts / scale, 1.0)


def _is_clipped(growth: Growth) -> bool:
    """Whether queries, keys and values are clamped: all three must then be multiplied alike."""
    clip = growth.architecture.clip
    return bool(clip and lookup(growth.config, clip) is not None)


def _clip_factor(growth: Growth) -> float:
    inner = [name for name, axis in growth.architecture.axes.items() if axis.through == "inner"]
    return sqrt(growth.gain(inner[0]))
