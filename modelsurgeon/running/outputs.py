"""Tensors that wait on disk while another model is in memory, one file each.

kept = Kept(folder)
kept.put("3 logits", logits)
kept.get("3 logits")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Kept:
    """A folder of tensors by name; the caller removes it."""

    folder: Path
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def put(self, name: str, value: torch.Tensor) -> None:
        """Write one tensor. Raises OSError where the disk is full."""
        number = self.numbers.setdefault(name, len(self.numbers))
        save_file({"value": value.contiguous()}, self.folder / f"{number}.safetensors")

    def get(self, name: str) -> torch.Tensor:
        """Read one tensor. Raises KeyError for a name that was not put."""
        return load_file(self.folder / f"{self.numbers[name]}.safetensors")["value"]

    def __contains__(self, name: str) -> bool:
        return name in self.numbers
