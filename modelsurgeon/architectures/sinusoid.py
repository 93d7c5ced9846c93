"""The table of sines and cosines that RoFormer stores with its weights.

Row p holds sin(p / 10000^(2j/d)) for each pair j, then the cosines. A pair of a wider head turns at the frequency of
its own index, so nested pairs (j -> k j) find their old columns: 2 k j / (k d) is 2 j / d, to the last bit.
Upstream: transformers/models/roformer/modeling_roformer.py, RoFormerSinusoidalPositionalEmbedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sinusoid(size: int, new_size: int) -> Callable[[int, int], torch.Tensor]:
    """A function of (start, stop) that gives rows start:stop of the table for a head of `new_size` [rows, new_size]."""
    import torch  # here, as it is slow to load and few of those who read tables want rows

    def rows(start: int, stop: int) -> torch.Tensor:
        positions = torch.arange(start, stop, dtype=torch.float64)[:, None]
        pairs = torch.arange(new_size // 2, dtype=torch.float64)
        angles = positions / torch.pow(torch.tensor(10000.0, dtype=torch.float64), 2 * pairs / new_size)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    return rows
