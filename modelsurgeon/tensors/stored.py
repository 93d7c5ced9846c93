"""Tensors of safetensors files, read by their position, some rows at a time.

>>> read_header(LocalFile(Path("model.safetensors")))["lm_head.weight"].shape
(4096, 256)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File
from modelsurgeon.files.safetensors_file import read_entries
from modelsurgeon.tensors import quantised
from modelsurgeon.tensors.arena import Empty, fresh
from modelsurgeon.tensors.arithmetic import is_finite
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS
from modelsurgeon.tensors.ungrown import Ungrown

COUNTED = 1 << 20  # numbers examined at a time


@dataclass(frozen=True)
class Stored(Ungrown):
    """A tensor in a file.

    start   where its data begins, in bytes from the file's beginning
    """

    file: File
    dtype: str
    shape: tuple[int, ...]
    start: int

    says = "copied"

    @property
    def stored(self) -> Stored:
        return self

    @property
    def verbatim(self) -> Stored:
        return self

    @property
    def unusual(self) -> bool:
        """Whether a read so far met NaN or infinities."""
        return self.start in self.file.flagged

    def working_set(self, most: int) -> int:
        """0: its bytes are copied without being read."""
        return 0

    def read(
        self, start: int, stop: int, empty: Empty = fresh, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """As `LazyTensor.read`. Raises SourceError where the file is cut short."""
        block = self._block(start, stop, empty, first, last, self._fill)
        if not is_finite(block):
            self.file.flagged.add(self.start)
        return block

    def _fill(self, block: torch.Tensor, at: int) -> None:
        at_byte = self.start + DTYPES[self.dtype].itemsize * at
        self.file.read_into(block.reshape(-1).view(torch.uint8).numpy().data, at_byte)


def count_unusual(stored: Stored) -> tuple[int, int]:
    """(NaNs, infinities): how many a tensor holds."""
    if stored.dtype not in FLOATS:
        return 0, 0
    nans = infinities = 0
    flat = Stored(stored.file, stored.dtype, (math.prod(stored.shape),), stored.start)
    for at in range(0, flat.shape[0], COUNTED):
        block = flat.read(at, min(at + COUNTED, flat.shape[0]))
        nans += int(block.isnan().sum())
        infinities += int(block.isinf().sum())
    return nans, infinities


def read_header(file: File) -> dict[str, Stored]:
    """{name: tensor}. Raises SourceError for a file that is not sound, and for quantised numbers."""
    entries = read_entries(file)
    for name, entry in entries.items():
        if not name.isprintable():
            raise SourceError(f"{file}: tensor {name!r} has control characters in its name")
        if entry.dtype not in DTYPES:
            raise SourceError(f"{file}: {quantised.of_tensor(name, entry.dtype)}")
    return {name: Stored(file, entry.dtype, entry.shape, entry.start) for name, entry in entries.items()}
