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

import itertools
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from modelsurgeon.architectures.architecture import Template
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth, written_by_embedding
from modelsurgeon.growth.kinds.kind import Maps, kind_of
from modelsurgeon.growth.remap import GrownTensors, Storage
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.candidates import Candidate, candidates, keeps_places, sampled
from modelsurgeon.proof.fold import fold
from modelsurgeon.proof.places.aligning import align
from modelsurgeon.proof.places.alignment import Alignment
from modelsurgeon.proof.proof import Proof, demanded, factor_eps, paired, prove
from modelsurgeon.tensors.lazy import LazyTensor

SAMPLES = (4, 64)  # fold groups of a tensor that a candidate is tried on: most wrong ones fail on a few
TWICE = 2  # growths of which each rounds once
COMBINATIONS = 64  # candidates of other axes, not decided yet, that a tensor is tried with


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
    if found.fits or not _may_align(reading):
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


def _may_align(reading: Reading) -> bool:
    """Whether orders can be looked for: no tensor is missing, and sizes are those of the config, as before or grown."""
    growth, table, result = reading.growth, reading.base.architecture, reading.result
    sizes = ((table.axes[axis], size, growth.targets[axis]) for axis, size in growth.sizes.items())
    if not all(target >= size if axis.grows else target == size for axis, size, target in sizes):
        return False
    if not reading.base.templates ^ result.templates <= ({table.tie.head} if table.tie else frozenset()):
        return False
    found = ((result.architecture.template(name), tensor) for name, tensor in result.tensors.items())
    return all(one is None or one.signature.shape(result.sizes) == tensor.shape for one, tensor in found)


def _may_be_two(reading: Reading) -> bool:
    """Whether two growths, one after the other, may have made the result, each of which rounded once."""
    sizes, targets = reading.growth.sizes, reading.growth.targets
    times = [targets[axis] // size for axis, size in sizes.items() if targets[axis] % size == 0]
    composite = any(time % k == 0 for time in times for k in range(2, time))
    return composite and reading.result.dtype in ("F32", "F64")


def _failures(inferred: Inferred) -> int:
    return len(inferred.proof.wrong) if inferred.proof else 0


class Witness(NamedTuple):
    """A tensor of the source and the result's: for each template, those of the first layer and expert that have it."""

    template: Template
    name: str
    before: LazyTensor
    after: LazyTensor


@dataclass
class Reading:
    """Finds the maps of all axes from one layer's tensors.

    base   the source, untied and deepened as the result is
    new    names of tensors in `base` that show nothing: they are of new layers
    lines  the finding on each axis that changes
    alignment  what is known of orders that places have for themselves; None: nothing
    aligns     whether to reorder the result by it, axis by axis, before each is decided
    roundings  how often each number may have been rounded
    """

    base: Checkpoint
    result: Checkpoint
    new: frozenset[str]
    lines: list[str] = field(default_factory=list)
    alignment: Alignment | None = None
    aligns: bool = False
    roundings: int = 1
    _tried: dict[tuple[str, tuple[int, ...]], bool] = field(default_factory=dict)
    _offered: dict[tuple[str, tuple[int, ...]], list[Candidate]] = field(default_factory=dict)

    @cached_property
    def growth(self) -> Growth:
        """The growth from the base's config to the result's. Raises SourceError where a size is no positive integer."""
        table, config = self.base.architecture, self.result.resolved
        table.sizes(config)  # its error names the file; that of a plan does not
        return Growth(table, self.base.resolved, config, "exact", tied=self.base.is_tied and self.base.has_head)

    @cached_property
    def witnesses(self) -> list[Witness]:
        """One for each template, in the table's order."""
        table = self.base.architecture
        result = self.alignment.aligned if self.alignment and self.aligns else self.result
        results = {table.canonical(name): tensor for name, tensor in result.tensors.items()}
        by_template: dict[str, Witness] = {}
        for name in sorted(self.base.tensors, key=lambda name: (len(name), name)):
            template = None if table.is_recomputed(name) or name in self.new else table.template(name)
            after = results.get(table.canonical(name))
            if template and after:
                by_template.setdefault(template.name, Witness(template, name, self.base.tensors[name], after))
        return [by_template[t.name] for t in table.templates if t.name in by_template]

    def maps(self, tell: Tell) -> dict[str, AxisMap]:
        """The best map of every axis. First are axes that some tensor has beside decided ones only."""
        maps: dict[str, AxisMap] = {}
        left = self._order()
        total = len(left)
        while left:
            tell("maps", total - len(left), total)
            undecided = [{*witness.template.signature.axes} & {*left} for witness in self.witnesses]
            ready = [axis for axis in left if self._needs(axis) not in left and {axis} in undecided]
            name = self._next(left, ready) if self.aligns else (ready or left)[0]
            left.remove(name)
            if self.aligns:
                self._align(name, maps)
            maps[name] = self._decide(name, maps)
        tell("maps", total, total)
        return maps

    def _order(self) -> list[str]:
        """Axes as the table's tensors name them, each after the axis that it follows, that of a tied head last."""
        table = self.base.architecture
        named = [axis for witness in self.witnesses for axis in witness.template.signature.axes]
        first = {axis: named.index(axis) if axis in named else len(named) for axis in table.axes}

        def turn(name: str) -> tuple[bool, int, int]:
            chain = [name]
            while leader := table.axes[chain[-1]].follows:
                chain.append(leader)
            return self.growth.reads_tied(name), max(first[axis] for axis in chain), len(chain)

        return sorted(table.axes, key=turn)

    def _next(self, left: list[str], ready: list[str]) -> str:
        """The axis to align next: experts before what is in them, heads after the rest, what is in heads last."""
        kinds = {name: kind_of(self.base.architecture.axes[name]) for name in left}
        outside = [name for name in left if not kinds[name].in_heads]
        plain = [name for name in outside if not kinds[name].is_head]
        first = [name for name in ready if kinds[name].is_expert] + [name for name in ready if name in plain]
        return (first or plain or outside or ready or left)[0]

    def _align(self, name: str, maps: Maps) -> None:
        """Reorder the places of an axis, and look at the tensors anew."""
        assert self.alignment
        standard = [c.axis_map.source for c in candidates(self.growth, name, maps) if c.order != "cut short"]
        align(self.alignment, name, maps, standard)
        self._offered = {key: offered for key, offered in self._offered.items() if key[0] != name}
        settled = self.alignment.found.get(name)
        if settled and settled.moved:
            self.__dict__.pop("witnesses", None)
            self._tried.clear()

    def _decide(self, name: str, maps: Maps) -> AxisMap:
        offered = self._offer(name, maps)
        moved = self._moved(name)
        if len(offered) == 1 and offered[0].axis_map.is_identity:
            size, target = self.growth.sizes[name], self.growth.targets[name]
            self.lines += [f"{name}: no map makes {target} of {size}"] if size != target else []
            self.lines += [f"{name}: {moved}"] if moved else []
            return offered[0].axis_map
        tried = {candidate: {**maps, name: candidate.axis_map} for candidate in offered}
        led = {name, *(axis for axis, one in self.base.architecture.axes.items() if one.follows == name)}
        about = [witness for witness in self.witnesses if led & {*witness.template.signature.axes}]
        direct = [witness for witness in about if not self._unknown(witness.template, {*maps, name})]
        short = [c for c in offered if all(self._fits(witness, tried[c]) for witness in direct)] or offered
        votes = [sum(self._may_fit(witness, tried[c]) for witness in about) if len(short) > 1 else 0 for c in short]
        best = short[votes.index(max(votes))]
        against = [witness for witness in about if not self._may_fit(witness, tried[best])]
        if against or moved or not best.axis_map.is_identity:
            description = f"{moved}, then {best.description.removeprefix('then ')}" if moved else best.description
            line = f"{name}: {description} ({best.axis_map.size} -> {best.axis_map.new_size})"
            if against and not self.aligns:  # then axes that are not aligned yet contradict it
                line += f"; contradicted by {len(against)} of {len(about)} kinds of tensors, first {against[0].name}"
                line += self._counter_example(against[0], tried[best])
                line += f"; tried: {', '.join(dict.fromkeys(candidate.order for candidate in offered))}"
            self.lines.append(line)
        return best.axis_map

    def _moved(self, name: str) -> str:
        """In words, how the places of an axis were reordered."""
        settled = self.alignment.found.get(name) if self.alignment else None
        return settled.says if settled else ""

    def _counter_example(self, witness: Witness, maps: Maps) -> str:
        if self._unknown(witness.template, maps):
            return ""
        try:
            return f" {fold(witness.name, self._expected(witness, maps), witness.after).detail}"
        except PlanError as error:
            return f" ({error})"

    def _unknown(self, template: Template, known: Container[str]) -> list[str]:
        """The axes of a tensor, and those that they need, that are not decided; leaders first."""
        unknown: dict[str, None] = {}
        for axis in template.signature.axes:
            chain = [axis]
            while (needed := self._needs(chain[-1])) and needed not in chain:
                chain.append(needed)
            unknown |= dict.fromkeys(name for name in reversed(chain) if name not in known)
        return list(unknown)

    def _offer(self, name: str, maps: Maps) -> list[Candidate]:
        """The candidates of an axis, computed once for the same maps of those axes that they depend on."""
        related = {self._needs(name)}
        for _, signature in self.base.architecture.norms:
            joined = {*signature.gains, *(signature.normalises.axes() if signature.normalises else ())}
            related |= joined if name in joined else set()
        key = name, tuple(id(maps.get(axis)) for axis in sorted(filter(None, related - {name})))
        if key not in self._offered:
            settled = self.alignment.found.get(name) if self.alignment else None
            offered = candidates(self.growth, name, maps, settled.order if settled else None)
            target = [c for c in offered if settled and np.array_equal(c.axis_map.source, settled.target)]
            self._offered[key] = target or offered
        return self._offered[key]

    def _needs(self, name: str) -> str | None:
        """The axis that this one's candidates follow from: its leader, or the axis that a tied embedding writes."""
        table = self.base.architecture
        needed = written_by_embedding(table) if self.growth.reads_tied(name) else table.axes[name].follows
        return needed if needed != name else None

    def _may_fit(self, witness: Witness, maps: Maps) -> bool:
        """Whether a tensor agrees with these maps and some candidates of the axes that are not decided."""
        every = self._assigned(self._unknown(witness.template, maps), maps)
        return any(self._fits(witness, assigned) for assigned in itertools.islice(every, COMBINATIONS))

    def _assigned(self, unknown: Sequence[str], maps: Maps) -> Iterator[Maps]:
        if not unknown:
            yield maps
            return
        for candidate in self._offer(unknown[0], maps):
            yield from self._assigned(unknown[1:], {**maps, unknown[0]: candidate.axis_map})

    def _fits(self, witness: Witness, maps: Maps) -> bool:
        """Whether some fold groups of a tensor fold to the source's."""
        key = witness.name, tuple(id(maps[axis]) for axis in witness.template.signature.axes)
        if key not in self._tried:
            try:
                expected = self._expected(witness, maps)
            except PlanError:
                return self._tried.setdefault(key, False)
            eps, fits = factor_eps(expected, witness.after, self.roundings), expected.shape == witness.after.shape
            samples = (sampled(expected, witness.after, count) for count in SAMPLES)
            self._tried[key] = fits and all(fold(witness.name, *pair, eps).verdict != "wrong" for pair in samples)
        return self._tried[key]

    def _expected(self, witness: Witness, maps: Maps) -> LazyTensor:
        if not keeps_places(witness.template.signature, maps):
            raise PlanError("a norm leaves every coordinate in its place")
        maps = {**maps, **self._own(witness)}
        return self._growing.remapped(witness.template, witness.before, witness.template.signature.grow(maps))

    def _own(self, witness: Witness) -> Maps:
        """The maps that a tensor's layer has for itself."""
        alignment = self.alignment
        return alignment.own.get(alignment.paired.get(witness.name, ""), {}) if alignment else {}

    @cached_property
    def _growing(self) -> GrownTensors:
        growing = GrownTensors(self.base, {}, Storage())
        growing.targets = self.growth.targets
        return growing
