"""A diagnosis as one page of HTML: what to act on first, then all that was measured, of one model or two side by side.

    >>> page(json.loads(stored_diagnosis)).startswith("<!doctype html>")
    True

It is made of the document alone (`diagnosis/schema.json`). The words are in diagnosis.html, the looks in page.css,
chart.css and diagnosis.css, the rows in diagnosis_facts.py, the plots in diagnosis_charts.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from modelsurgeon.reports import chart_svg, diagnosis_charts, diagnosis_facts, diagnosis_outcome
from modelsurgeon.reports import page as pages
from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number

STYLES = (pages.HERE / "chart.css", pages.HERE / "diagnosis.css")
MOST = 40  # rows of a table, examples of a list
URGENT = ("act", "watch")  # verdicts that something follows of
LINKS = re.compile(r"arXiv (\d{4}\.\d{4,5})|https://(?:spaces\.ac\.cn|kexue\.fm)/archives/\d+")

Document = Mapping[str, Any]
Rows = list[tuple[Any, ...]]


def page(document: Document) -> str:
    """The whole page of a diagnosis' document."""
    models = document["models"]
    drawn = {chart.name: chart for chart in diagnosis_charts.charts(document)}
    judged, worst = diagnosis_outcome.judged(models), diagnosis_outcome.worst(diagnosis_outcome.words(models))
    return pages.rendered(
        "diagnosis.html",
        style=pages.stylesheet(*STYLES),
        d=document,
        names=diagnosis_charts.names(models),
        moods=diagnosis_outcome.MOODS,
        worst=worst,
        heading=diagnosis_outcome.HEADINGS[worst],
        tallies=[diagnosis_outcome.tally(model) for model in models],
        urgent=[one for one in judged if one[0] in URGENT],
        calm=[one for one in judged if one[0] not in URGENT],
        plots={name: _drawn(drawn[name]) if name in drawn else None for name in diagnosis_charts.DRAWN},
        models=diagnosis_facts.columns(models, diagnosis_facts.MODEL),
        tables=_tables(models),
        far=_listed(models, _far),
        losses=diagnosis_facts.columns([model["initial_loss"] for model in models], diagnosis_facts.LOSS),
        spectra=diagnosis_facts.columns([model["spectrum"] for model in models], diagnosis_facts.SPECTRUM),
        gains=_listed(models, _gains),
        matrices=_listed(models, _matrices),
        copies=_listed(models, _copies),
        numbers=diagnosis_facts.columns([model["numbers"] for model in models], diagnosis_facts.NUMBERS),
        lossy=_listed(models, _lossy),
        running=diagnosis_facts.columns([model["running"] for model in models], diagnosis_facts.RUNNING),
        states=_listed(models, _states),
        attention=_listed(models, _attention),
        took=diagnosis_facts.columns(models, diagnosis_facts.TOOK),
        command=pages.spelled(document["command"]),
        environment=_environment(document["environment"]),
        linked=linked,
    )


def write_page(path: Path, document: Document) -> None:
    """Write the page, whole or not at all. Raises OSError where the disk does not take it."""
    pages.write_page(path, page(document))


def linked(source: str) -> Markup:
    """A citation with its papers and articles as links."""
    parts, end = [], 0
    for found in LINKS.finditer(source):
        link = f"https://arxiv.org/abs/{found[1]}" if found[1] else found[0]
        parts += [Markup.escape(pages.plain(source[end : found.start()]))]
        parts += [Markup('<a href="{}" rel="noreferrer">{}</a>').format(link, found[0])]
        end = found.end()
    return Markup("").join([*parts, Markup.escape(pages.plain(source[end:]))])


def _drawn(chart: Chart) -> tuple[Markup, list[tuple[str, str]]]:
    return chart_svg.draw(chart), chart_svg.legend(chart)


def _tables(models: Sequence[Document]) -> tuple[list[str], Rows]:
    """(headings, rows) of embeddings and heads, a column each."""
    pairs = [
        (f"{name}: {key}" if models[1:] else key, model[key])
        for name, model in zip(diagnosis_charts.names(models), models, strict=True)
        for key in ("embedding", "head")
        if model[key]
    ]
    return [heading for heading, _ in pairs], diagnosis_facts.columns(
        [table for _, table in pairs], diagnosis_facts.TABLE
    )


# --- one table a model -----------------------------------------------------------------------------------------------


def _listed(models: Sequence[Document], of: Callable[[Document], Rows]) -> list[tuple[str, Rows, int]]:
    """(name, rows, how many more there are) of each model that has any."""
    found = [(name, of(model)) for name, model in zip(diagnosis_charts.names(models), models, strict=True)]
    return [(name, rows[:MOST], max(0, len(rows) - MOST)) for name, rows in found if rows]


def _far(model: Document) -> Rows:
    """What stands out in embedding and head: (where, what, row, token, value, times)."""
    rows: Rows = []
    for key in ("embedding", "head"):
        if not (table := model[key]):
            continue
        for one in table["far_components"]["examples"]:
            of = number(one["value"], ".3g"), number(one["times"], ",.0f")
            rows.append((key, f"component {one['column']}", one["row"], one["token"], *of))
        for one in table["far_rows"]["examples"]:
            rows.append((key, "norm", one["row"], one["token"], *(number(one[k], ".3g") for k in ("norm", "times"))))
        for group in table["duplicates"]["examples"]:
            rows.append((key, f"equal rows: {', '.join(map(str, group[:MOST]))}", group[0], "", "", ""))
        for one in table["untrained"]["examples"]:
            rows.append((key, f"never trained: {one['why']}", one["row"], one["token"], "", ""))
    return rows


def _grouped(rows: Iterable[Document]) -> dict[tuple[str, str], list[Document]]:
    """By template, and by place where there is one."""
    found: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for row in rows:
        found[row["template"], row.get("place", "")].append(row)
    return found


def _span(rows: Iterable[Document], key: str, form: str = ".3g") -> str:
    """From the least to the largest; a NaN is shown where there is any."""
    values = sorted((float(row[key]) for row in rows), key=lambda value: (value == value, value))
    ends = dict.fromkeys(number(value, form) for value in (values[0], values[-1]))
    return " to ".join(ends)


def _gains(model: Document) -> Rows:
    return [
        (name, group[0]["kind"], place, len(group), *(_span(group, key) for key in ("mean", "rms", "min", "max")))
        for (name, place), group in _grouped(model["gains"]).items()
    ]


def _matrices(model: Document) -> Rows:
    """A row a template: (template, shape, count, deviation over Xavier's ... what is equal or zero in them)."""
    spans = ("times_xavier", "times_truncated", "spectral_norm", "stable_rank")
    return [
        (
            name,
            " ".join(dict.fromkeys(diagnosis_facts.shape(row["shape"]) for row in group)),
            len(group),
            *(_span(group, key) for key in spans),
            _repeats(group),
        )
        for (name, _), group in _grouped(model["matrices"]).items()
    ]


def _repeats(matrices: Sequence[Document]) -> str:
    """3 equal rows, 1 zero columns."""
    keys = ("equal_rows", "equal_columns", "zero_rows", "zero_columns")
    counts = {key.replace("_", " "): sum(row[key] for row in matrices) for key in keys}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _copies(model: Document) -> Rows:
    rows = sorted(model["copies"], key=lambda row: -row["copies"] - row["dead"])
    return [
        (
            *(row[key] for key in ("axis", "through", "layer")),
            *(f"{row[key]:,}" for key in ("size", "groups", "copies", "dead")),
            " and ".join(map(str, row["example"] or ())),
        )
        for row in rows
    ]


def _lossy(model: Document) -> Rows:
    def badness(row: Document) -> tuple[int, int]:
        return row["nan"] + row["inf"], sum(row[dtype][how] for dtype, how in diagnosis_facts.LOST)

    rows = sorted(model["numbers"]["tensors"], key=badness, reverse=True)
    return [
        (
            row["tensor"],
            *(f"{row[key]:,}" for key in ("count", *diagnosis_facts.COUNTS)),
            number(row["largest"], ".3g"),
            *("{overflow:,} / {underflow:,}".format(**row[dtype]) for dtype in ("float16", "bfloat16")),
        )
        for row in rows
    ]


def _states(model: Document) -> Rows:
    keys = ("anisotropy", "norm_mean", "norm_max", "largest", "median", "effective_rank")
    rows = (model["running"] or {"states": []})["states"]
    return [(row["name"], row["side"], row["layer"], *(number(row[key], ".3g") for key in keys)) for row in rows]


def _attention(model: Document) -> Rows:
    rows = (model["running"] or {"attention": []})["attention"]
    largest = sorted(rows, key=lambda row: -float(row["largest"]))
    keys = ("largest", "deviation", "entropy")
    return [(row["name"], row["layer"], *(number(row[key], ".3g") for key in keys)) for row in largest]


def _environment(environment: Document) -> Rows:
    keys = ("modelsurgeon", "python", "torch", "transformers", "numpy", "platform")
    hardware = f"{environment['device']}: {', '.join(environment['hardware'])}; {environment['threads']} threads"
    return [*((key, environment[key]) for key in keys), ("device", hardware)]
