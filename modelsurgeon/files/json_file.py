"""JSON from strangers: an object, every name once, no larger than such a file can sensibly be.

A byte of hostile JSON can become 40 bytes of Python objects, so values are counted, by the characters before them,
before any is built. NaN and Infinity are accepted: configs hold them, as Python writes them. Whole numbers too large
for a float are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File

DIGITS = 308  # of a whole number: what a float64 holds


@dataclass(frozen=True)
class Limits:
    """How large a kind of file may be: bytes, and values in it."""

    nbytes: int
    values: int


OF_CONFIGS = Limits(10_000_000, 500_000)  # the largest known ones name 20,000 labels
OF_INDICES = Limits(100_000_000, 2_100_000)  # a million names of tensors, each with that of a file
OF_ANY = Limits(100_000_000, 5_000_000)  # a record of maps, for one


def read_json(file: File, limits: Limits = OF_ANY) -> dict[str, Any]:
    """A JSON object. Raises SourceError for anything else, and for a `model_type` that is no string."""
    if file.size > limits.nbytes:
        raise SourceError(f"{file}: {file.size} bytes of JSON, expected {limits.nbytes} at most")
    data = file.read()
    values = sum(map(data.count, (b"[", b"{", b",")))  # in strings, too, but seldom
    try:
        if values > limits.values:
            raise ValueError(f"{values} values, expected {limits.values} at most")
        value = json.loads(data.decode(), object_pairs_hook=no_duplicates, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise SourceError(f"{file}: expected a JSON object, found {type(value).__name__}")
    if not isinstance(value.get("model_type", ""), str):
        raise SourceError(f"{file}: model_type is {shortened(value['model_type'])}, expected a string")
    return value


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError where a name repeats, since readers disagree on which of the two counts."""
    members = dict(pairs)
    if len(members) != len(pairs):
        (repeated, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"a name that appears twice, {shortened(repeated)}")
    return members


def shortened(value: Any, most: int = 80) -> str:
    """A value from a file, short enough for a message."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} of many levels"
    return text if len(text) <= most else f"{text[:most]}..."


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits, expected {DIGITS} at most")
    return int(digits)
