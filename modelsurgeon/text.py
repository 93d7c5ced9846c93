"""Numbers and names as people and JSON can read them; many of them come from files that a stranger wrote.

>>> number(0.000123), number("nan"), number(None)
('1.2e-04', 'nan', '')
>>> plain(float("nan")), shown("a\\nb")
('nan', "'a\\\\nb'")
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

PASSWORD = re.compile(r"(?<=://)[^/\s@]*@")  # of a URL: user:password@host


def number(value: Any, form: str = ".1e") -> str:
    """A number of the document as people read it: one that JSON does not know is a text already; none is empty."""
    return "" if value is None else value if isinstance(value, str) else format(value, form)


def shown(name: str) -> str:
    """A name from a file as it may be printed: what would move a terminal's cursor is escaped."""
    return name if name.isprintable() else ascii(name)


def printable(value: Any) -> Any:
    """The same with the numbers that JSON does not know as texts ("nan", "inf"), and without passwords in URLs."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: printable(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return PASSWORD.sub("", value)
    return [printable(inner) for inner in value] if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A number as JSON knows it; one that it does not is a string ("nan", "inf")."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
