"""Proof on the weights: every tensor of the result folds back to the source's, by the maps on record; no forward pass.

The steps on record are replayed on the source, lazily: that gives the config and, for each tensor, the dimensions by
which it must have grown. Then every block of the result is folded (parts summed with their weights, copies compared
one by one) in float64 and compared with the source. All inputs are covered, whatever they are; memory is that of one
block.

    exact     the fold is the source, to the last bit
    rounded   it differs by no more than rounding each stored number once can explain
    wrong     it differs by more, or a tensor is missing, or nothing accounts for it
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from modelsurgeon.axis_map import AxisMap
from modelsurgeon.check import check
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.config_keys import INERT
from modelsurgeon.errors import PlanError
from modelsurgeon.history import Step
from modelsurgeon.remap import remap
from modelsurgeon.tensor import DTYPE_NAMES, DTYPES
from modelsurgeon.untie import untie_embeddings
from modelsurgeon.verification.fold import Verdict, fold

BOOKKEEPING = INERT - {"tie_word_embeddings", "architectures", "vocab_size"}


@dataclass(frozen=True)
class Proof:
    """All verdicts, and why the maps themselves are approximate, if they are."""

    verdicts: tuple[Verdict, ...]
    lossy: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.verdict == "wrong")

    @property
    def rounding(self) -> float:
        return max((verdict.rounding for verdict in self.verdicts), default=0.0)

    @property
    def summary(self) -> str:
        """exact, rounded or wrong: the worst of all."""
        found = {verdict.verdict for verdict in self.verdicts}
        return next((word for word in ("wrong", "rounded") if word in found), "exact")

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.summary,
            "rounding": self.rounding,
            "approximations": list(self.lossy),
            "tensors": [asdict(verdict) for verdict in self.verdicts],
        }


def prove(source: Checkpoint, result: Checkpoint) -> Proof | None:
    """Fold the result back to the source; None where the result has no record that begins at the source.

    Raises what `check` raises where the source does not fit its table.
    """
    steps = steps_between(source, result)
    if steps is None:
        return None
    check(source)
    try:
        expected = replay(source, steps)
    except PlanError as error:
        return Proof((Verdict("modelsurgeon.json", "wrong", detail=str(error)),))
    verdicts = [*_config_verdicts(expected, result), *_name_verdicts(expected, result)]
    shared = set(expected.tensors) & set(result.tensors)
    for name in sorted(name for name in shared if not source.architecture.is_recomputed(name)):
        verdicts.append(fold(name, expected.tensors[name], result.tensors[name], _earlier_eps(source, steps)))
    return Proof(tuple(verdicts), expected.lossy)


def steps_between(source: Checkpoint, result: Checkpoint) -> tuple[Step, ...] | None:
    """What was done to the source to make the result; None where the record does not tell."""
    before = [step.to_json() for step in source.steps]
    after = [step.to_json() for step in result.steps]
    if not result.steps or after[: len(before)] != before:
        return None
    return result.steps[len(before) :]


def composed_maps(steps: tuple[Step, ...]) -> dict[str, AxisMap]:
    """{axis: the map of all steps, one after another}."""
    maps: dict[str, AxisMap] = {}
    for step in steps:
        for axis, axis_map in step.maps.items():
            maps[axis] = maps[axis].then(axis_map) if axis in maps else axis_map
    return maps


def replay(source: Checkpoint, steps: tuple[Step, ...]) -> Checkpoint:
    """The steps again, lazily, as one. Raises PlanError where their maps do not commute with the model.

    Untying first and growing then is the same as the other way round: the maps keep tied tensors equal.
    """
    known = {"widen", "untie-embeddings"}
    for step in steps:
        if step.operation not in known:
            raise PlanError(f"a step {step.operation!r} on record, expected one of {', '.join(sorted(known))}")
    base = replace(source, lossy=())
    if any(step.operation == "untie-embeddings" for step in steps):
        base = untie_embeddings(base)
    maps = composed_maps(steps)
    return remap(base, maps) if maps else base


def _config_verdicts(expected: Checkpoint, result: Checkpoint) -> list[Verdict]:
    """Every config key that has an effect is what the steps make it."""
    table, wanted, found = expected.architecture, expected.resolved, result.architecture.resolve(result.config)
    wrong = []
    if wanted.get("model_type") != found.get("model_type"):
        return [Verdict("config.json", "wrong", detail=f"model_type: expected {wanted['model_type']}, found another")]
    keys = (set(wanted) | set(found)) - (BOOKKEEPING - set(table.keys)) - set(table.aliases)
    sized = {axis.key for axis in table.axes.values() if axis.key}
    for key in sorted(keys & table.accounted_keys - sized):
        if not _same(table.value(wanted, key), table.value(found, key)):
            wrong.append(f"{key}: expected {table.value(wanted, key)!r}, found {table.value(found, key)!r}")
    sizes, targets = result.sizes, expected.sizes
    wrong += [f"axis {a}: expected {targets[a]}, found {sizes[a]}" for a in targets if sizes.get(a) != targets[a]]
    return [Verdict("config.json", "wrong", detail=line) for line in wrong] or [Verdict("config.json", "exact")]


def _same(a: Any, b: Any) -> bool:
    """Whether two config values are equal; floats to a few roundings, for products are taken in other orders."""
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-14)
    return bool(a == b)


def _name_verdicts(expected: Checkpoint, result: Checkpoint) -> list[Verdict]:
    missing = sorted(set(expected.tensors) - set(result.tensors))
    extra = sorted(set(result.tensors) - set(expected.tensors))
    recomputed = expected.architecture.is_recomputed
    return [
        *(Verdict(name, "wrong", detail="missing") for name in missing if not recomputed(name)),
        *(Verdict(name, "wrong", detail="nothing accounts for it") for name in extra if not recomputed(name)),
    ]


def _earlier_eps(source: Checkpoint, steps: tuple[Step, ...]) -> float:
    """The sum of the relative spacings of the dtypes in which steps before the last stored their numbers."""
    stored, total = source.dtype, 0.0
    for step in steps[:-1]:
        stored = DTYPE_NAMES[step.arguments["dtype"]] if step.arguments.get("dtype") else stored
        total += float(torch.finfo(DTYPES[stored]).eps) if step.maps else 0.0
    return total
