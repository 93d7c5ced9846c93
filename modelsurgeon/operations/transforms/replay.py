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

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.growth.remap import remap
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.operation import Operation, Replayed


def applied(operation: Operation, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint after an operation, with a step on record. Raises what the operation raises."""
    operation.check_types()
    operation.check()
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

    def growing(self, maps: Mapping[str, AxisMap]) -> Replay:
        """After further growth, composed with the growth just before.

        Where copies are parts of a sum among writers (of a tied head) in the one and among readers in the other, no
        map expresses both: they stay apart, and the proof fuses them tensor by tensor (`Remapped.fused`).
        """
        alike = all(self.maps[axis].split == later.split for axis, later in maps.items() if axis in self.maps)
        return Replay(self.base, _composed(self.maps, maps)) if alike else Replay(self.grown(), maps)

    def beneath(self, transform: Callable[[Checkpoint], Checkpoint]) -> Replay:
        return Replay(transform(self.base), self.maps)


def replay(source: Checkpoint, steps: Iterable[Step]) -> Checkpoint:
    """The source after the steps on record, lazily. Raises PlanError where a step is impossible."""
    state: Replayed = Replay(replace(source, lossy=()))
    for step in steps:
        state = catalogue.find_operation(step.operation).replay(state, step)
    return state.grown()


def composed_maps(steps: Iterable[Step]) -> dict[str, AxisMap]:
    """{axis: the map of all steps, one after another}."""
    return reduce(_composed, (step.maps for step in steps), {})


def _composed(maps: Mapping[str, AxisMap], later: Mapping[str, AxisMap]) -> dict[str, AxisMap]:
    return {**maps, **{axis: maps[axis].then(grown) if axis in maps else grown for axis, grown in later.items()}}
