"""Who writes: a folder belongs to one process, which is named by a file that only one process can create.

    .out.staging/owner.3     {"host": ..., "boot": ..., "pid": ...}

A run that finds owner N dead for certain tries to create owner N + 1; of two that try, one succeeds. Its view may be
old by then, so a run that created a file looks again at all others, and of two that see each other neither stays. An
owner removes its own file last in the folder: the next run finds an empty folder, or none, and begins. An owner that
may live (on another machine, in another container) stays until a user removes its file.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from modelsurgeon.errors import OutputError
from modelsurgeon.files import durable

FILE = re.compile(r"owner\.(\d+)")
TRIES = 20  # attempts at a folder that vanishes, or changes its owner, meanwhile


class Owner:
    """This process, as the owner of the folder `place`, which is to become `output`."""

    def __init__(self, place: Path, output: object) -> None:
        self._place, self._output = place, output
        self._record = json.dumps({**_myself(), "token": uuid4().hex})

    def holds(self) -> bool:
        """Whether this run still owns the folder: a user who believed it dead may have removed its file."""
        try:
            return any(durable.read(path) == self._record for path in owners(self._place).values())
        except OSError:
            return False

    def check(self) -> None:
        """Raise OutputError where this run no longer owns the folder."""
        if not self.holds():
            raise OutputError(f"{self._output}: lost to another run, as the file of this one was removed; run again")

    def claim(self) -> None:
        """Create the folder and own it. Raises OutputError where another run owns it."""
        vanished = None
        for attempt in range(TRIES):
            try:
                self._place.mkdir(parents=True, exist_ok=True)
                path = refuse_living(self._place, self._output)
                if durable.create(path, self._record):
                    self._stand_alone(path)
                    return
            except (FileNotFoundError, FileExistsError) as error:  # its owner was just leaving
                vanished = error
            time.sleep(0.005 * attempt)
        raise vanished or OutputError(f"{self._output}: other runs write it; run again when they are done")

    def _stand_alone(self, mine: Path) -> None:
        others = [path for path in owners(self._place).values() if path != mine]
        _refuse(others, self._output)
        for path in others:
            path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the owner's file; before that, where it is the only one, temporary files of runs that were killed."""
        files = owners(self._place).values()
        if len(files) == 1:
            for path in self._place.glob(f"*{durable.TEMPORARY}"):  # a run that is trying to own the folder tries again
                path.unlink(missing_ok=True)
        for path in files:
            if durable.read(path) == self._record:
                path.unlink()


@contextmanager
def owned(place: Path, output: object) -> Iterator[Owner]:
    """Own the folder `place`. At the end it is removed where empty, and so are parents that were created for it."""
    created = [path for path in place.parents if not path.exists()]
    owner = Owner(place, output)
    try:
        owner.claim()
        yield owner
    finally:
        with suppress(OSError):
            if owner.holds():
                owner.leave()
            for path in (place, *created):
                path.rmdir()


def refuse_living(place: Path, output: object) -> Path:
    """The file that the next owner creates. Raises OutputError where an owner lives, or may live."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise OutputError(f"{place}: is no folder; remove it, or name another output")
    files = owners(place)
    _refuse(files.values(), output)
    return place / f"owner.{max(files, default=0) + 1}"


def owners(place: Path) -> dict[int, Path]:
    """{N: owner.N}"""
    return {int(match[1]): place / name for name in listing(place) if (match := FILE.fullmatch(name))}


def listing(place: Path) -> list[str]:
    """The names in the folder at one moment; none where it does not exist."""
    try:
        return os.listdir(place)
    except FileNotFoundError:
        return []


def _refuse(files: Iterable[Path], output: object) -> None:
    for path in files:
        record = durable.read(path)
        if record is not None and not _is_dead(record, path):
            raise OutputError(
                f"{output}: another run writes it ({_named(record)}); if that one is dead, remove {path} "
                "and run again: finished shards are kept"
            )


def _named(record: str) -> str:
    try:
        owner = json.loads(record)
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "nothing tells which"


def _is_dead(record: str, path: Path) -> bool:
    """Whether the owner is dead for certain: its process is gone, or the machine has restarted since."""
    me = _myself()
    try:
        owner = json.loads(record)
        same = {key for key in me if owner[key] == me[key]}
        if "boot" in same:
            here = "namespace" in same and bool(me["boot"] or "host" in same)
            return here and not _runs(owner["pid"], owner["started"])
        restarted = {"host", "machine"} <= same and me["machine"] and me["boot"] and owner["boot"]
        return bool(restarted) and _untouched_since_boot(path)
    except (ValueError, KeyError, TypeError, OverflowError):
        return False


def _myself() -> dict[str, Any]:
    """What identifies this process: machine, boot, namespace of process ids, process, its start."""
    return {
        "host": os.uname().nodename,
        "machine": _system_text("/etc/machine-id"),
        "boot": _system_text("/proc/sys/kernel/random/boot_id"),
        "namespace": os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else None,
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _system_text(path: str) -> str | None:
    """The text of a system's file; None where it is absent or empty."""
    try:
        return (durable.read(Path(path)) or "").strip() or None
    except OSError:
        return None


def _runs(pid: int, started: int | None) -> bool:
    """Whether that process lives. Another process, or a zombie, may have its number by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _started(pid)
    return now is None or started is None or now == started


def _started(pid: int) -> int | None:
    """When a process started, in ticks; -1 for a zombie; None where that is unknown. Source: proc(5)."""
    if not (text := _system_text(f"/proc/{pid}/stat")):
        return None
    state, *rest = text.rpartition(")")[2].split()
    return -1 if state in "ZX" else int(rest[18])


def _untouched_since_boot(owner: Path) -> bool:
    """Whether nothing in the file's folder was written since this machine started, not even by one of the same name."""
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    files = (path for path in owner.parent.rglob("*") if path.is_file() and path.suffix != durable.TEMPORARY)
    try:
        return all(f.stat().st_mtime < started for f in files if f == owner or not FILE.fullmatch(f.name))
    except OSError:
        return False
