"""Runs that write an output of three small shards: to their end, or until they fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelsurgeon.saving.staging import Stage, staged
from support.command import blake3

SHARDS = ("model-1.safetensors", "model-2.safetensors", "model-3.safetensors")
ROUNDS, ONE_WRITES = 20, "+---"


def data(name: str, request: object = "a") -> bytes:
    return f"{name} of {request}".encode() * 100


def write(stage: Stage, request: object = "a", *, after: int = 3, error: BaseException | None = None) -> list[str]:
    """Write the missing ones of the first `after` shards; with an error: half a shard more, then raise it."""
    written = []
    for name in SHARDS[:after]:
        if not stage.reusable(name):
            (stage.folder / name).write_bytes(data(name, request))
            digest = blake3(stage.folder / name)
            stage.finish(name, {"bytes": (stage.folder / name).stat().st_size, "blake3": digest, "tensors": ["w"]})
            written.append(name)
    if error:
        (stage.folder / "half").write_bytes(b"half")
        raise error
    (stage.folder / "config.json").write_text("{}")
    return written


def save(out: Path, request: object = "a", **options: object) -> tuple[list[str], list[str]]:
    """(names of the shards written, lines said) of a run that ends well."""
    said: list[str] = []
    with staged(out, request, shards=3, needed=0, say=said.append, overwrite=bool(options.get("overwrite"))) as stage:
        written = write(stage, request)
    return written, said


def fail(out: Path, request: object = "a", *, error: BaseException, after: int = 2) -> list[str]:
    """The lines said by a run that fails."""
    said: list[str] = []
    with pytest.raises(type(error)), staged(out, request, shards=3, needed=0, say=said.append) as stage:
        write(stage, request, after=after, error=error)
    return said


def whole(out: Path, request: object = "a") -> bool:
    """Whether the output has the content that `save` writes, with nothing beside it."""
    expected = {**{name: data(name, request) for name in SHARDS}, "config.json": b"{}"}
    return {path.name: path.read_bytes() for path in out.iterdir()} == expected and os.listdir(out.parent) == [out.name]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def place(tmp_path):
    return tmp_path / ".out.staging"
