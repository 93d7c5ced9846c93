"""Norms, as a table tells of them: which axes they read and write, and how those can grow."""

from __future__ import annotations

from modelsurgeon.architectures.architecture import Architecture


def is_normalised(table: Architecture, name: str) -> bool:
    """Whether a norm reads this axis."""
    return any(signature.normalises and name in signature.normalises.axes() for _, signature in table.norms)


def is_written_by_norm(table: Architecture, name: str) -> bool:
    """Whether a norm's gain writes this axis."""
    return any(name in signature.gains for _, signature in table.norms)


def whole_multiples_only(table: Architecture, name: str) -> str:
    """Why an axis of sums and norms grows by whole multiples only; empty where any size will do."""
    if "pointwise" in table.axes[name].through:
        return "an activation writes what is summed"
    if table.norm == "layer" and is_normalised(table, name) and is_written_by_norm(table, name):
        return "a LayerNorm reads what another one writes, whose mean must stay (post-norm)"
    return ""
