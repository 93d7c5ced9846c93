"""Numbers as people write them: bytes, 5GB (decimal), 5GiB (binary), 500M, 1000000; parameters, 1.5B, 350M."""

import re
from fractions import Fraction

from modelsurgeon.errors import OutputError, PlanError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_size(text: str, what: str = "shard size") -> int:
    """Bytes. Raises OutputError for what is no size.

    what  it is the size of, for the message
    """
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?)?B?\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise OutputError(f"{what} {text!r}: expected a number of bytes, as in 500MB, 5GB or 2GiB")
    return size


def parse_count(text: str) -> int:
    """Parameters. Raises PlanError for what is no number of them."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMBT])?\s*", text, re.IGNORECASE)
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
