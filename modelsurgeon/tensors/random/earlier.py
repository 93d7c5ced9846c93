"""The random numbers of earlier records, those that do not name `heads.PORTABLE` ones, so that they can be replayed.

They are the same on one kind of processor only: the last bits of torch's erfinv and LAPACK's QR depend on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modelsurgeon.tensors.random.drawn import Drawn
from modelsurgeon.tensors.random.turned import RandomRotation


@dataclass(frozen=True, eq=False)
class EarlierDrawn(Drawn):
    """Normal numbers by torch's erfinv."""

    @staticmethod
    def quantile(uniform: np.ndarray) -> np.ndarray:
        return np.asarray(torch.from_numpy(uniform).erfinv_().mul_(math.sqrt(2)).numpy())


class EarlierRotation(RandomRotation):
    """The Q of a normal matrix, with the signs that make the diagonal of R positive (Mezzadri, math-ph/0609050)."""

    copies = 6  # of the matrix at most: the normal matrix, Q, R, and what LAPACK works in

    @cached_property
    def matrix(self) -> torch.Tensor:
        """P."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            normal = EarlierDrawn((self.size, self.size), "F64", 1.0, self.key).read(0, self.size)
            q, r = torch.linalg.qr(normal)
        finally:
            torch.set_num_threads(threads)
        rotation: torch.Tensor = q.mul_(torch.where(r.diagonal() < 0, -1.0, 1.0))
        return rotation
