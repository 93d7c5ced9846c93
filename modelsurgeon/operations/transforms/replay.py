"""Operations are carried out and recorded, and replayed from a record in its order.

    applied(Widen(factor=2), checkpoint).steps[-1]      Step("widen", {"factor": 2, ...}, maps={"stream": ...})
    replay(source, result.steps)                        what the result must be, lazily

Growth after growth is replayed as one: its maps are composed, so that every number of the result is compared with one
of the source, whatever noise lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.remap import Storage, remap
from modelsurgeon.growth.targets import ATTENTIONS, by_factor
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.operation import Operation, Replayed
from modelsurgeon.operations.transforms.claims import check_claims
from modelsurgeon.tensors.dtypes import DTYPE_NAMES


def applied(operation: Operation, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint after an operation, with a step on record. Raises what the operation raises."""
    operation.check_types()
    operation.check()
    check_claims(checkpoint)
    after = operation.apply(checkpoint)
    if len(notes := tuple(dict.fromkeys(after.notes))) < len(after.notes):  # two operations can write one note
        after = replace(after, notes=notes)
    unchanged = after.config == checkpoint.config and after.tensors.keys() == checkpoint.tensors.keys()
    unchanged = unchanged and all(after.tensors[name] is tensor for name, tensor in checkpoint.tensors.items())
    if unchanged or len(after.steps) > len(checkpoint.steps):
        return after
    lossy = after.lossy[len(checkpoint.lossy) :]
    if not (lossy or operation.lossless):
        lossy = (f"{operation.name} makes another function",)
    step = Step(operation.name, operation.arguments(), seed=getattr(operation, "seed", None), lossy=lossy)
    return replace(after, steps=(*after.steps, step), lossy=(*checkpoint.lossy, *lossy))


@dataclass(frozen=True)
class Replay:
    """A checkpoint during the replay of steps on record (`Replayed`): `base`, then growth by `maps`, {axis: map}."""

    base: Checkpoint
    maps: Mapping[str, AxisMap] = field(default_factory=dict)

    def grown(self) -> Checkpoint:
        """The checkpoint so far. Raises PlanError where the maps do not commute with the model."""
        return remap(self.base, self.maps) if self.maps else self.base

    def onto(self, transform: Callable[[Checkpoint], Checkpoint]) -> Replay:
        return Replay(transform(self.grown()))

    def applied(self, operation: Operation) -> Replay:
        return self.onto(lambda checkpoint: applied(operation, checkpoint))

    def growing(self, maps: Mapping[str, AxisMap], arguments: Mapping[str, Any]) -> Replay:
        """After further growth, composed with the growth just before, and nothing rounded in between.

        Where copies are parts of a sum among writers (of a tied head) in the one and among readers in the other, no
        map expresses both: they stay apart, and the proof fuses them tensor by tensor (`Remapped.fused`).
        """
        alike = all(self.maps[axis].split == later.split for axis, later in maps.items() if axis in self.maps)
        return Replay(self.base, _composed(self.maps, maps)) if alike else Replay(self.grown(), maps)

    def beneath(self, transform: Callable[[Checkpoint], Checkpoint]) -> Replay:
        return Replay(transform(self.base), self.maps)


@dataclass(frozen=True)
class StepByStep:
    """A replay (`Replayed`) in which every step is carried out on the one before, as it was stored."""

    checkpoint: Checkpoint

    def grown(self) -> Checkpoint:
        return self.checkpoint

    def onto(self, transform: Callable[[Checkpoint], Checkpoint]) -> StepByStep:
        return StepByStep(transform(self.checkpoint))

    def applied(self, operation: Operation) -> StepByStep:
        return self.onto(lambda checkpoint: applied(operation, checkpoint))

    def growing(self, maps: Mapping[str, AxisMap], arguments: Mapping[str, Any]) -> StepByStep:
        """After further growth, stored as its arguments say. Raises PlanError where it has not the sizes they name."""
        dtype = arguments.get("dtype")
        storage = Storage(DTYPE_NAMES[dtype] if dtype else None, arguments.get("rule") == "exact")
        grown, table = remap(self.checkpoint, maps, storage), self.checkpoint.architecture
        sizes = dict(arguments.get("settings", {}))
        if arguments.get("factor") and arguments.get("attention") in ATTENTIONS:
            sizes = by_factor(self.checkpoint, arguments["factor"], arguments["attention"]) | sizes
        for key, size in sizes.items():
            if (found := lookup(grown.resolved, table.aliases.get(key, key))) != size:
                raise PlanError(f"arguments make {key} {size}, and the maps make it {found}")
        return StepByStep(grown)

    def beneath(self, transform: Callable[[Checkpoint], Checkpoint]) -> StepByStep:
        return self.onto(transform)


def replay(source: Checkpoint, steps: Iterable[Step]) -> Checkpoint:
    """The source after the steps on record, lazily; growth after growth as one. Raises PlanError where that fails."""
    return _replayed(Replay(replace(source, lossy=(), steps=())), steps, len(source.steps))


def step_by_step(source: Checkpoint, steps: Iterable[Step]) -> Checkpoint:
    """As `replay`, with every tensor as it was stored between one step and the next."""
    return _replayed(StepByStep(replace(source, lossy=(), steps=())), steps, len(source.steps))


def _replayed(state: Replayed, steps: Iterable[Step], first: int) -> Checkpoint:
    for at, step in enumerate(steps, first):
        try:
            state = catalogue.find_operation(step.operation).replay(state, step)
        except PlanError as error:
            raise PlanError(f"steps[{at}]: {error}") from None
    return state.grown()


def composed_maps(steps: Iterable[Step]) -> dict[str, AxisMap]:
    """{axis: the map of all steps, one after another}."""
    return reduce(_composed, (step.maps for step in steps), {})


def _composed(maps: Mapping[str, AxisMap], later: Mapping[str, AxisMap]) -> dict[str, AxisMap]:
    return {**maps, **{axis: maps[axis].then(grown) if axis in maps else grown for axis, grown in later.items()}}
