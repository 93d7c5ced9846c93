"""Staging: an output appears whole, by one rename, or not at all; a later run uses the shards that a dead one finished.

    .out.staging/            beside `out`
        owner.1              which process writes here: `ownership.py`
        request.json         what is written here
        finished.jsonl       a line for each finished shard: its name, bytes and hash
        result/              what becomes `out`

Shards are used again for an equal request only, and only where they still have their hash. There are never shards
without their request, which is written first and removed last. While `out` is replaced, the old one is `.out.replaced`;
a run that finds it alone puts it back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelsurgeon.errors import OutputError, SourceError
from modelsurgeon.files import durable
from modelsurgeon.files.file import LocalFile
from modelsurgeon.files.hashes import ALGORITHM, digest
from modelsurgeon.saving.ownership import FILE, Owner, listing, owned, refuse_living
from modelsurgeon.text import show_size

REQUEST, JOURNAL, RESULT = "request.json", "finished.jsonl", "result"
RESUMED = (OSError, MemoryError, KeyboardInterrupt, SystemExit)  # nothing was wrong with the request
OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)

Entry = dict[str, Any]
Say = Callable[[str], None]


@contextmanager
def staged(
    output: str | Path, request: Any, *, shards: int, needed: int, overwrite: bool = False, say: Say = lambda line: None
) -> Iterator[Stage]:
    """A stage whose folder becomes `output` when the block ends well.

    request  JSON that identifies the result: source, steps, shard plan, version
    shards   how many there will be
    needed   bytes of all files together
    say      called with a line about shards that stay for the next run, and about those of another request
    Raises OutputError where the output exists or another run writes it, OSError where the machine fails.
    """
    target = Path(os.path.realpath(output))
    place = target.with_name(f".{target.name}.staging")
    refuse_living(place, output)
    _refuse_unknown(place)
    _check_space(output, place, needed)
    with owned(place, output) as owner:
        _settle(target)
        if target.exists() and not overwrite:
            raise OutputError(f"{output}: exists; --overwrite replaces it")
        stage = Stage(place, owner, shards, say)
        try:
            stage.begin(json.dumps(request, sort_keys=True))
            yield stage
            stage.complete()
            _publish(stage.folder, target, output, overwrite)
        except BaseException as error:
            stage.leave(keep=isinstance(error, RESUMED))
            raise
        stage.leave(keep=False)


class Stage:
    """Where files are written before they appear.

    folder    the folder to write in, which becomes the output
    finished  {shard: its entry}, earlier runs of this request included; `reusable` checks whether one is still sound
    """

    def __init__(self, place: Path, owner: Owner, shards: int, say: Say) -> None:
        self.folder = place / RESULT
        self.finished: dict[str, Entry] = {}
        self._place, self._owner, self._shards, self._say = place, owner, shards, say
        self._checked: set[str] = set()

    def begin(self, request: str) -> None:
        """Keep the shards that an equal request finished, and remove all else."""
        journal = self._read_journal()
        if durable.read(self._place / REQUEST) == request:
            self.finished = journal
        else:
            self._clear()
            if journal:
                self._say(f"{self._place}: {len(journal)} finished shards of another request were dropped")
        durable.replace(self._place / REQUEST, request)
        self.folder.mkdir(exist_ok=True)
        self._remove_unfinished()
        durable.replace(self._place / JOURNAL, "".join(_line(*item) + "\n" for item in self.finished.items()))

    def reusable(self, name: str) -> Entry | None:
        """The entry of a finished shard whose bytes have their hash; None where it must be written."""
        if name in self.finished and name not in self._checked:
            if self._holds(name, self.finished[name]):
                self._checked.add(name)
            else:
                del self.finished[name]
                durable.remove(self.folder / name)
        return self.finished.get(name)

    def finish(self, name: str, entry: Entry) -> None:
        """Record a shard as written: when this returns it is on the disk, and a later run can use it.

        entry  {"bytes": its size, "blake3": its hash, any other JSON}
        """
        durable.sync(self.folder / name)
        self._owner.check()
        durable.append(self._place / JOURNAL, _line(name, entry))
        self.finished[name] = entry
        self._checked.add(name)

    def complete(self) -> None:
        """Sync everything, and remove shards that were neither written nor checked."""
        for name in self.finished.keys() - self._checked:
            durable.remove(self.folder / name)
        for path in (*self.folder.rglob("*"), self.folder):
            durable.sync(path)
        self._owner.check()

    def leave(self, *, keep: bool) -> None:
        """Remove what no later run can use: unfinished files where shards are kept, else everything."""
        if not self._owner.holds():
            return
        resumable = keep and self.finished and self.folder.exists()
        with suppress(OSError):
            self._remove_unfinished() if resumable else self._clear()
        if resumable:
            count = f"{len(self.finished)} of {self._shards} shards are kept"
            self._say(f"{count} in {self._place}: the same command goes on from there")

    def _holds(self, name: str, entry: Entry) -> bool:
        try:
            return bool(digest(LocalFile(self.folder / name)) == entry[ALGORITHM])
        except SourceError:
            return False

    def _read_journal(self) -> dict[str, Entry]:
        """{shard: its entry} for shards whose file has its size. Incomplete lines are skipped."""
        entries: dict[str, Entry] = {}
        for line in (durable.read(self._place / JOURNAL) or "").splitlines():
            with suppress(ValueError, KeyError, TypeError, OSError):
                record = json.loads(line)
                name, entry = record["shard"], record["entry"]
                size = (self.folder / name).lstat().st_size
                if Path(name).name == name and entry[ALGORITHM] and entry["bytes"] == size:
                    entries[name] = entry
        return entries

    def _remove_unfinished(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in self.finished:
                durable.remove(path)

    def _clear(self) -> None:
        for name in (RESULT, JOURNAL, REQUEST):
            durable.remove(self._place / name)


def _line(name: str, entry: Entry) -> str:
    return json.dumps({"shard": name, "entry": entry})


def _refuse_unknown(place: Path) -> None:
    """Raise OutputError for a folder of files that no run of this program left."""
    names = {name for name in listing(place) if not name.endswith(durable.TEMPORARY)}
    if names and REQUEST not in names and not any(map(FILE.fullmatch, names)):
        raise OutputError(f"{place}: exists, and nothing in it tells who writes it; if no run does, remove it")


def _check_space(output: object, place: Path, needed: int) -> None:
    """Raise OSError where the disk is too small; files in the staging folder are used again, or removed."""
    missing = needed
    for folder, _, files in os.walk(place):
        for name in files:
            with suppress(FileNotFoundError):  # another run may be at work there
                missing -= os.lstat(os.path.join(folder, name)).st_blocks * 512
    parent = next(path for path in place.parents if path.exists())
    disk = os.statvfs(parent)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and missing > free:
        sizes = f"{output} needs {show_size(missing)}, {show_size(free)} are free in {parent}"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {sizes}")


def _publish(folder: Path, target: Path, output: object, overwrite: bool) -> None:
    """Put the folder where the target is; where that fails, the old one stays."""
    if target.exists() and not overwrite:
        raise OutputError(f"{output}: appeared in the meantime; --overwrite replaces it")
    try:
        if target.exists():
            os.rename(target, _replaced(target))
        os.rename(folder, target)
        durable.sync(target.parent)
    except OSError as error:
        if error.errno in OCCUPIED and not overwrite:
            raise OutputError(f"{output}: appeared in the meantime; --overwrite replaces it") from None
        raise
    finally:
        _settle(target)


def _settle(target: Path) -> None:
    """Put the old output back where no new one replaced it, as after a kill in between; else remove it."""
    if target.exists():
        shutil.rmtree(_replaced(target), ignore_errors=True)
    elif _replaced(target).exists():
        os.rename(_replaced(target), target)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")
