"""What a report consists of, whichever medium shows it: sections of paragraphs, lists, tables and charts.

    Section("Sizes", [Listing(("size", "before", "after"), [("hidden_size", "128", "256")], numbers=("after",))])

A document's file declares them (verification_report.py, diagnosis_report.py, listings.py, card.py); html.py,
console.py and markdown.py show them. Text is never markup: a renderer escapes every phrase, and the style of a phrase
is chosen here, not by what the text contains. Names in a document come from files that a stranger may have written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number, show_size

MARKED = re.compile(r"\*(?P<em>[^*]+)\*|`(?P<code>[^`]+)`")
CITED = re.compile(r"arXiv (\d{4}\.\d{4,5})|https://(?:spaces\.ac\.cn|kexue\.fm)/archives/\d+")


@dataclass(frozen=True)
class Phrase:
    """Part of a line.

    style  em, strong, code, soft, large, or a mood (good, bad, warning, plain); several words are combined
    link   where it leads
    ours   written here and not in a document, so Markdown need not escape it
    """

    text: str
    style: str = ""
    link: str = ""
    ours: bool = False


Words = str | Phrase | Sequence[str | Phrase]


def phrases(words: Words) -> tuple[Phrase, ...]:
    """The words as phrases, those without a style included."""
    parts = [words] if isinstance(words, str | Phrase) else words
    return tuple(Phrase(part) if isinstance(part, str) else part for part in parts)


def marked(text: str) -> tuple[Phrase, ...]:
    """Our own prose, never text from a document: *this* is emphasised, `this` is code, papers are links."""
    found: list[Phrase] = []
    for part, match in _split(text, MARKED):
        style = (match.lastgroup or "") if match else ""
        found += [Phrase(part.strip("*`"), style, ours=True)] if match else [replace(p, ours=True) for p in cited(part)]
    return tuple(found)


def cited(text: str, style: str = "") -> tuple[Phrase, ...]:
    """A citation, with links to its papers and articles and to nothing else."""
    return tuple(
        Phrase(part, style, (f"https://arxiv.org/abs/{match[1]}" if match[1] else part) if match else "")
        for part, match in _split(text, CITED)
    )


def _split(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str] | None]]:
    """(part, its match, or None between two matches)."""
    end = 0
    for match in pattern.finditer(text):
        yield text[end : match.start()], None
        yield match[0], match
        end = match.end()
    yield text[end:], None


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; on a terminal one line."""

    words: Words


@dataclass(frozen=True)
class Bullets:
    """A list; with a mood, a panel of that colour."""

    lines: Sequence[Words]
    numbered: bool = False
    mood: str = ""


@dataclass(frozen=True)
class Verbatim:
    """Lines of code, each as it is."""

    text: str


@dataclass(frozen=True)
class Listing:
    """A table.

    rows     [rows, columns]
    numbers  the columns that hold numbers
    long     the columns that leave the grid where a terminal is too narrow: one that comes first gets a line above its
             row, those behind it a paragraph below
    named    the first cell of each row names the row; without any column names it is a list of facts
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Words]]
    numbers: Collection[str] = ()
    long: Collection[str] = ()
    named: bool = False


def cut(listing: Listing, most: int, left_out: str) -> list[Block]:
    """Its first rows; if there are more, a paragraph says how many in our words, as in "{} more are left out"."""
    left = len(listing.rows) - most
    more = [Paragraph(marked(left_out.format(f"{left:,}")))] if left > 0 else []
    return [replace(listing, rows=listing.rows[:most]), *more]


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class Card:
    """One finding at the top of a page: what it is about, then paragraphs."""

    mood: str
    title: str
    lines: Sequence[Words]


@dataclass(frozen=True)
class Cards:
    """Findings beside each other."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; sections inside are subsections. One without blocks is not shown."""

    title: str
    blocks: Sequence[Block]


Block = Paragraph | Bullets | Verbatim | Listing | Figure | Cards | Section


@dataclass(frozen=True)
class Page:
    """A whole page: the verdict first.

    title    of the window
    command  the command that wrote it, as in "modelsurgeon verify"
    names    the checkpoints; `joint` is the sign between two of them, and how it is read aloud
    lines    below the verdict
    """

    title: str
    command: str
    names: Sequence[str]
    joint: tuple[str, str]
    mood: str
    verdict: Words
    lines: Sequence[str]
    blocks: Sequence[Block]


# --- rows by templates -----------------------------------------------------------------------------------------------


def listing(row: str, parts: Iterable[Mapping[str, Any]], numbers: int) -> Listing:
    """A row a part. row: "size = {size:,} | rank = {rank}", its columns, of which the last are `numbers`."""
    declared = [cell.split(" = ") for cell in row.split(" | ")]
    columns = [column.strip() for column, _ in declared]
    rows = [[filled(template, part) for _, template in declared] for part in parts]
    return Listing(columns, rows, columns[len(columns) - numbers :])


def facts(rows: Mapping[str, str], parts: Mapping[str, Mapping[str, Any] | None]) -> list[Listing]:
    """A row a fact that any part has: its label and templates; a column a part, with its name if there are several."""
    found = [[label, *(filled(template, part) for part in parts.values())] for label, template in rows.items()]
    found = [row for row in found if any(row[1:])]
    return [Listing(("", *parts) if len(parts) > 1 else (), found, named=True)] if found else []


def explained(template: str, part: Mapping[str, Any] | None = None) -> Paragraph:
    """Our own prose (`marked`) with the fields of a document, which stay plain text."""
    return Paragraph([replace(phrase, text=filled(phrase.text, part or {}), ours=False) for phrase in marked(template)])


def filled(template: str, part: Mapping[str, Any] | None) -> str:
    """The template with the fields of a document, nothing where none of them is known.

    {path:format} is a number, {path:yes|no} depends on whether it is true, {path:bytes} is a size; a list is a shape.

    >>> filled("{norms.min:.3g} to {norms.max:.3g}", {"norms": {"min": 0.9, "max": 1.1}})
    '0.9 to 1.1'
    """
    paths = [path for _, path, form, _ in Formatter().parse(template) if path and "|" not in (form or "")]
    if part is None or (paths and all(_at(part, path) is None for path in paths)):
        return ""
    return _Fields().vformat(template, (), part)


def _at(part: Mapping[str, Any] | None, path: str) -> Any:
    value: Any = part
    for key in path.split("."):
        value = value[key] if value is not None else None
    return value


class _Fields(Formatter):
    """{path:format} as people read it."""

    def get_field(self, path: str, args: Sequence[Any], part: Mapping[str, Any]) -> tuple[Any, str]:
        return _at(part, path), path

    def format_field(self, value: Any, form: str) -> str:
        if "|" in form:
            return form.rsplit("|", 1)[0] if value else form.split("|", 1)[1]
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {size:,}" for key, size in value.items())
        if isinstance(value, list):
            return "x".join(map(str, value))
        return "unknown" if value is None else show_size(value) if form == "bytes" else number(value, form)
