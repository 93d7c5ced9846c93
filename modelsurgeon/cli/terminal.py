"""The two streams and the exit code: results on stdout, everything else on stderr; rich is imported when it is used."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from modelsurgeon.progress import Tell
    from modelsurgeon.reports.blocks import Block

DIFFERENT, BAD_REQUEST, MACHINE_FAILED, INTERRUPTED = 1, 2, 3, 130  # exit codes; 0: done
WIDEST = 1000  # columns of a table on stdout that is no terminal: nothing is folded for a program that reads it


def show(blocks: Iterable[Block], quiet: bool) -> None:
    """What people read, on stderr, unless they want to read nothing."""
    if not quiet:
        _show(blocks, sys.stderr, 160)


def show_result(blocks: Iterable[Block]) -> None:
    """What people read, on stdout: it is the result."""
    _show(blocks, sys.stdout, WIDEST)


def _show(blocks: Iterable[Block], stream: TextIO, widest: int) -> None:
    """Within COLUMNS, or within the terminal; in a pipe tables have `widest` columns, and no other line is broken."""
    from rich.console import Console

    from modelsurgeon.reports import console

    wanted = os.environ.get("COLUMNS", "")
    sized = wanted.isdigit() and int(wanted) > 0
    if sized or stream.isatty():
        console.show(blocks, Console(file=stream, width=int(wanted) if sized else None))
    else:
        console.show(blocks, Console(file=stream, width=widest, soft_wrap=True))


def quieten() -> None:
    """No warnings and no progress bars of libraries."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logging.disable(logging.WARNING)
    disable_progress_bars()


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar that counts bytes; not before the first one, for downloads have bars of their own."""
    written = 0
    with bars(quiet, in_bytes=True) as tell:

        def advance(count: int) -> None:
            nonlocal written
            written += count
            tell("writing", written, total)

        yield advance


@contextmanager
def bars(quiet: bool, in_bytes: bool = False) -> Iterator[Tell]:
    """What long computations tell, as one bar each with the time left, on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    counts = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if in_bytes else (rich.TaskProgressColumn(),)
    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        *counts,
        rich.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = rich.Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, rich.TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.start()
        bar.update(tasks[what], completed=done, total=total)
        if bar.finished:  # what comes next may be a download, which has bars of its own
            bar.stop()

    try:
        yield tell
    finally:
        bar.stop()


def print_json(document: dict[str, Any]) -> None:
    """The result, as one document."""
    print(json.dumps(document))


def from_stdin(*names: str) -> tuple[str, ...]:
    """The names, with the path that came down the pipe in the place of `-`."""
    if names.count("-") > 1:
        raise typer.BadParameter("only one of the arguments can be - (a path on stdin)")
    if "-" not in names:
        return names
    came = sys.stdin.readline().strip()
    if not came:
        raise typer.BadParameter("no path came on stdin; did the command before fail?")
    return tuple(came if name == "-" else name for name in names)
