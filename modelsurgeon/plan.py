"""The plan: what a transform will do, template by template, without reading a tensor.

A lazy checkpoint is its own plan; this puts it into rows that can be shown, and adds it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.remap import parameters
from modelsurgeon.shards import BLOCK
from modelsurgeon.tensor import DTYPES, HALF_ULP, LazyTensor, Remapped

INTERPRETER = 350_000_000  # bytes that Python with torch takes before anything is read (measured: 270 to 340 MB)


@dataclass(frozen=True)
class Row:
    """All tensors of one template.

    precision  "unchanged", "exact", or "rounded" with the dtype and why
    """

    template: str
    signature: str
    count: int
    before: tuple[int, ...] | None
    after: tuple[int, ...]
    factors: str
    precision: str


@dataclass(frozen=True)
class Plan:
    """Rows, totals (bytes; parameters), notes, and why the result would not be the same function."""

    rows: tuple[Row, ...]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    peak_memory: int
    notes: tuple[str, ...]
    lossy: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(before: Checkpoint, after: Checkpoint) -> Plan:
    """Describe how `after` follows from `before`."""
    table = after.architecture
    groups: dict[str, list[str]] = {}
    for name in after.tensors:
        template = table.template(name)
        groups.setdefault(template.name if template else name, []).append(name)
    rows = tuple(_row(template, names, before, after) for template, names in groups.items())
    sizes = [sum(tensor.nbytes for tensor in side.tensors.values()) for side in (before, after)]
    counts = (parameters(before), parameters(after))
    return Plan(rows, counts, (sizes[0], sizes[1]), _peak(after.tensors), after.notes, after.lossy)


def _row(template: str, names: list[str], before: Checkpoint, after: Checkpoint) -> Row:
    tensor = after.tensors[names[0]]
    old = before.tensors.get(names[0])
    found = after.architecture.template(names[0])
    factors = tensor.factors if isinstance(tensor, Remapped) else (1.0,)
    return Row(
        template,
        found.signature.text if found else "",
        len(names),
        old.shape if old else None,
        tensor.shape,
        " ".join(f"{factor:.6g}" for factor in factors),
        _precision(tensor, old),
    )


def _precision(tensor: LazyTensor, old: LazyTensor | None) -> str:
    if not isinstance(tensor, Remapped):
        return "unchanged" if tensor is old else "copied"
    if tensor.is_exact:
        return "exact"
    stored = f"stored as {tensor.dtype}, " if tensor.dtype != tensor.base.dtype else f"in {tensor.dtype}, "
    return f"rounded: {stored}by {HALF_ULP[tensor.dtype]:.0e} at most"


def _peak(tensors: Mapping[str, LazyTensor]) -> int:
    """Bytes resident at most: the interpreter, and the blocks that are computed, waiting and written."""
    remapped = [tensor for tensor in tensors.values() if isinstance(tensor, Remapped)]
    wider = max((tensor.work_dtype.itemsize // DTYPES[tensor.dtype].itemsize for tensor in remapped), default=0)
    return INTERPRETER + BLOCK * (3 + 3 * wider)
