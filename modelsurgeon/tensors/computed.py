"""Lazy tensors by a rule of their own, neither bytes of a file nor a gather of another tensor.

Drawn     normal numbers, or one number everywhere (`random/drawn.py`)
Turned    rows of another tensor times an orthogonal matrix (`random/turned.py`)
"""

from __future__ import annotations

from abc import abstractmethod

from modelsurgeon.tensors.stored import Stored
from modelsurgeon.tensors.ungrown import Ungrown


class Computed(Ungrown):
    """A lazy tensor by a rule of its own. Its numbers do not depend on how it is cut, on threads or the machine.

    dtype  what it is stored in
    shape  its sizes, at least one
    """

    factors = ()
    verbatim = None

    @property
    def stored(self) -> Stored | None:
        """The stored tensor that it follows from, if it does from one."""
        return None

    @property
    def unusual(self) -> bool:
        """Whether the stored tensor that it follows from is."""
        return self.stored is not None and self.stored.unusual

    @property
    @abstractmethod
    def says(self) -> str:
        """What it is, in a few words."""

    def working_set(self, most: int) -> int:
        """As of `reading`, for the rows and columns of a piece."""
        rows, columns = (*self.shape, 1)[:2]
        row = self.nbytes // max(1, rows)
        if row > most:
            return self.reading(1, max(1, most * columns // row))
        return self.reading(min(rows, max(1, most // max(1, row))), columns)
