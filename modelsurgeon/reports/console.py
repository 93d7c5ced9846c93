"""Blocks of a report as a terminal shows them, within its width. Text is never read as rich's markup.

    show(blocks, console)

In a narrow terminal the widest columns of a table fold. Where that leaves them too narrow to read, the columns that the
table names as long leave the grid: each row has them on lines of their own, above and below.

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

from modelsurgeon.reports.blocks import Block, Listing, Paragraph, Words, phrases
from modelsurgeon.text import shown

STYLES = {"good": "green", "bad": "red", "warning": "yellow", "strong": "bold", "soft": "dim", "code": "bold"}
READABLE = 32  # columns that a long text needs; a table with less room for one is no longer a single grid
QUOTES = frozenset("'\"\\")  # a command with these in it is not broken
GAP = 2  # columns between two of a table


def show(blocks: Iterable[Block], console: Console) -> None:
    """Print the blocks, one below the other."""
    for block in blocks:
        _show(block, console)


def as_text(blocks: Iterable[Block], width: int) -> str:
    """What `show` prints in so many columns, as plain text; paragraphs are one line each."""
    written = StringIO()
    show(blocks, Console(file=written, width=width, soft_wrap=True))
    return written.getvalue().rstrip("\n")


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
    wrapper = TextWrapper(width - 2, " " * start, "    ", break_long_words=False, break_on_hyphens=False)
    if QUOTES.isdisjoint(command):
        command = " \\\n".join(wrapper.wrap(command)).lstrip()
    return Text(command, style=STYLES["code"])


@_show.register
def _(block: Listing, console: Console) -> None:
    headings = [Text(shown(name), style="bold") for name in block.columns]
    rows = [headings, *([_text(cell) for cell in row] for row in block.rows)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    fits = sum(min(width, READABLE) for width in widths) + GAP * (len(widths) - 1) <= console.width
    long = [at for at, name in enumerate(block.columns) if name in block.long]
    if fits or not long:
        return console.print(_grid(_shrunk(widths, console.width), rows), soft_wrap=False)
    short = [at for at in range(len(widths)) if at not in long]
    above, below = [at for at in long if at < short[0]], [at for at in long if at > short[0]]
    indent = GAP if above else 0
    widths = _shrunk([widths[at] for at in short], console.width - indent)
    for row in rows:
        grid = _grid(widths, [[row[at] for at in short]])
        more = [
            Text.assemble((f"{block.columns[at]}: ", "dim"), row[at]) for at in below if row[at].plain not in ("", "-")
        ]
        console.print(*(row[at] for at in above), Padding(grid, (0, 0, 0, indent)), sep="\n", soft_wrap=False)
        if more and row is not headings:
            console.print(Padding(Text("; ").join(more), (0, 0, 0, GAP)), soft_wrap=False)


def _shrunk(widths: Sequence[int], room: int) -> list[int]:
    """The widths, the widest ones reduced until all columns have room beside each other."""
    reduced = list(widths)
    while sum(reduced) + GAP * (len(reduced) - 1) > room and max(reduced) > 1:
        reduced[reduced.index(max(reduced))] -= 1
    return reduced


def _grid(widths: Sequence[int], rows: Iterable[Sequence[Text]]) -> Table:
    """Columns without lines between them; a text that is wider than its column is folded."""
    table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for width in widths:
        table.add_column(width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _text(words: Words) -> Text:
    styled = ((shown(p.text), [STYLES[word] for word in p.style.split() if word in STYLES]) for p in phrases(words))
    return Text.assemble(*((text, " ".join(styles)) for text, styles in styled))
