"""A checkpoint's folder to publish, and the files at its target."""

from __future__ import annotations

import pytest

from modelsurgeon.saving import publish

CARD = "---\nlibrary_name: transformers\n---\n\n# wide\n"
SHARDS = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 1000 for i in (1, 2)}
FILES = {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {}}', "modelsurgeon.json": b"{ }"}
FILES |= {"tokenizer.json": b"[]", **SHARDS}
OLD = {"config.json": b"{1}", "README.md": b"# old", "notes.txt": b"mine", "adapter_model.safetensors": b"adapter"}
OLD |= {"onnx/model.safetensors": b"onnx", "model-00002-of-00002.safetensors": b"old"}
STALE = {"model.safetensors": b"old", "model-00003-of-00003.safetensors": b"old", "other.safetensors.index.json": b"{}"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "the out"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the library wanted to wait; none is waited."""
    found = []
    monkeypatch.setattr(publish, "sleep", found.append)
    return found


def one_line(raised, *said):
    text = str(raised.value)
    assert "\n" not in text and all(words in text for words in said), text
