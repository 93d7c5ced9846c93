"""Repositories of the Hub on loopback, in memory: files, commits, refs, and the rights of tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

WRITER, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"
LFS = (".safetensors", ".bin", ".gguf", ".model")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Access:
    """The rights of a token: to read what is private or gated, to write."""

    user: str
    reads: bool = True
    writes: bool = True


@dataclass(frozen=True)
class File:
    data: bytes = field(repr=False)
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The pointer that git stores for a file in LFS."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def blob(self) -> str:
        """git's hash of the content."""
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob

    def entry(self, path: str, blob: str = "oid", lfs_name: str = "oid") -> dict[str, Any]:
        """A file's entry in the tree; a model's info has the same under other names."""
        told = {"type": "file", "path": path, "size": len(self.data), blob: self.blob}
        lfs = {lfs_name: self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return told | {"lfs": lfs} if self.lfs else told


@dataclass
class Repo:
    """Commits by their hash, refs by their full name (refs/heads/main, refs/tags/v1, refs/pr/1)."""

    id: str
    private: bool = False
    gated: bool | str = False
    lfs: tuple[str, ...] = LFS
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, ref: str, files: Mapping[str, bytes], message: str = "", parent: str | None = None) -> str:
        held = {path: File(data, path.endswith(self.lfs)) for path, data in sorted(files.items())}
        named = [self.id, ref, parent, message, {path: file.etag for path, file in held.items()}]
        commit = hashlib.sha1(json.dumps(named).encode()).hexdigest()
        self.commits[commit], self.messages[commit], self.refs[ref] = held, message, commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag, a full ref or a commit."""
        known = self.refs | {commit: commit for commit in self.commits}
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((known[name] for name in names if name in known), None)

    def at(self, revision: str) -> dict[str, bytes]:
        return {path: file.data for path, file in self.commits[self.find(revision) or revision].items()}

    @property
    def files(self) -> dict[str, bytes]:
        return self.at("main")

    @property
    def pull_requests(self) -> dict[str, str]:
        return {ref: commit for ref, commit in self.refs.items() if ref.startswith("refs/pr/")}

    def entries(self, commit: str) -> dict[str, dict[str, Any]]:
        """{path: entry} of all files and folders, as the tree lists them."""
        files = self.commits[commit]
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        listed = {path: {"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders}
        return listed | {path: file.entry(path) for path, file in files.items()}
