"""One matrix of weights: its deviation beside those that matrices begin with, its norm, its equal rows and columns.

    1 / sqrt(fan-in)    what keeps the size of what passes: Xavier's normal (Glorot, Bengio 2010) of a square matrix
    0.0176              of the normal of 0.02 cut at two deviations, which BERT begins with: 0.02 * 0.88

A lookup table reads no sums: its width stands in for the fan-in, since that is what a head that shares it reads.
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
from modelsurgeon.maps.signature import Signature
from modelsurgeon.tensors.lazy import LazyTensor

TRUNCATED = 0.02 * math.sqrt(1 - 4 * math.exp(-2.0) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2.0)))  # 0.0176


@dataclass(frozen=True)
class Matrix:
    """One matrix, or a stack of them: experts, with the largest norm and the least stable rank among them.

    fan_in         how many numbers are summed for one that it writes; of a lookup table, its width
    mean           of its finite numbers, and so is `deviation`
    xavier         1 / sqrt(fan_in); `times_xavier`: the deviation over it
    norm_error     by how much `spectral_norm` may be too small; `frobenius`: of the whole stack
    equal_rows     that equal an earlier row bit by bit, zero ones left out; zero_rows: that hold zeros alone
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
    """Whether a tensor reads something: gains and biases do not."""
    return any(side == "readers" for _, side in template.signature.dimensions)


def fan_in(table: Architecture, template: Template, shape: tuple[int, ...]) -> int:
    """How many numbers are summed for one; of a lookup table, its width."""
    counted = slice(1, None) if is_stack(table, template) else slice(None)
    sides = [side for _, side in template.signature.dimensions][counted]
    summed = "writers" if _is_lookup(table, template.signature) else "readers"
    return math.prod(size for size, side in zip(shape[counted], sides, strict=True) if side == summed)


def _is_lookup(table: Architecture, signature: Signature) -> bool:
    """Whether it is read row by row, as `vocab -> stream`, and reads nothing that grows."""
    read = [name for part, side in signature.dimensions if side == "readers" for name in part.axes()]
    is_first = signature.dimensions[0][1] == "readers"
    return is_first and not any(kind_of(table.axes[name]).is_examined for name in read)


def matrix(
    table: Architecture, name: str, tensor: LazyTensor, moments: Moments, equal: Equal, spectral: Spectral
) -> Matrix:
    """What was measured of one tensor that `is_matrix`."""
    template = table.template(name)
    assert template is not None
    summed = fan_in(table, template, tensor.shape)
    deviation, xavier = moments.deviation, 1 / math.sqrt(summed)
    return Matrix(
        name,
        template.name,
        layer_of(table, template, name),
        tensor.shape,
        tensor.dtype,
        summed,
        moments.mean if moments.count else math.nan,
        deviation,
        xavier,
        deviation / xavier,
        deviation / TRUNCATED,
        spectral.norm,
        spectral.error,
        spectral.frobenius,
        spectral.stable_rank,
        equal.rows.repeats,
        equal.columns.repeats,
        equal.rows.zeros,
        equal.columns.zeros,
    )
