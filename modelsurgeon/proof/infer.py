"""Maps of a result without a record, made by another tool: found from the two configs and the tensors themselves.

    >>> inferred = infer(open_checkpoint("small"), open_checkpoint("large"))
    >>> inferred.lines
    ('stream: copies in tiles, writers x1, readers x1/2', ...)
    >>> inferred.proof.summary       # that of prove(inferred.source, inferred.result, inferred.steps)
    'exact'

Axis by axis, each candidate map (`candidates.py`) is tried on a few fold groups of one layer's tensors, first on those
whose other axes are known. The proof then folds every number of the result by these maps: a wrong guess can make a
proof fail, and can never make one succeed. If no candidate fits, the one that the fewest tensors contradict is taken,
and the proof by it names the first number that is wrong.

If that proof fails, the layers, experts and heads of the result may each be in an order of their own. Then each is
matched with the source's and reordered (`alignment.py`), and the same search is made once more on the reordered result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.places.alignment import Alignment
from modelsurgeon.proof.proof import Proof, demanded, paired, prove
from modelsurgeon.proof.reading import Reading

TWICE = 2  # growths of which each rounds once


@dataclass(frozen=True)
class Inferred:
    """What was inferred, and the proof by it.

    steps      for `prove`: untying, inserted layers, widths
    lines      on each axis, for people
    result     the result, its places reordered so that the steps lead to it
    reordered  the axes whose coordinates are in an order of their own in some places
    proof      of `result` by `steps`; None where there is nothing to try
    """

    steps: tuple[Step, ...]
    lines: tuple[str, ...]
    result: Checkpoint
    reordered: tuple[str, ...] = ()
    proof: Proof | None = None

    @property
    def fits(self) -> bool:
        """Whether the maps are proven; else they are the nearest ones."""
        return self.proof is not None and self.proof.summary != "wrong"

    @property
    def maps(self) -> dict[str, AxisMap]:
        """{axis: map} of the axes whose coordinates are in the same places in every layer of the result itself."""
        return {axis: one for axis, one in composed_maps(self.steps).items() if axis not in self.reordered}

    @property
    def nearest(self) -> str:
        """Where the nearest maps fail: a tensor and what is wrong there; empty where they fit."""
        if self.proof is None:
            return "; ".join(self.lines)
        return next((f"{wrong.name}: {wrong.detail}" for wrong in self.proof.wrong), "")

    def to_json(self) -> dict[str, Any]:
        """Its part of a report."""
        steps = [step.to_json() for step in self.steps]
        return {"lines": list(self.lines), "steps": steps, "fits": self.fits, "reordered": list(self.reordered)}


def infer(source: Checkpoint, result: Checkpoint, *, tell: Tell = silent) -> Inferred:
    """How the source may have become the result, and whether it did (`Inferred.proof`).

    Raises as `check` where the source does not fit its table, SourceError where the result's config has a size that is
    no positive integer.
    """
    check(source)
    before, after = (checkpoint.config.get("model_type") for checkpoint in (source, result))
    if before != after:
        return Inferred((), (f"model_type {after!r} is not {before!r}: nothing to try",), result)
    base, steps, lines = source, list[Step](), list[str]()
    for operation in catalogue.all_operations().values():
        guess = operation.guess(base, result)
        base, steps, lines = guess.checkpoint, [*steps, *filter(None, [guess.step])], [*lines, *guess.lines]
    pairs = paired(base, result)
    reading = Reading(base, result, frozenset(demanded(tuple(steps), base, result, pairs)))
    found = _proven(source, reading, steps, lines, tell)
    if found.fits or not _may_align(reading, pairs):
        return found
    tries = [found, _aligned(source, reading, steps, lines, pairs, 1, tell)]
    if not tries[-1].fits and _may_be_two(reading):
        twice = Reading(base, result, reading.new, roundings=TWICE)
        tries.append(_proven(source, twice, steps, lines, tell))
        if not tries[-1].fits:
            tries.append(_aligned(source, reading, steps, lines, pairs, TWICE, tell))
    return min(tries, key=_failures)


def _aligned(
    source: Checkpoint,
    reading: Reading,
    steps: list[Step],
    lines: list[str],
    pairs: dict[str, str],
    roundings: int,
    tell: Tell,
) -> Inferred:
    """What is found after each place of the result is reordered."""
    base, result = reading.base, reading.result
    alignment = Alignment(base, result, reading.growth, pairs, reading.new)
    Reading(base, result, reading.new, alignment=alignment, aligns=True, roundings=roundings).maps(tell)
    again = Reading(base, alignment.aligned, reading.new, alignment=alignment, roundings=roundings)
    return _proven(source, again, steps, lines, tell)


def _proven(source: Checkpoint, reading: Reading, steps: list[Step], lines: list[str], tell: Tell) -> Inferred:
    """The maps that a reading finds, and the proof by them."""
    grown = {axis: axis_map for axis, axis_map in reading.maps(tell).items() if not axis_map.is_identity}
    step = [Step(catalogue.that_grows().name, {"inferred": True}, maps=grown)] if grown else []
    found = reading.alignment.found if reading.alignment else {}
    reordered = tuple(axis for axis, settled in found.items() if settled.moved)
    said = (*lines, *reading.lines) or ("every axis as it was",)
    every = (*steps, *step)
    if reading.roundings > 1:
        said = (*said, "numbers as two growths round them, one after the other")
    own = reading.alignment.own if reading.alignment else {}
    chosen = tuple(dict.fromkeys(axis for maps in own.values() for axis in maps))
    said = (*said, *(f"{axis}: in each layer other coordinates are copied" for axis in chosen))
    proof = prove(source, reading.result, every, tell=tell, roundings=reading.roundings, own=own)
    return Inferred(every, said, reading.result, reordered + chosen, proof)


def _may_align(reading: Reading, pairs: Mapping[str, str]) -> bool:
    """Whether orders can be looked for: the tensors of both are those of their configs, and sizes as before or grown.

    pairs  {name of a tensor: the result's name for it}
    """
    growth, base, result = reading.growth, reading.base, reading.result
    table, wide = base.architecture, result.sizes
    sizes = ((table.axes[axis], size, growth.targets[axis]) for axis, size in growth.sizes.items())
    if not all(target >= size if axis.grows else target == size for axis, size, target in sizes):
        return False
    alone = (base.tensors.keys() - pairs.keys()) | (result.tensors.keys() - set(pairs.values()))
    named = {table.canonical(name) for name in alone if not table.is_recomputed(name)}
    if not named <= ({table.tie.head} if table.tie else set()):
        return False
    templates = ((table.template(name), result.tensors[found]) for name, found in pairs.items())
    return all(one is None or one.signature.shape(wide) == tensor.shape for one, tensor in templates)


def _may_be_two(reading: Reading) -> bool:
    """Whether two growths, one after the other, may have made the result, each of which rounded once."""
    sizes, targets = reading.growth.sizes, reading.growth.targets
    times = [targets[axis] // size for axis, size in sizes.items() if targets[axis] % size == 0]
    composite = any(time % k == 0 for time in times for k in range(2, time))
    return composite and reading.result.dtype in ("F32", "F64")


def _failures(inferred: Inferred) -> int:
    return len(inferred.proof.wrong) if inferred.proof else 0
