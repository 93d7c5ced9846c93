"""The listings of a diagnosis, of one model each: rows of texts, read off the document.

gains(model)  # [["model.layers.{n}.input_layernorm.weight", "gain", "body", "4", "0.9 to 1.1", ...], ...]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelsurgeon.text import number

MOST = 40  # rows of a table, examples of a list
LOST = [(dtype, how) for dtype in ("float16", "bfloat16") for how in ("overflow", "underflow")]

Document = Mapping[str, Any]
Rows = list[list[str]]


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
        shapes = " ".join(dict.fromkeys("x".join(map(str, row["shape"])) for row in group))
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
            *(f"{row[key]:,}" for key in ("count", "nan", "inf", "zero", "subnormal")),
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


LISTED: Mapping[str, Callable[[Document], Rows]] = {
    listed.__name__: listed for listed in (far, gains, matrices, copies, lossy, states, attention)
}
