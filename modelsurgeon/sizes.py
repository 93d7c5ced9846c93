"""Sizes in bytes as people write them: 5GB (decimal), 5GiB (binary), 500M, 1000000."""

import re

from modelsurgeon.errors import OutputError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str) -> int:
    """Bytes. Raises OutputError for what is no size."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?)?B?\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise OutputError(f"shard size {text!r}: expected a number of bytes, as in 500MB, 5GB or 2GiB")
    return size
