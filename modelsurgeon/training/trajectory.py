"""How a grown model must be trained to follow its source, step for step.

A grown weight is W'[j] = f[j] W[i], i the old number that j copies. Its gradient is g'[j] = c[j] g[i], where c follows
from the axes with their two sides exchanged: a number on a written axis changes the loss as far as it is *read*
(`share` / gain), and what multiplies a read axis is what was *written* there (`scale`; / gain where the model itself
divides). Over the copies of one number the products f c sum to 1: the chain rule. AdamW then makes the step of the
source, times f, with

    exp_avg c,  exp_avg_sq c^2,  eps c        the same quotient m / (sqrt(v) + eps)
    lr f                                      a step of f times the size
    weight_decay / f                          lr * weight_decay is what it was

Copies read with a half each (rule exact, twice as wide): f = c = 1/2 in a matrix; an embedding has f = 1, c = 1/2; an
untied head f = 1/2, c = 1. For the rule `exact` the learning rates are those of muP for Adam (Yang et al. 2022, table
3): 1 for embeddings and gains, 1/k for matrices and the head.

One tensor has one learning rate. Where f differs inside of it, the mean is right for the sum of the copies; the
trajectory is then followed nearly, and `Scaling.reasons` lists why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.maps.orders import identity
from modelsurgeon.maps.signature import gain_factors

EVEN = 1e-9  # factors nearer to each other than this are one: they come from a few float64 operations


@dataclass(frozen=True)
class Factors:
    """The factors of a tensor's numbers: gaps have none."""

    low: float
    mean: float
    high: float

    @property
    def is_even(self) -> bool:
        return self.high - self.low <= EVEN * self.high

    def times(self, other: Factors) -> Factors:
        """Of a product of independent factors."""
        return Factors(self.low * other.low, self.mean * other.mean, self.high * other.high)

    def over(self, number: float) -> Factors:
        return Factors(self.low / number, self.mean / number, self.high / number)


@dataclass(frozen=True)
class Scaling:
    """What growth does to the training of one tensor.

    weight    f: what weights are multiplied by
    gradient  c: what gradients are multiplied by
    norm      by how much the squared length of the gradient changes
    reasons   why the trajectory is not followed to the last digit; empty where it is
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
        """For decay apart from the gradient, as in AdamW."""
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
    tied          one parameter is embedding and head
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
        """What a tensor is multiplied by because the model multiplies its product by a power of a size."""
        targets = {axis: axis_map.new_size for axis, axis_map in self.maps.items()}
        return multiplier(self.architecture, self.config, template.name, self.sizes, targets)

    def gradient(self, template: Template) -> tuple[Dimension, ...]:
        """The growth of a tensor's gradient, but for the tensor's constant."""
        signature = template.signature
        grown = replace(signature, normalises=None).grow(self.duals)
        if signature.normalises is None:
            return grown
        normalised = np.ones(1)
        for axis in signature.normalises.axes():
            normalised = np.outer(normalised, gain_factors(self.maps[axis])).ravel()
        return (*grown[:-1], replace(grown[-1], factor=grown[-1].factor * normalised))

    def scaling(self, template: Template) -> Scaling:
        """What growth does to the training of a template's tensors."""
        if template.name not in self.known:
            self.known[template.name] = self._scaling(template)
        return self.known[template.name]

    def _scaling(self, template: Template) -> Scaling:
        table, constant = self.architecture, self.constant(template)
        weights, gradients = template.signature.grow(self.maps), self.gradient(template)
        weight, gradient, norm = Factors(1.0, 1.0, 1.0), Factors(1.0, 1.0, 1.0), 1.0
        for dimension in weights:
            weight = weight.times(_spread(dimension))
        for dimension in gradients:
            gradient = gradient.times(_spread(dimension))
            norm *= float((dimension.factor**2).sum()) / max(1, dimension.size)
        for axis in table.spread(template):  # tensors of their own
            dual = self.duals[axis]
            gradient = gradient.times(Factors(*_three(dual.scale[dual.copied])))
        weight, gradient = weight.over(1 / constant), gradient.over(constant)
        found = Scaling(weight, gradient, norm / constant**2)
        return replace(found, reasons=(*self._reasons(template, weights, found),))

    def _reasons(self, template: Template, weights: tuple[Dimension, ...], found: Scaling) -> Iterable[str]:
        if not found.weight.is_even:
            yield f"one tensor has one learning rate, and its factors go from {_range(found.weight)}"
        if not found.gradient.is_even:
            yield f"one tensor has one eps, and its gradients' factors go from {_range(found.gradient)}"
        if any(dimension.means for dimension in weights):
            yield "a mean of coordinates gets a gradient of its own"
        written = {axis for expression, _ in template.signature.written for axis in expression.axes()}
        yield from (why for axis, why in self.mixed.items() if axis in written)
        tie = self.architecture.tie
        if tie and self.tied and template.name == tie.embedding:
            head = next(line for line in self.architecture.templates if line.name == tie.head)
            other = self.scaling(head).gradient.mean
            if abs(other - found.gradient.mean) > EVEN * other:
                yield "as embedding and as head it gets gradients of different factors"

    @cached_property
    def mixed(self) -> dict[str, str]:
        """{axis: why copies on it get gradients that no factor gives}."""
        return {**self._mixed_by_norms(), **self._mixed_by_queries()}

    def _mixed_by_norms(self) -> dict[str, str]:
        """A norm's gradient has one part that follows its readers and one that follows its inputs."""
        found = {}
        for _, signature in self.architecture.norms:
            assert signature.normalises is not None
            for axis, written in zip(signature.normalises.axes(), signature.gains, strict=True):
                before, after = self.maps[axis], self.maps[written]
                wanted = _energies(before)
                if not all(np.allclose(_parts(m)[before.copied], wanted, rtol=EVEN, atol=0) for m in (before, after)):
                    found[axis] = f"a norm over {axis!r} mixes the gradients of copies with unequal shares"
        return found

    def _mixed_by_queries(self) -> dict[str, str]:
        """A copied key-value head follows its source where it serves copies of the whole group, all alike."""
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
    """The map of gradients: what is written changes the loss as far as it is read, and the other way round."""
    share = np.where(axis_map.copied, axis_map.scale, 0.0) / axis_map.gain
    return AxisMap(
        axis_map.size, axis_map.source, axis_map.share / axis_map.gain, share, 1 / axis_map.gain, axis_map.split
    )


def _parts(axis_map: AxisMap) -> np.ndarray:
    """[m] float64: each copy's part of its source; the parts add up to 1."""
    return np.asarray(axis_map.scale * axis_map.share / axis_map.gain)


def _energies(axis_map: AxisMap) -> np.ndarray:
    """[copied] float64: each copy's part of its source's squared length; the parts add up to 1."""
    kept = axis_map.copied
    return np.asarray(axis_map.scale[kept] ** 2 / axis_map.energy()[axis_map.source[kept]])


def _spread(dimension: Dimension) -> Factors:
    kept = (dimension.source >= 0) & (dimension.source < dimension.size)
    return Factors(*_three(dimension.factor[kept]))


def _three(factors: np.ndarray) -> tuple[float, float, float]:
    if not len(factors):
        return 1.0, 1.0, 1.0
    low, high = float(factors.min()), float(factors.max())
    return low, low if low == high else float(factors.mean()), high


def _range(spread: Factors) -> str:
    return f"{spread.low:.4g} to {spread.high:.4g}"
