"""Operations carried out and recorded, and replayed from a record, in the order in which they stand there.

    applied(Widen(factor=2), checkpoint).steps[-1]      Step("widen", {"factor": 2, ...}, maps={"stream": ...})
    replay(source, result.steps)                        what the result must be, lazily

Growth after growth is replayed as one: its maps are composed, so that every number of the result is held against one of
the source, whatever noise lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.growth.remap import remap
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.operation import Operation, Replayed


def applied(operation: Operation, checkpoint: Checkpoint) -> Checkpoint:
    """What an operation makes of a checkpoint, with a step on record. Raises what the operation raises."""
    operation.check_types()
    operation.check()
    after = operation.apply(checkpoint)
    if len(told := tuple(dict.fromkeys(after.notes))) < len(after.notes):  # two operations say the same of one source
        after = replace(after, notes=told)
    if len(after.steps) > len(checkpoint.steps) or _is_as_it_was(checkpoint, after):
        return after
    lossy = after.lossy[len(checkpoint.lossy) :]
    if not (lossy or operation.lossless):
        lossy = (f"{operation.name} makes another function",)
    step = Step(operation.name, operation.arguments(), seed=getattr(operation, "seed", None), lossy=lossy)
    return replace(after, steps=(*after.steps, step), lossy=(*checkpoint.lossy, *lossy))


def _is_as_it_was(before: Checkpoint, after: Checkpoint) -> bool:
    same = after.tensors.keys() == before.tensors.keys() and after.config == before.config
    return same and all(after.tensors[name] is tensor for name, tensor in before.tensors.items())


@dataclass(frozen=True)
class Replay:
    """A checkpoint on its way through the steps on record: `base`, and the growth that follows, {axis: map}."""

    base: Checkpoint
    maps: Mapping[str, AxisMap] = field(default_factory=dict)

    def grown(self) -> Checkpoint:
        """What is there by now. Raises PlanError where the maps do not commute with the model."""
        return remap(self.base, self.maps) if self.maps else self.base

    def onto(self, transform: Callable[[Checkpoint], Checkpoint]) -> Replay:
        """A transform, on what is there by now."""
        return Replay(transform(self.grown()))

    def applied(self, operation: Operation) -> Replay:
        """An operation, on what is there by now."""
        return self.onto(lambda checkpoint: applied(operation, checkpoint))

    def growing(self, maps: Mapping[str, AxisMap]) -> Replay:
        """Further growth, composed with the growth that came just before.

        Where the one had its sums among writers (of a tied head) and the other has them among readers, no map says
        both: they stay apart, and the proof tells them as one tensor by tensor (`Remapped.fused`).
        """
        alike = all(self.maps[axis].split == later.split for axis, later in maps.items() if axis in self.maps)
        return Replay(self.base, composed([self.maps, maps])) if alike else Replay(self.grown(), maps)

    def beneath(self, transform: Callable[[Checkpoint], Checkpoint]) -> Replay:
        """A transform that commutes with the growth that came just before, done before that."""
        return Replay(transform(self.base), self.maps)


def replay(source: Checkpoint, steps: Iterable[Step]) -> Checkpoint:
    """What the steps on record make of the source, lazily. Raises PlanError where they cannot be done to it."""
    state: Replayed = Replay(replace(source, lossy=()))
    for step in steps:
        state = catalogue.find_operation(step.operation).replay(state, step)
    return state.grown()


def composed(growths: Iterable[Mapping[str, AxisMap]]) -> dict[str, AxisMap]:
    """{axis: the map of all growths, one after another}."""
    maps: dict[str, AxisMap] = {}
    for grown in growths:
        for axis, axis_map in grown.items():
            maps[axis] = maps[axis].then(axis_map) if axis in maps else axis_map
    return maps


def composed_maps(steps: Iterable[Step]) -> dict[str, AxisMap]:
    """{axis: the map of all steps, one after another}."""
    return composed(step.maps for step in steps)
