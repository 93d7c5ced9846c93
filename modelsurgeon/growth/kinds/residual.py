"""Axes of sums and norms: the residual, an embedding size or a low rank of its own.

A size that is no multiple gets a tail: where no norm reads, more copies; behind an RMSNorm zeros, or copies that weigh
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
    grown_by: ClassVar[tuple[str, ...]] = ("head-dim", "heads")
    passes_means = True
    spans_layers = True
    takes_factors: ClassVar[bool] = True

    def reach(self, table: Architecture, name: str) -> str:
        return "xk" if self.whole_multiples_only(table, name) else "any"

    def whole_multiples_only(self, table: Architecture, name: str) -> str:
        """Why an axis grows by whole multiples only; empty where it grows to any size."""
        if table.norm == "layer" and is_normalised(table, name) and is_written_by_norm(table, name):
            return "a LayerNorm reads what another one writes, whose mean must stay (post-norm)"
        return ""

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Repeated coordinates, with factors that every norm and a tied head can pass."""
        source, gain = self._source(growth, name), growth.gain(name)
        if growth.reads_tied(name):
            return _tied_map(growth, name, maps, source)
        rank, count = ranks(source)
        writers = self._writers(growth, name, count, maps)
        share = gain / np.where(writers == 0, 1.0, writers) * growth.parts(rank, count)
        return orders.gathered(growth.sizes[name], source, writers, share, gain)

    def _source(self, growth: Growth, name: str) -> np.ndarray:
        size, target, table = growth.sizes[name], growth.targets[name], growth.architecture
        whole, rest = divmod(target, size)
        if rest and (reason := self.whole_multiples_only(table, name)):
            raise growth.refusal(name, reason, growth.multiples(name))
        meets_norm = is_normalised(table, name) or is_written_by_norm(table, name)
        if not rest or not meets_norm or (table.norm == "rms" and growth.rule == "orthogonal"):
            return orders.tiled(size, target)[0]
        mean = table.norm == "layer" and is_normalised(table, name)
        return np.concatenate([np.tile(np.arange(size), whole), np.full(rest, MEAN if mean else GAP)])

    def _writers(self, growth: Growth, name: str, count: np.ndarray, maps: Maps) -> np.ndarray:
        """[m] float64: the factors of the writers."""
        read, exact = growth.weightless(name), growth.rule == "exact"
        if read:
            return np.asarray(gain_factors(maps[read]))
        keeps_eps = not self.takes_factors or (exact and growth.architecture.eps is None)
        if keeps_eps and is_normalised(growth.architecture, name):  # the mean square that the norm sees stays the same
            return np.sqrt(growth.targets[name] / (growth.sizes[name] * count))
        factored = self.takes_factors and not exact
        return np.sqrt(growth.gain(name) / count) if factored else np.ones(len(count))

    def candidates(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, AxisMap]]:
        if not growth.reads_tied(name):
            yield from super().candidates(growth, name, maps)
            return
        (written, share), gain = _embedding(growth, maps), growth.gain(name)
        source = written.behind_norm
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(source == GAP, 0.0, gain / (orders.ranks(source)[1] * share))
        if np.isfinite(scale).all():
            yield "as the embedding", orders.gathered(growth.sizes[name], source, scale, share, gain, split="writers")

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """Those of all kinds, and a copied gain, the factor of the whole axis, parts of a sum."""
        yield from super().factors(growth, name, source, maps)
        if self.unit_scale:
            return
        for _, signature in growth.architecture.norms:  # a gain that was copied as it is
            read = maps.get(signature.normalises.axes()[0]) if signature.normalises else None
            if read is not None and signature.gains == (name,) and np.array_equal(read.behind_norm, source):
                yield np.where(source == GAP, 0.0, gain_factors(read))
        rank, count = ranks(source)
        yield sqrt(growth.targets[name] / growth.sizes[name]) / np.sqrt(count)
        yield sqrt(growth.gain(name)) / np.sqrt(count)  # both sides share what the model multiplies by
        if not is_normalised(growth.architecture, name):  # a norm would see parts of a sum, not copies
            yield orders.shares(*orders.ranks(source))
            yield np.where(rank == 0, 1.0, 0.0)


@register
class Rank(Residual):
    """Sums and norms of an axis of its own between two projections: its norms keep the eps that they have."""

    word = "rank"
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


def _tied_map(growth: Growth, name: str, maps: Maps, source: np.ndarray) -> AxisMap:
    """The map of what a tied head reads: with the embedding's factors, so that the gains before it make up the rest.

    Gains of the form (1 + w) in 16 bits hold 0 and 1 exactly and nothing between: they keep whole copies, then, if the
    total is a whole number.
    """
    tie, gain = growth.architecture.tie, growth.gain(name)
    assert tie is not None
    if growth.weightless(name) and growth.sizes[name] != growth.targets[name]:
        raise PlanError(f"{tie.head} is tied, and the norm before it has no weight to take a factor: untie first")
    written, share = _embedding(growth, maps)
    share = np.where(written.gaps, 1.0, share)
    total, (rank, count) = gain / share, ranks(source)
    parts, copies = growth.parts(rank, count), round(float(total[source >= 0][0]))
    whole = bool(np.all(total[source >= 0] == copies)) and copies <= int(count.min())
    if growth.rule == "exact" and growth.architecture.offset and growth.narrow and whole:
        parts = np.where(rank < copies, 1 / copies, 0.0)
    return orders.gathered(growth.sizes[name], source, total * parts, share, gain, split="writers")


def _embedding(growth: Growth, maps: Maps) -> tuple[AxisMap, np.ndarray]:
    """(the map of what a tied embedding writes, [m] float64: the factors of its numbers)."""
    table = growth.architecture
    assert table.tie is not None
    written = maps[written_by_embedding(table)]
    constant = multiplier(table, growth.config, table.tie.embedding, growth.sizes, growth.targets)
    return written, written.scale * constant
