"""The tables of a diagnosis: facts, with a column a model, and listings, one a model, read off the document.

    facts("spectrum", SPECTRUM)(subject)  # ("shape", "4096x128", "4096x256"), ...
    each(gains)(subject)                  # a row a group of norms, of each model that has any

Each is a `Part` of a section: it gives the blocks that there is something to show of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelsurgeon.reports.blocks import Block, Listing, Paragraph, Phrase, cut
from modelsurgeon.reports.chart import Chart
from modelsurgeon.text import number, show_size

MOST = 40  # rows of a table, examples of a list

Document = Mapping[str, Any]
Fact = tuple[str, str | Callable[[Any], Any], str]  # label; the path of the value, or what reads it; its format
Rows = list[list[str]]


@dataclass(frozen=True)
class Subject:
    """The models of a document, what each is called, and their charts by name."""

    models: Sequence[Document]
    names: Sequence[str]
    charts: Mapping[str, Chart]


Part = Callable[[Subject], list[Block]]


def facts(key: str, rows: Sequence[Fact]) -> Part:
    """A row a fact that any model has, a column a model. key: the part of the document; empty: the whole."""

    def part(subject: Subject) -> list[Block]:
        return _facts([model[key] if key else model for model in subject.models], subject.names, rows)

    return part


def token_tables(subject: Subject) -> list[Block]:
    """The facts of embeddings and heads, a column each."""
    found = {
        f"{name}: {key}" if subject.models[1:] else key: model[key]
        for name, model in zip(subject.names, subject.models, strict=True)
        for key in ("embedding", "head")
        if model[key]
    }
    return _facts(list(found.values()), list(found), TABLE)


def each(columns: str, of: Callable[[Document], Rows], numbers: int) -> Part:
    """One listing a model that has any rows. columns: divided by semicolons, of which the last are `numbers`."""
    headings = columns.split("; ")

    def part(subject: Subject) -> list[Block]:
        blocks: list[Block] = []
        for name, model in zip(subject.names, subject.models, strict=True):
            if rows := of(model):
                listing = Listing(headings, rows, headings[len(headings) - numbers :])
                blocks += [Paragraph(Phrase(name, "strong"))] if subject.models[1:] else []
                blocks += cut(listing, MOST, "{} more are left out here; `--json` lists all that were kept.")
        return blocks

    return part


def _facts(parts: Sequence[Document | None], names: Sequence[str], rows: Iterable[Fact]) -> list[Block]:
    found = [[label, *(_value(part, of, form) if part else "" for part in parts)] for label, of, form in rows]
    found = [row for row in found if any(row[1:])]
    return [Listing(("", *names) if names[1:] else (), found, named=True)] if found else []


def _value(part: Document, of: str | Callable[[Any], Any], form: str) -> str:
    if callable(of):
        return number(of(part), form)
    value: Any = part
    for key in of.split("."):
        value = value[key] if value is not None else None
    return number(value, form)


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


# --- facts -----------------------------------------------------------------------------------------------------------

MODEL: tuple[Fact, ...] = (
    ("source", "source", ""),
    ("commit", "revision", ""),
    ("family", "model_type", ""),
    ("class", "model", ""),
    ("narrowest matrices", "dtype", ""),
    ("parameters", "parameters", ","),
    ("bytes", lambda model: show_size(model["bytes"]), ""),
    ("layers", "layers", ""),
    ("trained", lambda model: "never: every gain is 1, every bias 0" if model["fresh"] else "yes", ""),
    ("sizes", lambda model: ", ".join(f"{axis} {size:,}" for axis, size in model["sizes"].items()), ""),
)
TABLE: tuple[Fact, ...] = (
    ("tensor", "tensor", ""),
    ("tokens n", "vocab", ","),
    ("width d", "width", ","),
    ("deviation", "deviation", ".3g"),
    ("mean", "mean", ".3g"),
    ("norm of a row, median", "norms.median", ".3g"),
    ("least to largest", lambda table: " to ".join(number(table["norms"][end], ".3g") for end in ("min", "max")), ""),
    ("rows 10 times off", "far_rows.count", ","),
    ("components 50 deviations off", "far_components.count", ","),
    ("largest, in robust deviations", "far_components.largest", ".3g"),
    ("robust deviation", "components.median_deviation", ".3g"),
    ("deviation of a column, median", "components.columns.median", ".3g"),
    ("largest", lambda table: "{max} in column {column}".format(**_three(table["components"]["columns"])), ""),
    ("rows of zeros", "dead.count", ","),
    ("rows equal to an earlier one", "duplicates.rows", ","),
    ("rows never trained", "untrained.count", ","),
    ("of them added tokens", "untrained.added", ","),
    ("of them beyond the tokenizer", "untrained.beyond", ","),
    ("tokens of the tokenizer", "tokenizer.tokens", ","),
)
LOSS: tuple[Fact, ...] = (
    ("the rule holds", lambda loss: "yes" if loss["applies"] else f"no: {loss['why']}", ""),
    ("guessing evenly, log n", "uniform", ".3g"),
    ("predicted, log(e^(d sigma f) + n - 1)", "predicted", ".3g"),
    ("d sigma f", "exponent", ".3g"),
    ("measured", "measured", ".3g"),
    ("measured, gain 1 and bias 0", "measured_plain", ".3g"),
    ("factor f of the logits", "factor", ".3g"),
    ("deviation sigma", "deviation", ".3g"),
    ("sigma from which on it rises, (log n) / (d f)", "deviation_for_uniform", ".3g"),
    ("tokens measured on", "samples", ","),
)
SPECTRUM: tuple[Fact, ...] = (
    ("tensor", "tensor", ""),
    ("shape", lambda found: _shape(found["shape"]), ""),
    ("singular entropy, nats", "entropy", ".3g"),
    ("of a random matrix", "random_entropy", ".3g"),
    ("effective rank", "effective_rank", ".3g"),
    ("rank", "rank", ","),
    ("share of the largest", "largest_share", ".3g"),
    ("participation ratio", "participation", ".3g"),
    ("method", "method", ""),
    ("resolution, of the largest", "resolution", ".3g"),
    ("seconds", "seconds", ".3g"),
)
COUNTS = ("nan", "inf", "zero", "subnormal")
LOST = [(dtype, how) for dtype in ("float16", "bfloat16") for how in ("overflow", "underflow")]
NUMBERS: tuple[Fact, ...] = (
    ("numbers", "count", ","),
    *((key, key, ",") for key in COUNTS),
    ("largest", "largest", ".3g"),
    *((f"{dtype} {how}", f"{dtype}.{how}", ",") for dtype, how in LOST),
)
RUNNING: tuple[Fact, ...] = (
    ("text", lambda ran: "{}, {characters:,} characters".format(_text(ran), **ran["text"]), ""),
    ("tokens", lambda ran: "{tokens:,}: {windows} windows of {length} at most".format(**ran), ""),
    ("computed in", lambda ran: "{dtype} on {device}".format(**ran), ""),
    ("loss, nats", "loss", ".4f"),
    ("last states: anisotropy", "last.anisotropy", ".3f"),
    ("effective rank", "last.effective_rank", ".1f"),
    ("rank", lambda ran: _rank(ran["last"]) if ran["last"] else "", ""),
    ("singular entropy, nats", "last.entropy", ".3g"),
)
TOOK: tuple[Fact, ...] = (
    ("weights, seconds", "seconds.weights", ".1f"),
    ("running, seconds", "seconds.running", ".1f"),
    ("memory allowed", lambda model: show_size(model["memory"]["bound"]), ""),
    ("memory at most", lambda model: show_size(model["memory"]["peak"]), ""),
)


def _three(found: Document) -> dict[str, str]:
    return {key: number(value, "" if key == "column" else ".3g") for key, value in found.items()}


def _text(ran: Document) -> str:
    return "the sample" if ran["text"]["sample"] else "given"


def _rank(last: Document) -> str:
    return f"{number(last['rank'], ',') or 'unknown'} of {last['possible']:,}"


# --- listings --------------------------------------------------------------------------------------------------------


def far(model: Document) -> Rows:
    """What stands out in embedding and head: where, what, row, token, value, times."""
    return [[key, *row] for key in ("embedding", "head") if model[key] for row in _far(model[key])]


def _far(table: Document) -> Iterable[list[str]]:
    for one in table["far_components"]["examples"]:
        numbers = number(one["value"], ".3g"), number(one["times"], ",.0f")
        yield [f"component {one['column']}", str(one["row"]), number(one["token"]), *numbers]
    for one in table["far_rows"]["examples"]:
        numbers = number(one["norm"], ".3g"), number(one["times"], ".3g")
        yield ["norm", str(one["row"]), number(one["token"]), *numbers]
    for group in table["duplicates"]["examples"]:
        yield [f"equal rows: {', '.join(map(str, group[:MOST]))}", str(group[0]), "", "", ""]
    for one in table["untrained"]["examples"]:
        yield [f"never trained: {one['why']}", str(one["row"]), number(one["token"]), "", ""]


def _grouped(rows: Iterable[Document]) -> dict[tuple[str, str], list[Document]]:
    """By template, and by place where there is one."""
    found: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for row in rows:
        found[row["template"], row.get("place", "")].append(row)
    return found


def _span(rows: Iterable[Document], key: str) -> str:
    """From the least to the largest; a NaN is shown where there is any."""
    values = sorted((float(row[key]) for row in rows), key=lambda value: (value == value, value))
    return " to ".join(dict.fromkeys(number(value, ".3g") for value in (values[0], values[-1])))


def gains(model: Document) -> Rows:
    """A row a template and place: tensors, kind, place, count, and spans over its norms."""
    return [
        [name, group[0]["kind"], place, str(len(group)), *(_span(group, key) for key in ("mean", "rms", "min", "max"))]
        for (name, place), group in _grouped(model["gains"]).items()
    ]


def matrices(model: Document) -> Rows:
    """A row a template: tensors, shapes, count, spans over its matrices, and what is equal or zero in them."""
    keys = ("times_xavier", "times_truncated", "spectral_norm", "stable_rank")
    found = []
    for (name, _), group in _grouped(model["matrices"]).items():
        shapes = " ".join(dict.fromkeys(_shape(row["shape"]) for row in group))
        found.append([name, shapes, str(len(group)), *(_span(group, key) for key in keys), _repeats(group)])
    return found


def _repeats(matrices: Sequence[Document]) -> str:
    """3 equal rows, 1 zero columns."""
    keys = ("equal_rows", "equal_columns", "zero_rows", "zero_columns")
    counts = {key.replace("_", " "): sum(row[key] for row in matrices) for key in keys}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def copies(model: Document) -> Rows:
    """A row an axis and layer, those with most copies first."""
    keys = ("size", "groups", "copies", "dead")
    return [
        [
            *(number(row[key], "") for key in ("axis", "through", "layer")),
            *(number(row[key], ",") for key in keys),
            " and ".join(map(str, row["example"] or ())),
        ]
        for row in sorted(model["copies"], key=lambda row: -row["copies"] - row["dead"])
    ]


def lossy(model: Document) -> Rows:
    """A row a tensor that holds what other dtypes lose, the worst first."""

    def badness(row: Document) -> tuple[int, int]:
        return row["nan"] + row["inf"], sum(row[dtype][how] for dtype, how in LOST)

    return [
        [
            row["tensor"],
            *(f"{row[key]:,}" for key in ("count", *COUNTS)),
            number(row["largest"], ".3g"),
            *("{overflow:,} / {underflow:,}".format(**row[dtype]) for dtype in ("float16", "bfloat16")),
        ]
        for row in sorted(model["numbers"]["tensors"], key=badness, reverse=True)
    ]


def states(model: Document) -> Rows:
    """A row a hidden state, in the order of the model."""
    rows = (model["running"] or {"states": []})["states"]
    keys = ("anisotropy", "norm_mean", "norm_max", "largest", "median", "effective_rank")
    return [[row["name"], row["side"], str(row["layer"]), *(number(row[key], ".3g") for key in keys)] for row in rows]


def attention(model: Document) -> Rows:
    """A row a module that attends, the one with the largest logit first."""
    rows = (model["running"] or {"attention": []})["attention"]
    keys = ("largest", "deviation", "entropy")
    largest = sorted(rows, key=lambda row: -float(row["largest"]))
    return [[row["name"], number(row["layer"], ""), *(number(row[key], ".3g") for key in keys)] for row in largest]
