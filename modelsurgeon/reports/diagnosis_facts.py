"""What the page lists of a model, row by row: a label, and how the value is read off the document.

>>> columns([spectrum, None], SPECTRUM)[1]
('shape', '4096x128', None)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelsurgeon.text import number, show_size

Document = Mapping[str, Any]

Row = tuple[str, Callable[[Any], Any]]


def columns(parts: Sequence[Document | None], rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """(label, of the first, of the second): those rows that any of the parts has something in.

    parts  the same part of each model's document; None where it has none
    """
    if not any(parts):
        return []
    found = [(label, *(of(part) if part else None for part in parts)) for label, of in rows]
    return [row for row in found if any(cell not in (None, "") for cell in row[1:])]


def _three(key: str) -> Callable[[Document], str]:
    return lambda part: number(part[key], ".3g")


def _whole(key: str) -> Callable[[Document], str]:
    return lambda part: number(part[key], ",")


def _text(key: str) -> Callable[[Document], Any]:
    return lambda part: part[key]


def shape(sizes: Iterable[int]) -> str:
    """128x64"""
    return "x".join(map(str, sizes))


def _sizes(model: Document) -> str:
    return ", ".join(f"{axis} {size:,}" for axis, size in model["sizes"].items())


MODEL: tuple[Row, ...] = (
    ("source", _text("source")),
    ("commit", _text("revision")),
    ("family", _text("model_type")),
    ("class", _text("model")),
    ("narrowest matrices", _text("dtype")),
    ("parameters", _whole("parameters")),
    ("bytes", lambda model: show_size(model["bytes"])),
    ("layers", _text("layers")),
    ("trained", lambda model: "never: every gain is 1, every bias 0" if model["fresh"] else "yes"),
    ("sizes", _sizes),
)
TABLE: tuple[Row, ...] = (
    ("tensor", _text("tensor")),
    ("tokens n", _whole("vocab")),
    ("width d", _whole("width")),
    ("deviation", _three("deviation")),
    ("mean", _three("mean")),
    ("norm of a row, median", lambda table: number(table["norms"]["median"], ".3g")),
    ("least to largest", lambda table: " to ".join(number(table["norms"][end], ".3g") for end in ("min", "max"))),
    ("rows 10 times off", lambda table: number(table["far_rows"]["count"], ",")),
    ("components 50 deviations off", lambda table: number(table["far_components"]["count"], ",")),
    ("largest, in robust deviations", lambda table: number(table["far_components"]["largest"], ".3g")),
    ("robust deviation", lambda table: number(table["components"]["median_deviation"], ".3g")),
    ("deviation of a column, median", lambda table: number(table["components"]["columns"]["median"], ".3g")),
    (
        "largest",
        lambda table: "{} in column {}".format(
            number(table["components"]["columns"]["max"], ".3g"), table["components"]["columns"]["column"]
        ),
    ),
    ("rows of zeros", lambda table: number(table["dead"]["count"], ",")),
    ("rows equal to an earlier one", lambda table: number(table["duplicates"]["rows"], ",")),
    ("rows never trained", lambda table: number(table["untrained"]["count"], ",")),
    ("of them added tokens", lambda table: number(table["untrained"]["added"], ",")),
    ("of them beyond the tokenizer", lambda table: number(table["untrained"]["beyond"], ",")),
    ("tokens of the tokenizer", lambda table: number((table["tokenizer"] or {}).get("tokens"), ",")),
)
LOSS: tuple[Row, ...] = (
    ("the rule holds", lambda loss: "yes" if loss["applies"] else f"no: {loss['why']}"),
    ("guessing evenly, log n", _three("uniform")),
    ("predicted, log(e^(d sigma f) + n - 1)", _three("predicted")),
    ("d sigma f", _three("exponent")),
    ("measured", _three("measured")),
    ("measured, gain 1 and bias 0", _three("measured_plain")),
    ("factor f of the logits", _three("factor")),
    ("deviation sigma", _three("deviation")),
    ("sigma from which on it rises, (log n) / (d f)", _three("deviation_for_uniform")),
    ("tokens measured on", _whole("samples")),
)
SPECTRUM: tuple[Row, ...] = (
    ("tensor", _text("tensor")),
    ("shape", lambda found: shape(found["shape"])),
    ("singular entropy, nats", _three("entropy")),
    ("of a random matrix", _three("random_entropy")),
    ("effective rank", _three("effective_rank")),
    ("rank", _whole("rank")),
    ("share of the largest", _three("largest_share")),
    ("participation ratio", _three("participation")),
    ("method", _text("method")),
    ("resolution, of the largest", _three("resolution")),
    ("seconds", _three("seconds")),
)
COUNTS = ("nan", "inf", "zero", "subnormal")
LOST = tuple((dtype, how) for dtype in ("float16", "bfloat16") for how in ("overflow", "underflow"))


def _lost(dtype: str, how: str) -> Callable[[Document], str]:
    return lambda numbers: number(numbers[dtype][how], ",")


NUMBERS: tuple[Row, ...] = (
    ("numbers", _whole("count")),
    *((key, _whole(key)) for key in COUNTS),
    ("largest", _three("largest")),
    *((f"{dtype} {how}", _lost(dtype, how)) for dtype, how in LOST),
)


def _told(ran: Document) -> str:
    text = ran["text"]
    return f"{'the sample' if text['sample'] else 'given'}, {text['characters']:,} characters"


def _rank(ran: Document) -> str:
    last = ran["last"]
    return f"{number(last['rank'], ',') or 'unknown'} of {last['possible']:,}" if last else ""


RUNNING: tuple[Row, ...] = (
    ("text", _told),
    ("tokens", lambda ran: f"{ran['tokens']:,}: {ran['windows']} windows of {ran['length']} at most"),
    ("computed in", lambda ran: f"{ran['dtype']} on {ran['device']}"),
    ("loss, nats", lambda ran: number(ran["loss"], ".4f")),
    ("last states: anisotropy", lambda ran: number((ran["last"] or {}).get("anisotropy"), ".3f")),
    ("effective rank", lambda ran: number((ran["last"] or {}).get("effective_rank"), ".1f")),
    ("rank", _rank),
    ("singular entropy, nats", lambda ran: number((ran["last"] or {}).get("entropy"), ".3g")),
)
TOOK: tuple[Row, ...] = (
    ("weights, seconds", lambda model: number(model["seconds"]["weights"], ".1f")),
    ("running, seconds", lambda model: number(model["seconds"]["running"], ".1f")),
    ("memory allowed", lambda model: show_size(model["memory"]["bound"])),
    ("memory at most", lambda model: show_size(model["memory"]["peak"])),
)
