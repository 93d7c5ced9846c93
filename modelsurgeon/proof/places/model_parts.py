"""The modules of a model that have coordinates of one axis for themselves, and where these are in their tensors.

The neurons of a layer are written and read in that layer alone, so that each layer may have them in an order of its
own; so may each expert, and each attention (self or cross) of a layer. A module is the smallest group of tensors, by
their names, which writes the axis and reads it:

    modules(held, ("mlp",))       [["layers.0.mlp.up_proj.weight", "layers.0.mlp.down_proj.weight"], ["layers.1...

Where a tensor of one layer serves all layers (T5's relative positions, which only the first block stores), they are one
module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.proof.coordinates import labels
from modelsurgeon.proof.places.reordered import Seat

Key = tuple[str, tuple[tuple[str, int], ...]]  # a template's name and the numbers in its place


@dataclass
class Held:
    """The tensors that a checkpoint holds, by template and numbers.

    table   fitted to the checkpoint
    sizes   {axis: size}
    names   on disk
    """

    table: Architecture
    sizes: Mapping[str, int]
    names: Iterable[str]
    _labels: dict[tuple[str, int, str], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @cached_property
    def templates(self) -> dict[str, Template]:
        """{name on disk: its line of the table}, in the order of names and numbers."""
        found = {name: self.table.template(name) for name in sorted(self.names, key=lambda name: (len(name), name))}
        return {name: template for name, template in found.items() if template}

    @cached_property
    def by_key(self) -> dict[Key, str]:
        """{template and numbers: name on disk}."""
        return {self.key(name): name for name in self.templates}

    def key(self, name: str, **other: int) -> Key:
        """The template and the numbers of a name, or other numbers in their place."""
        template = self.templates[name]
        numbers = self.table.numbers(template, name)
        return template.name, tuple(sorted({**numbers, **{k: n for k, n in other.items() if k in numbers}}.items()))

    def numbers(self, name: str) -> dict[str, int]:
        """{counter or axis: number} in a name."""
        return dict(self.key(name)[1])

    def serves_all(self, name: str) -> bool:
        """Whether a tensor belongs to no layer, nor is the one that some layer has in place of the others'."""
        canonical, own = self.table.canonical(name), self.templates[name]
        others = (t for t in self.table.templates if t.placeholders and t.pattern.fullmatch(canonical))
        return not own.placeholders and next(others, None) is None

    def expert_dimension(self, name: str) -> int | None:
        """The dimension of a tensor that has one coordinate for each expert, beside others."""
        dimensions = self.templates[name].signature.dimensions
        experts = [d for d, (one, _) in enumerate(dimensions) if one.axes() and all(map(self._is_expert, one.axes()))]
        return experts[0] if experts and len(dimensions) > 1 else None

    def _is_expert(self, axis: str) -> bool:
        return kind_of(self.table.axes[axis]).is_expert

    def labels(self, template: Template, d: int, axis: str) -> tuple[np.ndarray, np.ndarray]:
        """As `coordinates.labels`, computed once for each signature."""
        key = template.signature.text, d, axis
        if key not in self._labels:
            self._labels[key] = labels(template.signature, d, axis, self.sizes)
        return self._labels[key]

    def _told_apart(self, template: Template, d: int, axes: Iterable[str], label: np.ndarray) -> np.ndarray:
        """Labels where an axis repeats along one that never grows: shared experts are one MLP, with one order."""
        expression, table = template.signature.dimensions[d][0], self.table
        kinds = [kind_of(table.axes[axis]) for axis in axes]
        if any(kind.is_head or kind.in_heads for kind in kinds):
            return label
        for axis in expression.axes():
            if axis not in axes and not table.axes[axis].grows:
                outer = self.labels(template, d, axis)[0]
                label = np.where(label >= 0, label + outer * (label.max() + 1), -1)
        return label

    def seats(
        self, name: str, axes: Iterable[str], inside: Mapping[str, range] = {}, expert: int | None = None
    ) -> Iterator[Seat]:
        """Where the coordinates of axes (of one size) are in a tensor.

        inside  {axis of heads: those that the place has}: other heads' coordinates are left out
        expert  the one whose coordinates are meant, where one tensor has them all
        """
        template = self.templates[name]
        own = self.expert_dimension(name) if expert is not None else None
        for d, (expression, _) in enumerate(template.signature.dimensions):
            if not {*axes} & {*expression.axes()}:
                continue
            sides = [self.labels(template, d, axis) for axis in axes if axis in expression.axes()]
            label = np.max([side[0] for side in sides], axis=0)
            reads = np.any([side[1] for side in sides], axis=0)
            label = self._told_apart(template, d, axes, label)
            held = label >= 0
            for head, heads in inside.items():
                if head in expression.axes():
                    of = self.labels(template, d, head)[0]
                    held &= (of < 0) | ((of >= heads.start) & (of < heads.stop))
            for side in (False, True):
                here = np.flatnonzero(held & (reads == side))
                if len(here):
                    here = here[np.argsort(label[here], kind="stable")]
                    at = here.reshape(len(np.unique(label[here])), -1).T
                    yield Seat(name, d, at, side, expert if own == 0 and d != own else None)


def modules(held: Held, axes: Iterable[str]) -> list[list[str]]:
    """The tensors of each module that has such axes."""
    axes = tuple(axes)
    names = [name for name, template in held.templates.items() if {*axes} & {*template.signature.axes}]
    sides = {name: _sides(held, name, axes) for name in names}
    paths = [held.table.canonical(name).split(".")[:-1] for name in names]  # a weight stays with its bias
    found = list(_split(names, paths, sides, 0))
    return _joined(held, found)


def _sides(held: Held, name: str, axes: tuple[str, ...]) -> set[bool]:
    """Whether a tensor reads such an axis, writes it, or both."""
    template, sides = held.templates[name], set[bool]()
    for d, (expression, _) in enumerate(template.signature.dimensions):
        for axis in {*axes} & {*expression.axes()}:
            label, reads = held.labels(template, d, axis)
            sides |= {*reads[label >= 0].tolist()}
    return sides


def _split(names: list[str], paths: list[list[str]], sides: Mapping[str, set[bool]], depth: int) -> Iterator[list[str]]:
    """Groups by the piece of the names at a depth, where every group both writes and reads; else all in one."""
    groups = defaultdict[str, list[int]](list)
    for at, path in enumerate(paths):
        groups[path[depth] if depth < len(path) else ""].append(at)
    whole = all(len(set().union(*(sides[names[at]] for at in group))) == 2 for group in groups.values())
    if not whole or max((len(path) for path in paths), default=0) <= depth:
        if names:
            yield names
        return
    for group in groups.values():
        yield from _split([names[at] for at in group], [paths[at] for at in group], sides, depth + 1)


def _joined(held: Held, found: list[list[str]]) -> list[list[str]]:
    """Modules of the same templates as one, where one of them holds a tensor that has no number of a layer."""
    numbered = [{held.key(name)[0] for name in group if held.numbers(name)} for group in found]
    shared = [any(held.serves_all(name) for name in group) for group in found]
    merged: list[list[str]] = []
    for group, templates, shares in zip(found, numbered, shared, strict=True):
        if shares and len(found) > 1:
            same = (own for own, others in zip(found, numbered, strict=True) if others & templates)
            merged.append([name for own in same for name in own] or group)
    taken = {name for group in merged for name in group}
    return [*merged, *(group for group in found if not {*group} & taken)]
