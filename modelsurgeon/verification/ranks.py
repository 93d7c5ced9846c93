"""Ranks of grown matrices: what the gradient has, what it could have, and what copies allow it to have.

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

LARGEST = 2048  # the smaller side of a matrix that is ranked: singular values take the cube of it


@dataclass(frozen=True)
class MatrixRank:
    """One grown matrix.

    rank          of its gradient
    possible      the smallest of its rows, its columns and the positions of the batch
    copies_allow  the same with the rows and columns that it had before it grew
    weight_rank   of the matrix itself
    """

    tensor: str
    shape: tuple[int, ...]
    rank: int
    possible: int
    copies_allow: int
    weight_rank: int


Chosen = Mapping[str, tuple[int, ...]]  # {parameter: its shape before}


def chosen(
    table: Architecture, sizes: Mapping[str, int], maps: Mapping[str, AxisMap], values: Values, notes: list[str]
) -> Chosen:
    """The grown matrices to be ranked: of each line of the table the first, the middle and the last layer's.

    `notes` gets what is left out.
    """
    before = {axis: maps[axis].size if axis in maps else size for axis, size in sizes.items()}
    named: dict[str, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    left_out = 0
    for name, (weight, _) in values.items():
        template = table.template(name)
        old = template.signature.shape(before) if template else tuple(weight.shape)
        if template is None or weight.ndim != 2 or old == tuple(weight.shape):
            continue
        if min(weight.shape) > LARGEST:
            left_out += 1
            continue
        named[template.name].append((name, old))
    found = {name: old for same in named.values() for name, old in [same[0], same[len(same) // 2], same[-1]]}
    if left_out:
        notes.append(f"ranks: {left_out} matrices of more than {LARGEST} rows and columns left out")
    if len(found) < sum(map(len, named.values())):
        notes.append("ranks: of each kind of matrix the first, the middle and the last layer's")
    return found


def ranks(matrices: Chosen, values: Values, positions: int, tell: Tell) -> tuple[MatrixRank, ...]:
    """The rank of each of these. positions: of the batch; 0 where they are not known, and bound nothing."""
    found = []
    for done, (name, old) in enumerate(matrices.items()):
        tell("ranks", done, len(matrices))
        weight, gradient = values[name]
        bound = [positions] if positions else []
        found.append(
            MatrixRank(
                name,
                tuple(weight.shape),
                numerical_rank(gradient),
                min([*weight.shape, *bound]),
                min([*old, *bound]),
                numerical_rank(weight),
            )
        )
    tell("ranks", len(matrices), len(matrices))
    return tuple(found)


def numerical_rank(matrix: torch.Tensor) -> int:
    """How many singular values are above float32's rounding: max(rows, columns) * 2**-23 of the largest one.

    That is the usual bound (LAPACK's, NumPy's) for numbers that were computed in float32; the values are of float64.
    """
    values = torch.linalg.svdvals(matrix.detach().cpu().double())
    floor = values.max() * max(matrix.shape) * torch.finfo(torch.float32).eps
    return int((values > floor).sum())
