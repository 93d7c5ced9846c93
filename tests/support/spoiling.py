"""Ways to spoil a valid checkpoint: each returns a function of its folder; `bad` makes an entry of the list."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE

BAD_REQUEST, MACHINE_FAILED = 2, 3
COMMANDS = ("widen", "untie-embeddings")
NORM = "model.norm.weight"
ABSENT = object()

Spoil = Callable[[Path], Any]


@dataclass(frozen=True)
class Bad:
    """One bad input.

    spoil    changes a valid folder; may return another source to name in the command
    words    words of the message
    of       the tiny model that is spoilt; "sharded": a Llama in several files
    output   the path of the output, relative to the folder's parent
    """

    spoil: Spoil
    words: tuple[str, ...]
    code: int = BAD_REQUEST
    of: str = "llama-tied"
    commands: tuple[str, ...] = COMMANDS
    options: tuple[str, ...] = ()
    output: str = "out"


def bad(spoil: Spoil, *words: str, **more: Any) -> Bad:
    return Bad(spoil, words, **more)


def config(**changes: Any) -> Spoil:
    """Other values in config.json; ABSENT takes one out."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        found = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not ABSENT}))

    return spoil


def content(name: str, data: bytes | str) -> Spoil:
    """A file that holds this."""
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode()) and None


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    """Other tensors in model.safetensors."""

    def spoil(folder: Path) -> None:
        found = load_file(folder / SINGLE)
        change(found)
        save_file(found, folder / SINGLE, {"format": "pt"})

    return spoil


def added(name: str, tensor: torch.Tensor | None = None) -> Spoil:
    """One tensor more."""
    return tensors(lambda found: found.update({name: torch.ones(32) if tensor is None else tensor}))


def copied(name: str, of: str) -> Spoil:
    """One tensor more, a copy of another."""
    return tensors(lambda found: found.update({name: found[of].clone()}))


def removed(name: str) -> Spoil:
    return tensors(lambda found: found.pop(name))


def prefixed(prefix: str) -> Spoil:
    """Every tensor under a longer name."""

    def change(found: dict[str, torch.Tensor]) -> None:
        for name in list(found):
            found[prefix + name] = found.pop(name)

    return tensors(change)


def zeros(name: str) -> Spoil:
    """One file more, which holds every tensor as zeros."""

    def spoil(folder: Path) -> None:
        held = [load_file(path) for path in sorted(folder.glob("model*.safetensors"))]
        found = {name: torch.zeros_like(tensor) for tensors in held for name, tensor in tensors.items()}
        save_file(found or {NORM: torch.zeros(32)}, folder / name, {"format": "pt"})

    return spoil


def renamed(name: str) -> Spoil:
    """The weights under another name."""
    return lambda folder: (folder / SINGLE).rename(folder / name) and None


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def header(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Another header before the same data."""

    def spoil(folder: Path) -> None:
        raw = (folder / SINGLE).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        found = json.loads(raw[8 : 8 + length])
        text = change(found) or found
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        (folder / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return spoil


def entry(**changes: Any) -> Spoil:
    """Another entry of the last norm."""
    return header(lambda found: found[NORM].update(changes))


def moved(by: int, length: int = 0) -> Spoil:
    """Offsets of the last norm that lie elsewhere."""

    def change(found: dict[str, Any]) -> None:
        start, end = found[NORM]["data_offsets"]
        found[NORM]["data_offsets"] = [start + by, end + by + length]

    return header(change)


def twice(found: dict[str, Any]) -> bytes:
    line = f'"{NORM}": {json.dumps(found[NORM])}'
    return json.dumps(found).replace(line, f"{line}, {line}").encode()


def cut(at: float) -> Spoil:
    """A file cut short at this share of it, or at this byte."""

    def spoil(folder: Path) -> None:
        raw = (folder / SINGLE).read_bytes()
        (folder / SINGLE).write_bytes(raw[: int(at * len(raw)) if isinstance(at, float) else at])

    return spoil


def longer(folder: Path) -> None:
    """A byte more at the end of the file."""
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes() + b"\0")


def index(change: Callable[[dict[str, str]], Any]) -> Spoil:
    """Another weight_map."""

    def spoil(folder: Path) -> None:
        found = json.loads((folder / INDEX).read_text())
        change(found["weight_map"])
        (folder / INDEX).write_text(json.dumps(found))

    return spoil


def unsaid(key: str) -> Spoil:
    """An index without this key."""

    def spoil(folder: Path) -> None:
        found = json.loads((folder / INDEX).read_text())
        del found[key]
        (folder / INDEX).write_text(json.dumps(found))

    return spoil


def shard_called(name: str) -> Spoil:
    """The first shard under another name, in the index, too."""

    def spoil(folder: Path) -> None:
        shard = min(folder.glob("model-*.safetensors"))
        shard.rename(folder / name)
        index(lambda names: names.update({k: name for k, v in names.items() if v == shard.name}))(folder)

    return spoil


def leads_to(place: str) -> Spoil:
    """A weight_map whose first shard lies elsewhere and exists; {} is the parent folder."""

    def spoil(folder: Path) -> None:
        shard = next(iter(sorted(folder.glob("model-*.safetensors"))))
        (folder / "sub").mkdir()
        shutil.copy(shard, folder.parent / "outside.safetensors")
        shutil.copy(shard, folder / "sub" / "x.safetensors")
        there = place.format(folder.parent)
        index(lambda names: names.update({k: there for k, v in names.items() if v == shard.name}))(folder)

    return spoil


def swapped(folder: Path) -> None:
    """The last norm is in another shard than the index says."""
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    index(lambda names: names.update({NORM: next(s for s in shards if s != names[NORM])}))(folder)


def in_two_shards(folder: Path) -> None:
    home = json.loads((folder / INDEX).read_text())["weight_map"][NORM]
    other = next(path for path in folder.glob("model-*.safetensors") if path.name != home)
    save_file({**load_file(other), NORM: torch.ones(32)}, other)


def linked(name: str) -> Spoil:
    """Move the file outside, and link to it."""

    def spoil(folder: Path) -> None:
        (folder / name).touch()
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return spoil


def shard_linked(folder: Path) -> None:
    linked(sorted(path.name for path in folder.glob("model-*.safetensors"))[0])(folder)


def replaced(name: str, by: Callable[[Path], Any]) -> Spoil:
    """Something else in the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        by(folder / name)

    return spoil


def listening(path: Path) -> None:
    """A socket. Its path may have 100 letters at most, so it is made where it has fewer."""
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


class Bomb:
    """A pickle that creates a folder when it is opened."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def pickled(name: str) -> Spoil:
    return replaced(
        SINGLE, lambda path: path.with_name(name).write_bytes(pickle.dumps(Bomb(path.parent.parent / "exploded")))
    )
