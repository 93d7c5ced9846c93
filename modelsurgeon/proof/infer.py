"""Maps of a result that carries no record, made by another tool: found from the two configs and the tensors themselves.

    >>> inferred = infer(open_checkpoint("small"), open_checkpoint("large"))
    >>> inferred.lines
    ('stream: copies in tiles, writers x1, readers x1/2', ...)
    >>> prove(source, result, inferred.steps).summary
    'exact'

Axis by axis: each candidate map (`candidates.py`) is tried on tensors of one layer, a few fold groups of each, those
first whose other axes are known. Nothing here is the proof: that folds every number of the result by what was found. So
a wrong guess can cost a proof, and can never make one. Where no candidate fits, the one that the fewest tensors
contradict is kept, and the proof by it names the first number that is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modelsurgeon.architectures.architecture import Template
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.remap import GrownTensors, Storage
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations import catalogue
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.candidates import Candidate, Candidates, keeps_places
from modelsurgeon.proof.fold import fold
from modelsurgeon.proof.proof import demanded, factor_eps, paired
from modelsurgeon.proof.samples import sampled
from modelsurgeon.tensors.lazy import LazyTensor

SAMPLES = (4, 64)  # fold groups of a tensor that a candidate is tried on: most wrong ones fail on a few
COMBINATIONS = 64  # of what is not known yet, that a tensor is tried with


@dataclass(frozen=True)
class Inferred:
    """What was found.

    steps  for `prove`: untying, inserted layers, widths, those of them that there are
    lines  how each axis was read, for people
    """

    steps: tuple[Step, ...]
    lines: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"lines": list(self.lines), "steps": [step.to_json() for step in self.steps]}


def infer(source: Checkpoint, result: Checkpoint, *, tell: Tell = silent) -> Inferred:
    """How the result may have been made of the source; `prove` says whether it was.

    Raises what `check` raises where the source does not fit its table, SourceError where a size of the result's config
    is none.
    """
    check(source)
    kinds = source.config.get("model_type"), result.config.get("model_type")
    if kinds[0] != kinds[1]:
        return Inferred((), (f"model_type {kinds[1]!r} is not {kinds[0]!r}: nothing to try",))
    base, steps, lines = source, list[Step](), list[str]()
    for operation in catalogue.all_operations().values():
        found = operation.guess(base, result)
        base, steps, lines = found.checkpoint, [*steps, *([found.step] if found.step else [])], [*lines, *found.lines]
    reading = Reading(base, result, frozenset(demanded(tuple(steps), base, result, paired(base, result))))
    maps = reading.maps(tell)
    grown = {axis: axis_map for axis, axis_map in maps.items() if not axis_map.is_identity}
    grew = [Step(catalogue.that_grows().name, {"inferred": True}, maps=grown)] if grown else []
    return Inferred((*steps, *grew), (*lines, *reading.lines) or ("every axis as it was",))


@dataclass
class Reading:
    """The maps of all axes, read off one layer's tensors.

    base   the source, untied and deepened as the result is
    new    names of tensors in `base` that tell nothing: they are of new layers
    lines  how each axis that changes was read
    """

    base: Checkpoint
    result: Checkpoint
    new: frozenset[str]
    lines: list[str] = field(default_factory=list)
    _tried: dict[tuple[str, tuple[int, ...]], bool] = field(default_factory=dict)
    _offered: dict[tuple[str, tuple[int, ...]], list[Candidate]] = field(default_factory=dict)

    @cached_property
    def candidates(self) -> Candidates:
        table, tied = self.base.architecture, self.base.is_tied and self.base.has_head
        return Candidates(table, self.base.resolved, self.result.resolved, tied)

    @cached_property
    def witnesses(self) -> dict[str, tuple[Template, str, LazyTensor, LazyTensor]]:
        """{template: (itself, a name, the source's tensor, the result's)}: of each the tensor of the lowest numbers."""
        table = self.base.architecture
        held = {table.canonical(name): tensor for name, tensor in self.result.tensors.items()}
        found: dict[str, tuple[Template, str, LazyTensor, LazyTensor]] = {}
        for name in sorted(self.base.tensors, key=lambda name: (len(name), name)):
            template = None if table.is_recomputed(name) or name in self.new else table.template(name)
            other = held.get(table.canonical(name))
            if template and other and template.name not in found:
                found[template.name] = template, name, self.base.tensors[name], other
        return {t.name: found[t.name] for t in table.templates if t.name in found}

    def maps(self, tell: Tell) -> dict[str, AxisMap]:
        """The map of every axis, the best that there is."""
        maps: dict[str, AxisMap] = {}
        left = self._order()
        total = len(left)
        while left:
            tell("maps", total - len(left), total)
            name = next((axis for axis in left if self._is_told(axis, left)), left[0])
            left.remove(name)
            maps[name] = self._decide(name, maps)
        tell("maps", total, total)
        return maps

    def _is_told(self, name: str, left: Sequence[str]) -> bool:
        """Whether some tensor has this axis and no other that is left, and what it follows is decided."""
        known = [template.signature.axes for template, *_ in self.witnesses.values()]
        ready = not {*self._needs(name)} & {*left}
        return ready and any(name in axes and {*axes} & {*left} == {name} for axes in known)

    def _order(self) -> list[str]:
        """Axes as the table's tensors name them, each behind what it follows, that of a tied head last."""
        table = self.base.architecture
        named = [axis for template, *_ in self.witnesses.values() for axis in template.signature.axes]
        first = {axis: named.index(axis) if axis in named else len(named) for axis in table.axes}
        tie = table.tie.axis if table.tie and self.candidates.tied else None

        def turn(name: str) -> tuple[bool, int, int]:
            leader, behind = table.axes[name].follows, 0
            place = first[name]
            while leader:
                place, behind, leader = max(place, first[leader]), behind + 1, table.axes[leader].follows
            return name == tie, place, behind

        return sorted(table.axes, key=turn)

    def _decide(self, name: str, maps: Mapping[str, AxisMap]) -> AxisMap:
        offered = self._offer(name, maps)
        if len(offered) == 1 and offered[0].axis_map.is_identity:
            size, target = self.candidates.sizes[name], self.candidates.targets[name]
            self.lines += [f"{name}: no map makes {target} of {size}"] if size != target else []
            return offered[0].axis_map
        about = [t for t, *_ in self.witnesses.values() if self._concerns(t, name)]
        direct = [t for t in about if self._unknown(t, {**maps, name: offered[0].axis_map}) == []]
        fit = [c for c in offered if all(self._fits(t, {**maps, name: c.axis_map}) for t in direct)]
        short = fit or offered
        votes = [
            sum(self._may_fit(t, {**maps, name: c.axis_map}) for t in about) if len(short) > 1 else 0 for c in short
        ]
        best = short[votes.index(max(votes))]
        self._say(name, best, about, maps)
        return best.axis_map

    def _say(self, name: str, best: Candidate, about: Sequence[Template], maps: Mapping[str, AxisMap]) -> None:
        chosen = {**maps, name: best.axis_map}
        against = [t for t in about if not self._may_fit(t, chosen)]
        if best.axis_map.is_identity and not against:
            return
        sizes = f"{best.axis_map.size} -> {best.axis_map.new_size}"
        line = f"{name}: {best.said} ({sizes})"
        if against:
            tried = ", ".join(dict.fromkeys(c.order for c in self._offer(name, maps)))
            first = self.witnesses[against[0].name][1]
            line += f"; contradicted by {len(against)} of {len(about)} kinds of tensors, first {first}"
            line += self._counter_example(against[0], chosen) + f"; tried: {tried}"
        self.lines.append(line)

    def _counter_example(self, template: Template, maps: Mapping[str, AxisMap]) -> str:
        if self._unknown(template, maps):
            return ""
        _, name, _, found = self.witnesses[template.name]
        try:
            return f" {fold(name, self._expected(template, maps), found).detail}"
        except PlanError as error:
            return f" ({error})"

    def _concerns(self, template: Template, name: str) -> bool:
        """Whether a tensor has this axis, or one that follows it."""
        axes = self.base.architecture.axes
        return any(name in (axis, axes[axis].follows) for axis in template.signature.axes)

    def _unknown(self, template: Template, maps: Mapping[str, AxisMap]) -> list[str]:
        """The axes of a tensor, and what these follow, that are not decided; leaders first."""
        found: dict[str, None] = {}
        for axis in template.signature.axes:
            chain = [axis]
            while needed := [name for name in self._needs(chain[-1]) if name not in chain]:
                chain.append(needed[0])
            found |= dict.fromkeys(name for name in reversed(chain) if name not in maps)
        return list(found)

    def _offer(self, name: str, maps: Mapping[str, AxisMap]) -> list[Candidate]:
        key = name, tuple(id(maps.get(axis)) for axis in self._related(name))
        if key not in self._offered:
            self._offered[key] = self.candidates.of(name, maps)
        return self._offered[key]

    def _needs(self, name: str) -> list[str]:
        """The axis that this one's candidates are made from, if there is one: its leader, or what a tied head reads."""
        table = self.base.architecture
        found = [str(table.axes[name].follows)] if table.axes[name].follows else []
        if self.candidates.tied and table.tie and table.tie.axis == name:
            found += [t.signature.axes[-1] for t in table.templates if t.name == table.tie.embedding]
        return [axis for axis in found if axis != name]

    def _related(self, name: str) -> list[str]:
        """The axes whose maps say something of what this one can be."""
        table = self.base.architecture
        found = dict.fromkeys(self._needs(name))
        for _, signature in table.norms:
            between = (*signature.gains, *(signature.normalises.axes() if signature.normalises else ()))
            found |= dict.fromkeys(between if name in between else ())
        return [axis for axis in found if axis != name]

    def _may_fit(self, template: Template, maps: Mapping[str, AxisMap]) -> bool:
        """Whether a tensor agrees, with some candidates of what is not decided."""
        every = self._assigned(self._unknown(template, maps), maps)
        return any(self._fits(template, assigned) for assigned in itertools.islice(every, COMBINATIONS))

    def _assigned(self, unknown: Sequence[str], maps: Mapping[str, AxisMap]) -> Iterator[Mapping[str, AxisMap]]:
        if not unknown:
            yield maps
            return
        for candidate in self._offer(unknown[0], maps):
            yield from self._assigned(unknown[1:], {**maps, unknown[0]: candidate.axis_map})

    def _fits(self, template: Template, maps: Mapping[str, AxisMap]) -> bool:
        key = template.name, tuple(id(maps[axis]) for axis in template.signature.axes)
        if key not in self._tried:
            self._tried[key] = self._try(template, maps)
        return self._tried[key]

    def _try(self, template: Template, maps: Mapping[str, AxisMap]) -> bool:
        """Whether some fold groups of a tensor fold to the source's."""
        _, name, _, found = self.witnesses[template.name]
        try:
            expected = self._expected(template, maps)
        except PlanError:
            return False
        if expected.shape != found.shape:
            return False
        eps = factor_eps(expected, found)
        return all(fold(name, *sampled(expected, found, count), eps).verdict != "wrong" for count in SAMPLES)

    def _expected(self, template: Template, maps: Mapping[str, AxisMap]) -> LazyTensor:
        _, _, tensor, _ = self.witnesses[template.name]
        if not keeps_places(template.signature, maps):
            raise PlanError("a norm leaves every coordinate in its place")
        return self._growing.remapped(template, tensor, template.signature.grow(maps))

    @cached_property
    def _growing(self) -> GrownTensors:
        growing = GrownTensors(self.base, {}, Storage())
        growing.targets = self.candidates.targets
        return growing
