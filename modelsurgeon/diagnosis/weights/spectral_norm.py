"""The spectral norm and the stable rank of any matrix in a few passes over it, with a bound on the error.

    V_1 [16, d] random, orthonormal;   a pass: W = V_k A^T A, block by block;   V_k+1 = what is new in W
    norm^2 = the largest eigenvalue of A^T A within V_1 .. V_k                           (block Lanczos, Rayleigh-Ritz)

The norm of A is never below the result, but for rounding (2e-6). It is above by at most `error`, the less of these:

* always: norm^2 <= |A|_F^2 - theta_2 - theta_3 - ..., since no Ritz value theta_i exceeds its eigenvalue (Cauchy).
* for all but one start in a million: let p be the polynomial of degree k that is orthonormal in the spectral measure of
  the start, the mean over its b vectors, and x the eigenvector to norm^2. |p(norm^2)| |V_1 x| = |V_1 p(A^T A) x| is at
  most sqrt(b), |V_1 x|^2 is distributed as Beta(b/2, (d-b)/2), and p only grows above the Ritz values. (Van Dorsselaer,
  Hochstenbach and Van der Vorst, Computing probabilistic bounds for extreme eigenvalues of symmetric matrices with the
  Lanczos method, SIAM J. Matrix Anal. 22, 2001: there for b = 1.) A matrix made to deceive the fixed start may escape.

A residual alone bounds nothing: it shows that some singular value is near, not that it is the largest. Matrices with a
singular value that stands out, as trained ones have, take 4 to 7 passes. Where none does (random entries), 8 passes
find the norm to 2e-3, though the bound stays at 3e-2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.spectrum import EPS, Spectrum, gram, gram_singular_values
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.arithmetic import converted

WIDTH = 16  # vectors of a block: a pass takes as long as with 8, since memory limits it
PASSES = 8  # at most: a further one takes less than 1e-2 off the bound, or the bound is small already
GOAL = 1e-3  # of the norm: an error below it ends the passes
RISK = 1e-6  # that a random start misses the largest direction by more than the bound allows
ROUNDING = 2e-6  # of the norm: the products are in float32 (measured: up to 3e-7)
EXACT = WIDTH * (PASSES + 1)  # smaller sides than this have no room for the passes
SAFE = 1e-4, 1e4  # largest magnitudes that leave room in float32 for fourth powers, summed
TINY = 1e-300  # whose logarithm is finite


@dataclass(frozen=True)
class Spectral:
    """Sizes of a matrix, or of a stack of them; NaN where it holds NaN or infinities.

    norm         the largest singular value, the largest of the stack; the true one is in [norm, norm + error]
    frobenius    the root of the sum of all squares in the whole stack
    stable_rank  squared Frobenius norm over squared norm, the least of the stack; NaN where all is zero
    """

    norm: float
    error: float
    frobenius: float
    stable_rank: float


UNKNOWN = Spectral(math.nan, math.nan, math.nan, math.nan)


def of_spectrum(found: Spectrum) -> Spectral:
    """The sizes of a matrix whose singular values are all known."""
    norm, frobenius = found.values[0], math.hypot(*found.values)
    return Spectral(norm, found.resolution * norm, frobenius, (frobenius / norm) ** 2 if norm else math.nan)


def spectral(rows: RowBlocks, device: str = "cpu") -> Spectral:
    """Norm, Frobenius norm and stable rank, in a block or two of memory and 800 bytes a column beside `rows`."""
    found = [_of_one(_Matrix(rows, index, device)) for index in range(rows.shape[0])]
    if any(math.isnan(one.norm) for one in found):
        return UNKNOWN
    norm = max((one.norm for one in found), default=0.0)
    error = max((one.norm + one.error for one in found), default=0.0) - norm
    stable_rank = min((one.stable_rank for one in found if one.norm), default=math.nan)
    return Spectral(norm, error, math.hypot(*(one.frobenius for one in found)), stable_rank)


class _Matrix:
    """One matrix [n, d], divided by a power of two where its squares would overflow or vanish in float32."""

    def __init__(self, rows: RowBlocks, index: int, device: str) -> None:
        self.shape, self.device = rows.shape[1:], device
        self._rows, self._index = rows, index
        fits = rows.tensor.nbytes // max(1, rows.shape[0]) <= rows.capacity
        self._blocks: list[torch.Tensor] = []  # where the matrix stays in memory, but its stack does not
        self._blocks = list(self._stored()) if fits and not rows.is_kept else []
        self._arena = Arena()
        ends = [float(end) for block in self._stored() if block.numel() for end in torch.aminmax(block)]
        self.largest = max(map(abs, ends), default=0.0) if all(map(math.isfinite, ends)) else math.nan
        self.scale = 1.0 if SAFE[0] <= self.largest <= SAFE[1] else 2.0 ** math.frexp(self.largest)[1]

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """[r, d] each, one after the other in the same memory."""
        for block in self._stored():
            if self.scale != 1:
                block = block.double() / self.scale
            yield converted(block.to(self.device), dtype, self._arena.reset())

    def _stored(self) -> Iterable[torch.Tensor]:
        return self._blocks or (block for _, _, block in self._rows.blocks(self._index))


def _of_one(matrix: _Matrix) -> Spectral:
    if math.isnan(matrix.largest):
        return UNKNOWN
    if not matrix.largest:
        return Spectral(0.0, 0.0, 0.0, math.nan)
    largest, bound, energy = _exactly(matrix) if min(matrix.shape) <= EXACT else _by_lanczos(matrix)
    norm = math.sqrt(largest)
    error = math.sqrt(max(bound, largest)) - norm
    return Spectral(norm * matrix.scale, error * matrix.scale, math.sqrt(energy) * matrix.scale, energy / largest)


def _exactly(matrix: _Matrix) -> tuple[float, float, float]:
    """(squared norm, its upper bound, sum of squares), by all singular values in float64."""
    n, d = matrix.shape
    blocks = matrix.blocks(torch.float64)
    if n < d:  # up to EXACT rows, which fit into memory
        blocks = iter([torch.cat([block.clone() for block in blocks]).T])
    values = gram_singular_values(gram(blocks, min(n, d), matrix.device))
    largest = float(values[0]) ** 2
    return largest, largest * (1 + max(n, d) * EPS), float((values**2).sum())


def _by_lanczos(matrix: _Matrix) -> tuple[float, float, float]:
    """(squared norm, its upper bound, sum of squares)."""
    width = matrix.shape[1]
    basis = torch.empty(EXACT, width, device=matrix.device)
    start = torch.randn(width, WIDTH, generator=torch.Generator().manual_seed(0))
    basis[:WIDTH] = torch.linalg.qr(start)[0].T
    within = torch.zeros(EXACT, EXACT, dtype=torch.float64)  # A^T A within the basis and the next block
    norms = (torch.linalg.vector_norm(block, dim=1) for block in matrix.blocks(torch.float32))
    energy = sum(float(norm.double().square().sum()) for norm in norms)
    for done in range(1, PASSES + 1):
        end, last = done * WIDTH, slice((done - 1) * WIDTH, done * WIDTH)
        product = torch.zeros_like(basis[last])
        for block in matrix.blocks(torch.float32):
            product.addmm_(basis[last] @ block.T, block)
        overlap, basis[end : end + WIDTH], link = _split(product, basis[:end])
        within[last, :end], within[:end, last] = overlap, overlap.T
        within[end : end + WIDTH, last], within[last, end : end + WIDTH] = link, link.T
        values, vectors = torch.linalg.eigh(within[:end, :end])
        residual = float(torch.linalg.vector_norm(link @ vectors[last, -1]))
        if residual < GOAL * values[-1] or done == PASSES:  # with a larger one the bound is above the goal
            known = within[: end + WIDTH, : end + WIDTH]
            always = energy * (1 + ROUNDING) - float(values[:-1].sum())
            bound = min(_probable(known, done, width, energy), always)
            if bound < (1 + GOAL) ** 2 * values[-1]:
                break
    largest = float(values[-1])
    return largest, max(bound, largest) * (1 + ROUNDING) ** 2, energy


def _split(product: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(overlap, new, link): product = overlap basis + link^T new, where the rows of `new` are orthonormal to the basis.

    The basis is taken out twice: what rounding leaves of it would be large beside a small rest.
    """
    overlap = product @ basis.T
    rest = product - overlap @ basis
    again = rest @ basis.T
    new, link = torch.linalg.qr((rest - again @ basis).T)
    new = torch.linalg.qr(new - basis.T @ (basis @ new))[0]
    return (overlap + again).double().cpu(), new.T, link.double().cpu()


def _probable(within: torch.Tensor, degree: int, width: int, most: float) -> float:
    """The largest squared norm, at most `most`, that all but RISK of the starts allow.

    within  A^T A within the basis and the next block, whose own corner polynomials of `degree` do not reach
    """
    values, vectors = torch.linalg.eigh(within)
    weights = vectors[:WIDTH].square().mean(0)  # the spectral measure of the start
    roots, log_lead = _orthonormal_polynomial(values.numpy(), weights.numpy(), degree)
    half, rest = WIDTH / 2, (width - WIDTH) / 2
    log_beta = math.lgamma(half) + math.lgamma(rest) - math.lgamma(half + rest)
    log_least = (math.log(RISK) + math.log(half) + log_beta) / half  # P(Beta < x) <= x^half / (half B(half, rest))
    goal = (math.log(WIDTH) - log_least) / 2 - log_lead
    low, high = float(roots.max()), most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.log(np.maximum(middle - roots, TINY)).sum() > goal else (middle, high)
    return high


def _orthonormal_polynomial(nodes: np.ndarray, weights: np.ndarray, degree: int) -> tuple[np.ndarray, float]:
    """(roots, logarithm of the leading coefficient) in the measure of these weights at these nodes, by Lanczos."""
    known = [np.sqrt(weights / weights.sum())]
    diagonal, beside = list[float](), list[float]()
    # of a lower degree where the measure has fewer nodes: only rounding is left then
    while len(diagonal) < degree and (not beside or beside[-1] > ROUNDING * np.abs(nodes).max()):
        step = nodes * known[-1]
        diagonal.append(float(step @ known[-1]))
        for _ in range(2):
            step = step - np.array(known).T @ (np.array(known) @ step)
        beside.append(float(np.linalg.norm(step)))
        known.append(step / max(beside[-1], TINY))
    jacobi = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    return np.linalg.eigvalsh(jacobi), -sum(math.log(max(one, TINY)) for one in beside)
