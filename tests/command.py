"""The program as users meet it: `run` calls it in this process, `shell` runs a line of bash that knows it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import blake3 as b3

from modelsurgeon import cli

ROOT = Path(cli.__file__).parents[1]


@dataclass(frozen=True)
class Finished:
    """How a run ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run(*arguments: object, stdin: str = "") -> Finished:
    """One command in this process, its streams no terminals."""
    out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(sys, "argv", ["modelsurgeon", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, before)
    assert isinstance(code, int)
    return Finished(code, out.getvalue(), err.getvalue())


def shell(line: str, folder: Path, **environment: str) -> Finished:
    """A line of bash with pipefail, run in `folder`."""
    wrapper = folder / "bin" / "modelsurgeon"
    if not wrapper.exists():
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modelsurgeon "$@"\n')
        wrapper.chmod(0o755)
    path = f"{wrapper.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
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
