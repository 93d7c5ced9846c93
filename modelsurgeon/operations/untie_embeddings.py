"""Untying: an output head of its own, the same logits to the last bit; or a fresh one, for training from there.

    modelsurgeon untie-embeddings demo -o untied
    open("demo").untie_embeddings(head="orthogonal", seed=1)

`transforms/untying.py` copies the embedding; `transforms/fresh_heads.py` makes heads that are no copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelsurgeon.errors import OptionsError
from modelsurgeon.operations.catalogue import register
from modelsurgeon.operations.operation import Guess, Operation, Replayed, option

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.checkpoints.record import Step

COPY = "copy"
SEEDED = ("orthogonal", "normal")  # random heads


@register
@dataclass(frozen=True)
class UntieEmbeddings(Operation):
    """Give the output head a tensor of its own: the same logits to the last bit, or a fresh head to train from."""

    name = "untie-embeddings"

    head: str | None = option(None, "copy (lossless) [default], half-swap, shuffle, orthogonal or normal.")
    std: float | None = option(None, "Standard deviation for --head normal [default: initializer_range].")
    seed: int | None = option(None, "Seed for --head orthogonal and normal [default: 0].")

    @property
    def kind(self) -> str:
        """The kind of the new head."""
        return self.head or COPY

    def check(self) -> None:
        if self.std is not None and self.kind != "normal":
            raise OptionsError(f"--std is for --head normal, and the head is {self.kind}")
        if self.seed is not None and self.kind not in SEEDED:
            raise OptionsError(f"--seed is for --head {' and '.join(SEEDED)}, and the head is {self.kind}")

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        from modelsurgeon.operations.transforms.fresh_heads import with_fresh_head
        from modelsurgeon.operations.transforms.untying import untie_embeddings

        if self.kind == COPY:
            return untie_embeddings(checkpoint)
        return with_fresh_head(checkpoint, self.kind, self.std, self.seed or 0)

    @property
    def lossless(self) -> bool:
        return self.kind == COPY

    @property
    def tells_loss(self) -> bool:
        return self.head is not None

    @classmethod
    def replay(cls, before: Replayed, step: Step) -> Replayed:
        from modelsurgeon.operations.transforms.fresh_heads import with_fresh_head
        from modelsurgeon.operations.transforms.untying import untie_embeddings

        arguments = dict(step.arguments)
        if not arguments.get("head"):  # maps keep tied tensors equal: untying and growing can change places
            return before.beneath(untie_embeddings)
        numbers = arguments.pop("numbers", None)  # how random numbers are drawn; the oldest records do not name it
        operation = cls.from_step(replace(step, arguments=arguments))
        kind, std, seed = operation.kind, operation.std, operation.seed or 0
        return before.onto(lambda checkpoint: with_fresh_head(checkpoint, kind, std, seed, numbers))

    @classmethod
    def recorded(cls) -> Mapping[str, Any]:
        return {"head?": str, "std?": float, "numbers?": str}

    @classmethod
    def check_recorded(cls, step: Step, where: str) -> None:
        from modelsurgeon.operations.transforms.fresh_heads import check_arguments

        check_arguments(step.arguments, step.seed, where)

    @classmethod
    def guess(cls, source: Checkpoint, result: Checkpoint) -> Guess:
        from modelsurgeon.operations.transforms.untying import guess_untied

        return guess_untied(source, result)

    def arguments(self) -> dict[str, Any]:
        return {key: value for key, value in super().arguments().items() if value is not None}
