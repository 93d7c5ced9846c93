"""Output heads of their own for models that are about to be trained: the article's cures for tied embeddings.

A tied head gives the token that was just read the logit |w|^2, which no other comes near: log(e^(d sigma) + n - 1) is
the loss that training starts from, where guessing has log n. With S between the last norm and the head, S[w] and w are
as good as independent, and the loss is that of guessing. S goes into the head's own tensor, S[h] . w = h . S'[w]; the
model's code stays as it is:

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
from modelsurgeon.maps import dimension
from modelsurgeon.operations.transforms.untying import flag_off
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.random.drawn import Drawn
from modelsurgeon.tensors.random.earlier import EarlierDrawn, EarlierRotation
from modelsurgeon.tensors.random.turned import RandomRotation, Turned
from modelsurgeon.tensors.remapped import Remapped

COPY = "copy"
KINDS = ("half-swap", "shuffle", "orthogonal", "normal")
STANDARD = 0.02
SEEDED = ("orthogonal", "normal")  # those that chance decides
PORTABLE = "portable"  # random numbers that are the same on every machine


@dataclass(frozen=True)
class FreshHead:
    """Which head to make.

    kind     one of KINDS
    std      of a normal one: its deviation
    seed     of those that chance decides
    numbers  PORTABLE; None: those of records that name none, the same on one kind of processor (`earlier.py`)
    """

    kind: str
    std: float = 0.0
    seed: int = 0
    numbers: str | None = PORTABLE

    @property
    def says(self) -> str:
        """What it is, behind "the head is"."""
        chance = f"seed {self.seed}" if self.numbers else f"seed {self.seed}, whose last bits follow the processor"
        return {
            "half-swap": "the embedding with the halves of its rows swapped",
            "shuffle": "the embedding with its columns shuffled in groups",
            "orthogonal": f"the embedding turned by a random orthogonal matrix ({chance})",
            "normal": f"new, normal with deviation {self.std:g} ({chance})",
        }[self.kind]

    def notes(self, width: int) -> tuple[str, ...]:
        """What was chosen for rows of this width."""
        if self.kind != "shuffle":
            return ()
        count, kept = groups(width), int(np.sum(shuffle(width) == np.arange(width)))
        return (f"shuffle: {count} groups of {width // count} columns; {kept} of {width} stay in their place",)

    def of(self, embedding: LazyTensor, name: str) -> LazyTensor:
        """The head's tensor, [n, d] like the embedding. Raises PlanError where d does not allow it.

        name  of the tensor: what is random follows from it and the seed
        """
        width, key = embedding.shape[-1], f"{self.seed}/{name}"
        if self.kind == "normal":
            drawn = Drawn if self.numbers else EarlierDrawn
            return drawn(embedding.shape, embedding.dtype, self.std, key)
        if self.kind == "orthogonal":
            return Turned(embedding, (RandomRotation if self.numbers else EarlierRotation)(width, key))
        return _permuted(embedding, half_swap(width) if self.kind == "half-swap" else np.argsort(shuffle(width)))


def configured_deviation(config: Mapping[str, Any]) -> float:
    """The deviation that a config asks matrices to begin with; 0.02, as the library has it, where it names none."""
    named = [config.get(key) for key in ("initializer_range", "init_std")]
    found = [float(value) for value in named if isinstance(value, int | float) and not isinstance(value, bool)]
    return found[0] if found else STANDARD


def half_swap(width: int) -> np.ndarray:
    """[d] int64: S as the coordinate that each one takes. Its own inverse. Raises PlanError for an odd width."""
    if width % 2:
        raise PlanError(f"half-swap: {width} columns have no halves; choose shuffle, orthogonal or normal")
    order: np.ndarray = np.r_[width // 2 : width, 0 : width // 2]
    return order


def groups(width: int) -> int:
    """How many groups `shuffle` makes: the largest divisor of the width not above its root, so none stays long."""
    return max(g for g in range(1, math.isqrt(width) + 1) if width % g == 0)


def shuffle(width: int) -> np.ndarray:
    """[d] int64: S as the coordinate that each one takes. Raises PlanError for a prime width, which has no groups."""
    if groups(width) == 1:
        raise PlanError(f"shuffle: {width} columns cannot be cut into groups; choose orthogonal or normal")
    order: np.ndarray = np.arange(width).reshape(groups(width), -1).T.ravel()
    return order


def _permuted(tensor: LazyTensor, source: np.ndarray) -> LazyTensor:
    """[n, d] whose column j is the tensor's column source[j]: exact."""
    plain = dimension.ungrown(tensor.shape[0])
    return Remapped(tensor, (plain, permutation(source)), tensor.dtype)


def permutation(source: np.ndarray) -> dimension.Dimension:
    """The dimension in which new coordinate j holds old coordinate source[j]."""
    every, ones = np.arange(len(source)), np.ones(len(source))
    return dimension.Dimension(len(source), source, ones, every, ones, source, ones, np.zeros(len(source), dtype=bool))


def with_fresh_head(
    checkpoint: Checkpoint, kind: str, std: float | None = None, seed: int = 0, numbers: str | None = PORTABLE
) -> Checkpoint:
    """The checkpoint with a new output head of its own, lazily, in the place of any that it has.

    kind     half-swap, shuffle, orthogonal or normal
    std      of a normal one; None: the config's initializer_range, else 0.02
    seed     of an orthogonal or a normal one
    numbers  which random ones, as on record: "portable"; None: those of before there were such
    Raises PlanError where there is no head, or none of this kind can be made; what `check` raises.
    """
    checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *check(checkpoint)))
    head = _asked_head(checkpoint, kind, std, seed, numbers)
    tie = checkpoint.architecture.tie
    if tie is None or not checkpoint.has_head:
        raise PlanError(f"--head {kind}: the model has no output head that its embedding could be tied to")
    if tie.refused and checkpoint.is_tied:
        raise PlanError(f"{tie.head} cannot be untied: {tie.refused}")
    name, embedding = checkpoint.on_disk(tie.head), checkpoint.tensors[checkpoint.on_disk(tie.embedding)]
    if checkpoint.has(tie.head) and checkpoint.tensors[name].shape != embedding.shape:
        found, expected = checkpoint.tensors[name].shape, embedding.shape
        raise PlanError(f"{name} is {list(found)}, and {tie.embedding} {list(expected)}: no head follows from that")
    also = {target: source for target, source in tie.also.items() if not checkpoint.has(target)}
    tensors = dict(checkpoint.tensors)
    for target, source in also.items() if checkpoint.is_tied else ():
        tensors[checkpoint.on_disk(target)] = tensors[checkpoint.on_disk(source)]
    tensors[name] = head.of(embedding, tie.head)
    config = {**flag_off(checkpoint.config), "tie_word_embeddings": False}
    if tie.forced:
        config = {**checkpoint.architecture.spelled_out(checkpoint.resolved), **config}
    lossy = f"{name} is {head.says}: the logits are not the source's; it is for training from here"
    arguments = {"head": kind, **({"std": head.std} if kind == "normal" else {})}
    arguments |= {"numbers": numbers} if kind in SEEDED and numbers else {}
    step = Step("untie-embeddings", arguments, seed=seed if kind in SEEDED else None, lossy=(lossy,))
    steps, every = (*checkpoint.steps, step), (*checkpoint.lossy, lossy)
    notes = (*checkpoint.notes, *head.notes(embedding.shape[-1]))
    return replace(checkpoint, config=config, tensors=tensors, steps=steps, lossy=every, notes=notes)


def _asked_head(checkpoint: Checkpoint, kind: str, std: float | None, seed: int, numbers: str | None) -> FreshHead:
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
