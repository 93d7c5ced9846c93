"""Axes of sums and norms, and of an embedding size or a low rank of its own.

Sizes that are no multiple get a tail: where no norm reads, more copies; behind an RMSNorm zeros, or copies that weigh
less; behind a LayerNorm the mean of the old coordinates, which comes out of the norm as zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import ClassVar

import numpy as np

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.norms import is_normalised, is_written_by_norm
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth, written_by_embedding
from modelsurgeon.growth.kinds.kind import Kind, Maps, ranks, register
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.signature import gain_factors


@register
class Residual(Kind):
    """Sums and norms.

    takes_factors  whether its writers may take the factor that the rule asks for
    """

    word = "residual"
    coordinates = "hidden coordinates"
    grown_by: ClassVar[tuple[str, ...]] = ("head-dim", "heads")
    passes_means = True
    spans_layers = True
    takes_factors: ClassVar[bool] = True

    def reach(self, table: Architecture, name: str) -> str:
        return "xk" if self.whole_multiples_only(table, name) else "any"

    def whole_multiples_only(self, table: Architecture, name: str) -> str:
        """Why an axis grows by whole multiples only; empty where any size will do."""
        if table.norm == "layer" and is_normalised(table, name) and is_written_by_norm(table, name):
            return "a LayerNorm reads what another one writes, whose mean must stay (post-norm)"
        return ""

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Repeated coordinates, with factors that every norm and a tied head can pass."""
        source, gain, size = self._source(growth, name), growth.gain(name), growth.sizes[name]
        rank, count = ranks(source)
        parts = growth.parts(rank, count)
        if growth.reads_tied(name):
            share = _tied_share(growth, name, maps)
            total = gain / share
            scale = total * _tied_parts(growth, total[source >= 0], parts, rank, count)
            return orders.gathered(size, source, scale, share, gain, split="writers")
        writers = self._writers(growth, name, count, maps)
        share = gain / np.where(writers == 0, 1.0, writers) * parts
        return orders.gathered(size, source, writers, share, gain)

    def _source(self, growth: Growth, name: str) -> np.ndarray:
        size, target, table = growth.sizes[name], growth.targets[name], growth.architecture
        whole, rest = divmod(target, size)
        reason = self.whole_multiples_only(table, name) if rest else ""
        if reason:
            raise growth.refusal(name, reason, growth.multiples(name))
        meets_norm = is_normalised(table, name) or is_written_by_norm(table, name)
        if not rest or not meets_norm or (table.norm == "rms" and growth.rule == "orthogonal"):
            return orders.tiled(size, target)[0]
        mean = table.norm == "layer" and is_normalised(table, name)
        return np.concatenate([np.tile(np.arange(size), whole), np.full(rest, MEAN if mean else GAP)])

    def _writers(self, growth: Growth, name: str, count: np.ndarray, maps: Maps) -> np.ndarray:
        """[m] float64: what the writers are multiplied by."""
        read, exact = growth.weightless(name), growth.rule == "exact"
        if read:
            return np.asarray(gain_factors(maps[read]))
        keeps_eps = not self.takes_factors or (exact and growth.architecture.eps is None)
        if keeps_eps and is_normalised(growth.architecture, name):  # the norm sees the mean square that it saw
            return np.sqrt(growth.targets[name] / (growth.sizes[name] * count))
        if exact or not self.takes_factors:
            return np.ones(len(count))
        return np.sqrt(growth.gain(name) / count)

    def candidates(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, AxisMap]]:
        if growth.reads_tied(name):
            return _tied_candidates(growth, name, maps)
        return super().candidates(growth, name, maps)

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """Besides those of all copies: a copied gain, the factor of the whole axis, parts of a sum."""
        yield from super().factors(growth, name, source, maps)
        if self.unit_scale:
            return
        for _, signature in growth.architecture.norms:  # a gain that was copied as it is
            read = maps.get(signature.normalises.axes()[0]) if signature.normalises else None
            if read is not None and signature.gains == (name,) and np.array_equal(read.behind_norm, source):
                yield np.where(source == GAP, 0.0, gain_factors(read))
        rank, count = ranks(source)
        yield sqrt(growth.targets[name] / growth.sizes[name]) / np.sqrt(count)
        if not is_normalised(growth.architecture, name):  # a norm would see parts of a sum, not copies
            yield orders.shares(*orders.ranks(source))
            yield np.where(rank == 0, 1.0, 0.0)


@register
class Rank(Residual):
    """Sums and norms of an axis of its own between two projections: its norms keep the eps that they have."""

    word = "rank"
    coordinates = Kind.coordinates
    grown_by = ()
    keeps_size = True
    spans_layers = False
    takes_factors = False


@register
class PointwiseResidual(Residual):
    """Sums, norms and an activation."""

    word = "pointwise residual"
    unit_scale = True
    passes_means = False
    takes_factors = False

    def whole_multiples_only(self, table: Architecture, name: str) -> str:
        return "an activation writes what is summed"


def _tied_share(growth: Growth, name: str, maps: Maps) -> np.ndarray:
    """[m] float64: what the embedding will hold of each old number, with which a tied head reads (1 in gaps)."""
    tie = growth.architecture.tie
    assert tie is not None
    if growth.weightless(name) and growth.sizes[name] != growth.targets[name]:
        raise PlanError(f"{tie.head} is tied, and the norm before it has no weight to take a factor: untie first")
    written, share = _embedding(growth, maps)
    return np.asarray(np.where(written.gaps, 1.0, share))


def _embedding(growth: Growth, maps: Maps) -> tuple[AxisMap, np.ndarray]:
    """(the map of what a tied embedding writes, [m] float64: what it will hold of each old number)."""
    table = growth.architecture
    assert table.tie is not None
    written = maps[written_by_embedding(table)]
    constant = multiplier(table, growth.config, table.tie.embedding, growth.sizes, growth.targets)
    return written, written.scale * constant


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


def _tied_candidates(growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, AxisMap]]:
    """What a tied head reads with is what the embedding is written with; the gains before it are parts of a sum."""
    (written, share), gain = _embedding(growth, maps), growth.gain(name)
    source = written.behind_norm
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(source == GAP, 0.0, gain / (orders.ranks(source)[1] * share))
    if np.isfinite(scale).all():
        found = orders.gathered(growth.sizes[name], source, scale, share, gain, split="writers")
        yield "as the embedding", found
