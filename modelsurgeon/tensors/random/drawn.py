"""New numbers: independent normal ones, one number everywhere, or a table that a formula gives.

    Drawn((4096, 256), "BF16", 0.02, "0/model.embed_tokens.weight")

Every BLOCK numbers of a tensor, counted in the order of its bytes, come from a counter-based generator (Philox) keyed
by the seed and the tensor's name: the number at a place does not depend on how the tensor is cut, on threads or
workers. A normal number is the quantile of a uniform one of 24 bits, in float32, rounded once to the dtype: the same
numbers in every dtype, and on every machine (`quantile.py`). None lies beyond 5.42 deviations, where 6 of 1e8 would.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (Philox), doi 10.1145/2063384.2063405.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from blake3 import blake3

from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.random.quantile import Quantile, normal_quantile
from modelsurgeon.tensors.stored import Ungrown

BLOCK = 1 << 16  # numbers that are drawn at a time: they stay in the processor's cache
SCRATCH = 48  # bytes for each of them: random words twice, uniform and normal numbers, the quantile's, those cached
STEP = 1 << 11  # numbers: a block that is not needed to its end is drawn up to a multiple of this
KEPT = 8  # blocks that are cached, for rows that end inside of one
MOST_THREADS = 4  # that draw for one worker
TRUNCATED = 2.0  # deviations: where a truncated normal ends, as BERT's does
FAR = 5.5  # deviations: no number lies beyond anyway


@dataclass(frozen=True, eq=False)
class Drawn(Ungrown):
    """Independent normal numbers; with a deviation of 0, one number everywhere.

    deviation  standard deviation of the normal distribution, before it is cut
    key        seed and tensor's name: the numbers follow from it
    cut        deviations from the mean beyond which there is no number; None: no limit
    zeros      rows of zeros, for padding
    """

    shape: tuple[int, ...]
    dtype: str
    deviation: float
    key: str = ""
    cut: float | None = None
    mean: float = 0.0
    zeros: tuple[int, ...] = ()

    @staticmethod
    def quantile(uniform: np.ndarray) -> np.ndarray:
        """[n] float32: the normal numbers that belong to uniform ones."""
        return normal_quantile(uniform)

    @property
    def says(self) -> str:
        """The distribution."""
        if not self.deviation:
            return f"new: {self.mean:g} everywhere"
        kind = f"normal cut at {self.cut:g} deviations" if self.cut else "normal"
        return f"new: {kind}, deviation {self.deviation * left(self.cut):.4g}"

    def reading(self, rows: int, columns: int) -> int:
        """As `LazyTensor.reading`: the numbers, and the blocks that are drawn for them."""
        drawing = BLOCK * (SCRATCH * MOST_THREADS + 4 * KEPT) if self.deviation else 0
        return super().reading(rows, columns) + drawing

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        block = self._block(start, stop, empty, first, last, self._draw)
        for at in self.zeros:
            if start <= at < stop:
                block[at - start].zero_()
        return block

    def _draw(self, out: torch.Tensor, at: int) -> None:
        """Fill `out` with the numbers from place `at` on."""
        if not self.deviation:
            out.fill_(self.mean)
            return
        out = out.view(-1)
        blocks = range(at // BLOCK, -(-(at + len(out)) // BLOCK))

        def draw(block: int) -> None:
            low, high = max(at, block * BLOCK), min(at + len(out), (block + 1) * BLOCK)
            count = min(BLOCK, -(-(high - block * BLOCK) // STEP) * STEP)
            draw_block = _cached_standard if high - low < BLOCK else standard
            numbers = draw_block(self.key, block, self.cut, count, self.quantile)
            part = numbers[low - block * BLOCK : high - block * BLOCK] * self.deviation
            out[low - at : high - at] = part.add_(self.mean) if self.mean else part

        threads = min(MOST_THREADS, torch.get_num_threads(), len(blocks))
        if threads < 2:
            for block in blocks:
                draw(block)
            return
        with ThreadPoolExecutor(threads, "draw") as pool:
            list(pool.map(draw, blocks))


@dataclass(frozen=True, eq=False)
class Formula(Ungrown):
    """Numbers that a formula gives, such as sines of positions: float32, as the library computes them."""

    numbers: torch.Tensor
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.numbers.shape)

    @property
    def held(self) -> int:  # type: ignore[override]
        return self.numbers.nbytes

    @property
    def says(self) -> str:
        """The distribution."""
        return "new: by the library's formula"

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        part = self.numbers[start:stop] if last is None else self.numbers[start:stop, first:last]
        return empty(part.shape, DTYPES[self.dtype]).copy_(part)


def left(cut: float | None) -> float:
    """The deviation of a normal distribution after it is cut, over that before.

    At two deviations 0.88: 0.0176 of BERT's 0.02 (Su Jianlin, https://spaces.ac.cn/archives/8747).
    """
    if cut is None:
        return 1.0
    lost = 2 * cut * math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi) / math.erf(cut / math.sqrt(2))
    return math.sqrt(1 - lost)


def standard(
    key: str, block: int, cut: float | None = None, count: int = BLOCK, quantile: Quantile = normal_quantile
) -> torch.Tensor:
    """[count] float32: the first standard normal numbers of a block, none of them beyond `cut`."""
    return torch.from_numpy(quantile(uniform(key, block, cut, count).numpy()))


def uniform(key: str, block: int, cut: float | None = None, count: int = BLOCK) -> torch.Tensor:
    """[count] float32: the first numbers of a block, uniform between -1 and 1, or closer to 0 with normal ones cut."""
    first, second = np.frombuffer(blake3(key.encode()).digest(length=16), dtype="<u8")
    words = np.random.Philox(key=[int(first), int(second)], counter=[0, block, 0, 0]).random_raw(count // 2)
    signed = torch.from_numpy(words.astype("<u8", copy=False).view("<i4"))
    # 24 bits and a half: every value is a float32, none is 0 or 1, and the distribution is symmetric
    numbers = signed.bitwise_right_shift_(8).mul_(2).add_(1).to(torch.float32).mul_(2.0**-24)
    return numbers if cut is None else numbers.mul_(math.erf(cut / math.sqrt(2)))


_cached_standard = lru_cache(maxsize=KEPT)(standard)
