"""Ways in which one and the same model can lie on a disk: sharded, saved again, cast, renamed, spelt otherwise.

    DISGUISES["cast wider"](result, variant)  # changes the folder in place; returns where it is now

None changes what the model computes: whatever does is a mistake of this file, not of what is tested with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.running.settings import as_read, same
from support import tiny

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Disguise:
    """How a folder is changed; whether its record, if it has one, is there afterwards."""

    do: Callable[[Path, tiny.Variant], Path]
    keeps_record: bool = True


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def as_it_is(folder: Path, variant: tiny.Variant) -> Path:
    return folder


def moved(folder: Path, variant: tiny.Variant) -> Path:
    return folder.rename(folder.with_name("moved to another place"))


def copied(folder: Path, variant: tiny.Variant) -> Path:
    return shutil.copytree(folder, folder.with_name("a copy"))


def without_record(folder: Path, variant: tiny.Variant) -> Path:
    (folder / RECORD).unlink(missing_ok=True)
    return folder


def resharded(folder: Path, variant: tiny.Variant, shards: int = 3) -> Path:
    """Several files, dealt out by name, and their index."""
    held = tensors(folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    weight_map = {name: f"model-0000{at % shards + 1}-of-0000{shards}.safetensors" for at, name in enumerate(held)}
    for file in dict.fromkeys(weight_map.values()):
        save_file({name: held[name] for name in held if weight_map[name] == file}, folder / file, {"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def cast_wider(folder: Path, variant: tiny.Variant) -> Path:
    """Every number in the next wider dtype, which holds it exactly; the config says so."""
    wider, held = {torch.float32: torch.float64}, tensors(folder)
    cast = {n: t.to(wider.get(t.dtype, torch.float32)) if t.is_floating_point() else t for n, t in held.items()}
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    save_file(cast, folder / "model.safetensors", {"format": "pt"})
    widest = max((t.dtype for t in cast.values() if t.is_floating_point()), key=lambda dtype: dtype.itemsize)
    return configured(folder, lambda config: {**config, "dtype": str(widest).removeprefix("torch.")})


def saved_again(folder: Path, variant: tiny.Variant) -> Path:
    """Loaded and saved by the library, in the dtype that the file has; the record, if there is one, is copied over."""
    dtype = next(tensor.dtype for tensor in tensors(folder).values() if tensor.is_floating_point())
    model = getattr(transformers, variant.kind).from_pretrained(folder, dtype=dtype)
    again = folder.with_name("saved again")
    model.save_pretrained(again, save_original_format=not variant.modern)
    if (folder / RECORD).exists():
        shutil.copy(folder / RECORD, again)
    return again


def with_defaults(folder: Path, variant: tiny.Variant) -> Path:
    """config.json as the library reads it, every default written down."""
    return configured(folder, lambda config: json.loads(json.dumps(as_read(config) or config, default=str)))


def spelt_as_before(folder: Path, variant: tiny.Variant) -> Path:
    """config.json with the other names that keys have, those of older versions among them, where all read the same."""
    return configured(folder, lambda config: _respelt(config, variant))


def _respelt(config: Mapping[str, Any], variant: tiny.Variant) -> dict[str, Any]:
    found = dict(config)
    for alias, native in variant.table.aliases.items():
        found = _if_same(found, lambda old, alias=alias, native=native: _renamed(old, native, alias))
    found = _if_same(found, lambda old: _renamed(old, "dtype", "torch_dtype"))
    return _if_same(found, _flat_rope)


def _if_same(config: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The changed config, if the library reads it as it reads this one."""
    changed = change(config)
    before, after = as_read(config), as_read(changed)
    return changed if before is not None and after is not None and same(before, after) else config


def _renamed(config: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old and new not in config else key: value for key, value in config.items()}


def _flat_rope(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` in place of `rope_parameters`."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return config
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    plain = {key: value for key, value in config.items() if key != "rope_parameters"}
    scaled = {} if scaling.get("rope_type", "default") == "default" else {"rope_scaling": scaling}
    return {**plain, "rope_theta": rope["rope_theta"], **scaled}


def configured(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The folder with another config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return folder


DISGUISES: Mapping[str, Disguise] = {
    "as it is": Disguise(as_it_is),
    "moved": Disguise(moved),
    "copied": Disguise(copied),
    "in other shards": Disguise(resharded),
    "cast wider": Disguise(cast_wider),
    "saved again": Disguise(saved_again),
    "with defaults": Disguise(with_defaults),
    "spelt as before": Disguise(spelt_as_before),
    "without a record": Disguise(without_record, keeps_record=False),
}
