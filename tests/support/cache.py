"""A cache of the Hub as `huggingface_hub` lays it out, filled without a network."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
from huggingface_hub import constants

from support.command import sha256

COMMIT, OLDER = "0123456789abcdef" * 2 + "01234567", "f" * 40


def cached(cache, folder, commit, repo="org/name", ref="main"):
    """One commit of a repository in the cache: snapshots/<commit>/<file> -> ../../blobs/<hash>."""
    home = cache / f"models--{repo.replace('/', '--')}"
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (home / name).mkdir(parents=True, exist_ok=True)
    if ref:
        (home / "refs" / ref).write_text(commit)
    for path in folder.iterdir():
        shutil.copy(path, home / "blobs" / sha256(path))
        (home / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{sha256(path)}")
    return home


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    path = tmp_path / "hub"
    path.mkdir()
    for module in (constants, huggingface_hub.file_download, huggingface_hub._snapshot_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(path), raising=False)
    assert constants.HF_HUB_OFFLINE
    return path
