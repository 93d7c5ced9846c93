"""Axes of sums and norms, and of an embedding size or a low rank of its own.

Sizes that are no multiple get a tail: where no norm reads, more copies; behind an RMSNorm zeros, or copies that weigh
less; behind a LayerNorm the mean of the old coordinates, which comes out of the norm as zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelsurgeon.architectures.norms import is_normalised, is_written_by_norm, whole_multiples_only
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.signature import gain_factors

Maps = Mapping[str, AxisMap]


def residual_map(growth: Growth, name: str, maps: Maps) -> AxisMap:
    """Repeated coordinates, with factors that every norm and a tied head can pass. [m]: the axis' new size."""
    source = _spread(growth, name)
    rank, count = orders.ranks(source)
    count = np.where(source == MEAN, count[0], count)
    gain, size = growth.gain(name), growth.sizes[name]
    parts = growth.parts(rank, count)
    if growth.reads_tied(name):
        share = _tied_share(growth, name, maps)
        total = gain / share
        scale = total * _tied_parts(growth, total[source >= 0], parts, rank, count)
        return orders.gathered(size, source, scale, share, gain, split="writers")
    writers = _writers(growth, name, source, count, maps)
    share = gain / np.where(writers == 0, 1.0, writers) * parts
    return orders.gathered(size, source, writers, share, gain)


def _spread(growth: Growth, name: str) -> np.ndarray:
    """[m] int64: the sources of an axis of sums and norms."""
    size, target = growth.sizes[name], growth.targets[name]
    whole, rest = divmod(target, size)
    if not rest:
        return orders.tiled(size, target)[0]
    reason = whole_multiples_only(growth.architecture, name)
    if reason:
        raise growth.refusal(name, reason, growth.multiples(name))
    if _meets_no_norm(growth, name) or (growth.architecture.norm == "rms" and growth.rule == "orthogonal"):
        return orders.tiled(size, target)[0]
    mean = growth.architecture.norm == "layer" and is_normalised(growth.architecture, name)
    return np.concatenate([np.tile(np.arange(size), whole), np.full(rest, MEAN if mean else GAP)])


def _meets_no_norm(growth: Growth, name: str) -> bool:
    return not is_normalised(growth.architecture, name) and not is_written_by_norm(growth.architecture, name)


def _writers(growth: Growth, name: str, source: np.ndarray, count: np.ndarray, maps: Maps) -> np.ndarray:
    """[m] float64: what the writers of an axis of sums and norms are multiplied by."""
    axis, gain = growth.axis(name), growth.gain(name)
    read = growth.weightless(name)
    if read:
        return np.asarray(gain_factors(maps[read]))
    if is_normalised(growth.architecture, name) and (
        axis.through == "rank" or (growth.rule == "exact" and growth.architecture.eps is None)
    ):  # the norm sees the mean square that it saw: its eps need not change
        return np.sqrt(growth.targets[name] / (growth.sizes[name] * count))
    if growth.rule == "exact" or axis.through != "residual":
        return np.ones(len(source))
    return np.sqrt(gain / count)


def _tied_share(growth: Growth, name: str, maps: Maps) -> np.ndarray:
    """[m] float64: what the embedding will hold of each old number, with which a tied head reads (1 in gaps)."""
    tie = growth.architecture.tie
    assert tie is not None
    if growth.weightless(name) and growth.sizes[name] != growth.targets[name]:
        raise PlanError(f"{tie.head} is tied, and the norm before it has no weight to take a factor: untie first")
    templates = {template.name: template for template in growth.architecture.templates}
    written = maps[templates[tie.embedding].signature.axes[-1]]
    share = written.scale * multiplier(growth.architecture, growth.config, tie.embedding, growth.sizes, growth.targets)
    return np.asarray(np.where(written.gaps, 1.0, share))


def _tied_parts(
    growth: Growth, total: np.ndarray, parts: np.ndarray, rank: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """[m] float64 that sum to 1 over the copies of each source, for the gains of the norm before a tied head.

    Gains of the form (1 + w) in 16 bits hold 0 and 1 exactly and nothing between: whole copies, then, if the total
    is a whole number.
    """
    copies = round(float(total[0]))
    whole = bool(np.all(total == copies)) and copies <= int(count.min())
    if not (growth.rule == "exact" and growth.architecture.offset and growth.narrow and whole):
        return parts
    return np.asarray(np.where(rank < copies, 1 / copies, 0.0))
