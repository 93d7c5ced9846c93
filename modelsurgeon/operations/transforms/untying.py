"""Untying: an output head of its own, the same logits to the last bit; or a fresh one, for training from there.

The head becomes a copy of the embedding, and so does every other tensor that the flag gates; then the flag goes off.
T5 ties whenever both tensors are equal, whatever the flag says, and scales what reaches a head only while a key says
so: there the head is doubled, the norm before it halved (powers of two), and the key written out. A fresh head
(`fresh_heads.py`) differs from the embedding as it is, takes the place of one that is there, and is not the same
function: that is said in `lossy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.maps import dimension
from modelsurgeon.operations.operation import Guess
from modelsurgeon.tensors.lazy import LazyTensor, equal
from modelsurgeon.tensors.remapped import Remapped


def untie_embeddings(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with an output head of its own, lazily; a note, and no step, where it has one already.

    Raises what `check` raises where the source does not fit its table.
    """
    checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *check(checkpoint)))
    tie = checkpoint.architecture.tie
    if tie is None or not checkpoint.has_head:
        return _as_it_is(checkpoint, "no output head that could be tied: copied as it is")
    if tie.refused and checkpoint.is_tied:
        raise PlanError(f"{tie.head} cannot be untied: {tie.refused}")
    own = not _shares_head(checkpoint)
    if own and (tie.forced or not checkpoint.is_tied):
        return _as_it_is(checkpoint, "already untied: copied as it is")
    tensors = dict(checkpoint.tensors)
    for target, source in {tie.head: tie.embedding, **tie.also}.items():
        if not (own and checkpoint.has(target)):  # a head that differs under a flag still on: only the flag goes off
            tensors[checkpoint.on_disk(target)] = tensors[checkpoint.on_disk(source)]
    config = {**flag_off(checkpoint.config), "tie_word_embeddings": False}
    if tie.forced:
        _double_head(checkpoint, tie.forced, tensors)
        config = {**checkpoint.architecture.spelled_out(checkpoint.resolved), **config}
    step = Step("untie-embeddings", {})
    return replace(checkpoint, config=config, tensors=tensors, steps=(*checkpoint.steps, step))


def guess_untied(source: Checkpoint, result: Checkpoint) -> Guess:
    """The source with a head of its own, where the result has one and says so."""
    tie = source.architecture.tie
    if tie is None or not source.is_tied or not result.has(tie.head):
        return Guess(source)
    if result.architecture.value(result.resolved, "tie_word_embeddings"):
        return Guess(source)
    try:
        untied = untie_embeddings(source)
    except PlanError as error:
        return Guess(source, lines=(f"not untied: {error}",))
    return Guess(untied, Step("untie-embeddings", {}), (f"untied: {tie.head} is a tensor of its own",))


def _double_head(checkpoint: Checkpoint, norm: str, tensors: dict[str, LazyTensor]) -> None:
    """The head times two, the norm before it times a half."""
    assert checkpoint.architecture.tie is not None
    head, gain = checkpoint.on_disk(checkpoint.architecture.tie.head), checkpoint.on_disk(norm)
    tensors[head], tensors[gain] = scaled(tensors[head], 2.0), scaled(tensors[gain], 0.5)


def scaled(tensor: LazyTensor, factor: float) -> LazyTensor:
    """A lazy tensor times a constant, in its own dtype. Raises PlanError unless the constant is a power of two."""
    result = Remapped(tensor, tuple(dimension.ungrown(size) for size in tensor.shape), tensor.dtype, factor)
    if not result.is_exact:
        raise PlanError(f"untying would round: times {factor} in {tensor.dtype}")
    return result


def _shares_head(checkpoint: Checkpoint) -> bool:
    tie = checkpoint.architecture.tie
    assert tie is not None
    if not checkpoint.is_tied:
        return False
    if not checkpoint.has(tie.head):
        return True
    head = checkpoint.tensors[checkpoint.on_disk(tie.head)]
    embedding = checkpoint.tensors[checkpoint.on_disk(tie.embedding)]
    return equal(head, embedding)


def flag_off(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every tie flag off, in nested configs too."""
    off = {key: flag_off(value) if isinstance(value, dict) else value for key, value in config.items()}
    nested = {key: False for key in off if key == "tie_word_embeddings"}
    return {**off, **nested}


def _as_it_is(checkpoint: Checkpoint, note: str) -> Checkpoint:
    return replace(checkpoint, notes=(*checkpoint.notes, note))
