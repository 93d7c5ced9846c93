"""Runs a command in a forked child and disturbs it: by signals, at chosen system calls, by a small disk.

The parent has imported everything, which saves seconds a run; it must have one thread. `disturb` changes the child
alone. The child can list every read, and every call that changes the disk, in the file CALLS: the number of a call
names a moment, also one that a clock seldom hits.
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from modelsurgeon.cli import main
from modelsurgeon.files import durable

CALLS, STDOUT, STDERR = Path("calls"), Path("stdout"), Path("stderr")
CHANGING = "mkdir link rename unlink rmdir fsync fdatasync pwrite copy_file_range posix_fallocate ftruncate".split()
READING = "preadv copy_file_range".split()
CRASHED = 99
LIMIT = 300  # seconds after which a run hangs
LOOK = 0.003  # seconds between two looks at a child


@dataclass(frozen=True)
class Ended:
    """How a run ended; a negative code is a signal's number.

    seen  what was wrong with the output during the run; whether it hung
    """

    code: int
    out: str
    err: str
    seen: str = ""


def attempt(
    command: Sequence[str],
    disturb: Callable[[], object],
    strike: tuple[float, int] | None = None,
    look: Callable[[], str] = lambda: "",
) -> Ended:
    """Run a command in a child.

    disturb  called in the child before the command begins
    strike   (seconds, the signal to send after them)
    look     called here again and again during the run; returns what is wrong
    """
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads cannot be forked"
    CALLS.write_text("")
    child = os.fork()
    if child == 0:
        try:
            _run(command, disturb)
        finally:
            os._exit(CRASHED)
    code, seen = _watch(child, strike, look)
    return Ended(code, STDOUT.read_text(), STDERR.read_text(), seen)


def _run(command: Sequence[str], disturb: Callable[[], object]) -> NoReturn:
    code = CRASHED
    for number, path in ((1, STDOUT), (2, STDERR)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = ["modelsurgeon", *command]
    signal.signal(signal.SIGINT, _interrupt)
    try:
        disturb()
        main.main()
    except SystemExit as end:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        code = end.code if isinstance(end.code, int) else CRASHED
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _interrupt(number: int, frame: Any) -> None:
    """Send Ctrl-C while the program runs, not before or after."""
    while frame and frame.f_code is not main.main.__code__:
        frame = frame.f_back
    if frame:
        raise KeyboardInterrupt


def _watch(child: int, strike: tuple[float, int] | None, look: Callable[[], str]) -> tuple[int, str]:
    """Watch a child, send it the signal, kill it where it hangs: (exit code, what was wrong)."""
    began, seen = time.monotonic(), ""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), seen
        passed = time.monotonic() - began
        if strike and passed >= strike[0]:
            os.kill(child, strike[1])
            strike = None
        if passed > LIMIT:
            os.kill(child, signal.SIGKILL)
            seen = "it hangs"
        seen = seen or look()
        time.sleep(min(LOOK, max(0, strike[0] - passed)) if strike else LOOK)


def at_call(number: int, when: str, strike: Callable[[], object]) -> Callable[[], None]:
    """Make a child strike `before`, `amid` or `after` the call of this number that changes the disk."""

    def disturb() -> None:
        is_now = _counted(number)
        for name in CHANGING:
            setattr(os, name, _striking(name, is_now, when, strike))
        real, striking = builtins.open, _striking("open", is_now, when, strike)

        def opening(*arguments: Any, **named: Any) -> Any:
            mode = str(named.get("mode", arguments[1:2]))
            return (striking if set(mode) & set("wax+") else real)(*arguments, **named)

        io.open = builtins.open = opening

    return disturb


def at_read(number: int, strike: Callable[[], object]) -> Callable[[], None]:
    """Make a child strike before its read of this number."""

    def disturb() -> None:
        is_now = _counted(number)
        for name in READING:
            setattr(os, name, _striking(name, is_now, "before", strike, "read"))

    return disturb


def _counted(number: int) -> Callable[[str], bool]:
    """A function that appends the name of a call to CALLS, and returns whether the call has this number."""
    log, count = os.open(CALLS, os.O_WRONLY | os.O_APPEND), itertools.count(1)

    def is_now(name: str) -> bool:
        os.write(log, f"{name}\n".encode())
        return next(count) == number

    return is_now


def _striking(
    name: str, is_now: Callable[[str], bool], when: str, strike: Callable[[], object], noted: str = ""
) -> Callable[..., Any]:
    real = builtins.open if name == "open" else getattr(os, name)

    def call(*arguments: Any, **named: Any) -> Any:
        now = is_now(noted or name)
        if now and when == "before":
            strike()
        if now and when == "amid" and name == "pwrite":
            descriptor, view, at = arguments
            real(descriptor, view[: len(view) // 2], at)
            strike()
        result = real(*arguments, **named)
        if now and when != "before":
            strike()
        return result

    return call


def no_reserve(descriptor: int, offset: int, length: int) -> NoReturn:
    """Simulate a file system that cannot reserve room."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def no_copy(*rest: object) -> NoReturn:
    """Simulate a file system that cannot copy inside the kernel."""
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


class SmallDisk:
    """A disk of so many bytes, for machines that cannot mount a small one; deleted bytes stay used.

    A write that does not fit is half written. It is set up in a child, and never removed there.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._reserved: set[int] = set()
        self._reserve, self._pwrite, self._statvfs = os.posix_fallocate, os.pwrite, os.statvfs
        self._text, self._bytes, self._append = Path.write_text, Path.write_bytes, durable.append

    def set_up(self) -> None:
        os.posix_fallocate, os.pwrite, os.copy_file_range = self.reserve, self.pwrite, no_copy
        os.statvfs = self.statvfs
        Path.write_text = lambda path, data, **how: self.write(self._text, path, data, **how)  # type: ignore
        Path.write_bytes = lambda path, data: self.write(self._bytes, path, data)  # type: ignore
        durable.append = lambda path, line: self.write(self._append, path, line)  # type: ignore

    def charge(self, length: int, write_half: Callable[[], object] = lambda: None) -> None:
        self._left -= length
        if self._left < 0:
            write_half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def reserve(self, descriptor: int, offset: int, length: int) -> None:
        self._reserve(descriptor, offset, length)
        self.charge(length)
        self._reserved.add(descriptor)

    def pwrite(self, descriptor: int, view: memoryview, at: int) -> int:
        if descriptor not in self._reserved:
            self.charge(len(view), lambda: self._pwrite(descriptor, view[: len(view) // 2], at))
        return self._pwrite(descriptor, view, at)

    def write(self, real: Callable[..., Any], path: Path, data: Any, **how: Any) -> Any:
        self.charge(len(data), lambda: real(path, data[: len(data) // 2], **how))
        return real(path, data, **how)

    def statvfs(self, path: Any) -> os.statvfs_result:
        found = list(self._statvfs(path))
        return os.statvfs_result([*found[:4], max(0, self._left) // found[1], *found[5:]])
