"""Ranks of grown matrices' gradients: what they are, what they could be, and what copies allow.

The gradient of a matrix is a sum over the positions of a batch, so its rank is at most their number, its rows and its
columns. Rows (or columns) that are copies have parallel gradients: then it is at most the size before growth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell
from modelsurgeon.verification.copies import Values

LARGEST = 2048  # the smaller side of a ranked matrix, at most: the time for singular values grows as its cube


@dataclass(frozen=True)
class MatrixRank:
    """One grown matrix.

    rank, weight_rank  of its gradient, and of the matrix itself
    possible           the smallest of its rows, its columns and the positions of the batch
    copies_allow       the same with the rows and columns that it had before it grew
    """

    tensor: str
    shape: tuple[int, ...]
    rank: int
    possible: int
    copies_allow: int
    weight_rank: int


def chosen(
    table: Architecture, sizes: Mapping[str, int], maps: Mapping[str, AxisMap], values: Values, notes: list[str]
) -> dict[str, tuple[int, ...]]:
    """{parameter: its shape before}: for each line of the table the grown matrix of the first, middle and last layer.

    notes  gets what is left out
    """
    before = {axis: maps[axis].size if axis in maps else size for axis, size in sizes.items()}
    by_line: dict[str, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    left_out = 0
    for name, (weight, _) in values.items():
        template = table.template(name)
        old = template.signature.shape(before) if template else tuple(weight.shape)
        if template is None or weight.ndim != 2 or old == tuple(weight.shape):
            continue
        if min(weight.shape) > LARGEST:
            left_out += 1
        else:
            by_line[template.name].append((name, old))
    found = dict(one for layers in by_line.values() for one in (layers[0], layers[len(layers) // 2], layers[-1]))
    if left_out:
        notes.append(f"ranks: {left_out} matrices of more than {LARGEST} rows and columns left out")
    if len(found) < sum(map(len, by_line.values())):
        notes.append("ranks: of each kind of matrix the first, the middle and the last layer's")
    return found


def ranks(
    matrices: Mapping[str, tuple[int, ...]], values: Values, positions: int, tell: Tell
) -> tuple[MatrixRank, ...]:
    """The ranks of matrices {parameter: its shape before}; `positions` of the batch, 0 if unknown."""
    found = []
    for done, (name, old) in enumerate(matrices.items()):
        tell("ranks", done, len(matrices))
        weight, gradient = values[name]
        possible, allowed = (min(filter(None, [*shape, positions])) for shape in (weight.shape, old))
        rank, weight_rank = numerical_rank(gradient), numerical_rank(weight)
        found.append(MatrixRank(name, tuple(weight.shape), rank, possible, allowed, weight_rank))
    tell("ranks", len(matrices), len(matrices))
    return tuple(found)


def numerical_rank(matrix: torch.Tensor) -> int:
    """How many singular values, computed in float64, are above float32's rounding.

    That is max(rows, columns) * 2**-23 of the largest one: the bound of LAPACK and NumPy for float32 numbers.
    """
    values = torch.linalg.svdvals(matrix.detach().cpu().double())
    floor = values.max() * max(matrix.shape) * torch.finfo(torch.float32).eps
    return int((values > floor).sum())
