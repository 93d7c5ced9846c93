"""How a grown model must be trained to follow its source, step for step.

A grown weight is W'[j] = f[j] W[i], where j copies the old number i. Its gradient is g'[j] = c[j] g[i]. The factors c
follow from the axes with their two sides exchanged: a number on a written axis changes the loss as far as it is *read*
(`share` / gain); a number on a read axis is multiplied by what was *written* there (`scale`; / gain where the model
itself divides). Over the copies of one number the products f c sum to 1: the chain rule. AdamW makes the source's step,
times f, with

    exp_avg c,  exp_avg_sq c^2,  eps c        the same quotient m / (sqrt(v) + eps)
    lr f                                      a step of f times the size
    weight_decay / f                          lr * weight_decay is what it was

Copies read with a half each (rule exact, twice as wide): f = c = 1/2 in a matrix; an embedding has f = 1, c = 1/2; an
untied head f = 1/2, c = 1. For the rule `exact` the learning rates are those of muP for Adam (Yang et al. 2022, table
3): 1 for embeddings and gains, 1/k for matrices and the head.

One tensor has one learning rate. Where f differs inside a tensor, its mean is right for the sum of the copies; training
then follows the trajectory only nearly, and `Scaling.reasons` lists why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from math import prod
from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.maps.orders import identity
from modelsurgeon.maps.signature import gain_factors

EVEN = 1e-9  # factors that differ by less are equal: they come from a few float64 operations


@dataclass(frozen=True)
class Factors:
    """The range of the factors of a tensor's numbers, gaps left out."""

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, factors: np.ndarray) -> Factors:
        """[n] float64; 1 where there are none."""
        if not len(factors):
            return cls(1.0, 1.0, 1.0)
        low, high = float(factors.min()), float(factors.max())
        return cls(low, low if low == high else float(factors.mean()), high)

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def is_even(self) -> bool:
        return self.high - self.low <= EVEN * self.high

    def times(self, other: Factors) -> Factors:
        """The factors of an outer product."""
        return Factors(self.low * other.low, self.mean * other.mean, self.high * other.high)

    def over(self, number: float) -> Factors:
        return Factors(self.low / number, self.mean / number, self.high / number)


@dataclass(frozen=True)
class Scaling:
    """What growth does to the training of one tensor.

    weight    f: the factors of its weights
    gradient  c: the factors of its gradients
    norm      the factor of its gradient's squared length
    reasons   why training follows the trajectory only nearly; empty where it follows it exactly
    """

    weight: Factors
    gradient: Factors
    norm: float
    reasons: tuple[str, ...] = ()

    @property
    def lr(self) -> float:
        return _neat(self.weight.mean)

    @property
    def weight_decay(self) -> float:
        """For decay that is not part of the gradient, as in AdamW."""
        return _neat(1 / self.weight.mean)

    @property
    def eps(self) -> float:
        return _neat(self.gradient.mean)


def _neat(value: float) -> float:
    """Drop the last digits of float64: 0.5, not 0.5000000000000001."""
    return float(f"{value:.12g}")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The law for one growth of one model.

    architecture  the table, fitted to the tensors' names
    config        the source's, resolved
    grown         {axis: map} of the axes that grew
    tied          whether one parameter is embedding and head
    known         {template: scaling} of those computed so far
    """

    architecture: Architecture
    config: Mapping[str, Any]
    grown: Mapping[str, AxisMap]
    tied: bool
    known: dict[str, Scaling] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> dict[str, int]:
        return self.architecture.sizes(self.config)

    @cached_property
    def maps(self) -> dict[str, AxisMap]:
        """{axis: map}, of every axis."""
        return {axis: self.grown.get(axis) or identity(size) for axis, size in self.sizes.items()}

    @cached_property
    def duals(self) -> dict[str, AxisMap]:
        """{axis: map with its sides exchanged}."""
        return {axis: exchanged(axis_map) for axis, axis_map in self.maps.items()}

    def constant(self, template: Template) -> float:
        """The factor that makes up for a power of a size by which the model multiplies the tensor's product."""
        targets = {axis: axis_map.new_size for axis, axis_map in self.maps.items()}
        return multiplier(self.architecture, self.config, template.name, self.sizes, targets)

    def gradient(self, template: Template) -> tuple[Dimension, ...]:
        """The growth of each dimension of a tensor's gradient, without the tensor's constant."""
        signature = template.signature
        grown = replace(signature, normalises=None).grow(self.duals)
        if signature.normalises is None:
            return grown
        normalised = np.ones(1)
        for axis in signature.normalises.axes():
            normalised = np.outer(normalised, gain_factors(self.maps[axis])).ravel()
        return (*grown[:-1], replace(grown[-1], factor=grown[-1].factor * normalised))

    def scaling(self, template: Template) -> Scaling:
        """How growth changes the training of a template's tensors."""
        if template.name in self.known:
            return self.known[template.name]
        constant = self.constant(template)
        weights, gradients = template.signature.grow(self.maps), self.gradient(template)
        weight = reduce(Factors.times, map(_factors, weights), Factors(1.0, 1.0, 1.0)).over(1 / constant)
        gradient = reduce(Factors.times, map(_factors, gradients), Factors(1.0, 1.0, 1.0))
        norm = prod(float((dimension.factor**2).sum()) / max(1, dimension.size) for dimension in gradients)
        for axis in self.architecture.spread(template):  # one tensor for each coordinate
            dual = self.duals[axis]
            gradient = gradient.times(Factors.of(dual.scale[dual.copied]))
        scaling = Scaling(weight, gradient.over(constant), norm / constant**2)
        scaling = replace(scaling, reasons=(*self._reasons(template, weights, scaling),))
        self.known[template.name] = scaling
        return scaling

    def _reasons(self, template: Template, weights: tuple[Dimension, ...], scaling: Scaling) -> Iterable[str]:
        if not scaling.weight.is_even:
            yield f"one tensor has one learning rate, and its factors go from {scaling.weight}"
        if not scaling.gradient.is_even:
            yield f"one tensor has one eps, and its gradients' factors go from {scaling.gradient}"
        if any(dimension.means for dimension in weights):
            yield "a mean of coordinates gets a gradient of its own"
        written = {axis for expression, _ in template.signature.written for axis in expression.axes()}
        yield from (why for axis, why in self.mixed.items() if axis in written)
        tie = self.architecture.tie
        if tie and self.tied and template.name == tie.embedding:
            head = next(line for line in self.architecture.templates if line.name == tie.head)
            other = self.scaling(head).gradient.mean
            if abs(other - scaling.gradient.mean) > EVEN * other:
                yield "as embedding and as head it gets gradients of different factors"

    @cached_property
    def mixed(self) -> dict[str, str]:
        """{axis: why the gradients of copies on it are not the source's times a factor}."""
        return {**self._mixed_by_norms(), **self._mixed_by_queries()}

    def _mixed_by_norms(self) -> dict[str, str]:
        """One part of a norm's gradient follows its readers, one its inputs: copies need equal parts of both."""
        found = {}
        for _, signature in self.architecture.norms:
            assert signature.normalises is not None
            for axis, written in zip(signature.normalises.axes(), signature.gains, strict=True):
                before, after = self.maps[axis], self.maps[written]
                copied = before.copied
                energies = before.scale[copied] ** 2 / before.energy()[before.source[copied]]  # their sum is 1, too
                if not all(np.allclose(_parts(m)[copied], energies, rtol=EVEN, atol=0) for m in (before, after)):
                    found[axis] = f"a norm over {axis!r} mixes the gradients of copies with unequal shares"
        return found

    def _mixed_by_queries(self) -> dict[str, str]:
        """A copied key-value head follows its source only if it serves equal copies of the whole group."""
        found = {}
        for name, axis in self.architecture.axes.items():
            if not kind_of(axis).is_head or axis.follows is None or axis.follows not in self.maps:
                continue
            keys, queries = self.maps[name], self.maps[axis.follows]
            if keys.is_identity or not keys.new_size or queries.new_size % keys.new_size:
                continue
            used = np.arange(queries.new_size) // (queries.new_size // keys.new_size)
            shares = np.zeros((keys.new_size, queries.size))
            np.add.at(shares, (used[queries.copied], queries.source[queries.copied]), _parts(queries)[queries.copied])
            group = np.arange(queries.size) // (queries.size // keys.size)
            wanted = np.where(group == keys.source[:, None], _parts(keys)[:, None], 0.0)
            if not np.allclose(shares, wanted, rtol=EVEN, atol=EVEN):
                found[name] = f"copies on {name!r} serve queries of their own"
        return found


def exchanged(axis_map: AxisMap) -> AxisMap:
    """The map of gradients, `axis_map` with its two sides exchanged."""
    share = np.where(axis_map.copied, axis_map.scale, 0.0) / axis_map.gain
    return AxisMap(
        axis_map.size, axis_map.source, axis_map.share / axis_map.gain, share, 1 / axis_map.gain, axis_map.split
    )


def _parts(axis_map: AxisMap) -> np.ndarray:
    """[m] float64: each copy's part of its source; the parts of one source add up to 1."""
    return np.asarray(axis_map.scale * axis_map.share / axis_map.gain)


def _factors(dimension: Dimension) -> Factors:
    return Factors.of(dimension.factor[(dimension.source >= 0) & (dimension.source < dimension.size)])
