"""Ways to change which files a folder holds, and how its weights lie in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE

Plant = Callable[[Path], None]


def written(name: str, text: str | dict[str, Any] = "") -> Plant:
    """A file of text, or of JSON, in the place of what was there."""

    def plant(folder: Path) -> None:
        (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))

    return plant


def removed(*names: str) -> Plant:
    def plant(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return plant


def edited(name: str, **values: Any) -> Plant:
    """Some keys of a file of JSON; None leaves a key out."""

    def plant(folder: Path) -> None:
        held = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps({key: value for key, value in held.items() if value is not None}))

    return plant


def zeros(name: str) -> Plant:
    """A file of zeros with the names and shapes of all the tensors that the folder holds."""

    def plant(folder: Path) -> None:
        held = _held(folder)
        save_file({key: torch.zeros_like(value) for key, value in held.items()}, folder / name, {"format": "pt"})

    return plant


def also(name: str) -> Plant:
    """The weights once more, in a second file."""

    def plant(folder: Path) -> None:
        save_file(_held(folder), folder / name, {"format": "pt"})

    return plant


def sharded(folder: Path) -> None:
    """The weights in two shards with an index."""
    held = _held(folder)
    (folder / SINGLE).unlink()
    names = sorted(held)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: held[name] for name in part}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    total = sum(tensor.nbytes for tensor in held.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def resaved(folder: Path) -> None:
    """The weights as `transformers` loads and saves them; record and side files are gone."""
    [kind] = json.loads((folder / "config.json").read_text())["architectures"]
    model = getattr(transformers, kind).from_pretrained(folder, dtype="auto")
    shutil.rmtree(folder)
    model.save_pretrained(folder)


def cast(dtype: torch.dtype) -> Plant:
    """All weights in another dtype, and the config's `dtype` with them."""

    def plant(folder: Path) -> None:
        held = {name: tensor.to(dtype) for name, tensor in _held(folder).items()}
        save_file(held, folder / SINGLE, {"format": "pt"})
        edited("config.json", dtype=str(dtype).removeprefix("torch."))(folder)

    return plant


def renamed(change: Callable[[str], str]) -> Plant:
    """Every tensor under another name."""

    def plant(folder: Path) -> None:
        held = {change(name): tensor for name, tensor in _held(folder).items()}
        save_file(held, folder / SINGLE, {"format": "pt"})

    return plant


def cut(name: str, size: int) -> Plant:
    """A file without its last bytes."""

    def plant(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) - size])

    return plant


def _held(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("model*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
