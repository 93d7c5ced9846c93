"""A new checkpoint of a config, to train from: every tensor is drawn when it is written.

    modelsurgeon init config.json -o fresh --std log-n-over-d
    init("config.json", "fresh", std="log-n-over-d")

`transforms/initial.py` explains the choices, and does the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelsurgeon.errors import FieldError, PlanError
from modelsurgeon.files.fields import Either
from modelsurgeon.operations.catalogue import register
from modelsurgeon.operations.operation import Operation, Replayed, option

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step


@register
@dataclass(frozen=True)
class Init(Operation):
    """Make a new checkpoint of a config, to train from; options left out follow transformers."""

    name = "init"
    reads = "config"

    std: str | float | None = option(
        None, "Standard deviation of random numbers, as in 0.02; log-n-over-d sets a tied embedding's.", metavar="STD"
    )
    distribution: str | None = option(None, "normal, or truncated at two deviations.")
    residual: str | None = option(None, "Standard deviation of what writes to the stream: none, gpt2 or wang.")
    dtype: str | None = option(None, "Store as float32, bfloat16 ... [default: the config's].", recorded=False)
    seed: int = option(0, "Seed for the numbers.")

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        from modelsurgeon.operations.transforms.initial import Choices, begin

        std = None if self.std is None else str(self.std)
        return begin(checkpoint, Choices(std, self.distribution, self.residual, self.dtype, self.seed))

    @property
    def tells_loss(self) -> bool:
        return True

    @classmethod
    def recorded(cls) -> Mapping[str, Any]:
        return dict.fromkeys(("std", "distribution", "residual"), Either(str, None))

    @classmethod
    def check_recorded(cls, step: Step, where: str) -> None:
        from modelsurgeon.operations.transforms.initial import Choices

        try:
            Choices(**step.arguments).check()
        except PlanError as error:
            raise FieldError(f"{where}: {error}") from None

    @classmethod
    def replay(cls, before: Replayed, step: Step) -> Replayed:
        raise PlanError("a step 'init' on record: it made a new checkpoint of a config, and follows from no other one")
