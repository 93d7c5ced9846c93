"""The singular values of a large matrix, read some rows at a time, and single numbers that describe them.

    A [n, d]  ->  G = sum over blocks of B^T B  [d, d]  ->  values = sqrt(eigenvalues of G)

Everything is in float64, and nothing is sampled. Squaring costs digits below sqrt(float64's eps) of the largest value;
a small matrix is decomposed directly, without that loss.

>>> entropy([1.0, 1.0, 1.0, 1.0]), effective_rank([1.0, 1.0, 1.0, 1.0]), largest_share([3.0, 1.0])
(0.0, 4.0, 0.75)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.diagnosis.weights.rows import BLOCK, RowBlocks
from modelsurgeon.progress import Tell, silent
from modelsurgeon.tensors.arithmetic import is_finite

Values = Sequence[float] | np.ndarray

DIRECT_SIDE, DIRECT = 512, 1 << 22  # the smaller side and the numbers up to which a direct decomposition takes < 0.3 s
GATHERED = 1024  # rows that are multiplied at a time: with fewer, reading and writing the sum takes most of the time
PANELS = 8  # of the symmetric product, for (1 + 1/8) / 2 of its work; more of them are too narrow to be faster
EIGEN = 4  # eigenvalues take as long as adding this many times d rows (measured at d = 2048)
EPS = float(np.finfo(np.float64).eps)
ANGLES = 1 << 16  # of the midpoint rule: 1e-9 of the integral where n = d, exact to rounding elsewhere


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a matrix [n, d], descending, and measures of them; schema.json describes the fields.

    All are NaN where the matrix holds NaN or infinities, but `rank`, which is None.
    resolution  values below this times the largest are rounding
    """

    shape: tuple[int, int]
    values: tuple[float, ...]
    entropy: float
    random_entropy: float
    effective_rank: float
    rank: int | None
    largest_share: float
    participation: float
    method: str
    resolution: float
    seconds: float
    tensor: str = ""


def spectrum(rows: RowBlocks, *, device: str = "cpu", tell: Tell = silent) -> Spectrum:
    """All singular values of one matrix, never of a stack; `memory_for` is the memory that it takes."""
    count, *sides = rows.shape
    assert count == 1, f"a spectrum is of one matrix, not of {count}"
    begin = time.perf_counter()
    n, d = sides
    direct, work = is_direct(n, d), n + EIGEN * min(n, d)  # rows to read, and the eigenvalues' time in rows
    if direct:
        values = singular_values(_whole(rows, device))
    else:
        values = _by_gram(rows, device, lambda read: tell("spectrum", read, work))
    tell("spectrum", work, work)
    resolution = max(n, d) * EPS if direct else math.sqrt(max(n, d) * EPS)
    least = resolution * values.max(initial=0)
    return Spectrum(
        shape=(n, d),
        values=tuple(values.tolist()),
        entropy=entropy(values),
        random_entropy=random_entropy(n, d),
        effective_rank=effective_rank(values),
        rank=int((values > least).sum()) if math.isfinite(least) else None,
        largest_share=largest_share(values),
        participation=participation(values),
        method=f"{'singular values' if direct else f'Gram matrix of {min(n, d)} x {min(n, d)}'} in float64, all rows",
        resolution=resolution,
        seconds=time.perf_counter() - begin,
    )


def is_direct(n: int, d: int) -> bool:
    """Whether a matrix is so small that it is decomposed directly."""
    return min(n, d) <= DIRECT_SIDE and n * d <= DIRECT


def memory_for(n: int, d: int) -> int:
    """Bytes of memory that `spectrum` of [n, d] takes at most beside what `rows` keeps (a test measures it)."""
    side, other, block = min(n, d), max(n, d), 2 * 8 * (BLOCK + max(n, d))
    if is_direct(n, d):
        return 3 * 8 * n * d + block  # the matrix, what LAPACK overwrites, its workspace
    whole = 8 * n * d if n < d else 0
    return 2 * 8 * side * side + 8 * min(GATHERED, other) * side + whole + block  # the sum, a copy, gathered rows


def gram(blocks: Iterable[torch.Tensor], width: int, device: str = "cpu") -> torch.Tensor:
    """[width, width] float64 on `device`: the sum of B^T B over blocks B of [r, width] in any dtype."""
    total = torch.zeros(width, width, dtype=torch.float64, device=device)
    gathered = torch.empty(GATHERED, width, dtype=torch.float64, device=device)
    used = 0
    for part in (part for block in blocks for part in torch.split(block, GATHERED)):
        room = min(GATHERED - used, len(part))
        gathered[used : used + room].copy_(part[:room])
        used += room
        if used == GATHERED:
            _add_product(total, gathered)
            used = len(part) - room
            gathered[:used].copy_(part[room:])
    _add_product(total, gathered[:used])
    for first, last in _panels(width):  # what lies below the diagonal
        corner = total[first:last, first:last]
        corner.copy_(corner.triu() + corner.triu(1).T)
        total[first:last, :first].copy_(total[:first, first:last].T)
    return total


def gram_singular_values(product: torch.Tensor) -> np.ndarray:
    """[d] float64, descending: the roots of the eigenvalues of a Gram matrix [d, d]; NaN where it is not finite."""
    if not is_finite(product):
        return np.full(len(product), np.nan)
    squares = torch.linalg.eigvalsh(product).clamp_(min=0)  # one below zero is rounding
    return np.asarray(squares.sqrt_().flip(0).cpu().numpy())


def singular_values(matrix: torch.Tensor) -> np.ndarray:
    """[min(n, d)] float64, descending, of [n, d] float64; all NaN where a number of it is not finite."""
    return torch.linalg.svdvals(matrix).cpu().numpy() if is_finite(matrix) else np.full(min(matrix.shape), np.nan)


def normalised(values: Values) -> np.ndarray:
    """[d]: singular values over their sum; NaN where that is zero or not finite, one NaN where there are none."""
    found = np.asarray(values, dtype=np.float64)
    largest = found.max(initial=0.0)
    if not largest > 0 or not math.isfinite(largest):
        return np.full(max(1, len(found)), np.nan)
    found = found / largest  # so that no sum overflows
    return np.asarray(found / found.sum())


def entropy(values: Values) -> float:
    """Nats: KL of the `normalised` values to uniform ones, log d - H: 0 where all are equal, log d at rank 1."""
    shares = normalised(values)
    return float(np.maximum(0.0, math.log(len(shares)) - _disorder(shares)))  # Python's max loses a NaN


def effective_rank(values: Values) -> float:
    """exp H of `normalised`, from 1 to d (Roy and Vetterli, The effective rank, EUSIPCO 2007)."""
    return math.exp(_disorder(normalised(values)))


def participation(values: Values) -> float:
    """(sum s^2)^2 / sum s^4, from 1 to d: how many equal directions would spread the energy so."""
    energy = normalised(values) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())


def largest_share(values: Values) -> float:
    """The largest singular value over the sum of all."""
    return float(normalised(values).max())


def random_entropy(n: int, d: int) -> float:
    """Nats: the limit of `entropy` for large n x d matrices of independent entries of one deviation; about y/8.

    By the law of Marchenko and Pastur (1967) with y = d/n <= 1: squared values over n have a density on
    1 + y - 2 sqrt(y) cos t, which is 2 sin(t)^2 / (pi (1 + y - 2 sqrt(y) cos t)) over t from 0 to pi.
    """
    if not n or not d:
        return math.nan
    aspect = min(n, d) / max(n, d)
    angle = (np.arange(ANGLES) + 0.5) * (math.pi / ANGLES)
    square = 1 + aspect - 2 * math.sqrt(aspect) * np.cos(angle)
    weight = 2 * np.sin(angle) ** 2 / square / ANGLES
    mean = float(weight @ np.sqrt(square))
    return float(weight @ (np.sqrt(square) * np.log(square)) / 2) / mean - math.log(mean)


def _disorder(shares: np.ndarray) -> float:
    """Nats: the entropy of a distribution, NaN where it holds one."""
    some = shares[shares != 0]
    return float(-(some * np.log(some)).sum())


def _by_gram(rows: RowBlocks, device: str, tell: Callable[[int], object]) -> np.ndarray:
    """[min(n, d)] float64, descending."""
    _, n, d = rows.shape
    if n < d:
        parts = torch.split(_whole(rows, device), GATHERED, 1)
        return gram_singular_values(gram((part.T for part in parts), n, device))

    def blocks() -> Iterator[torch.Tensor]:
        for _, first, block in rows.blocks():
            yield block
            tell(first + len(block))

    return gram_singular_values(gram(blocks(), d, device))


def _whole(rows: RowBlocks, device: str) -> torch.Tensor:
    """[n, d] float64."""
    whole = torch.empty(rows.shape[1:], dtype=torch.float64, device=device)
    for _, first, block in rows.blocks():
        whole[first : first + len(block)].copy_(block)
    return whole


def _add_product(total: torch.Tensor, block: torch.Tensor) -> None:
    """Add B^T B on and above the diagonal, panel by panel: torch has no symmetric product."""
    for first, last in _panels(len(total)):
        total[first:last, first:].addmm_(block[:, first:last].T, block[:, first:])


def _panels(width: int) -> list[tuple[int, int]]:
    step = max(1, -(-width // PANELS))
    return [(first, min(first + step, width)) for first in range(0, width, step)]
