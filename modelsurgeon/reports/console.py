"""Blocks of a report as a terminal shows them, within its width. Text is never read as rich's markup.

    show(blocks, console)

A table that has room is a table. In a narrow terminal its widest columns fold, unless the table names columns as long:
those leave the grid, and get lines of their own above and below their row.

    tensor
      signature        before    after     factors  precision
    model.embed_tokens.weight
      vocab -> stream  4096x128  4096x256  1        exact
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from io import StringIO
from textwrap import TextWrapper

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelsurgeon.reports.blocks import Block, Bullets, Listing, Paragraph, Words, phrases
from modelsurgeon.text import shown

STYLES = {"good": "green", "bad": "red", "warning": "yellow", "strong": "bold", "soft": "dim", "code": "bold"}
READABLE = 32  # columns that a long text needs; a table whose texts have less is no longer one grid
QUOTES = frozenset("'\"\\")  # a command with these in it is not broken
GAP = 2  # columns between two of a table
NOTHING = ("", "-")  # cells that are not worth a place in a paragraph


def show(blocks: Iterable[Block], console: Console) -> None:
    """Print them, one below the other."""
    for block in blocks:
        _show(block, console)


@singledispatch
def _show(block: Block, console: Console) -> None:
    raise TypeError(f"no block for a terminal: {block!r}")


@_show.register
def _(block: Paragraph, console: Console) -> None:
    """One line for a pipe, else broken between words; a command so that a copy of its lines is still the command."""
    line = _text(block.words)
    *before, last = phrases(block.words)
    if last.style == "code" and not console.soft_wrap and line.cell_len > console.width:
        line = _text(before) + _broken(shown(last.text), len(_text(before)), console.width)
    console.print(line)


def _broken(command: str, start: int, width: int) -> Text:
    """A command that begins at column `start`, in lines that a shell reads as one."""
    if not QUOTES.isdisjoint(command):
        return Text(command, style=STYLES["code"])
    wrapped = TextWrapper(width - 2, " " * start, "    ", break_long_words=False, break_on_hyphens=False)
    lines = wrapped.wrap(command)
    return Text(" \\\n".join(lines).lstrip(), style=STYLES["code"])


@_show.register
def _(block: Bullets, console: Console) -> None:
    for line in block.lines:
        _show(Paragraph(line), console)


@_show.register
def _(block: Listing, console: Console) -> None:
    rows = [[_text(cell) for cell in row] for row in block.rows]
    headings = [Text(shown(name), style="bold") for name in block.columns]
    natural = [max(row[at].cell_len for row in (headings, *rows)) for at in range(len(headings))]
    widths = _shrunk(natural, console.width)
    cramped = any(width < min(full, READABLE) for width, full in zip(widths, natural, strict=True))
    if not (cramped and block.long):
        return _print(_grid(widths, [headings, *rows]), console)
    long = [at for at, name in enumerate(block.columns) if name in block.long]
    short = [at for at in range(len(headings)) if at not in long]
    above, below = [at for at in long if at < short[0]], [at for at in long if at > short[0]]
    indent = GAP if above else 0
    widths = _shrunk([natural[at] for at in short], console.width - indent)
    for row in [headings, *rows]:
        for at in above:
            _print(row[at], console)
        _print(Padding(_grid(widths, [[row[at] for at in short]]), (0, 0, 0, indent)), console)
        told = [
            Text.assemble((f"{block.columns[at]}: ", "dim"), row[at]) for at in below if row[at].plain not in NOTHING
        ]
        if told and row is not headings:
            _print(Padding(Text("; ").join(told), (0, 0, 0, GAP)), console)


def _print(what: Text | Table | Padding, console: Console) -> None:
    console.print(what, soft_wrap=False)


def _shrunk(widths: Sequence[int], room: int) -> list[int]:
    """The widths, the widest made narrower until all have room beside each other."""
    found = list(widths)
    while sum(found) + GAP * (len(found) - 1) > room and max(found) > 1:
        found[found.index(max(found))] -= 1
    return found


def _grid(widths: Sequence[int], rows: Iterable[Sequence[Text]]) -> Table:
    """Columns without lines between them; what has no room is folded."""
    table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for width in widths:
        table.add_column(width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _text(words: Words) -> Text:
    return Text.assemble(
        *((shown(p.text), " ".join(STYLES.get(s, "") for s in p.style.split()).strip()) for p in phrases(words))
    )


def as_text(blocks: Iterable[Block], width: int) -> str:
    """What `show` prints in so many columns, as plain text; paragraphs are one line each."""
    written = StringIO()
    show(blocks, Console(file=written, width=width, soft_wrap=True))
    return written.getvalue().rstrip("\n")
