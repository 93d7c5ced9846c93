"""The sections of a diagnosis' page, as diagnosis_sections.toml declares them.

    [block for part in sections(subject)]   # "Norms", what they multiply by, a chart, a listing a model

Facts are templates over the document: "{norms.min:.3g} to {norms.max:.3g}" gives "0.9 to 1.1".
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from modelsurgeon.reports import diagnosis_tables as tables
from modelsurgeon.reports.blocks import Block, Figure, Listing, Paragraph, Phrase, Section, cut, marked
from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number, show_size

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """The models of a document, what each is called, and their charts by name."""

    models: Sequence[Document]
    names: Sequence[str]
    charts: Mapping[str, Chart]


def sections(subject: Subject) -> list[Block]:
    """All sections that there is something to show in."""
    return [block for name in _declared()["order"] for block in _section(name, subject)]


def facts(name: str, subject: Subject) -> list[Block]:
    """A row a fact that any model has, a column a model; of embeddings and heads a column each."""
    parts = {called: model.get(name, model) for called, model in zip(subject.names, subject.models, strict=True)}
    if name == "tokens":
        sides = ("embedding", "head")
        pairs = [(called, side, model[side]) for called, model in parts.items() for side in sides if model[side]]
        parts = {f"{called}: {side}" if subject.models[1:] else side: table for called, side, table in pairs}
    rows = [
        [label, *(_filled(text, part) for part in parts.values())] for label, text in _declared()["facts"][name].items()
    ]
    rows = [row for row in rows if any(row[1:])]
    return [Listing(("", *parts) if len(parts) > 1 else (), rows, named=True)] if rows else []


@cache
def _declared() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _section(name: str, subject: Subject) -> list[Block]:
    found = _declared()["sections"][name]
    show = {"facts": facts, "rows": _rows, "figure": _figure, "section": _section}
    parts = (part.split() for part in found["parts"])
    blocks = [block for kind, of in parts for block in show[kind](of, subject)]
    explained = [Paragraph(marked(found["text"]))] if "text" in found else []
    return [Section(found["title"], [*explained, *blocks])] if blocks else []


def _figure(name: str, subject: Subject) -> list[Block]:
    return [Figure(subject.charts[name], _declared()["captions"][name])] if name in subject.charts else []


def _rows(name: str, subject: Subject) -> list[Block]:
    """One listing a model that has any rows."""
    declared, blocks = _declared()["rows"][name], list[Block]()
    columns = declared["columns"].split("; ")
    for called, model in zip(subject.names, subject.models, strict=True):
        if rows := tables.LISTED[name](model):
            blocks += [Paragraph(Phrase(called, "strong"))] if subject.models[1:] else []
            listing = Listing(columns, rows, columns[-declared["numbers"] :])
            blocks += cut(listing, tables.MOST, "{} more are left out here; `--json` lists all that were kept.")
    return blocks


# --- facts -----------------------------------------------------------------------------------------------------------


def _filled(template: str, part: Document | None) -> str:
    """The template with its fields; nothing where none of them is known."""
    paths = [path for _, path, _, _ in Formatter().parse(template) if path]
    known = any(_at(part, path) is not None for path in paths)
    return _Fields().vformat(template, (), part) if part and known else ""


def _at(part: Document | None, path: str) -> Any:
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
            return form.split("|")[0 if value else 1]
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {size:,}" for key, size in value.items())
        if isinstance(value, list):
            return "x".join(map(str, value))
        return "unknown" if value is None else show_size(value) if form == "bytes" else number(value, form)
