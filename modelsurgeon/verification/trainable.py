"""Level 3 of verification: will training make the copies differ? One backward pass shows it.

    >>> examine(open_checkpoint("demo-x2"), composed_maps(steps)).axes[1].says
    '1408 of 1408 pairs of MLP neurons will stay copies for ever: equal weights get equal gradients'

Two copies with equal weights and equal gradients are interchangeable: the model is the same with both swapped, so every
later gradient is equal, too, and no optimiser makes them differ (dropout does, by its own noise). Copies whose shares
differ begin with parallel weights and gradients, and drift apart, since a step does not keep proportions.

A matrix of copies is no richer than the one that it was grown from: its gradient has the old rank, and could have more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelsurgeon.architectures.registry import find
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.coordinates import GrownAxis, grown_axes
from modelsurgeon.running.batches import make_inputs
from modelsurgeon.running.gradients import differentiate, dropouts
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reference import is_offloaded, loaded, quiet, saved_folder
from modelsurgeon.text import printable
from modelsurgeon.verification.copies import ComparedCopies, compare
from modelsurgeon.verification.ranks import MatrixRank, chosen, ranks


@dataclass(frozen=True)
class Cosines:
    """The least, the mean and the largest of some cosines."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class CopiedAxis:
    """What training will do to the copies of one axis, over all places (layers, heads, experts) that have their own.

    axis                   its name; for axes that norms join, all names: "stream, hidden, final"
    through                its kind, in the tables' word
    size, new_size         before and after it grew
    pairs                  how many pairs of copies were compared
    cosine, weight_cosine  of their gradients and weights; None where there are none
    stuck                  how many pairs will stay copies
    slow                   how many are parallel and differ in their shares alone
    dead                   how many new coordinates get no gradient
    says                   the finding as a sentence
    """

    axis: str
    through: str
    size: int
    new_size: int
    pairs: int
    cosine: Cosines | None
    weight_cosine: Cosines | None
    stuck: int
    slow: int
    dead: int
    says: str


@dataclass(frozen=True)
class Trainability:
    """The findings of one backward pass; `loss` is in nats a token, or as `notes` say."""

    loss: float
    axes: tuple[CopiedAxis, ...]
    ranks: tuple[MatrixRank, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def trainable(self) -> bool:
        """Whether no pair of copies is stuck, and no new coordinate dead."""
        return not any(axis.stuck or axis.dead for axis in self.axes)

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict."""
        return {**printable(self), "trainable": self.trainable}


def examine(
    result: Checkpoint, maps: Mapping[str, AxisMap], options: RunOptions = RunOptions(), tell: Tell = silent
) -> Trainability:
    """Differentiate the loss once, with dropout off, and compare the copies that `maps` made.

    maps  {axis: map} from the source, as `composed_maps` returns them
    It computes in float64 if the options ask for it, else in float32, and all weights must fit in memory.
    Raises SourceError where `transformers` cannot load the checkpoint whole, ModelSurgeonError for a plan, for weights
    that do not fit in memory, and where a gradient is no number.
    """
    begin, folder = time.perf_counter(), saved_folder(result)
    dtype = "float64" if options.dtype == "float64" else "float32"
    with quiet(), loaded(result, folder, replace(options, dtype=dtype, memory=None)) as (model, notes):
        if is_offloaded(model):
            raise ModelSurgeonError(f"{result.origin.id}: gradients need all weights in memory, and they do not fit")
        inputs = make_inputs(model, folder, options)
        passed = differentiate(model, inputs.batches, result.architecture, maps, options.seed, tell)
        remarks = [*notes, *inputs.notes, *passed.notes, *dropouts(model)]
        axes, matrices = measure(model, result, maps, passed.positions, remarks, tell)
    return Trainability(passed.loss, axes, matrices, tuple(dict.fromkeys(remarks)), time.perf_counter() - begin)


def measure(
    model: Any, result: Checkpoint, maps: Mapping[str, AxisMap], positions: int, notes: list[str], tell: Tell = silent
) -> tuple[tuple[CopiedAxis, ...], tuple[MatrixRank, ...]]:
    """Compare the copies in a model that has gradients and the checkpoint's shape.

    positions  how many the batch of the gradients has; 0 if unknown
    notes      gets what was left out
    Raises ModelSurgeonError where a gradient is no number.
    """
    parameters = dict(model.named_parameters())
    values = {n: (weight.detach(), weight.grad) for n, weight in parameters.items() if weight.grad is not None}
    for name, (_, gradient) in values.items():
        if not bool(gradient.isfinite().all()):
            raise ModelSurgeonError(f"{name}: its gradient holds NaN or infinities; expected numbers in every weight")
    without = [name for name, weight in parameters.items() if weight.requires_grad and weight.grad is None]
    more = f", nor have {len(without) - 1} more" if len(without) > 1 else ""
    notes += [f"no gradient: {name!r} has no part in the loss{more}" for name in without[:1]]
    table = find(result.config["model_type"]).fitted(result.resolved, parameters)  # modules may name them otherwise
    grown, axes = grown_axes(table, maps), []
    for done, axis in enumerate(grown):
        tell("copies", done, len(grown))
        if compared := compare(axis, table, result.sizes, values):
            axes.append(_finding(axis, compared))
            drawn, pairs = len(axis.pairs[0]), len(axis.all_pairs[0])
            note = f"{', '.join(axis.names)}: {drawn} of {pairs} pairs of each place were compared, evenly drawn"
            notes += [note] if drawn < pairs else []
    tell("copies", len(grown), len(grown))
    return tuple(axes), ranks(chosen(table, result.sizes, maps, values, notes), values, positions, tell)


def _finding(axis: GrownAxis, compared: ComparedCopies) -> CopiedAxis:
    pairs, stuck, slow = len(compared.stuck), int(compared.stuck.sum()), int(compared.parallel.sum())
    says = _sentence(axis.kind.noun(axis.names[0]), pairs, stuck, slow, compared.dead)
    cosine, weight_cosine = _spread(compared.cosine), _spread(compared.weight_cosine)
    names, sizes, counts = ", ".join(axis.names), (axis.size, axis.new_size), (stuck, slow, compared.dead)
    return CopiedAxis(names, axis.kind.word, *sizes, pairs, cosine, weight_cosine, *counts, says)


def _spread(cosines: np.ndarray) -> Cosines | None:
    numbers = cosines[~np.isnan(cosines)]
    return Cosines(float(numbers.min()), float(numbers.mean()), float(numbers.max())) if len(numbers) else None


def _sentence(noun: str, pairs: int, stuck: int, slow: int, dead: int) -> str:
    """What a user should know before training begins."""
    clauses = [f"all {pairs} pairs of {noun} will part"] if pairs and not stuck else []
    if stuck:
        clauses.append(
            f"{stuck} of {pairs} pairs of {noun} will stay copies for ever: equal weights get equal gradients"
        )
    if 0 < stuck < pairs:
        clauses.append(f"the other {pairs - stuck} will part")
    if slow:
        clauses.append(f"{slow} of them slowly, since only their shares differ")
    if dead:
        clauses.append(
            f"{dead} new {noun} get no gradient: neither what writes them nor what reads them will ever change"
        )
    return "; ".join(clauses) or f"the new {noun} get gradients"
