"""The two streams and the exit code: results on stdout, everything else on stderr; rich is imported when it is used."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from modelsurgeon.progress import Tell

DIFFERENT, BAD_REQUEST, MACHINE_FAILED, INTERRUPTED = 1, 2, 3, 130  # exit codes; 0: done
WIDEST = 1000  # columns of a table on stdout that is no terminal: nothing is folded for a program that reads it


def console(quiet: bool) -> Console | None:
    """What people read, on stderr; None where they want to read nothing."""
    from rich.console import Console

    if quiet:
        return None
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=160)


def stdout() -> Console:
    """Tables that are the result."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDEST)


def quieten() -> None:
    """No warnings and no progress bars of libraries."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logging.disable(logging.WARNING)
    disable_progress_bars()


def line(text: str, shown_on: Console | None, style: str = "") -> None:
    """One line, however long, as it is."""
    if shown_on:
        from rich.text import Text

        shown_on.print(Text(text, style=style), soft_wrap=True)


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr that counts bytes, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("writing", total=total)

    def advance(count: int) -> None:
        bar.start()  # not before the first byte: downloads have bars of their own
        bar.advance(task, count)

    try:
        yield advance
    finally:
        bar.stop()


@contextmanager
def bars(quiet: bool) -> Iterator[Tell]:
    """What long computations tell, as one bar each with the time left, on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, TaskID] = {}

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
