"""A table of rows, each turned by one random rotation or reflection: rows P', with P orthogonal.

    Turned(embedding, RandomRotation(256, "0/lm_head.weight"))        logits = (h P) . w_j = h . (w_j P')

P is uniform among all orthogonal matrices (Haar). Its first column is the direction of d normal numbers x, (3, 4) ->
(0.6, 0.8); the reflection H across the plane halfway between x and the first axis takes that axis there, up to a sign,
and the columns behind it are H times such a matrix of d - 1 rows. So P is a product of d reflections and of signs:

    P = H_1 H_2 ... H_d diag(s),  H = 1 - 2 u u',  u = v / |v|,  v = x + sign(x_1) |x| e_1,  s = -sign(x_1)

Stewart, "The efficient generation of random orthogonal matrices" (1980), doi 10.1137/0717034. TOGETHER of them at a
time are 1 - 2 U T U', where the inverse of T is 1 + 2 R, and R what is above the diagonal of U'U: Joffrain et al.,
"Accumulating Householder transformations, revisited" (2006), doi 10.1145/1141885.1141886.

The law: P and rows P' are the same to the last bit on every machine that computes by IEEE 754, whatever its processor,
threads and libraries. Sums of floating-point products depend on their order, so none is left to a library: factors are
split into slices of few bits, such that every product of two slices and every sum of d of them is a whole number of at
most 2**53, exact in any order (Ozaki et al., "Error-free transformations of matrix multiplication", 2012). All else is
one addition, multiplication, division or square root at a time, rounded correctly, and sums by halves. Three slices
make P orthogonal to about 1e-15. Two turn rows: what they leave, 2**-42 of a row's largest number at d = 2048, is far
below what storing rounds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.random.drawn import Drawn
from modelsurgeon.tensors.stored import SMALL, Stored, Ungrown

MANTISSA = 53  # bits of a float64
TOGETHER = 128  # reflections that are applied at a time
STRIP = 512  # columns that they are applied to at a time

_ONE_AT_A_TIME = threading.Lock()  # threads that read one table ask for the slices at once


class RandomRotation:
    """One random orthogonal matrix, P [size, size] float64, computed when it is first needed."""

    copies = 4  # of the matrix at most: P, its two slices, and the rest after the first slice

    def __init__(self, size: int, key: str) -> None:
        self.size, self.key = size, key

    @property
    def normal(self) -> Drawn:
        """[size, size]: the normal numbers that P follows from."""
        return Drawn((self.size, self.size), "F64", 1.0, self.key)

    @property
    def held(self) -> int:
        """Bytes that computing and caching P takes; memory that was freed in between may still be resident."""
        scratch = 8 * min(self.size, STRIP) + 12 * min(self.size, TOGETHER)  # numbers for each row, in `reflect`
        return 8 * self.size * (self.copies * self.size + scratch) + self.normal.reading(0, 0)

    @cached_property
    def matrix(self) -> torch.Tensor:
        """P."""
        return haar(self.normal.read(0, self.size))

    @property
    def slices(self) -> tuple[torch.Tensor, ...]:
        """P, high and low."""
        with _ONE_AT_A_TIME:
            return self._slices

    @cached_property
    def _slices(self) -> tuple[torch.Tensor, ...]:
        return slices(self.matrix, bits(self.size), 2)


@dataclass(frozen=True, eq=False)
class Turned(Ungrown):
    """[n, d]: every row of a table times the transpose of P. A row that holds NaN or Inf becomes NaN."""

    table: LazyTensor
    rotation: RandomRotation

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.table.shape

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.table.dtype

    @property
    def stored(self) -> Stored | None:
        return self.table.stored

    @property
    def held(self) -> int:  # type: ignore[override]
        return self.rotation.held

    @property
    def says(self) -> str:
        """As `LazyTensor.says`: the dtype that numbers are rounded to."""
        return f"new: turned, rounded to {self.dtype}"

    def reading(self, rows: int, columns: int) -> int:
        """As `LazyTensor.reading`: whole rows in float64 slices, even where few columns are read."""
        whole = rows * self.shape[1]
        return self.table.reading(rows, self.shape[1]) + whole * 8 * 8 + SMALL

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Rows are turned whole, whatever the columns."""
        block = self.table.read(start, stop, empty)
        turned = times_transpose(block.double(), self.rotation)
        part = turned if last is None else turned[:, first:last]
        return empty(part.shape, DTYPES[self.dtype]).copy_(part)


def times_transpose(rows: torch.Tensor, rotation: RandomRotation) -> torch.Tensor:
    """[n, d] float64: rows P', the same bits in whatever blocks the rows come."""
    bad = ~rows.isfinite().all(1)
    largest = torch.where(bad[:, None], 0.0, rows).abs().amax(1, keepdim=True)
    unit = torch.from_numpy(np.ldexp(1.0, torch.frexp(largest).exponent.numpy()))
    scaled = torch.where(bad[:, None], 0.0, rows / unit)  # by a power of two: exact, below 1
    total = matrix_product(slices(scaled, bits(rotation.size), 2), transposed(rotation.slices))
    total *= unit
    total[bad] = torch.nan
    return total


def haar(normal: torch.Tensor) -> torch.Tensor:
    """[d, d]: P, from normal numbers, in their memory: x of reflection k is their column k from the diagonal down."""
    for first in reversed(range(0, len(normal), TOGETHER)):
        rest = normal[first:, first:]  # behind its first columns it is the product of the reflections after these
        count = min(TOGETHER, len(rest))
        vectors, signs = reflectors(rest[:, :count].tril())
        rest[:, :count] = 0.0
        rest[:count] = 0.0
        rest.diagonal()[:count] = signs
        reflect(rest, vectors)
    return normal


def reflectors(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(U, s) of the columns x, [m, k], in their memory: none of them zero on the diagonal, all of them above it."""
    diagonal = columns.diagonal()
    signs, lengths = torch.sgn(diagonal), square_root(sums(columns * columns))
    diagonal += signs * lengths
    columns /= square_root(2 * lengths * diagonal.abs())  # |v|
    return columns, -signs


def reflect(matrix: torch.Tensor, vectors: torch.Tensor) -> None:
    """The matrix, [m, n], times H_1 ... H_k from the left, in its memory. U is [m, k]."""
    length, count = vectors.shape
    rows = scaled_slices(vectors.T, length)
    overlaps = 2 * matrix_product(rows, transposed(rows))
    inverse = torch.eye(count, dtype=torch.float64)
    for k in reversed(range(count)):
        inverse[:k] -= overlaps[:k, k : k + 1] * inverse[k]
    columns = matrix_product(scaled_slices(vectors, count), scaled_slices(2 * inverse, count))
    turned = scaled_slices(columns, count)
    for first in range(0, matrix.shape[1], STRIP):
        strip = matrix[:, first : first + STRIP]
        shares = matrix_product(rows, scaled_slices(strip, length))
        strip -= matrix_product(turned, scaled_slices(shares, count))


# --- arithmetic that is the same everywhere ---


def bits(count: int) -> int:
    """Bits of a slice: two of them times `count` sums stay within 2**53."""
    return (MANTISSA - (count - 1).bit_length()) // 2


def slices(matrix: torch.Tensor, bits: int, count: int, unit: float = 1.0) -> tuple[torch.Tensor, ...]:
    """What adds up to a matrix of numbers of at most `unit`, up to 2**-(count bits) of it, the largest first: slice k
    holds whole multiples of 2**-(k bits) units, at most 2**bits of them."""
    parts, rest = [], matrix
    for k in range(1, count + 1):
        step = math.ldexp(unit, -k * bits)
        parts.append((rest / step).round_().mul_(step))
        rest = rest - parts[-1] if k < count else rest
    return tuple(parts)


def scaled_slices(matrix: torch.Tensor, length: int) -> tuple[torch.Tensor, ...]:
    """Three slices of any matrix, for sums of so many products."""
    unit = math.ldexp(1.0, math.frexp(float(matrix.abs().max()))[1])
    return slices(matrix, bits(length), 3, unit)


def transposed(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The transpose of each slice."""
    return tuple(part.T for part in parts)


def matrix_product(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The product of two matrices from as many slices of each, the small ones first: each product of two is exact.
    Those that are left out, of a low slice and a low one, are below the last bit kept."""
    pairs = [(i, order - i) for order in reversed(range(len(ours))) for i in reversed(range(order + 1))]
    (i, j), *others = pairs
    total = ours[i] @ theirs[j]
    for i, j in others:
        total += ours[i] @ theirs[j]
    return total


def sums(matrix: torch.Tensor) -> torch.Tensor:
    """[n]: the sum of each column, by halves, in the matrix's memory."""
    length = len(matrix)
    while length > 1:
        half = (length + 1) // 2
        matrix[: length - half] += matrix[half:length]
        length = half
    return matrix[0]


def square_root(numbers: torch.Tensor) -> torch.Tensor:
    """By NumPy, which leaves it to the processor: correctly rounded, as a library's own need not be."""
    return torch.from_numpy(np.sqrt(numbers.numpy()))
