"""Proof on the weights: every tensor of the result folds back to the source's by the maps on record; no forward pass.

The steps on record are replayed on the source, lazily: that gives the config and, for each tensor, the dimensions by
which it must have grown. Then every block of the result is folded (parts summed with their weights, copies compared
one by one) in float64 and compared with the source. That covers every input; memory is that of a few blocks.

    exact     the fold is the source, to the last bit
    rounded   it differs by no more than the steps can have rounded this tensor (`rounding.py`)
    wrong     it differs by more, or a tensor is missing, or one is there that no step explains
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import RECORD, Step
from modelsurgeon.errors import ArchitectureError, FieldError, PlanError, SourceError
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import identity
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.operation import Demand
from modelsurgeon.operations.transforms.claims import check_steps
from modelsurgeon.operations.transforms.replay import composed_maps, replay, step_by_step
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.config_keys import ConfigComparison, compare_configs
from modelsurgeon.proof.fold import TensorVerdict, Workers, fold
from modelsurgeon.proof.rounding import rounding_of
from modelsurgeon.tensors.dtypes import DTYPES, FLOATS
from modelsurgeon.tensors.lazy import LazyTensor, equal
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import count_unusual


@dataclass(frozen=True)
class Proof:
    """The verdicts on the config and all tensors.

    lossy   the reasons why the maps themselves are approximate
    config  what became of every config key; None where the maps on record cannot be replayed
    """

    verdicts: tuple[TensorVerdict, ...]
    lossy: tuple[str, ...] = ()
    config: ConfigComparison | None = None

    @property
    def wrong(self) -> tuple[TensorVerdict, ...]:
        """The verdicts on what is wrong."""
        return tuple(verdict for verdict in self.verdicts if verdict.verdict == "wrong")

    @property
    def rounding(self) -> float:
        """The largest rounding of all tensors."""
        return max((verdict.rounding for verdict in self.verdicts), default=0.0)

    @property
    def summary(self) -> str:
        """The worst verdict: exact, rounded or wrong."""
        words = {verdict.verdict for verdict in self.verdicts}
        return next((word for word in ("wrong", "rounded") if word in words), "exact")

    def to_json(self) -> dict[str, Any]:
        """The proof's part of a report."""
        worst = {"verdict": self.summary, "rounding": self.rounding}
        return {**worst, "approximations": list(self.lossy), "tensors": [asdict(verdict) for verdict in self.verdicts]}


def prove(
    source: Checkpoint,
    result: Checkpoint,
    steps: tuple[Step, ...] | None = None,
    *,
    tell: Tell = silent,
    roundings: int = 1,
    own: Mapping[str, Mapping[str, AxisMap]] = MappingProxyType({}),
) -> Proof | None:
    """Fold the result back to the source; None where the result has no record that begins at the source.

    steps      the operations, if they are not on record (`infer` finds them)
    roundings  of steps that are not on record: how often each number may have been rounded
    own        {tensor of the result: {axis: map}} where a layer has a lawful map for itself, in place of the steps'
    Raises as `check` where the source does not fit its table.
    """
    recorded = steps is None
    steps = steps_between(source, result) if steps is None else steps
    if steps is None:
        return None
    check(source)
    try:
        if recorded:
            _check_record(result)
        stored = step_by_step(source, steps) if recorded else None  # first: its errors name the step
        expected = replay(source, steps)
        names = paired(expected, result)
        new = demanded(steps, expected, result, names)
        config = compare_configs(source, result, expected)
    except (PlanError, SourceError, ArchitectureError) as error:
        detail = str(error).removeprefix(f"{RECORD}: ")
        return Proof((TensorVerdict(RECORD if recorded else "maps", "wrong", detail=detail),))
    verdicts = [*_config_verdicts(expected, result, config), *_name_verdicts(expected, result, names)]
    for name, demand in new.items():
        verdicts.append(_verdict_of_new(names[name], expected.tensors[name], result.tensors[names[name]], demand))
    total, done, doubts = sum(result.tensors[name].nbytes for name in names.values()), 0, dict[str, None]()
    with Workers() as workers:
        for name in sorted(names.keys() - new.keys()):
            wanted, found = expected.tensors[name].fused, result.tensors[names[name]]
            if names[name] in own and isinstance(wanted, Remapped):
                wanted = _regrown(wanted, expected, name, {**composed_maps(steps), **own[names[name]]}, source.sizes)
            if stored is None or found.dtype not in FLOATS:
                verdict = fold(names[name], wanted, found, factor_eps(wanted, found, roundings), workers)
            else:
                rounding = rounding_of(stored.tensors[name], found)
                verdict = fold(names[name], wanted, found, workers=workers, rounding=rounding.bound)
                doubts |= dict.fromkeys(rounding.doubts if verdict.verdict == "rounded" else ())
            verdicts.append(verdict)
            done += found.nbytes
            tell("proof", done, total)
    tell("proof", total, total)
    return Proof(tuple(verdicts), (*expected.lossy, *doubts), config)


def _check_record(result: Checkpoint) -> None:
    """Raise FieldError where a field of the result's record cannot be right."""
    if result.misrecorded:
        raise FieldError(result.misrecorded)
    check_steps(result.steps)


def _regrown(
    wanted: Remapped, expected: Checkpoint, name: str, maps: Mapping[str, AxisMap], sizes: Mapping[str, int]
) -> Remapped:
    """A tensor grown by these maps of its axes."""
    template = expected.architecture.template(name)
    assert template
    every = {axis: maps.get(axis) or identity(sizes[axis]) for axis in template.signature.axes}
    return replace(wanted, dimensions=template.signature.grow(every))


def _verdict_of_new(name: str, expected: LazyTensor, found: LazyTensor, demand: Demand) -> TensorVerdict:
    """Whether a tensor that copies none of the source's has the right shape and meets its operation's demand."""
    if found.shape != expected.shape:
        return fold(name, expected, found)  # wrong, by both shapes
    if demand.zero:
        zeros = Remapped(found, tuple(dimension.ungrown(size).emptied for size in found.shape), found.dtype)
        verdict = fold(name, zeros, found)
        detail = f"{verdict.detail}: {demand.unmet}" if verdict.verdict == "wrong" else demand.met
        return replace(verdict, detail=detail)
    if found.verbatim and any(count_unusual(found.verbatim)):
        return TensorVerdict(name, "wrong", detail=demand.unmet)
    return TensorVerdict(name, "exact", detail=demand.met)


def demanded(
    steps: tuple[Step, ...], expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]
) -> dict[str, Demand]:
    """{tensor that copies none of the source's: what its operation requires of it}."""
    tails = (steps[at:] for at in range(len(steps)))
    demands = (catalogue.find_operation(tail[0].operation).demands(tail, expected, result, names) for tail in tails)
    return {name: demand for by_name in demands for name, demand in by_name.items()}


def factor_eps(expected: LazyTensor, found: LazyTensor, roundings: int = 1) -> float:
    """`earlier_eps` of `fold` for another tool's result: it may have stored a rounded factor, such as 1/sqrt(2).

    A result that is multiplied again before it is folded (`Inferred.result`) is rounded once more.
    """
    rounds = 0 if expected.is_exact and found.is_exact else 1 if found.is_exact else 2
    rounds += roundings - 1
    return rounds * float(torch.finfo(DTYPES[found.dtype]).eps) if rounds and found.dtype in FLOATS else 0.0


def steps_between(source: Checkpoint, result: Checkpoint) -> tuple[Step, ...] | None:
    """The steps from the source to the result; None where the record does not have them.

    Where a field of the record cannot be right, there are none, and the proof by this record fails.
    """
    if result.misrecorded:
        return ()
    before, after = ([step.to_json() for step in checkpoint.steps] for checkpoint in (source, result))
    return result.steps[len(before) :] if after and after[: len(before)] == before else None


def _config_verdicts(expected: Checkpoint, result: Checkpoint, config: ConfigComparison) -> list[TensorVerdict]:
    """The config keys and the axes' sizes that differ from those that the steps lead to."""
    wrong = [f"{one.key}: expected {one.expected!r}, found {one.result!r}" for one in config.different]
    if expected.config.get("model_type") == result.config.get("model_type"):
        told, table = {one.key for one in config.different}, expected.architecture
        held = [template for template in table.templates if template.name in expected.templates]
        used = {axis for template in held for axis in (*template.signature.axes, *table.spread(template))}
        for axis, size in expected.sizes.items():
            if axis in used and table.axes[axis].key not in told and result.sizes.get(axis) != size:
                wrong.append(f"axis {axis}: expected {size}, found {result.sizes.get(axis)}")
    verdicts = [TensorVerdict("config.json", "wrong", detail=line) for line in wrong]
    return verdicts or [TensorVerdict("config.json", "exact")]


def paired(expected: Checkpoint, result: Checkpoint) -> dict[str, str]:
    """{name of an expected tensor: the result's name for it}: files may lack a prefix, or use older spellings."""
    table = expected.architecture
    by_canonical = {table.canonical(name): name for name in sorted(result.tensors, reverse=True)}
    names = {n: n if n in result.tensors else by_canonical.get(table.canonical(n)) for n in expected.tensors}
    return {name: found for name, found in names.items() if found and not table.is_recomputed(name)}


def _name_verdicts(expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]) -> list[TensorVerdict]:
    """Tensors that are missing, and those that no step explains; a tied head may be stored beside its embedding."""
    recomputed = expected.architecture.is_recomputed
    missing = [name for name in expected.tensors.keys() - names.keys() if not _repeats_embedding(expected, name)]
    verdicts = [TensorVerdict(name, "wrong", detail="missing") for name in sorted(missing) if not recomputed(name)]
    for name in sorted(result.tensors.keys() - set(names.values())):
        if not recomputed(name):
            tied = _repeats_embedding(result, name)
            detail = "the embedding again, to which it is tied" if tied else "nothing accounts for it"
            verdicts.append(TensorVerdict(name, "exact" if tied else "wrong", detail=detail))
    return verdicts


def _repeats_embedding(checkpoint: Checkpoint, name: str) -> bool:
    """Whether this is a head that the library ties to the embedding when it loads, and that equals it."""
    table, tie = checkpoint.architecture, checkpoint.architecture.tie
    if not (tie and checkpoint.is_tied and not tie.forced and table.canonical(name) == tie.head):
        return False
    embedding = next((n for n in checkpoint.tensors if table.canonical(n) == tie.embedding), None)
    return embedding is not None and equal(checkpoint.tensors[name], checkpoint.tensors[embedding])
