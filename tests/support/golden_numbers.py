"""JSON documents as golden data: which values are compared, with which tolerance, and the layout of the file.

    kept({"loss": 4.701966368050392, "seconds": 3.2})        {"loss": 4.701966}
    [*differences({"loss": 4.7}, {"loss": 4.8})]             ["loss: 4.7 on record, now 4.8 (may differ by 5.7e-06)"]

Keys and their order, strings, integers, the lengths of lists, and which numbers are whole must be exactly those on
record. Other numbers depend on the order in which a processor's kernels add: the tolerances below come from what
moved when every document was made again with one thread and with two, with ATEN_CPU_CAPABILITY as it is, avx2 and
default, MKL_ENABLE_INSTRUCTIONS=SSE4_2 and MKL_CBWR=COMPATIBLE, ONEDNN_MAX_CPU_ISA=AVX2 and SSE41.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEFT_OUT = {  # {key: why its value cannot be on record}
    "seconds": "a time",
    "environment": "versions and the machine",
    "version": "of the program: it may be counted up and write the same",
    "peak_memory": "stands on what else this process has resident",
    "peak": "the same, as measured",
}
A_NUMBER = "a number"  # in place of a number that is mere rounding
DIGITS = 8  # of numbers on record: a tenth of the smallest tolerance
LONG = 24  # numbers: a longer list is summed up
SOME = 8
TABLE = "each has"  # no key of a document
WIDTH = 180  # columns of a file


@dataclass(frozen=True)
class Near:
    """The tolerance of numbers at some paths of a document.

    where     a regular expression for a whole path without indices: models.running.loss
    relative  the allowed difference as a share of the number on record; None: the number is not compared
    absolute  the further difference that is allowed
    """

    where: str
    relative: float | None
    absolute: float = 0.0

    def allowed(self, recorded: float) -> float:
        assert self.relative is not None
        return self.relative * abs(recorded) + self.absolute


# The first one that fits a path counts. In brackets: what moved most.
NEAR = (
    # A model run in 16 bits rounds every state to 3 digits, and where depends on the kernel (losses: 5e-4 of them;
    # perplexities: 3e-3). What remains between two such runs is that rounding and nothing else (all of it).
    Near(r"stored\.(comparisons|noise)\.loss_(before|after)|stored\.perplexity\..*", 2e-2),
    Near(r"stored\.tolerance", 1e-6),
    Near(r"stored\..*", None),
    # What two float32 runs of one function are apart: rounding and nothing else (half of it). The program itself draws
    # the line, and its verdict, a string, is exact.
    Near(r"logits\.(comparisons|layers\.rows)\.(max_abs|max_rel|typical|kl|flip|loss_apart)", None),
    Near(r"logits\.generation\.(error|cache_error|cache_floor)", None),
    # The direction of a gradient that is next to nothing: the smallest of many cosines is one of those (9e-3).
    Near(r"trainable\.axes\.cosine\.min", None),
    Near(r"trainable\.axes\.cosine\..*", 0.0, 1e-3),
    # A norm by iteration, which ends where it is known well enough (4e-8), and the bound on its error (a tenth of it).
    Near(r"models\.matrices\.(spectral_norm|stable_rank)", 1e-5),
    Near(r"models\.matrices\.norm_error", None),
    # A model run in float32: logits of about 10 come out of sums of some hundred products (2e-5 of logits and losses,
    # 5e-4 of perplexities of 500).
    Near(r"(logits|trainable|models\.running|initial_loss\.(before|after)\.run)\..*", 1e-5, 1e-4),
    Near(r"models\.verdicts\.value", 1e-5, 1e-4),
    # All else is said of weights, in float64; spectra have zeros that are not quite 0 (1e-13).
    Near(r".*", 1e-6, 1e-9),
)


def kept(document: Any, path: str = "") -> Any:
    """The part of a document that is put on record and compared, with long lists summed up."""
    if isinstance(document, dict):
        return {key: kept(value, _under(path, key)) for key, value in document.items() if key not in LEFT_OUT}
    if isinstance(document, list) and len(document) > LONG and all(isinstance(one, float) for one in document):
        return kept(_told(document), path) if _near(path).relative is not None else [A_NUMBER, len(document)]
    if isinstance(document, list):
        return [kept(value, path) for value in document]
    if isinstance(document, float):
        return float(f"{document:.{DIGITS}g}") if _near(path).relative is not None else A_NUMBER
    return document


def _told(numbers: list[float]) -> dict[str, Any]:
    """A summary of a long list: how many numbers, their moments, and some of them."""
    mean, square = math.fsum(numbers) / len(numbers), math.fsum(one * one for one in numbers) / len(numbers)
    some = [numbers[at * (len(numbers) - 1) // (SOME - 1)] for at in range(SOME)]
    return {"count": len(numbers), "mean": mean, "root_mean_square": math.sqrt(square), "some": some}


def differences(recorded: Any, found: Any, path: str = "") -> Iterator[str]:
    """The differences, one line each, with their paths."""
    if type(recorded) is not type(found):
        yield f"{path}: {_short(recorded)} on record, now {_short(found)}"
    elif isinstance(recorded, dict):
        yield from _of_keys(recorded, found, path)
    elif isinstance(recorded, list):
        if len(recorded) != len(found):
            yield f"{path}: {len(recorded)} entries on record, now {len(found)}"
        for at, pair in enumerate(zip(recorded, found, strict=False)):
            yield from differences(*pair, f"{path}[{at}]")
    elif isinstance(recorded, float):
        allowed = _near(path).allowed(recorded)
        if not abs(recorded - found) <= allowed and recorded != found:
            yield f"{path}: {recorded!r} on record, now {found!r} (may differ by {allowed:.1e})"
    elif recorded != found:
        yield f"{path}: {_short(recorded)} on record, now {_short(found)}"


def _of_keys(recorded: dict[str, Any], found: dict[str, Any], path: str) -> Iterator[str]:
    for key in recorded:
        if key not in found:
            yield f"{_under(path, key)}: on record, now missing"
    for key in found:
        if key not in recorded:
            yield f"{_under(path, key)}: new, {_short(found[key])}"
    common = [key for key in recorded if key in found]
    if common != [key for key in found if key in recorded]:
        yield f"{path}: keys in another order: {', '.join(found)}"
    for key in common:
        yield from differences(recorded[key], found[key], _under(path, key))


def _near(path: str) -> Near:
    plain = re.sub(r"\[\d+\]", "", path).removeprefix("document.")
    return next(near for near in NEAR if re.fullmatch(near.where, plain))


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def packed(value: Any) -> Any:
    """A value for a file: a list of objects with the same keys becomes a table that names the keys once."""
    if isinstance(value, dict):
        return {key: packed(one) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) < 2 or not all(isinstance(one, dict) and one and [*one] == [*value[0]] for one in value):
        return [packed(one) for one in value]
    return {TABLE: [*value[0]], "rows": [[packed(cell) for cell in row.values()] for row in value]}


def unpacked(value: Any) -> Any:
    """What `packed` was given."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if TABLE in value:
        return [dict(zip(value[TABLE], unpacked(row), strict=True)) for row in value["rows"]]
    return {key: unpacked(one) for key, one in value.items()}


def layout(value: Any, indent: int = 0, before: int = 0) -> str:
    """A value as JSON; whatever fits on one line is on one line, so that files are small and diffs readable.

    indent  columns before each line
    before  columns that the first line already holds
    """
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or indent + before + len(line) <= WIDTH:
        return line
    named = isinstance(value, dict)
    pairs = [(f"{json.dumps(key)}: ", one) for key, one in value.items()] if named else [("", one) for one in value]
    rows = [" " * (indent + 1) + key + layout(one, indent + 1, len(key)) for key, one in pairs]
    first, last = "{}" if named else "[]"
    return "\n".join([first, ",\n".join(rows), " " * indent + last])
