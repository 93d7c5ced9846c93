"""Files behind a network: read by ranges, a little ahead of the reader, and never stored.

    s3://bucket/folder, gs://..., memory://...   by fsspec, with the package that knows the scheme
    org/name                                     by the Hub's own file system, in `hub.py`

A file is read in pieces of 8 MiB; the first ones are smaller, so that a header costs little more than its own bytes.
The pieces read last, of all files together, stay in memory, so that several readers fetch each once. Once a reader goes
on from one piece to the next, the one after that is requested, too.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import count
from pathlib import Path
from queue import PriorityQueue
from typing import Any

from modelsurgeon.errors import ModelSurgeonError, SourceError, first_line
from modelsurgeon.files.file import File, Folder, LocalFile
from modelsurgeon.text import shown

PIECE = 8 << 20  # bytes of a request: larger ones are not faster, and more requests meet rate limits
BEGIN = (0, 1 << 17, 1 << 19, 1 << 21)  # where the pieces of a file's first 8 MiB begin: most headers need one
AHEAD = 2  # pieces
AT_ONCE = 3  # requests
KEPT = 64 << 20  # bytes of pieces
REMOTE_MEMORY = KEPT + 2 * AT_ONCE * PIECE  # bytes: until a piece is whole, its parts are in memory beside it
SIGNS = "ETag etag md5Hash content_md5 generation LastModified last_modified mtime updated created".split()

WAITING: PriorityQueue[tuple[bool, int, Callable[[], None]]] = PriorityQueue()  # (can wait, number, request)
COUNT = count()

Key = tuple[str, int]
Listing = Mapping[str, Mapping[str, Any]]


@dataclass
class Fetched:
    """Bytes of a file, in memory or being fetched; finished once a reader reached their end."""

    length: int
    finished: bool = False
    data: Future[bytes] = field(default_factory=Future)


class Pieces:
    """The pieces requested last, by (file, first byte): at most `most` bytes, and those being fetched."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._held: OrderedDict[Key, Fetched] = OrderedDict()  # the next to be dropped first
        self._read: deque[Key] = deque(maxlen=1000)
        self._lock = threading.Lock()

    def were_read(self, key: Key) -> bool:
        """Whether a reader reached the end of this piece recently."""
        with self._lock:
            return key in self._read

    def finish(self, key: Key) -> None:
        """A reader reached the end of this piece: it is dropped before others."""
        with self._lock:
            self._read.append(key)
            if key in self._held:
                self._held[key].finished = True
                self._held.move_to_end(key, last=False)

    def get(self, key: Key, length: int, fetch: Callable[[], bytes]) -> bytes:
        """The piece, fetched unless it is in memory or under way. Raises what `fetch` raises."""
        with self._lock:
            piece = self._held.get(key) or self._begin(key, length, fetch, urgent=True)
            self._held.move_to_end(key)
        return piece.data.result()

    def ahead(self, key: Key, length: int, fetch: Callable[[], bytes]) -> None:
        """Begin to fetch a piece, unless it would displace one that a reader may still need."""
        with self._lock:
            needed = sum(piece.length for piece in self._held.values() if not piece.finished)
            if key not in self._held and needed + length <= self._most:
                self._begin(key, length, fetch, urgent=False)

    def _begin(self, key: Key, length: int, fetch: Callable[[], bytes], urgent: bool) -> Fetched:
        self._held[key] = piece = Fetched(length)
        excess = sum(held.length for held in self._held.values()) - self._most
        for old, held in list(self._held.items()):
            if excess > 0 and held.data.done():
                del self._held[old]
                excess -= held.length
        _start_threads()
        WAITING.put((not urgent, next(COUNT), lambda: self._fill(key, piece, fetch)))
        return piece

    def _fill(self, key: Key, piece: Fetched, fetch: Callable[[], bytes]) -> None:
        try:
            piece.data.set_result(fetch())
        except BaseException as error:
            with self._lock:
                self._held.pop(key, None)  # the next reader tries again
            piece.data.set_exception(error)


@cache
def _start_threads() -> None:
    """Start the threads that fetch, for all folders. A pool would make an interrupted program wait for the network."""

    def serve() -> None:
        while True:
            WAITING.get()[2]()

    for _ in range(AT_ONCE):
        threading.Thread(target=serve, daemon=True).start()


class RemoteFile(File):
    """A file of a remote folder; once it has a local copy, that is read instead."""

    def __init__(self, folder: RemoteFolder, name: str, size: int, local: LocalFile | None = None) -> None:
        super().__init__()
        self._folder, self.name, self.size = folder, name, size
        self.stamp = folder.stamp(name)
        self._local: LocalFile | None = None
        self.path: Path | None = None
        if local:
            self.lies_at(local)

    def lies_at(self, local: LocalFile) -> None:
        """Read the local copy from now on. Raises SourceError where its size is wrong."""
        if local.size != self.size:
            raise SourceError(
                f"{local}: {local.size} bytes, expected {self.size} as in {self}; remove it and run again"
            )
        self._local, self.path = local, local.path

    def read_into(self, view: memoryview, at: int) -> None:
        if self._local:
            self._local.read_into(view, at)
            return
        if (end := at + len(view)) > self.size:
            raise SourceError(f"{self}: ends at byte {self.size}, expected {end} bytes")
        while at < end:
            start, data = self._piece(at, end)
            part = memoryview(data)[at - start : end - start]
            view[len(view) - (end - at) :][: len(part)] = part
            at += len(part)
            if at == start + len(data):
                self._folder.pieces.finish((self.name, start))

    def _piece(self, at: int, end: int) -> tuple[int, bytes]:
        """(first byte, bytes) of the piece that holds this byte; begins to fetch the following ones.

        They end with `end`, or with the file where the piece before was read too: such a reader reads in order.
        """
        start, stop = bounds(at, self.size)
        goes_on = start >= PIECE and self._folder.pieces.were_read((self.name, bounds(start - 1, self.size)[0]))
        following = stop
        for _ in range(AHEAD):
            if following >= (self.size if goes_on else end):
                break
            after, following = bounds(following, self.size)
            fetch = partial(self._fetch, after, following)
            self._folder.pieces.ahead((self.name, after), following - after, fetch)
        return start, self._folder.pieces.get((self.name, start), stop - start, partial(self._fetch, start, stop))

    def _fetch(self, start: int, stop: int) -> bytes:
        data = self._folder.read_range(self, start, stop)
        if len(data) != stop - start:
            raise SourceError(f"{self}: {len(data)} bytes from byte {start} on, expected {stop - start}")
        return data

    def check_unchanged(self) -> None:
        if self._local:
            self._local.check_unchanged()
        else:
            self._folder.check_unchanged(self)

    def __str__(self) -> str:
        return f"{self._folder.url}/{shown(self.name)}"


def bounds(at: int, size: int) -> tuple[int, int]:
    """(begin, end) of the piece that holds this byte in a file of `size` bytes."""
    if at >= PIECE:
        start = at // PIECE * PIECE
        return start, min(start + PIECE, size)
    number = bisect_right(BEGIN, at)
    return BEGIN[number - 1], min((*BEGIN, PIECE)[number], size)


class RemoteFolder(Folder):
    """A folder of a file system that fsspec knows."""

    is_far = True
    memory = REMOTE_MEMORY

    def __init__(self, url: str, file_system: Any, root: str) -> None:
        self.path: Path | None = None
        self.pieces = Pieces()
        self.url, self._file_system, self._root = url.rstrip("/"), file_system, root.rstrip("/")
        self._files: dict[str, RemoteFile] = {}

    @cached_property
    def _listing(self) -> Listing:
        return self._look()

    def _look(self) -> Listing:
        """{name: what the file system reports of the file} as it is now."""
        return {name: entry for name, entry in self._entries().items() if entry["type"] == "file"}

    def _entries(self) -> Listing:
        """{name: what the file system reports} of files and folders, as it is now."""
        with network_errors(self.url):
            self._file_system.invalidate_cache(self._root)
            entries = {str(entry["name"]).rstrip("/"): entry for entry in self._file_system.ls(self._root, detail=True)}
        if entries.get(self._root, {}).get("type") == "file":
            raise SourceError(f"{self}: a file; expected a folder that holds config.json and safetensors")
        return {path.rpartition("/")[2]: entry for path, entry in entries.items() if path != self._root}

    def names(self) -> list[str]:
        return sorted(self._listing)

    def folders(self) -> list[str]:
        return sorted(name for name, entry in self._entries().items() if entry["type"] == "directory")

    def file(self, name: str, why: str = "") -> RemoteFile:
        if name not in self._files:
            if Path(name).name != name:
                raise SourceError(f"{self}: {name!r} is not a file name; a checkpoint's files lie in its own folder")
            if name not in self._listing:
                raise SourceError(f"{self}: no {shown(name)}{why}")
            self._files[name] = RemoteFile(self, name, self._listing[name]["size"], self.local(name))
        return self._files[name]

    def local(self, name: str) -> LocalFile | None:
        """The copy on a local disk, if there is one."""
        return None

    def fetch(self, names: list[str]) -> None:
        """Nothing: they are read over the network."""

    def read_range(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Bytes of a file, by one request. Raises SourceError where it is gone, OSError where the network fails."""
        with network_errors(str(file)):
            data: bytes = self._file_system.cat_file(f"{self._root}/{file.name}", start, stop)
        return data

    def check_unchanged(self, file: RemoteFile) -> None:
        """Raise SourceError where a file is not what it was when it was found."""
        if _stamp(self._look().get(file.name, {})) != file.stamp:
            raise SourceError(f"{file}: changed while it was read; run again when nothing writes it")

    def stamp(self, name: str) -> tuple[object, ...]:
        """(size, the first of SIGNS that the file system reports), as they were when the folder was listed."""
        return _stamp(self._listing[name])

    def __str__(self) -> str:
        return self.url


def open_remote(url: str) -> RemoteFolder:
    """The folder that a URL names. Raises SourceError where there is none, or where its scheme cannot be read."""
    folder = RemoteFolder(url, *file_system_of(url, SourceError, "a folder, a Hub id, s3://, gs:// ..."))
    folder.names()
    return folder


def file_system_of(url: str, refused: type[ModelSurgeonError], expected: str) -> tuple[Any, str]:
    """(file system, path in it) of a URL, by fsspec. Raises `refused` where no package knows the scheme."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        file_system, root = url_to_fs(url)
    except ImportError as error:
        raise refused(f"{url}: a package is missing: {first_line(error)}") from None
    except ValueError as error:
        raise refused(f"{url}: {first_line(error)}; expected {expected}") from None
    return file_system, str(root)


def _stamp(entry: Mapping[str, Any]) -> tuple[object, ...]:
    return entry.get("size"), next((str(entry[sign]) for sign in SIGNS if sign in entry), None)


@contextmanager
def network_errors(name: str) -> Iterator[None]:
    """Raise a file system's errors in one line: SourceError where the request is at fault, else OSError."""
    try:
        yield
    except (ModelSurgeonError, MemoryError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{name}: not there, or not any more") from None
    except PermissionError as error:
        raise SourceError(f"{name}: no access ({first_line(error)})") from None
    except Exception as error:  # each package behind fsspec has errors of its own
        raise OSError(f"{name}: cannot be read ({first_line(error)})") from None
