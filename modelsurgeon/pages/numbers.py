"""Numbers of a stored document as people read them: those that JSON does not know stand there as texts.

>>> number(0.000123), number("nan"), number(None)
('1.2e-04', 'nan', '')
"""

from __future__ import annotations

from typing import Any


def number(value: Any, form: str = ".1e") -> str:
    """A number of the document as people read it: one that JSON does not know is a text already; none is empty."""
    return "" if value is None else value if isinstance(value, str) else format(value, form)
