"""Inserted layers, as other tools make them: the function stays the same where a new layer adds zero.

There is no command: `verify --infer` finds inserted layers in results without a record, and the proof replays them.
`transforms/insertion.py` recognises new layers, and says what they must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelsurgeon.files.fields import Either, Named, Several
from modelsurgeon.operations.catalogue import register
from modelsurgeon.operations.operation import Demand, Guess, Operation, Replayed

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step


@register
@dataclass(frozen=True)
class InsertLayers(Operation):
    """Insert layers that add zero.

    layers  {counter: the old layer at each place, or None for a new one}
    kinds   {config key: the result's list, one entry for each layer}
    """

    name = "insert-layers"
    offered = False

    layers: Mapping[str, list[int | None]] = field(default_factory=dict)
    kinds: Mapping[str, list[Any]] = field(default_factory=dict)

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        from modelsurgeon.operations.transforms.insertion import silent_layers

        return silent_layers(checkpoint, self.arguments())

    @classmethod
    def replay(cls, before: Replayed, step: Step) -> Replayed:
        from modelsurgeon.operations.transforms.insertion import insert_layers

        return before.beneath(lambda checkpoint: insert_layers(checkpoint, step.arguments))

    @classmethod
    def recorded(cls) -> Mapping[str, Any]:
        return {"layers": Named(Several(Either(int, None))), "kinds?": Named(Several(object))}

    @classmethod
    def check_recorded(cls, step: Step, where: str) -> None:
        from modelsurgeon.operations.transforms.insertion import check_arguments

        check_arguments(step.arguments, where)

    @classmethod
    def demands(
        cls, steps: tuple[Step, ...], expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]
    ) -> Mapping[str, Demand]:
        from modelsurgeon.operations.transforms.insertion import demands, inserted

        layouts = [step.arguments["layers"] for step in steps if step.operation == cls.name]
        return demands(inserted(layouts), expected, result, names)

    @classmethod
    def guess(cls, source: Checkpoint, result: Checkpoint) -> Guess:
        from modelsurgeon.operations.transforms.insertion import guess_inserted

        return guess_inserted(source, result)
