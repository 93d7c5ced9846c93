"""Widening: any axis to any size that its family allows; depth and vocabulary stay.

    modelsurgeon widen demo -o wide --factor 2
    open("demo").widen(factor=2)

The new sizes are given in one of four ways: a factor, sizes by their config keys, another config, a number of
parameters. The first three compose with --set. The work is done in `transforms/widening.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsurgeon.errors import OptionsError
from modelsurgeon.files.fields import Either, Named
from modelsurgeon.operations.catalogue import register
from modelsurgeon.operations.operation import Operation, Replayed, option

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step

NOISE = 0.5  # uniform up to half of a part: 0.29 of it in the mean square, about HyperCloning's 10 dB


@register
@dataclass(frozen=True)
class Widen(Operation):
    """Grow a checkpoint's widths: the same function in a bigger model."""

    name = "widen"
    grows = True

    factor: int | None = option(None, "Times as wide: hidden, MLP and attention [default: 2].")
    set: tuple[str, ...] | Mapping[str, int] = option(
        (), "One size by its config key: hidden_size=1024; repeatable.", metavar="KEY=VALUE"
    )
    like: str | None = option(None, "The widths of another config: a config.json, a folder or a Hub id.")
    params: str | int | None = option(None, "The nearest size of the same proportions, as in 350M or 1.5B.")
    rule: str = option("auto", "orthogonal, exact or auto.")
    attention: str = option("auto", "What a factor grows: head-dim, heads or auto.")
    rope: str = option("nested", "nested (lossless) or repeat (approximate).")
    dtype: str | None = option(None, "Store as float32, bfloat16 ... [default: as it is].")
    noise: float = option(NOISE, "How differently copies are read, so that training can tell them apart; 0: alike.")
    seed: int = option(0, "Seed for the noise.")
    optimizer: Path | None = option(
        None, "A Trainer checkpoint of SOURCE: its AdamW state grows along.", metavar="DIR", recorded=False
    )

    def check(self) -> None:
        flags = {"--factor": self.factor, "--like": self.like, "--params": self.params}
        given = [flag for flag, value in flags.items() if value is not None]
        if len(given) > 1:
            raise OptionsError(f"{' and '.join(given)} each name all widths; ask for one of them")
        given += ["--set"] if self.set else []
        if self.attention != "auto" and self.factor is None and given:
            names = " and ".join(given)
            raise OptionsError(f"--attention says what --factor grows; {names} names what attention grows to")

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        from modelsurgeon.operations.transforms.proportions import settings_for
        from modelsurgeon.operations.transforms.widening import Widening, widen
        from modelsurgeon.training.learning_rates import recommended

        settings, notes = settings_for(checkpoint, self.set, self.like, self.params)
        widening = Widening(self.rule, self.attention, self.rope, self.dtype, self.noise, self.seed)
        wide = widen(checkpoint, self.factor, settings, widening)
        return recommended(checkpoint, replace(wide, notes=(*wide.notes, *notes)))

    @classmethod
    def replay(cls, before: Replayed, step: Step) -> Replayed:
        return before.growing(step.maps, step.arguments)

    @classmethod
    def recorded(cls) -> Mapping[str, Any]:
        sizes = {"factor": Either(int, None), "settings?": Named(int)}
        choices = {"rule": str, "attention": str, "rope": str, "dtype": Either(str, None), "noise?": float}
        return {**sizes, **choices}

    @classmethod
    def check_recorded(cls, step: Step, where: str) -> None:
        from modelsurgeon.operations.transforms.widening import check_arguments

        check_arguments(step.arguments, where)

    def companion(self, before: Checkpoint, after: Checkpoint, memory: int | None, output: Path | None) -> Any:
        if self.optimizer is None:
            return None
        from modelsurgeon.training.trainer import training_state

        return training_state(before, after, Path(self.optimizer), memory, output=output)

    def choices(self, after: Checkpoint) -> tuple[str, ...]:
        if self.like is None and self.params is None:
            return ()
        settings = after.steps[-1].arguments["settings"]
        return (f"settings: {' '.join(f'{key}={value}' for key, value in settings.items())}",)
