"""Untying: an output head of its own, the same logits to the last bit; or a fresh one, for training from there.

The head becomes a copy of the embedding, and so does every other tensor that the flag gates; then the flag goes off.
T5 ties two equal tensors whatever the flag is, and scales the head's input only while a config key asks for it: there
the head is doubled, the norm before it halved (powers of two), and the key written out. A fresh head (`fresh_heads.py`)
differs from the embedding anyway, replaces any head, and makes another function: `lossy` records that.
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
        return replace(checkpoint, notes=(*checkpoint.notes, "no output head that could be tied: copied as it is"))
    if tie.refused and checkpoint.is_tied:
        raise PlanError(f"{tie.head} cannot be untied: {tie.refused}")
    head, embedding, tensors = checkpoint.on_disk(tie.head), checkpoint.on_disk(tie.embedding), {**checkpoint.tensors}
    differs = checkpoint.has(tie.head) and checkpoint.is_tied and not equal(tensors[head], tensors[embedding])
    own = differs or not checkpoint.is_tied
    if own and (tie.forced or not checkpoint.is_tied):
        return replace(checkpoint, notes=(*checkpoint.notes, "already untied: copied as it is"))
    for target, source in {tie.head: tie.embedding, **tie.also}.items():
        if not (own and checkpoint.has(target)):  # a head that differs under a flag still on: only the flag goes off
            tensors[checkpoint.on_disk(target)] = tensors[checkpoint.on_disk(source)]
    if tie.forced:
        norm = checkpoint.on_disk(tie.forced)
        tensors[head], tensors[norm] = scaled(tensors[head], 2.0), scaled(tensors[norm], 0.5)
    steps = (*checkpoint.steps, Step("untie-embeddings", {}))
    return replace(checkpoint, config=untied_config(checkpoint), tensors=tensors, steps=steps)


def guess_untied(source: Checkpoint, result: Checkpoint) -> Guess:
    """The source with a head of its own, where the result has one and its flag is off."""
    tie = source.architecture.tie
    flag = result.architecture.value(result.resolved, "tie_word_embeddings")
    if tie is None or not source.is_tied or not result.has(tie.head) or flag:
        return Guess(source)
    try:
        untied = untie_embeddings(source)
    except PlanError as error:
        return Guess(source, lines=(f"not untied: {error}",))
    return Guess(untied, Step("untie-embeddings", {}), (f"untied: {tie.head} is a tensor of its own",))


def scaled(tensor: LazyTensor, factor: float) -> LazyTensor:
    """A lazy tensor times a constant, in its own dtype. Raises PlanError unless the constant is a power of two."""
    result = Remapped(tensor, tuple(dimension.ungrown(size) for size in tensor.shape), tensor.dtype, factor)
    if not result.is_exact:
        raise PlanError(f"untying would round: times {factor} in {tensor.dtype}")
    return result


def untied_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config with every tie flag off; where the library ties without a flag, its defaults are written out, too."""
    tie = checkpoint.architecture.tie
    implied = checkpoint.architecture.spelled_out(checkpoint.resolved) if tie and tie.forced else {}
    return {**implied, **_flag_off(checkpoint.config), "tie_word_embeddings": False}


def _flag_off(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every tie flag off, in nested configs too."""
    off = {key: _flag_off(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {**off, "tie_word_embeddings": False} if "tie_word_embeddings" in off else off
