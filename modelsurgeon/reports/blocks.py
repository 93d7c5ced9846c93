"""What a report consists of, whichever medium shows it: sections of paragraphs, lists, tables and charts.

    Section("Sizes", [Listing(("size", "before", "after"), [("hidden_size", "128", "256")], numbers=("after",))])

verification_report.py, diagnosis_report.py, listings.py and card.py declare them; html.py, console.py and markdown.py
show them. Text is never markup, for names in a document come from files that a stranger may have written: a renderer
escapes every phrase, and only its `style` decides how it looks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number, show_size

CITED = r"arXiv (?P<paper>\d{4}\.\d{4,5})|(?P<article>https://(?:spaces\.ac\.cn|kexue\.fm)/archives/\d+)"
MARKED = rf"\*(?P<em>[^*]+)\*|`(?P<code>[^`]+)`|{CITED}"


@dataclass(frozen=True)
class Phrase:
    """Part of a line.

    style  em, strong, code, soft, large, or a mood (good, bad, warning, plain), or several of them
    link   the URL that it leads to
    ours   written by us, not in a document: Markdown need not escape it
    """

    text: str
    style: str = ""
    link: str = ""
    ours: bool = False


Words = str | Phrase | Sequence[str | Phrase]


def phrases(words: Words) -> tuple[Phrase, ...]:
    """The words as phrases; a plain text is a phrase without a style."""
    parts = [words] if isinstance(words, str | Phrase) else words
    return tuple(Phrase(part) if isinstance(part, str) else part for part in parts)


def marked(text: str) -> tuple[Phrase, ...]:
    """Our own prose, never text from a document: *this* is emphasised, `this` is code, papers are links."""
    return tuple(replace(phrase, ours=True) for phrase in cited(text, pattern=MARKED))


def cited(text: str, style: str = "", pattern: str = CITED) -> tuple[Phrase, ...]:
    """A citation, with links to its papers and articles and to nothing else."""
    found, end = list[Phrase](), 0
    for match in re.finditer(pattern, text):
        kind = match.lastgroup or ""
        link = f"https://arxiv.org/abs/{match[kind]}" if kind == "paper" else match[0]
        special = Phrase(match[kind], kind) if kind in ("em", "code") else Phrase(match[0], style, link)
        found += [Phrase(text[end : match.start()], style), special]
        end = match.end()
    return (*found, Phrase(text[end:], style))


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
    """Lines of code, shown unchanged."""

    text: str


@dataclass(frozen=True)
class Listing:
    """A table.

    rows     [rows, columns]
    numbers  the columns that hold numbers
    long     columns that a narrow terminal shows outside the grid: the first one above its row, later ones below
    named    the first cell of each row names the row
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Words]]
    numbers: Collection[str] = ()
    long: Collection[str] = ()
    named: bool = False


def cut(listing: Listing, most: int, left_out: str) -> list[Block]:
    """The first rows of a listing; if it has more, a paragraph with their number, as in "{} more are left out"."""
    left = len(listing.rows) - most
    more = [Paragraph(marked(left_out.format(f"{left:,}")))] if left > 0 else []
    return [replace(listing, rows=listing.rows[:most]), *more]


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class Cards:
    """Findings side by side at the top of a page: (mood, title, paragraphs) of each."""

    cards: Sequence[tuple[str, str, Sequence[Words]]]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; sections inside are subsections."""

    title: str
    blocks: Sequence[Block]


Block = Paragraph | Bullets | Verbatim | Listing | Figure | Cards | Section


@dataclass(frozen=True)
class Page:
    """A whole page: the verdict first, then `lines`, then the blocks.

    title    the title of the window
    command  the command that wrote the page, as in "modelsurgeon verify"
    names    the checkpoints
    joint    (the sign between two checkpoints, how it is read aloud)
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
    """A table with one row for each part.

    row      the columns and their templates, "size = {size:,} | rank = {rank}"
    numbers  how many of the last columns hold numbers
    """
    templates = {column.strip(): template for column, template in (cell.split(" = ") for cell in row.split(" | "))}
    rows = [[filled(template, part) for template in templates.values()] for part in parts]
    return Listing(tuple(templates), rows, list(templates)[-numbers:])


def facts(rows: Mapping[str, str], parts: Mapping[str, Mapping[str, Any] | None]) -> list[Listing]:
    """A table with one row for each fact that any part has, and one column for each part; none without facts.

    rows   {label: template}
    parts  {name: fields}; the names are shown if there are several
    """
    cells = [[label, *(filled(template, part) for part in parts.values())] for label, template in rows.items()]
    known = [row for row in cells if any(row[1:])]
    return [Listing(("", *parts) if len(parts) > 1 else (), known, named=True)] if known else []


def explained(template: str, part: Mapping[str, Any] | None = None) -> Paragraph:
    """Our own prose (`marked`), filled with the fields of a document, which stay plain text."""
    return Paragraph([replace(phrase, text=filled(phrase.text, part or {}), ours=False) for phrase in marked(template)])


def filled(template: str, part: Mapping[str, Any] | None) -> str:
    """The template, filled with the fields of a document; empty if none of the fields is known.

    {path:format} is a number, {path:yes|no} depends on whether it is true, {path:bytes} is a size; a list is a shape,
    and {path:of} a share of two numbers.

    >>> filled("{norms.min:.3g} to {norms.max:.3g}", {"norms": {"min": 0.9, "max": 1.1}})
    '0.9 to 1.1'
    """
    fields = _Fields()
    paths = [path for _, path, form, _ in fields.parse(template) if path and "|" not in (form or "")]
    unknown = part is None or (paths and all(fields.get_field(path, (), part)[0] is None for path in paths))
    return "" if unknown else fields.vformat(template, (), part or {})


class _Fields(Formatter):
    """{path:format} as people read it."""

    def get_field(self, path: str, args: Sequence[Any], part: Mapping[str, Any]) -> tuple[Any, str]:
        value: Any = part
        for key in path.split("."):
            value = value[key] if value is not None else None
        return value, path

    def format_field(self, value: Any, form: str) -> str:
        if "|" in form:
            return form.rsplit("|", 1)[0] if value else form.split("|", 1)[1]
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {size:,}" for key, size in value.items())
        if isinstance(value, list):
            return " of ".join(f"{count:,}" for count in value) if form == "of" else "x".join(map(str, value))
        return "unknown" if value is None else show_size(value) if form == "bytes" else number(value, form)
