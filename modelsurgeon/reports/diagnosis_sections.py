"""The sections of a diagnosis' page, as diagnosis_sections.toml declares them.

    [block for part in sections(subject)]   # "Norms", what they multiply by, a chart, a listing a model

Facts are templates over the document: "{norms.min:.3g} to {norms.max:.3g}" gives "0.9 to 1.1".
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelsurgeon.architectures.plain_names import plain_sizes
from modelsurgeon.reports.blocks import Block, Figure, Paragraph, Phrase, Section, cut, explained, facts, listing
from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number

MOST = 40  # rows of a table, examples of a list
DTYPES, LOST = ("float16", "bfloat16"), ("overflow", "underflow")
REPEATS = ("equal_rows", "equal_columns", "zero_rows", "zero_columns")

Document = Mapping[str, Any]
Parts = Sequence[Document]


@dataclass(frozen=True)
class Subject:
    """The models of a document, their names, and {name: chart}."""

    models: Sequence[Document]
    names: Sequence[str]
    charts: Mapping[str, Chart]


def sections(subject: Subject) -> list[Block]:
    """All sections that have something to show."""
    return [block for name in _declared()["order"] for block in _section(name, subject)]


def model_facts(name: str, subject: Subject) -> list[Block]:
    """A row for each fact that any model has, a column for each model; of "tokens", one for each embedding or head."""
    parts = {called: model.get(name, model) for called, model in zip(subject.names, subject.models, strict=True)}
    if name == "tokens":
        tables = ((called, side, model[side]) for called, model in parts.items() for side in ("embedding", "head"))
        parts = {f"{called}: {side}" if subject.models[1:] else side: table for called, side, table in tables if table}
    return list[Block](facts(_declared()["facts"][name], {called: _in_words(part) for called, part in parts.items()}))


def _in_words(part: Any) -> Any:
    """The facts, with the plain names of axes where there are sizes."""
    if not isinstance(part, Mapping) or not isinstance(part.get("sizes"), Mapping):
        return part
    return {**part, "sizes": plain_sizes(part["sizes"], part.get("model"))}


@cache
def _declared() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _section(name: str, subject: Subject) -> list[Block]:
    found = _declared()["sections"][name]
    show = {"facts": model_facts, "rows": _rows, "figure": _figure, "section": _section}
    shown = [block for kind, of in map(str.split, found["parts"]) for block in show[kind](of, subject)]
    text = [explained(found["text"])] if "text" in found else []
    return [Section(found["title"], [*text, *shown])] if shown else []


def _figure(name: str, subject: Subject) -> list[Block]:
    return [Figure(subject.charts[name], _declared()["captions"][name])] if name in subject.charts else []


def _rows(name: str, subject: Subject) -> list[Block]:
    """A listing for each model that has any rows."""
    declared, blocks = _declared()["rows"][name], list[Block]()
    for called, model in zip(subject.names, subject.models, strict=True):
        if parts := LISTED[name](model):
            blocks += [Paragraph(Phrase(called, "strong"))] if subject.models[1:] else []
            table = listing(declared["row"], parts, declared["numbers"])
            blocks += cut(table, MOST, "{} more are left out here; `--json` lists all that were kept.")
    return blocks


# --- the rows of listings --------------------------------------------------------------------------------------------


def far(model: Document) -> Parts:
    """What stands out in embedding and head."""
    return [{"where": key, **part} for key in ("embedding", "head") if model[key] for part in _far(model[key])]


def _far(table: Document) -> Iterable[dict[str, Any]]:
    for one in table["far_components"]["examples"]:
        yield {**one, "what": f"component {one['column']}", "times": number(one["times"], ",.0f")}
    for one in table["far_rows"]["examples"]:
        yield {**one, "what": "norm", "value": one["norm"]}
    for group in table["duplicates"]["examples"]:
        what = f"equal rows: {', '.join(map(str, group[:MOST]))}"
        yield {"what": what, "row": group[0], "token": None, "value": None, "times": None}
    for one in table["untrained"]["examples"]:
        yield {**one, "what": f"never trained: {one['why']}", "value": None, "times": None}


def gains(model: Document) -> Parts:
    """The norms of each template and place."""
    return _groups(model["gains"], ("mean", "rms", "min", "max"))


def matrices(model: Document) -> Parts:
    """The matrices of each template."""
    return _groups(model["matrices"], ("times_xavier", "times_truncated", "spectral_norm", "stable_rank"))


def _groups(rows: Iterable[Document], spans: Sequence[str]) -> Parts:
    """The first of each group, with the group's count, shapes, spans (least to largest), equal and zero rows."""
    groups: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for row in rows:
        groups[row["template"], row.get("place", "")].append(row)
    parts = []
    for group in groups.values():
        shapes = " ".join(dict.fromkeys("x".join(map(str, row.get("shape", ()))) for row in group))
        repeats = {key.replace("_", " "): sum(row.get(key, 0) for row in group) for key in REPEATS}
        repeated = ", ".join(f"{count:,} {what}" for what, count in repeats.items() if count)
        ranges = {key: _span(group, key) for key in spans}
        parts.append({**group[0], **ranges, "count": len(group), "shapes": shapes, "repeats": repeated})
    return parts


def _span(rows: Iterable[Document], key: str) -> str:
    """From the least to the largest value; any NaN counts as the least."""
    values = sorted((float(row[key]) for row in rows), key=lambda value: (value == value, value))
    return " to ".join(dict.fromkeys(number(value, ".3g") for value in (values[0], values[-1])))


def copies(model: Document) -> Parts:
    """The copies of each axis in a layer, most copies first."""
    rows = sorted(model["copies"], key=lambda row: -row["copies"] - row["dead"])
    return [{**row, "two": " and ".join(map(str, row["example"] or ()))} for row in rows]


def lossy(model: Document) -> Parts:
    """Tensors with numbers that other dtypes lose, the worst first."""

    def badness(row: Document) -> tuple[int, int]:
        return row["nan"] + row["inf"], sum(row[dtype][loss] for dtype in DTYPES for loss in LOST)

    return sorted(model["numbers"]["tensors"], key=badness, reverse=True)


def states(model: Document) -> Parts:
    """Hidden states, in the order of the model."""
    return model["running"]["states"] if model["running"] else []


def attention(model: Document) -> Parts:
    """Modules that attend, the largest logit first."""
    return sorted(model["running"]["attention"], key=lambda row: -float(row["largest"])) if model["running"] else []


LISTED: Mapping[str, Callable[[Document], Parts]] = {
    rows.__name__: rows for rows in (far, gains, matrices, copies, lossy, states, attention)
}
