"""Layers that were put in between, as other tools do it: nothing changes where all that a new layer adds is zero.

It is not offered as a command: `verify --infer` finds it in results that carry no record, and the proof replays it. How
new layers are told, and what they must be: `transforms/insertion.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelsurgeon.operations.operation import Demand, Guess, Operation, Replayed
from modelsurgeon.operations.registry import register

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step


@register
@dataclass(frozen=True)
class InsertLayers(Operation):
    """Put layers in between that add zero.

    layers  {counter: the old layer at each place, or None for a new one}
    kinds   {config key: what the result's config says layer by layer}
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
    def demands(
        cls, step: Step, expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]
    ) -> Mapping[str, Demand]:
        from modelsurgeon.operations.transforms.insertion import demands

        return demands(step.arguments["layers"], expected, result, names)

    @classmethod
    def guess(cls, source: Checkpoint, result: Checkpoint) -> Guess:
        from modelsurgeon.operations.transforms.insertion import guess_inserted

        return guess_inserted(source, result)
