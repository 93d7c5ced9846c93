"""Level 3 of verification: will training make the copies differ? One backward pass shows it.

    >>> examine(open_checkpoint("demo-x2"), composed_maps(steps)).axes[1].says
    '1408 of 1408 pairs of MLP neurons will stay copies for ever: equal weights get equal gradients'

Two copies whose weights are equal and whose gradients are equal are interchangeable: the model is the same with both
swapped, so every later gradient is equal, too, and no optimiser parts them (dropout does, by its own noise). Copies
whose shares differ are parallel at first, weights and gradients; they part, since a step does not keep proportions.

A matrix of copies is no richer than the one that it was grown from: its gradient has the old rank, while it could have
more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture
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
from modelsurgeon.verification.copies import ComparedCopies, Values, compare
from modelsurgeon.verification.ranks import MatrixRank, chosen, ranks


@dataclass(frozen=True)
class Cosines:
    """The least, the mean and the largest of some cosines."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class CopiedAxis:
    """What one axis' copies will do.

    axis           its name; of axes that norms join, all of them: "stream, hidden, final"
    through        what it passes through, as in the tables
    size           before; new_size after
    pairs          how many pairs of copies were compared, over all places (layers, heads, experts) that have their own
    cosine         of their gradients; None where nothing was compared, or no gradient came
    weight_cosine  of their weights
    stuck          how many pairs will stay copies
    slow           how many are parallel and differ in their shares alone
    dead           how many new coordinates, over all places, get no gradient
    says           the finding as a sentence
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
    """What one backward pass shows.

    loss     what was differentiated: nats a token, or what `notes` say
    seconds  wall time
    """

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
    result: Checkpoint,
    maps: Mapping[str, AxisMap],
    options: RunOptions = RunOptions(),
    tell: Tell = silent,
) -> Trainability:
    """Differentiate the loss once, dropout off, and compare the copies that `maps` made.

    maps  {axis: map} from the source, as `composed_maps` gives them
    tell  is called for batches, then for axes, then for ranks
    It computes in float64 where that is asked for, else in float32, and all weights must fit in memory.
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
        every = [*notes, *inputs.notes, *passed.notes, *dropouts(model)]
        axes, found = measure(model, result, maps, passed.positions, every, tell)
    return Trainability(passed.loss, axes, found, tuple(dict.fromkeys(every)), time.perf_counter() - begin)


def measure(
    model: Any, result: Checkpoint, maps: Mapping[str, AxisMap], positions: int, notes: list[str], tell: Tell = silent
) -> tuple[tuple[CopiedAxis, ...], tuple[MatrixRank, ...]]:
    """Compare the copies in a model of this checkpoint's shape that has gradients.

    positions  of the batch that they are of; 0 where they are not known
    notes      gets what was left out
    Raises ModelSurgeonError where a gradient is no number: nothing follows from it.
    """
    parameters = dict(model.named_parameters())
    values = {n: (weight.detach(), weight.grad) for n, weight in parameters.items() if weight.grad is not None}
    for name, (_, gradient) in values.items():
        if not bool(gradient.isfinite().all()):
            raise ModelSurgeonError(f"{name}: its gradient holds NaN or infinities; expected numbers in every weight")
    notes += _without(name for name, weight in parameters.items() if weight.requires_grad and weight.grad is None)
    table = find(result.config["model_type"]).fitted(result.resolved, parameters)  # modules may name them otherwise
    axes = _axes(table, result.sizes, maps, values, notes, tell)
    return axes, ranks(chosen(table, result.sizes, maps, values, notes), values, positions, tell)


def _without(names: Iterable[str]) -> list[str]:
    first, *others = [*names, ""]
    further = f", nor have {len(others) - 1} more" if len(others) > 1 else ""
    return [f"no gradient: {first!r} has no part in the loss{further}"] if first else []


def _axes(
    table: Architecture,
    sizes: Mapping[str, int],
    maps: Mapping[str, AxisMap],
    values: Values,
    notes: list[str],
    tell: Tell,
) -> tuple[CopiedAxis, ...]:
    grown, found = grown_axes(table, maps), []
    for done, axis in enumerate(grown):
        tell("copies", done, len(grown))
        compared = compare(axis, table, sizes, values)
        if compared is None:
            continue
        found.append(_told(axis, compared))
        if len(axis.pairs[0]) < len(axis.all_pairs[0]):
            notes.append(
                f"{', '.join(axis.names)}: {len(axis.pairs[0])} of {len(axis.all_pairs[0])} pairs of each place were "
                "compared, evenly drawn"
            )
    tell("copies", len(grown), len(grown))
    return tuple(found)


def _told(axis: GrownAxis, compared: ComparedCopies) -> CopiedAxis:
    name = axis.names[0]
    noun = axis.kind.noun(name)
    stuck, slow = int(compared.stuck.sum()), int(compared.parallel.sum())
    return CopiedAxis(
        ", ".join(axis.names),
        axis.kind.word,
        axis.size,
        axis.new_size,
        len(compared.stuck),
        _spread(compared.cosine),
        _spread(compared.weight_cosine),
        stuck,
        slow,
        compared.dead,
        sentence(noun, len(compared.stuck), stuck, slow, compared.dead),
    )


def _spread(cosines: np.ndarray) -> Cosines | None:
    kept = cosines[~np.isnan(cosines)]
    return Cosines(float(kept.min()), float(kept.mean()), float(kept.max())) if len(kept) else None


def sentence(noun: str, pairs: int, stuck: int, slow: int, dead: int) -> str:
    """What a user should know before training begins."""
    said = []
    if stuck:
        said.append(
            f"{stuck} of {pairs} pairs of {noun} will stay copies for ever: equal weights get equal gradients"
            + (f"; the other {pairs - stuck} will part" if stuck < pairs else "")
        )
    elif pairs:
        said.append(f"all {pairs} pairs of {noun} will part")
    if slow:
        said.append(f"{slow} of them slowly, since only their shares differ")
    if dead:
        said.append(f"{dead} new {noun} get no gradient: neither what writes them nor what reads them will ever change")
    return "; ".join(said) or f"the new {noun} get gradients"
