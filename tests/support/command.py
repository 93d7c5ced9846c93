"""The program as users call it: `run` in this process, `shell` in a line of bash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import blake3 as b3

from modelsurgeon.cli import main
from support import preloaded

ROOT = preloaded.ROOT


@dataclass(frozen=True)
class Finished:
    """How a run ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run(*arguments: object, stdin: str = "") -> Finished:
    """Run one command in this process; its streams are no terminals."""
    out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(sys, "argv", ["modelsurgeon", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, before)
            logging.disable(logging.NOTSET)  # --quiet is for the rest of a process
    assert isinstance(code, int)
    return Finished(code, out.getvalue(), err.getvalue())


def shell(line: str, folder: Path, *options: str) -> Finished:
    """Run lines of bash in `folder`, with pipefail and with further options."""
    (folder / "bin").mkdir()
    command = preloaded.write_command(folder / "bin")
    done = subprocess.run(
        ["bash", "-o", "pipefail", *options, "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, str]:
    """{path under the folder: sha256} of all files; folders end in a slash."""
    return {
        str(path.relative_to(folder)) + "/" * path.is_dir(): "" if path.is_dir() else sha256(path)
        for path in sorted(folder.rglob("*"))
    }


def blake3(path: Path) -> str:
    return b3.blake3(path.read_bytes()).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
