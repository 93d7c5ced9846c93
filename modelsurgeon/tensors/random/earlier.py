"""Random numbers as before there were portable ones, so that records which name none (`heads.PORTABLE`) replay.

They are the same on one kind of processor only: torch's erfinv, and LAPACK's QR, follow it in their last bits.
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
    """Its quantile is torch's."""

    @staticmethod
    def quantile(uniform: np.ndarray) -> np.ndarray:
        """By torch's erfinv."""
        found: np.ndarray = torch.from_numpy(uniform).erfinv_().mul_(math.sqrt(2)).numpy()
        return found


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
        signs = torch.sgn(r.diagonal())
        turned: torch.Tensor = q.mul_(torch.where(signs == 0, 1.0, signs))
        return turned
