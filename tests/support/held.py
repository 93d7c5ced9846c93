"""Tensors in memory in place of stored ones, and random axis maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import Ungrown


def whole(tensor: Remapped) -> torch.Tensor:
    return tensor.read(0, tensor.shape[0])


@dataclass(frozen=True)
class Held(Ungrown):
    """A tensor in memory, in place of one on disk."""

    values: torch.Tensor
    says = "held"
    stored = verbatim = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.values.shape)

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return next(name for name, dtype in DTYPES.items() if dtype == self.values.dtype)

    @property
    def unusual(self) -> bool:
        return not bool(self.values.isfinite().all())

    def read(self, start: int, stop: int, empty: Any = None, first: int = 0, last: int | None = None) -> torch.Tensor:
        rows = self.values[start:stop]
        return (rows if last is None else rows[:, first:last]).clone()


SEEDS = st.integers(0, 2**32 - 1)


FLOATS = st.sampled_from(["BF16", "F16", "F32", "F64"])


def random_map(rng: np.random.Generator, size: int) -> AxisMap:
    """Copies in any order, gaps and means between, factors that are powers of two, even, or anything."""
    source = rng.permutation(np.r_[np.arange(size), rng.integers(MEAN, size, rng.integers(0, 5))])
    kind = rng.integers(3)
    scale = [np.ones(len(source)), np.full(len(source), 2**-0.5), rng.uniform(0.25, 4.0, len(source))][kind]
    rank, count = orders.ranks(source)
    parts = orders.shares(rank, count) if kind == 0 else 1 / count
    return orders.gathered(size, source, scale, parts / scale, 1.0)


def split_map(rng: np.random.Generator, size: int) -> AxisMap:
    """A random map of an axis whose writers are parts of a sum, which cannot hold means."""
    source = rng.permutation(np.r_[np.arange(size), rng.integers(GAP, size, rng.integers(0, 5))])
    return orders.gathered(size, source, 1 / orders.ranks(source)[1], np.ones(len(source)), 1.0, "writers")
