"""Forged records: a folder's modelsurgeon.json says what somebody wants verification to believe.

forged(source, folder, [step("widen", WIDEN, {"mlp": identity(40)})] * 90)   a copy that claims 90 growths
changed(folder, lambda tensors: tensors["model.norm.weight"].mul_(1.5))      and that is not the source
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.maps.axis_map import AxisMap

WIDEN = {"factor": None, "settings": {}, "rule": "orthogonal", "attention": "heads", "rope": "nested", "dtype": None}
WIDEN |= {"noise": 0.0}
Document = dict[str, Any]


def step(
    operation: str, arguments: Mapping[str, Any], maps: Mapping[str, AxisMap | Document] | None = None
) -> Document:
    """A step as it is on record, with a source that nobody checks."""
    documents = {axis: m.to_json() if isinstance(m, AxisMap) else m for axis, m in (maps or {}).items()}
    source = {"id": "somewhere", "files": {"config.json": {"bytes": 1, "blake3": "0" * 64}}}
    said = {"operation": operation, "arguments": dict(arguments), "seed": None, "version": "0.1.0", "source": source}
    return {**said, "lossless": True, "lossy": [], "maps": documents}


def scaled(size: int, factor: float) -> AxisMap:
    """An axis of the same size, its writers times a factor and its readers divided by it."""
    return AxisMap(size, np.arange(size), np.full(size, factor), np.full(size, 1 / factor))


def forged(source: Path, folder: Path, steps: Sequence[Document]) -> Path:
    """A copy of a checkpoint with a record of these steps."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    record = {"format": 1, "tool": "modelsurgeon", "files": {}, "steps": [*steps]}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def claims(folder: Path, change: Callable[[Document], Any]) -> Path:
    """The folder, with a change in its record."""
    record = json.loads((folder / RECORD).read_text())
    change(record)
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """The folder, with a change in its tensors."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder
