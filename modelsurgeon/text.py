"""Numbers and names as people write and read them: sizes in bytes, counts, names from files that a stranger wrote.

>>> parse_size("5GiB"), parse_count("1.5B"), show_size(2_500_000)
(5368709120, 1500000000, '2.5 MB')

>>> number(0.000123), number("nan"), number(None)
('1.2e-04', 'nan', '')
>>> printable(float("nan")), shown("a\\nb")
('nan', "'a\\\\nb'")
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from modelsurgeon.errors import OutputError, PlanError

# bytes: 5GB is decimal, 5GiB binary; parameters: 1.5B, 350M
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
PASSWORD = re.compile(r"(?<=://)[^/\s@]*@")  # of a URL: user:password@host


def number(value: Any, form: str = ".1e") -> str:
    """A number of a document, formatted; a text ("nan", which JSON lacks) as it is; None as an empty text."""
    return "" if value is None else value if isinstance(value, str) else format(value, form)


def shown(name: str) -> str:
    """A name from a file as it may be printed: what would move a terminal's cursor is escaped."""
    return name if name.isprintable() else ascii(name)


def printable(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses as objects, NaN and Inf as texts; URLs without their passwords."""
    if is_dataclass(value):
        return {one.name: printable(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: printable(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return PASSWORD.sub("", value)
    return [printable(inner) for inner in value] if isinstance(value, list | tuple) else value


def parse_size(text: str | int, what: str = "shard size") -> int:
    """Bytes, of a text or of their number. Raises OutputError, which names `what` it should measure, for no size."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?)?B?\s*", str(text), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise OutputError(f"{what} {text!r}: expected a number of bytes, as in 500MB, 5GB or 2GiB")
    return size


def parse_count(text: str | int) -> int:
    """Parameters. Raises PlanError for what is no number of them."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMBT])?\s*", str(text), re.IGNORECASE)
    count = round(Fraction(match[1]) * COUNTS[(match[2] or "").upper()]) if match else 0
    if count < 1:
        raise PlanError(f"{text!r} parameters: expected a number of them, as in 350M or 1.5B")
    return count


def show_size(count: int) -> str:
    """Bytes for people: 2.5 MB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
