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

from modelsurgeon.reports.blocks import Block, Figure, Paragraph, Phrase, Section, cut, explained, facts, listing
from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number

MOST = 40  # rows of a table, examples of a list
DTYPES, LOST = ("float16", "bfloat16"), ("overflow", "underflow")
REPEATS = ("equal_rows", "equal_columns", "zero_rows", "zero_columns")

Document = Mapping[str, Any]
Parts = list[Document]


@dataclass(frozen=True)
class Subject:
    """The models of a document, what each is called, and their charts by name."""

    models: Sequence[Document]
    names: Sequence[str]
    charts: Mapping[str, Chart]


def sections(subject: Subject) -> list[Block]:
    """All sections that there is something to show in."""
    return [block for name in _declared()["order"] for block in _section(name, subject)]


def model_facts(name: str, subject: Subject) -> list[Block]:
    """A row a fact that any model has, a column a model; of embeddings and heads a column each."""
    parts = {called: model.get(name, model) for called, model in zip(subject.names, subject.models, strict=True)}
    if name == "tokens":
        sides = ("embedding", "head")
        pairs = [(called, side, model[side]) for called, model in parts.items() for side in sides if model[side]]
        parts = {f"{called}: {side}" if subject.models[1:] else side: table for called, side, table in pairs}
    return [*facts(_declared()["facts"][name], parts)]


@cache
def _declared() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _section(name: str, subject: Subject) -> list[Block]:
    found = _declared()["sections"][name]
    show = {"facts": model_facts, "rows": _rows, "figure": _figure, "section": _section}
    parts = (part.split() for part in found["parts"])
    shown = [block for kind, of in parts for block in show[kind](of, subject)]
    text = [explained(found["text"])] if "text" in found else []
    return [Section(found["title"], [*text, *shown])] if shown else []


def _figure(name: str, subject: Subject) -> list[Block]:
    return [Figure(subject.charts[name], _declared()["captions"][name])] if name in subject.charts else []


def _rows(name: str, subject: Subject) -> list[Block]:
    """One listing a model that has any rows."""
    declared, blocks = _declared()["rows"][name], list[Block]()
    for called, model in zip(subject.names, subject.models, strict=True):
        if parts := LISTED[name](model):
            blocks += [Paragraph(Phrase(called, "strong"))] if subject.models[1:] else []
            table = listing(declared["row"], parts, declared["numbers"])
            blocks += cut(table, MOST, "{} more are left out here; `--json` lists all that were kept.")
    return blocks


# --- what listings have a row of -------------------------------------------------------------------------------------


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
    """A group of norms for each template and place."""
    return _groups(model["gains"], ("mean", "rms", "min", "max"))


def matrices(model: Document) -> Parts:
    """A group of matrices for each template."""
    return _groups(model["matrices"], ("times_xavier", "times_truncated", "spectral_norm", "stable_rank"))


def _groups(rows: Iterable[Document], spans: Sequence[str]) -> Parts:
    """The first of each group, with how many there are, from the least to the largest, and what is equal or zero."""
    groups: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for row in rows:
        groups[row["template"], row.get("place", "")].append(row)
    return [
        {
            **group[0],
            **{key: _span(group, key) for key in spans},
            "count": len(group),
            "shapes": " ".join(dict.fromkeys("x".join(map(str, row.get("shape", ()))) for row in group)),
            "repeats": _repeats(group),
        }
        for group in groups.values()
    ]


def _span(rows: Iterable[Document], key: str) -> str:
    """From the least to the largest; a NaN is shown where there is any."""
    values = sorted((float(row[key]) for row in rows), key=lambda value: (value == value, value))
    return " to ".join(dict.fromkeys(number(value, ".3g") for value in (values[0], values[-1])))


def _repeats(matrices: Sequence[Document]) -> str:
    """3 equal rows, 1 zero columns."""
    counts = {key.replace("_", " "): sum(row.get(key, 0) for row in matrices) for key in REPEATS}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def copies(model: Document) -> Parts:
    """An axis in a layer, those with most copies first."""
    rows = sorted(model["copies"], key=lambda row: -row["copies"] - row["dead"])
    return [{**row, "two": " and ".join(map(str, row["example"] or ()))} for row in rows]


def lossy(model: Document) -> Parts:
    """A tensor that holds what other dtypes lose, the worst first."""

    def badness(row: Document) -> tuple[int, int]:
        return row["nan"] + row["inf"], sum(row[dtype][how] for dtype in DTYPES for how in LOST)

    return sorted(model["numbers"]["tensors"], key=badness, reverse=True)


def states(model: Document) -> Parts:
    """A hidden state, in the order of the model."""
    return list(model["running"]["states"]) if model["running"] else []


def attention(model: Document) -> Parts:
    """A module that attends, the one with the largest logit first."""
    return sorted(model["running"]["attention"], key=lambda row: -float(row["largest"])) if model["running"] else []


LISTED: Mapping[str, Callable[[Document], Parts]] = {
    listed.__name__: listed for listed in (far, gains, matrices, copies, lossy, states, attention)
}
