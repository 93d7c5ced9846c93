"""One matrix of weights: its deviation beside initial deviations, its norm, its equal rows and columns.

    1 / sqrt(fan-in)    keeps the size of what passes: Xavier's normal (Glorot, Bengio 2010) of a square matrix
    0.0176              the deviation of BERT's initial weights, a normal of 0.02 cut at two deviations: 0.02 * 0.88

A lookup table sums nothing. Its width serves as fan-in, since a head that shares the table reads so many numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.diagnosis.weights.equal_coordinates import is_stack
from modelsurgeon.diagnosis.weights.equal_rows import Equal
from modelsurgeon.diagnosis.weights.gains import layer_of
from modelsurgeon.diagnosis.weights.numbers import Moments
from modelsurgeon.diagnosis.weights.spectral_norm import Spectral
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.tensors.lazy import LazyTensor

TRUNCATED = 0.02 * math.sqrt(1 - 4 * math.exp(-2.0) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2.0)))  # 0.0176


@dataclass(frozen=True)
class Matrix:
    """One matrix, or a stack of experts with the largest norm and the least stable rank among them.

    schema.json describes the fields; `fan_in` of a lookup table is its width, `frobenius` is of the whole stack.
    """

    tensor: str
    template: str
    layer: int | None
    shape: tuple[int, ...]
    dtype: str
    fan_in: int
    mean: float
    deviation: float
    xavier: float
    times_xavier: float
    times_truncated: float
    spectral_norm: float
    norm_error: float
    frobenius: float
    stable_rank: float
    equal_rows: int
    equal_columns: int
    zero_rows: int
    zero_columns: int


def is_matrix(template: Template) -> bool:
    """Whether a tensor reads an axis: gains and biases do not."""
    return any(side == "readers" for _, side in template.signature.dimensions)


def _fan_in(table: Architecture, template: Template, shape: tuple[int, ...]) -> int:
    dimensions = template.signature.dimensions
    read = [name for part, side in dimensions if side == "readers" for name in part.axes()]
    is_lookup = dimensions[0][1] == "readers" and not any(kind_of(table.axes[name]).is_examined for name in read)
    first, summed = int(is_stack(table, template)), "writers" if is_lookup else "readers"
    return math.prod(size for size, (_, side) in zip(shape[first:], dimensions[first:], strict=True) if side == summed)


def matrix(
    table: Architecture, name: str, tensor: LazyTensor, moments: Moments, equal: Equal, spectral: Spectral
) -> Matrix:
    """What was measured of one tensor that `is_matrix`."""
    template = table.template(name)
    assert template is not None
    fan_in = _fan_in(table, template, tensor.shape)
    mean, deviation, xavier = moments.mean if moments.count else math.nan, moments.deviation, 1 / math.sqrt(fan_in)
    named = name, template.name, layer_of(table, template, name), tensor.shape, tensor.dtype
    spread = mean, deviation, xavier, deviation / xavier, deviation / TRUNCATED
    norms = spectral.norm, spectral.error, spectral.frobenius, spectral.stable_rank
    lines = equal.rows.repeats, equal.columns.repeats, equal.rows.zeros, equal.columns.zeros
    return Matrix(*named, fan_in, *spread, *norms, *lines)
