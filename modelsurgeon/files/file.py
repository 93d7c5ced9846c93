"""Where bytes are: the files of one folder, on a disk or behind a network.

    Folder   the files of a checkpoint, by name
    File     bytes that are read by their position, never whole

Nothing is mapped: pages of a mapped file count as this process's memory. A local file remembers its size and times, so
that a change while it is read is noticed. `remote.py` has the files that are read over a network.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

from modelsurgeon.errors import SourceError
from modelsurgeon.text import shown

NAME_MAX = 255  # bytes of a name in a path


class File(ABC):
    """Bytes that are read by their position; `str` is what messages call it.

    name     its name in its folder
    size     bytes
    path     its path on a local disk; None where it is not on one
    stamp    what differs once the file changes: size, time of the change ...
    flagged  the first bytes of tensors in which a read met NaN or Inf
    """

    name: str
    size: int
    path: Path | None
    stamp: tuple[object, ...]

    def __init__(self) -> None:
        self.flagged: set[int] = set()

    @abstractmethod
    def read_into(self, view: memoryview, at: int) -> None:
        """Fill the view with the bytes from `at` on. Raises SourceError where they cannot be read."""

    def read(self, at: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `at` on, or all that follow. Raises SourceError where they cannot be read."""
        data = bytearray(self.size - at if length is None else length)
        self.read_into(memoryview(data), at)
        return bytes(data)

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise SourceError where the file has changed since it was found."""


class Folder(ABC):
    """The files of one checkpoint; `str` is what messages call it.

    path    its path on a local disk; None where it is not on one
    is_far  whether reading it may take a network
    memory  bytes that reading ahead takes
    """

    path: Path | None
    is_far = False
    memory: int = 0

    @abstractmethod
    def names(self) -> list[str]:
        """The names of its files, sorted."""

    @abstractmethod
    def file(self, name: str, why: str = "") -> File:
        """The file of that name. Raises SourceError where there is none, and for a name that leads out of the folder.

        why  what the message adds where it is missing: ", though its index names it"
        """

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self.names()

    def folders(self) -> list[str]:
        """The names of the folders in it, sorted. Nothing in them is part of the checkpoint."""
        return []

    @abstractmethod
    def fetch(self, names: list[str]) -> None:
        """Download these files, unless they are local already or are read over the network."""


class LocalFile(File):
    """A file on a disk."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path: Path = path
        self.name = path.name
        self.size, *_ = self.stamp = self._look()

    def read_into(self, view: memoryview, at: int) -> None:
        done = 0
        try:
            with open(self.path, "rb", buffering=0) as file:
                while done < len(view):
                    got = os.preadv(file.fileno(), [view[done:]], at + done)
                    if not got:
                        raise SourceError(f"{self.path}: ends at byte {at + done}, expected {self.size} bytes")
                    done += got
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def check_unchanged(self) -> None:
        if self._look() != self.stamp:
            raise SourceError(f"{self.path}: changed while it was read; run again when nothing writes it")

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None
        return status.st_size, status.st_mtime_ns, status.st_ino

    def __str__(self) -> str:
        return str(self.path)


def file_at(path: Path, *blobs: Path) -> LocalFile:
    """The file. Raises SourceError for a link out of its folder, unless it leads into one of the folders `blobs`."""
    real = path.resolve()
    if real.parent != path.parent.resolve() and not any(real.is_relative_to(folder) for folder in blobs):
        raise SourceError(f"{path}: a link out of its folder, to {real}")
    return LocalFile(path)


class LocalFolder(Folder):
    """A folder on a disk, such as a snapshot in the Hub's cache, whose files are links into a folder `blobs`."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.path.iterdir() if path.is_file())
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def holds(self, name: str) -> bool:
        return (self.path / name).is_file()

    def folders(self) -> list[str]:
        try:
            return sorted(path.name for path in self.path.iterdir() if path.is_dir())
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def file(self, name: str, why: str = "") -> LocalFile:
        path = self.path / name
        if len(name.encode("utf-8", "surrogatepass")) > NAME_MAX:
            raise SourceError(f"{self.path}: {name[:60]!r}...: longer than a file's name can be")
        if Path(name).name != name:
            raise SourceError(f"{self.path}: {name!r} is not a file name; a checkpoint's files lie in its own folder")
        if not path.is_file():
            raise SourceError(f"{self.path}: no {shown(name)}{why}")
        home = self.path.resolve()
        blobs = (home.parents[1] / "blobs", home.parents[2] / "blobs") if home.parent.name == "snapshots" else ()
        return file_at(path, *blobs)

    def fetch(self, names: list[str]) -> None:
        """Nothing: they are here."""

    def __str__(self) -> str:
        return str(self.path)
