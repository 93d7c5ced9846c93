"""Coordinates that training never makes different: those of one axis that are equal in every tensor that has the axis.

Two neurons with equal rows of `up_proj` and equal columns of `down_proj` get equal gradients, and stay equal after
every step: a growth without noise leaves such groups. With noise the rows are still equal, the columns are not, and the
next step parts them. So labels are refined tensor by tensor:

    found = Coordinates(checkpoint)
    found.refine("model.layers.0.mlp.up_proj.weight", equal)      # neurons 0 and 1 may be copies
    found.refine("model.layers.0.mlp.down_proj.weight", equal)    # they are not
    found.copies()

Equal numbers are no copies where the model treats two coordinates differently: rotary positions turn each by an angle
of its own, and heads may have ALiBi slopes of their own. A key-value head is compared together with its query heads. A
coordinate that is zero in every tensor learns nothing either: it is dead.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.weights.equal_rows import Equal
from modelsurgeon.growth.kinds.inner import rotated_size
from modelsurgeon.proof.coordinates import GrownAxis, Place, Strip, all_axes, counts_experts, place_of, strips
from modelsurgeon.tensors.lazy import equal as are_equal

Key = tuple[int, Place, int]  # an axis by its number, a place, and the expert whose tensor it is, ALL or EACH
ALL, EACH = -2, -1  # a tensor of no expert; one of all experts, each of which is a place of its own


@dataclass(frozen=True)
class Copies:
    """The copies of one axis in one place; schema.json describes the fields.

    axis  its name, or the first of several that norms join
    size  coordinates, of all experts or heads that have their own
    dead  those that are zero in every tensor but gains of RMS norms, which multiply what is zero
    """

    axis: str
    through: str
    layer: int | None
    size: int
    groups: int
    copies: int
    dead: int
    example: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Labels:
    """Which coordinates of an axis are equal, by the tensors so far.

    of    [places, m] int64: equal coordinates of one place have one label
    zero  [places, m] bool: which are zero; None where no tensor shows it
    """

    of: np.ndarray
    zero: np.ndarray | None = None

    @property
    def are_distinct(self) -> bool:
        """Whether no tensor can change the answer: all differ, and none is zero."""
        alive = self.zero is not None and not self.zero.any()
        return alive and all(len(np.unique(place)) == len(place) for place in self.of)

    def and_(self, other: Labels) -> Labels:
        """The coordinates that are equal by both are equal, those that are zero by both are zero."""
        left, right = np.broadcast_arrays(self.of, other.of)
        _, both = np.unique(left * (right.max(initial=0) + 1) + right, return_inverse=True)
        if self.zero is None or other.zero is None:
            return Labels(both.reshape(left.shape), other.zero if self.zero is None else self.zero)
        return Labels(both.reshape(left.shape), np.logical_and(self.zero, other.zero))


DISTINCT = Labels(np.zeros((1, 0), dtype=np.int64), np.zeros((1, 0), dtype=bool))  # stands for large arrays


class Coordinates:
    """Every axis of a checkpoint that can grow, refined by one tensor after another, in any order."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._table, self._sizes = checkpoint, checkpoint.architecture, checkpoint.sizes
        self._templates = {name: template for name in checkpoint.tensors if (template := self._table.template(name))}
        self._axes = all_axes(self._table, self._sizes, _shared(checkpoint))
        self._read: set[tuple[int, Place]] = set()
        self._labels: dict[Key, Labels] = {}
        self._strips: dict[str, list[tuple[int, Place, Strip]]] = defaultdict(list)
        for number, axis in enumerate(self._axes):
            for place, strip in self._placed(axis):
                self._strips[strip.name].append((number, place, strip))
                if axis.kind.is_expert or _reads(axis, self._templates[strip.name], strip.dimension):
                    self._read.add((number, place))

    def refine(self, name: str, found: Equal) -> None:
        """Refine by one tensor, each once; `found` is of `RowBlocks` that are stacked where `is_stack` is true."""
        for number, place, strip in self._strips.get(name, ()):
            key = number, place, ALL if strip.only is None else strip.only
            key = (number, place, EACH) if strip.beside is not None else key
            before = self._labels.get(key, Labels(np.zeros((1, 1), dtype=np.int64)))
            if before is not DISTINCT:
                after = before.and_(self._shown(name, strip, found))
                self._labels[key] = DISTINCT if after.are_distinct else after

    def copies(self, zero: frozenset[str] = frozenset()) -> tuple[Copies, ...]:
        """The axes with copies or dead coordinates, where the tensors named in `zero` hold only zeros."""
        found = []
        for number, axis in enumerate(self._axes):
            for place in self._places(number):
                labels = self._final(number, place, zero)
                found += [_counted(axis, place, labels)] if labels is not DISTINCT else []
        return tuple(one for one in found if one.copies or one.dead)

    def _placed(self, axis: GrownAxis) -> Iterator[tuple[Place, Strip]]:
        for place, own in strips(axis, self._table, self._sizes, self._templates).items():
            yield from ((place, strip) for strip in own)
        leader = self._leader(axis)
        led = strips(leader, self._table, self._sizes, self._templates) if leader else {}
        for place, own in led.items():
            for strip in own:  # a query head belongs to its key-value head
                order = strip.order.reshape(len(strip.order), 1, axis.size, -1).transpose(0, 3, 1, 2)
                yield place, replace(strip, order=order.reshape(-1, 1, axis.size))

    def _leader(self, axis: GrownAxis) -> GrownAxis | None:
        """The axis of the query heads, for key-value heads."""
        leader = self._table.axes[axis.names[0]].follows if axis.kind.is_head else None
        return next((other for other in self._axes if leader in other.names), None)

    def _shown(self, name: str, strip: Strip, found: Equal) -> Labels:
        """The labels that one strip gives the coordinates of its axis."""
        template, order = self._templates[name], strip.order
        shape, stacked = self._checkpoint.tensors[name].shape, is_stack(self._table, template)
        first, zero = _along(found, shape, stacked, strip.dimension, strip.beside is not None)
        if strip.beside is None:
            first, zero = first[0][order], zero[0][order]
        else:
            first, zero = (of[:, order[:, 0]].swapaxes(0, 1) for of in (first, zero))
        scales = self._table.norm == "rms" and template.signature.normalises is not None
        return Labels(_merged(np.moveaxis(first, 0, -1)), None if scales else np.all(zero, axis=0))

    def _places(self, number: int) -> list[Place]:
        """The layers of an axis, or its one place; none where no tensor reads it: a new reader may separate any."""
        found = dict.fromkeys(place for of, place, _ in self._labels if of == number)
        places = [place for place in found if place] or list(found)
        return [place for place in places if {(number, place), (number, ())} & self._read]

    def _final(self, number: int, place: Place, zero: frozenset[str]) -> Labels:
        """The labels of one place by all tensors, and by the model itself."""
        axis, labels = self._axes[number], Labels(self._apart(self._axes[number]))
        if place:
            labels = self._and(labels, (number, (), ALL))
        own = sorted(key for key in self._labels if key[:2] == (number, place))
        if not own or own == [(number, place, ALL)]:
            labels = self._and(labels, (number, place, ALL))
        else:  # neuron 3 of an expert has nothing to do with neuron 3 of another one
            parts = [_all_of(self._and(labels, key), axis.size) for key in own]
            zeros = [part.zero for part in parts if part.zero is not None]
            labels = Labels(np.concatenate([part.of for part in parts]), np.concatenate(zeros) if zeros else None)
        if labels is DISTINCT:
            return labels
        for follower, other in enumerate(self._axes):
            if self._leader(other) is axis and place in self._places(follower):
                shared = _all_of(self._final(follower, place, zero), other.size)
                labels = labels.and_(Labels(shared.of.repeat(axis.size // other.size, 1)))
        return self._of_names(axis, place, labels, zero)

    def _and(self, labels: Labels, key: Key) -> Labels:
        known = self._labels.get(key)
        if DISTINCT in (labels, known):
            return DISTINCT
        return labels.and_(known) if known else labels

    def _apart(self, axis: GrownAxis) -> np.ndarray:
        """[1, m]: one label for the coordinates that the model treats alike."""
        rotary, config = self._table.rotary, self._checkpoint.resolved
        if rotary and rotary.axis in axis.names:
            return np.minimum(np.arange(axis.size), rotated_size(rotary, config, axis.size))[None]
        slopes = self._table.axes[axis.names[0]].slopes
        found = slopes(config, axis.size) if slopes else None
        return np.unique(np.zeros(axis.size) if found is None else found, return_inverse=True)[1].reshape(1, -1)

    def _of_names(self, axis: GrownAxis, place: Place, labels: Labels, zero: frozenset[str]) -> Labels:
        """The labels, refined by tensors that belong to one coordinate: experts of equal routers may differ."""
        named = self._named(axis, place)
        if not named:
            return labels
        of, fresh = labels.of.copy(), labels.of.max() + 1
        for group in _groups(labels.of[0]):
            firsts: list[int] = []
            for one in group:
                twin = next((other for other in firsts if self._are_equal(named[one], named[other])), one)
                of[0, one] = fresh + twin
                firsts += [one] if twin == one else []
        dead = np.array([[zero.issuperset(named[one]) for one in range(axis.size)]])
        return Labels(of, None if labels.zero is None else labels.zero & dead)

    def _are_equal(self, names: list[str], others: list[str]) -> bool:
        tensors = self._checkpoint.tensors
        return all(are_equal(tensors[a], tensors[b]) for a, b in zip(names, others, strict=True))

    def _named(self, axis: GrownAxis, place: Place) -> dict[int, list[str]]:
        """{coordinate: the names of its tensors, in the same order for all}."""
        leader, found = self._leader(axis), defaultdict(list)
        for name, template in self._templates.items():
            for spread in self._table.spread(template):
                if place_of(axis, self._table, template, name) != place:
                    continue
                number = self._table.numbers(template, name)[spread]
                if spread in axis.names:
                    found[number].append((template.name, 0, name))
                elif leader and spread in leader.names:
                    found[number * axis.size // leader.size].append((template.name, number, name))
        return {one: [name for *_, name in sorted(names)] for one, names in found.items()}


def is_stack(table: Architecture, template: Template) -> bool:
    """Whether a tensor's first dimension counts matrices, or biases: it counts experts, or has the size 1."""
    first, *others = [expression.axes() for expression, _ in template.signature.dimensions]
    if not others or (len(others) == 1 and any(side == "readers" for _, side in template.signature.dimensions)):
        return False
    one = not first and template.signature.dimensions[0][0].size({}) == 1
    return one or counts_experts(table, template.signature.dimensions[0][0])


def _shared(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The axes that a tied embedding both writes and reads."""
    tie, sizes = checkpoint.architecture.tie, checkpoint.sizes
    if tie is None or not checkpoint.is_tied:
        return ()
    tables = (line for line in checkpoint.architecture.templates if line.name == tie.embedding)
    written = [name for line in tables for part, _ in line.signature.written for name in part.axes()]
    return (tie.axis, *(name for name in written if sizes[name] == sizes[tie.axis]))


def _reads(axis: GrownAxis, template: Template, d: int) -> bool:
    """Whether a dimension reads the axis; queries read the keys'."""
    part, side = template.signature.dimensions[d]
    asks = any(re.search(rf"\b{name}~", template.signature.text) for name in set(axis.names) & set(part.axes()))
    return side == "readers" or asks


def _along(found: Equal, shape: tuple[int, ...], stacked: bool, d: int, apart: bool) -> tuple[np.ndarray, np.ndarray]:
    """[places, size] of dimension d: (labels, whether zero); `apart`: for every matrix of a stack separately."""
    lead = 2 if stacked else 1  # the dimensions before the columns
    lines = found.columns if d >= lead else found.matrices if stacked and d == 0 else found.rows
    whole = (len(lines.first), *shape[lead:]) if d >= lead else lines.first.shape

    def spread(of: np.ndarray) -> np.ndarray:
        """[places, size, whatever else has a part]."""
        of = np.moveaxis(of.reshape(whole), max(d - lead, 0) + 1, 1)
        of = of.reshape(*of.shape[:2], -1)
        return of if apart else np.moveaxis(of, 0, 1).reshape(1, of.shape[1], -1)

    return _merged(spread(lines.first)), np.all(spread(lines.zero), axis=-1)


def _merged(labels: np.ndarray) -> np.ndarray:
    """[places, m, n] -> [places, m]: one label for those of one place whose n labels are equal."""
    if labels.shape[-1] == 1:
        return np.asarray(labels[..., 0])
    return np.stack([np.unique(place, axis=0, return_inverse=True)[1].reshape(-1) for place in labels])


def _all_of(labels: Labels, size: int) -> Labels:
    """The labels, written out where they are DISTINCT."""
    return Labels(np.arange(size)[None], np.zeros((1, size), dtype=bool)) if labels is DISTINCT else labels


def _groups(labels: np.ndarray) -> list[list[int]]:
    """The coordinates of each label that several have."""
    found: dict[int, list[int]] = defaultdict(list)
    for coordinate, label in enumerate(labels.tolist()):
        found[label].append(coordinate)
    return [group for group in found.values() if len(group) > 1]


def _counted(axis: GrownAxis, place: Place, labels: Labels) -> Copies:
    of = np.broadcast_to(labels.of, (len(labels.of), axis.size))
    dead = np.zeros(of.shape, dtype=bool) if labels.zero is None else labels.zero
    groups = [
        np.flatnonzero(alive)[group].tolist()
        for row, alive in zip(of, ~dead, strict=True)
        for group in _groups(row[alive])
    ]
    counts = of.size, len(groups), sum(len(group) - 1 for group in groups), int(dead.sum())
    example = (groups[0][0], groups[0][1]) if groups else None
    return Copies(axis.names[0], axis.kind.word, place[0][1] if place else None, *counts, example)
