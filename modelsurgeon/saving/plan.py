"""The plan: what a transform will do, template by template, without reading a tensor.

A lazy checkpoint is its own plan; here it becomes rows that can be shown, and totals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.tensors.budget import Budget, plan_memory


@dataclass(frozen=True)
class PlannedTensors:
    """All tensors of one template.

    precision  "unchanged", "exact", or "rounded" with the dtype and why; of new numbers, what they are
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
    """What a transform does, in the whole.

    parameters, bytes  before and after
    peak_memory        bytes resident at most while it is carried out
    lossy              why the result would not be the same function
    """

    rows: tuple[PlannedTensors, ...]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    peak_memory: int
    notes: tuple[str, ...]
    lossy: tuple[str, ...]
    budget: Budget

    def to_json(self) -> dict[str, Any]:
        """The document of a plan."""
        return {name: value for name, value in asdict(self).items() if name != "budget"}

    to_dict = to_json


def make_plan(before: Checkpoint, after: Checkpoint, memory: int | None = None, workers: int = 1) -> Plan:
    """Describe how `after` follows from `before`. Raises PlanError where `memory` bytes do not suffice."""
    table = after.architecture
    groups: dict[str, list[str]] = {}
    for name in after.tensors:
        template = table.template(name)
        groups.setdefault(template.name if template else name, []).append(name)
    rows = []
    for template_name, names in groups.items():
        tensor, old, template = after.tensors[names[0]], before.tensors.get(names[0]), table.template(names[0])
        precision = "unchanged" if tensor.verbatim and tensor is old else tensor.says
        factors = " ".join(f"{factor:.6g}" for factor in tensor.factors)
        signature, shape = template.signature.text if template else "", old.shape if old else None
        rows.append(PlannedTensors(template_name, signature, len(names), shape, tensor.shape, factors, precision))
    counts = (before.parameters, after.parameters)
    budget = plan_memory(after.tensors.values(), memory, workers, after.origin.folder.memory)
    return Plan(tuple(rows), counts, (before.nbytes, after.nbytes), budget.peak, after.notes, after.lossy, budget)
