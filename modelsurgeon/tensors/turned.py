"""A table of rows, each turned by one random rotation or reflection: rows P', with P orthogonal.

    Turned(embedding, Rotation(256, "0/lm_head.weight"))        logits = (h P) . w_j = h . (w_j P')

P is uniform among all orthogonal matrices (Haar): the Q of a normal matrix, with the signs that make the diagonal of R
positive (Mezzadri, "How to generate random matrices from the classical compact groups", 2007, arXiv:math-ph/0609050).

Sums of floating-point products depend on their order, and that on threads and on how a tensor is cut. Here none does:
rows and P are split into two slices of few bits, such that every product of two slices and every sum of d of them is a
whole number below 2**53, exact in any order (Ozaki et al., "Error-free transformations of matrix multiplication",
2012). What the slices leave, 2**-42 of a row's largest number at d = 2048, is far below what storing rounds.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property

import torch

from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.computed import Computed
from modelsurgeon.tensors.cost import of_read
from modelsurgeon.tensors.drawn import Drawn
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.stored import Stored

MANTISSA = 53  # bits of a float64
COPIES = 6  # d x d matrices of float64 while P is made: the normal one, Q, R, and what LAPACK works in
SMALL = 1 << 16  # bytes: objects

_ONE_AT_A_TIME = threading.Lock()


class Rotation:
    """One random orthogonal matrix, [size, size] float64, made when it is first asked for."""

    def __init__(self, size: int, key: str) -> None:
        self.size, self.key = size, key

    @property
    def held(self) -> int:
        """Bytes that making and keeping it takes."""
        return COPIES * 8 * self.size**2

    @property
    def bits(self) -> int:
        """Bits of a slice: two of them times `size` sums stay below 2**53."""
        return (MANTISSA - math.ceil(math.log2(max(2, self.size)))) // 2

    @cached_property
    def matrix(self) -> torch.Tensor:
        """P. The same to the last bit whatever the threads, on one kind of processor."""
        with _ONE_AT_A_TIME:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                normal = Drawn((self.size, self.size), "F64", 1.0, self.key).read(0, self.size)
                q, r = torch.linalg.qr(normal)
            finally:
                torch.set_num_threads(threads)
            signs = torch.sgn(r.diagonal())
            turned: torch.Tensor = q.mul_(torch.where(signs == 0, 1.0, signs))
            return turned

    @cached_property
    def slices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """P, high and low."""
        return slices(self.matrix, self.bits)


@dataclass(frozen=True, eq=False)
class Turned(Computed):
    """[n, d]: every row of a table times the transpose of P. A row that holds NaN or Inf becomes NaN."""

    base: LazyTensor
    rotation: Rotation

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.base.shape

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.base.dtype

    @property
    def stored(self) -> Stored | None:
        return self.base.stored

    @property
    def held(self) -> int:
        return self.rotation.held

    @property
    def says(self) -> str:
        return f"new: turned, rounded to {self.dtype}"

    def reading(self, rows: int, columns: int) -> int:
        whole = rows * self.shape[1]  # of which columns may be a part: a row is read whole
        return of_read(self.base, rows, self.shape[1]) + whole * 8 * 8 + SMALL

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        block = self.base.read(start, stop, empty)
        turned = times_transpose(block.double(), self.rotation)
        part = turned if last is None else turned[:, first:last]
        return empty(part.shape, DTYPES[self.dtype]).copy_(part)


def times_transpose(rows: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """[n, d] float64: rows P', the same bits in whatever blocks the rows come."""
    bad = ~rows.isfinite().all(1)
    largest = torch.where(bad[:, None], 0.0, rows).abs().amax(1, keepdim=True)
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent.to(torch.float64))
    scaled = torch.where(bad[:, None], 0.0, rows / unit)  # by a power of two: exact, below 1
    ours = slices(scaled, rotation.bits)
    high, low = (part.T for part in rotation.slices)
    total = ours[1] @ high
    total += ours[0] @ low  # the small ones first; that of both low slices is below the last bit kept
    total += ours[0] @ high
    total *= unit
    total[bad] = torch.nan
    return total


def slices(matrix: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(high, low) that add up to a matrix of numbers of at most 1, up to 2**-(2 bits): whole multiples of 2**-bits and
    of 2**-(2 bits), at most 2**bits of them."""
    high, low = 2.0**-bits, 2.0 ** -(2 * bits)
    first = torch.round(matrix / high).mul_(high)
    return first, torch.sub(matrix, first).div_(low).round_().mul_(low)
