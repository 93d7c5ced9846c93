"""Checkpoints that commands run on: a tiny Llama, one widened by a command, one with a number changed."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.tensors.stored import Stored
from support import tiny
from support.command import run

COMMANDS = ("widen", "untie-embeddings", "verify")


QUICK = ("--samples", 1, "--length", 8)


@pytest.fixture
def small(source):
    """A tied Llama of width 32 in float32."""
    return source(tiny.named("llama-tied"))


@pytest.fixture
def narrow(source):
    """A tied Llama of width 32 in bfloat16."""
    return source(tiny.named("llama-tied"), "bfloat16")


@pytest.fixture
def wide(small, tmp_path):
    assert run("widen", small, "-o", tmp_path / "wide").code == 0
    return tmp_path / "wide"


@pytest.fixture
def unreadable(monkeypatch):
    """Reading any tensor fails."""

    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Stored, "read", refuse)


def with_one_number_changed(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] *= 1.01
    save_file(tensors, path, {"format": "pt"})
