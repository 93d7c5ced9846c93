"""The two streams and the exit codes: results on stdout, everything else on stderr; rich is imported on first use."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from modelsurgeon.progress import Tell, silent

if TYPE_CHECKING:
    from modelsurgeon.reports.blocks import Block, Page

DIFFERENT, BAD_REQUEST, MACHINE_FAILED, INTERRUPTED = 1, 2, 3, 130  # exit codes; 0: done
WIDEST = 1000  # columns of a table on stdout that is not a terminal: programs that read it need it unfolded


def show(blocks: Iterable[Block], quiet: bool = False, *, result: bool = False) -> None:
    """Print what people read: the result on stdout, all else on stderr unless --quiet was given.

    It fits COLUMNS or the terminal; in a pipe, tables have so many columns at most and no other line is broken.
    """
    if quiet:
        return
    from rich.console import Console

    from modelsurgeon.reports import console

    stream, widest = (sys.stdout, WIDEST) if result else (sys.stderr, 160)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        screen = Console(file=stream, width=int(columns))
    else:
        screen = Console(file=stream) if stream.isatty() else Console(file=stream, width=widest, soft_wrap=True)
    console.show(blocks, screen)


def check_page(path: Path | None) -> None:
    """Raise OutputError where the page cannot be written; called before anything is computed."""
    if path:
        from modelsurgeon.reports import html

        html.check_target(path)


def show_document(
    document: dict[str, Any],
    brief: Callable[[dict[str, Any]], Iterable[Block]],
    page: Callable[[dict[str, Any]], Page],
    file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show a document: in a file as its page, on stderr in brief, on stdout as JSON."""
    if file:
        from modelsurgeon.reports import html

        html.write(file, page(document))
    show(brief(document), quiet)
    if as_json:
        print_json(document)


def command() -> str:
    """The command line of this run."""
    return shlex.join(["modelsurgeon", *sys.argv[1:]])


def quieten() -> None:
    """Turn off the warnings and the progress bars of libraries."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logging.disable(logging.WARNING)
    disable_progress_bars()


@contextmanager
def bars(quiet: bool, in_bytes: bool = False) -> Iterator[Tell]:
    """A progress bar with the time left for each long computation, on stderr if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich import progress as rich
    from rich.console import Console

    counts = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if in_bytes else (rich.TaskProgressColumn(),)
    columns = rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), *counts, rich.TimeRemainingColumn()
    console = Console(stderr=True)
    bar = rich.Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, rich.TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.start()  # not earlier: downloads have bars of their own
        bar.update(tasks[what], completed=done, total=total)
        if bar.finished:
            bar.stop()

    try:
        yield tell
    finally:
        bar.stop()


def print_json(document: dict[str, Any]) -> None:
    """Print the result as one document."""
    print(json.dumps(document))


def from_stdin(*names: str) -> tuple[str, ...]:
    """The names, with the path on stdin in place of `-`. Raises BadParameter where there is no such path."""
    if names.count("-") > 1:
        raise typer.BadParameter("only one of the arguments can be - (a path on stdin)")
    if "-" not in names:
        return names
    path = sys.stdin.readline().strip()
    if not path:
        raise typer.BadParameter("no path came on stdin; did the command before fail?")
    return tuple(path if name == "-" else name for name in names)
