"""Untying: an output head of its own, the same logits to the last bit; or a fresh one, for training from there.

The head becomes a copy of the embedding, and so does every other tensor that the flag gates; then the flag goes off.
T5 ties whenever both tensors are equal, whatever the flag says, and scales what reaches a head only while a key says
so: there the head is doubled, the norm before it halved (powers of two), and the key written out. A fresh head
(`initial/heads.py`) differs from the embedding as it is, takes the place of one that is there, and is not the same
function: that is said in `lossy`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelsurgeon import dimension
from modelsurgeon.check import check
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.history import Step
from modelsurgeon.initial.heads import KINDS, SEEDED, FreshHead, configured_deviation
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


def with_fresh_head(checkpoint: Checkpoint, kind: str, std: float | None = None, seed: int = 0) -> Checkpoint:
    """The checkpoint with a new output head of its own, lazily, in the place of any that it has.

    kind  half-swap, shuffle, orthogonal or normal
    std   of a normal one; None: the config's initializer_range, else 0.02
    seed  of an orthogonal or a normal one
    Raises PlanError where there is no head, or none of this kind can be made; what `check` raises.
    """
    checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *check(checkpoint)))
    head = _asked_head(checkpoint, kind, std, seed)
    tie = checkpoint.architecture.tie
    if tie is None or not checkpoint.has_head:
        raise PlanError(f"--head {kind}: the model has no output head that its embedding could be tied to")
    if tie.refused and checkpoint.is_tied:
        raise PlanError(f"{tie.head} cannot be untied: {tie.refused}")
    name, embedding = _on_disk(checkpoint, tie.head), checkpoint.tensors[_on_disk(checkpoint, tie.embedding)]
    if checkpoint.has(tie.head) and checkpoint.tensors[name].shape != embedding.shape:
        found, expected = checkpoint.tensors[name].shape, embedding.shape
        raise PlanError(f"{name} is {list(found)}, and {tie.embedding} {list(expected)}: no head follows from that")
    also = {target: source for target, source in tie.also.items() if not checkpoint.has(target)}
    tensors = dict(checkpoint.tensors)
    for target, source in also.items() if checkpoint.is_tied else ():
        tensors[_on_disk(checkpoint, target)] = tensors[_on_disk(checkpoint, source)]
    tensors[name] = head.of(embedding, tie.head)
    config = {**_flag_off(checkpoint.config), "tie_word_embeddings": False}
    if tie.forced:
        config = {**checkpoint.architecture.spelled_out(checkpoint.resolved), **config}
    lossy = f"{name} is {head.says}: the logits are not the source's; it is for training from here"
    arguments = {"head": kind, **({"std": head.std} if kind == "normal" else {})}
    step = Step("untie-embeddings", arguments, seed=seed if kind in SEEDED else None, lossy=(lossy,))
    steps, every = (*checkpoint.steps, step), (*checkpoint.lossy, lossy)
    notes = (*checkpoint.notes, *head.notes(embedding.shape[-1]))
    return replace(checkpoint, config=config, tensors=tensors, steps=steps, lossy=every, notes=notes)


def _asked_head(checkpoint: Checkpoint, kind: str, std: float | None, seed: int) -> FreshHead:
    if kind not in KINDS:
        raise PlanError(f"head {kind!r}, expected copy, {', '.join(KINDS)}")
    if std is not None and kind != "normal":
        raise PlanError(f"a deviation is for a normal head; {kind} has the embedding's")
    wanted = configured_deviation(checkpoint.resolved) if std is None else std
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < math.inf:
        raise PlanError(f"std {wanted!r}, expected a number above 0")
    return FreshHead(kind, wanted, seed)


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
