"""Norms in a table: which axes they read, and which they write."""

from __future__ import annotations

from modelsurgeon.architectures.architecture import Architecture


def is_normalised(table: Architecture, name: str) -> bool:
    """Whether a norm reads this axis."""
    return any(signature.normalises and name in signature.normalises.axes() for _, signature in table.norms)


def is_written_by_norm(table: Architecture, name: str) -> bool:
    """Whether a norm's gain writes this axis."""
    return any(name in signature.gains for _, signature in table.norms)
