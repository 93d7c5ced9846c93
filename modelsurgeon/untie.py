"""Untying: an output head of its own, the same logits to the last bit.

The head becomes a copy of the embedding, and so does every other tensor that the flag gates; then the flag goes off.
T5 ties whenever both tensors are equal, whatever the flag says, and scales what reaches a head only while a key says
so: there the head is doubled, the norm before it halved (powers of two), and the key written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelsurgeon import dimension
from modelsurgeon.check import check
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.history import Step
from modelsurgeon.tensor import LazyTensor, Remapped


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
            tensors[_on_disk(checkpoint, target)] = tensors[_on_disk(checkpoint, source)]
    config = {**_flag_off(checkpoint.config), "tie_word_embeddings": False}
    if tie.forced:
        _double_head(checkpoint, tie.forced, tensors)
        config = {**checkpoint.architecture.spelled_out(checkpoint.resolved), **config}
    step = Step("untie-embeddings", {})
    return replace(checkpoint, config=config, tensors=tensors, steps=(*checkpoint.steps, step))


def _double_head(checkpoint: Checkpoint, norm: str, tensors: dict[str, LazyTensor]) -> None:
    """The head times two, the norm before it times a half."""
    assert checkpoint.architecture.tie is not None
    head, gain = _on_disk(checkpoint, checkpoint.architecture.tie.head), _on_disk(checkpoint, norm)
    tensors[head], tensors[gain] = scaled(tensors[head], 2.0), scaled(tensors[gain], 0.5)


def scaled(tensor: LazyTensor, factor: float) -> LazyTensor:
    """A lazy tensor times a constant, in its own dtype. Raises PlanError unless the constant is a power of two."""
    result = Remapped(tensor, tuple(dimension.plain(size) for size in tensor.shape), tensor.dtype, factor)
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
    head = checkpoint.tensors[_on_disk(checkpoint, tie.head)]
    embedding = checkpoint.tensors[_on_disk(checkpoint, tie.embedding)]
    return equal(head, embedding)


def equal(a: LazyTensor, b: LazyTensor, block: int = 1 << 22) -> bool:
    """Whether two lazy tensors hold the same numbers, read in blocks of about `block` numbers."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows = max(1, block // max(1, a.shape[-1]))
    return all(
        bool((a.read(at, min(at + rows, a.shape[0])) == b.read(at, min(at + rows, a.shape[0]))).all())
        for at in range(0, a.shape[0], rows)
    )


def _on_disk(checkpoint: Checkpoint, template: str) -> str:
    canonical = checkpoint.architecture.canonical
    found = [name for name in checkpoint.tensors if canonical(name) == template]
    return found[0] if found else template


def _flag_off(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every tie flag off, in nested configs too."""
    off = {key: _flag_off(value) if isinstance(value, dict) else value for key, value in config.items()}
    nested = {key: False for key in off if key == "tie_word_embeddings"}
    return {**off, **nested}


def _as_it_is(checkpoint: Checkpoint, note: str) -> Checkpoint:
    return replace(checkpoint, notes=(*checkpoint.notes, note))
