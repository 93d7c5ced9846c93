"""Fresh output heads for models that are about to be trained: the article's cures for tied embeddings.

A tied head gives the token that was just read the logit |w|^2, far above all others: training starts from the loss
log(e^(d sigma) + n - 1), where guessing has log n. With S between the last norm and the head, S[w] and w are nearly
independent, and the loss is that of guessing. The head's own tensor takes S in, S[h] . w = h . S'[w], so the model's
code does not change:

    half-swap    S[w] = w[d/2:] o w[:d/2]
    shuffle      S[w] = reshape to [g, d/g], transpose, reshape back, as ShuffleNet's channels
    orthogonal   S[w] = w P, P random and orthogonal
    normal       no S: new numbers N(0, std^2)

Su Jianlin, https://spaces.ac.cn/archives/9698; ShuffleNet, arXiv 1707.01083.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.files.fields import refuse
from modelsurgeon.maps import dimension
from modelsurgeon.operations.transforms.untying import untied_config
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.random.drawn import Drawn
from modelsurgeon.tensors.random.earlier import EarlierDrawn, EarlierRotation
from modelsurgeon.tensors.random.turned import RandomRotation, Turned
from modelsurgeon.tensors.remapped import Remapped

KINDS = ("half-swap", "shuffle", "orthogonal", "normal")
SEEDED = ("orthogonal", "normal")  # random heads
PORTABLE = "portable"  # random numbers that are the same on every machine


@dataclass(frozen=True)
class FreshHead:
    """A kind of head, with its options."""

    kind: str  # one of KINDS
    std: float  # standard deviation of a normal head
    seed: int  # seed of a random head
    numbers: str | None  # PORTABLE; None: those of old records, the same on one kind of processor only (`earlier.py`)

    @property
    def description(self) -> str:
        """A description that completes "the head is"."""
        chance = f"seed {self.seed}" if self.numbers else f"seed {self.seed}, whose last bits follow the processor"
        return {
            "half-swap": "the embedding with the halves of its rows swapped",
            "shuffle": "the embedding with its columns shuffled in groups",
            "orthogonal": f"the embedding turned by a random orthogonal matrix ({chance})",
            "normal": f"new, normal with deviation {self.std:g} ({chance})",
        }[self.kind]

    def notes(self, width: int) -> tuple[str, ...]:
        """Notes on a head whose rows have this width."""
        if self.kind != "shuffle":
            return ()
        count, still = groups(width), int(np.sum(shuffle(width) == np.arange(width)))
        return (f"shuffle: {count} groups of {width // count} columns; {still} of {width} stay in their place",)

    def of(self, embedding: LazyTensor, name: str) -> LazyTensor:
        """The head's tensor, [n, d] like the embedding. Raises PlanError where d does not allow it.

        name  the tensor's name: with the seed it determines all random numbers
        """
        width, key = embedding.shape[-1], f"{self.seed}/{name}"
        if self.kind == "normal":
            drawn = Drawn if self.numbers else EarlierDrawn
            return drawn(embedding.shape, embedding.dtype, self.std, key)
        if self.kind == "orthogonal":
            return Turned(embedding, (RandomRotation if self.numbers else EarlierRotation)(width, key))
        source = half_swap(width) if self.kind == "half-swap" else np.argsort(shuffle(width))
        columns = dimension.ungrown(width).rearranged(np.arange(width), source)
        return Remapped(embedding, (dimension.ungrown(embedding.shape[0]), columns), embedding.dtype)


def configured_deviation(config: Mapping[str, Any]) -> float:
    """The initial standard deviation of matrices that a config names; else the library's default, 0.02."""
    named = [config.get(key) for key in ("initializer_range", "init_std")]
    return next((float(v) for v in named if isinstance(v, int | float) and not isinstance(v, bool)), 0.02)


def half_swap(width: int) -> np.ndarray:
    """[d] int64: S as the coordinate that each one takes. Its own inverse. Raises PlanError for an odd width."""
    if width % 2:
        raise PlanError(f"half-swap: {width} columns have no halves; choose shuffle, orthogonal or normal")
    return np.asarray(np.r_[width // 2 : width, 0 : width // 2])


def groups(width: int) -> int:
    """The number of groups in `shuffle`: the largest divisor of the width not above its square root."""
    return max(g for g in range(1, math.isqrt(width) + 1) if width % g == 0)


def shuffle(width: int) -> np.ndarray:
    """[d] int64: S as the coordinate that each one takes. Raises PlanError for a prime width, which has no groups."""
    if groups(width) == 1:
        raise PlanError(f"shuffle: {width} columns cannot be cut into groups; choose orthogonal or normal")
    return np.asarray(np.arange(width).reshape(groups(width), -1).T.ravel())


def with_fresh_head(
    checkpoint: Checkpoint, kind: str, std: float | None = None, seed: int = 0, numbers: str | None = PORTABLE
) -> Checkpoint:
    """The checkpoint with a fresh output head, lazily, in the place of any that it has.

    kind     half-swap, shuffle, orthogonal or normal
    std      standard deviation of a normal head; None: the config's initializer_range, else 0.02
    seed     seed of an orthogonal or a normal head
    numbers  the generator of random numbers on record: "portable"; None: that of records from before it
    Raises PlanError where there is no head, or no head of this kind is possible; what `check` raises.
    """
    checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *check(checkpoint)))
    head = _checked(checkpoint, kind, std, seed, numbers)
    tie = checkpoint.architecture.tie
    if tie is None or not checkpoint.has_head:
        raise PlanError(f"--head {kind}: the model has no output head that its embedding could be tied to")
    if tie.refused and checkpoint.is_tied:
        raise PlanError(f"{tie.head} cannot be untied: {tie.refused}")
    name, embedding = checkpoint.on_disk(tie.head), checkpoint.tensors[checkpoint.on_disk(tie.embedding)]
    expected = list(embedding.shape)
    if checkpoint.has(tie.head) and (found := list(checkpoint.tensors[name].shape)) != expected:
        raise PlanError(f"{name} is {found}, and {tie.embedding} {expected}: no head follows from that")
    tensors = dict(checkpoint.tensors)
    for target, source in tie.also.items() if checkpoint.is_tied else ():
        if not checkpoint.has(target):
            tensors[checkpoint.on_disk(target)] = tensors[checkpoint.on_disk(source)]
    tensors[name] = head.of(embedding, tie.head)
    lossy = f"{name} is {head.description}: the logits are not the source's; it is for training from here"
    arguments = {"head": kind, **({"std": head.std} if kind == "normal" else {})}
    arguments |= {"numbers": numbers} if kind in SEEDED and numbers else {}
    step = Step("untie-embeddings", arguments, seed=seed if kind in SEEDED else None, lossy=(lossy,))
    steps, every = (*checkpoint.steps, step), (*checkpoint.lossy, lossy)
    notes, config = (*checkpoint.notes, *head.notes(embedding.shape[-1])), untied_config(checkpoint)
    return replace(checkpoint, config=config, tensors=tensors, steps=steps, lossy=every, notes=notes)


def check_arguments(arguments: Mapping[str, Any], seed: int | None, where: str) -> None:
    """Raise FieldError, with the place, for arguments on record that no untying has."""
    kind = arguments.get("head", "copy")
    if kind not in ("copy", *KINDS):
        refuse(f"{where}.head", f"one of copy, {', '.join(KINDS)}", kind)
    if "std" in arguments and (kind != "normal" or not arguments["std"] > 0):
        refuse(f"{where}.std", "a number above 0 of a normal head", arguments["std"])
    if "numbers" in arguments and (kind not in SEEDED or arguments["numbers"] != PORTABLE):
        refuse(f"{where}.numbers", f"{PORTABLE}, of a random head", arguments["numbers"])
    if seed is not None and kind not in SEEDED:
        refuse(where.replace("arguments", "seed"), f"null, for a head that is {kind}", seed)


def _checked(checkpoint: Checkpoint, kind: str, std: float | None, seed: int, numbers: str | None) -> FreshHead:
    if kind not in KINDS:
        raise PlanError(f"head {kind!r}, expected copy, {', '.join(KINDS)}")
    if std is not None and kind != "normal":
        raise PlanError(f"a deviation is for a normal head; {kind} has the embedding's")
    wanted = configured_deviation(checkpoint.resolved) if std is None else std
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < math.inf:
        raise PlanError(f"std {wanted!r}, expected a number above 0")
    if numbers not in (PORTABLE, None):
        raise PlanError(f"random numbers {numbers!r}, expected {PORTABLE}; written by a later version?")
    return FreshHead(kind, wanted, seed, numbers)
