"""Finds the order that each place of a result has for itself, axis by axis, and undoes it.

Of an axis that all layers share (the residual stream) the one order is found that all have: a map says it, and nothing
is moved. Of others, each layer, expert and head is matched, and moved until all are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from modelsurgeon.growth.kinds.kind import Maps, kind_of
from modelsurgeon.maps.axis_map import MEAN, AxisMap
from modelsurgeon.maps.orders import gathered, identity
from modelsurgeon.proof.coordinates import joined_axes
from modelsurgeon.proof.places import allowed, matched_heads
from modelsurgeon.proof.places.alignment import Alignment
from modelsurgeon.proof.places.arranged import Order, Place, Settled, arranged, settle
from modelsurgeon.proof.places.model_parts import modules
from modelsurgeon.proof.places.reordered import Seat, UnlikeError, alike
from modelsurgeon.proof.places.sketches import match


def align(own: Alignment, name: str, maps: Maps, standard: Sequence[np.ndarray]) -> None:
    """Reorder every place of an axis, towards one of the standard orders of copies where it can be.

    standard  [m] int64 each: sources of the maps that are tried anyway
    """
    table = own.growth.architecture
    group = next(names for names in joined_axes(table, own.tied) if name in names)
    known = {axis: identity(size) for axis, size in own.growth.sizes.items() if not table.axes[axis].grows}
    maps = {**{a: m for a, m in known.items() if own.growth.targets[a] == m.size}, **maps}
    if name in own.found or not table.axes[name].grows:
        return
    try:
        settled = _settled(own, name, group, maps, standard)
    except UnlikeError:
        return
    if settled is not None:
        own.found |= dict.fromkeys(group, settled)


def _settled(
    own: Alignment, name: str, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]
) -> Settled | None:
    """The order of an axis, by its kind. Raises UnlikeError where its places are not those of the source."""
    table, kind = own.growth.architecture, kind_of(own.growth.axis(name))
    if any(kind_of(table.axes[axis]).spans_layers for axis in group):
        settled = _everywhere(own, group, maps, standard)
    elif kind.is_head:
        settled = matched_heads.heads(own, name, maps, standard)
    elif kind.is_expert:
        settled = _experts(own, name, maps, standard)
    elif kind.in_heads:
        settled = matched_heads.inside(own, name, group, maps, standard)
    else:
        settled = None if kind.joins_leader else _plain(own, name, group, maps, standard)
    return settled


def _everywhere(own: Alignment, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
    """The one order that all layers have: a map of the axis says it, and nothing is moved."""
    table = own.growth.architecture
    seats = [
        (after, before)
        for name, old in own.pairs(own.wide.templates, maps)
        for after, before in alike(name, own.wide.seats(name, group), own.narrow.seats(old, group))
    ]
    written = own._sums([pair for pair in seats if not pair[0].reads], maps)
    if written is None:
        return None
    found, wanted = written
    if has_means := table.norm == "layer" and len(found) > len(wanted):
        wanted = np.concatenate([wanted, wanted.mean(axis=0, keepdims=True)])
    matched = match(found, wanted, "any" if table.norm == "rms" else "positive")
    if matched is None:
        return None
    source = np.where(matched.source == len(wanted) - 1, MEAN, matched.source) if has_means else matched.source
    signs = np.sign(matched.scale) if np.any(matched.scale < 0) else None
    usual = signs is None and any(np.array_equal(source, one) for one in standard)
    return Settled(source, None if usual else Order(source, signs), 0, 1)


def _plain(
    own: Alignment, name: str, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]
) -> Settled | None:
    """Neurons of each layer or expert, or the coordinates of a rank."""
    places = [_place(own, seats, maps, group) for seats in _places(own, group, maps)]
    matched = [place for place in places if place]
    settled = settle(matched, standard, own.growth.sizes[name], own.precision) if matched else None
    if settled is None and matched and len(standard) and len(group) == 1:
        return _each_its_own(own, name, matched, standard[0])
    return settled and own.carried_out(settled)


def _each_its_own(own: Alignment, name: str, places: Sequence[Place], usual: np.ndarray) -> Settled | None:
    """A map for each place: other neurons are copied in each layer, and not as often (Net2Net)."""
    size, maps = own.growth.sizes[name], list[AxisMap]()
    for place in places:
        source, copied = place.match.source, place.match.source >= 0
        count = np.bincount(source[copied], minlength=size)
        alike = all(seat.slice is None and len(place.match.source) == len(usual) for seat in place.seats)
        if not alike or len(count) != size or not count.all() or np.any(place.match.scale[copied] != 1):
            return None
        share = np.where(copied, 1 / count[np.where(copied, source, 0)], 0.0)
        maps.append(gathered(size, source, np.ones(len(source)), share, 1.0))
    for place, axis_map in zip(places, maps, strict=True):
        for seat in place.seats:
            own.own.setdefault(seat.name, {})[name] = axis_map
    return Settled(usual, None, 0, len(places))


def _place(own: Alignment, seats: list[tuple[Seat, Seat]], maps: Maps, group: tuple[str, ...]) -> Place | None:
    scales = allowed.scales(own.growth, group, [after for after, _ in seats])
    found = own.matched(seats, maps, scales)
    return None if found is None else Place(tuple(after for after, _ in seats), found)


def _places(own: Alignment, group: tuple[str, ...], maps: Maps) -> Iterator[list[tuple[Seat, Seat]]]:
    """The seats of each module, and of each expert where one tensor has all."""
    for names in modules(own.wide, group):
        several = any(own.wide.expert_dimension(name) is not None for name in names)
        axis = next((a for a, one in own.growth.architecture.axes.items() if kind_of(one).is_expert), "")
        for expert in range(own.growth.targets[axis]) if several else [None]:
            old = None if expert is None or axis not in maps else int(maps[axis].source[expert])
            pairs = own.pairs(names, maps)
            if len(pairs) == len(names) and (expert is None or old is not None):
                yield [
                    both
                    for after, before in pairs
                    for both in zip(
                        own.wide.seats(after, group, expert=expert),
                        own.narrow.seats(before, group, expert=old),
                        strict=True,
                    )
                ]


def _experts(own: Alignment, name: str, maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
    """Experts of each layer, with their router's rows; consecutive ones that are a group stay one."""
    table, moved, count = own.growth.architecture, 0, 0
    group = (name, *(other for other, axis in table.axes.items() if axis.follows == name))
    block = own.growth.targets[name] // allowed.groups(own.growth, name)
    for names in _by_layer(own, name, group):
        seats = [
            both
            for after, before in own.pairs([n for n in names if own.wide.templates[n].signature.axes], maps)
            for both in zip(own.wide.seats(after, group), own.narrow.seats(before, group), strict=False)
        ]
        routers = [both for both in seats if name in own.wide.templates[both[0].name].signature.axes]
        found = own.matched([both for both in routers if not both[0].reads], maps, "none")
        if found is None or not len(standard):
            continue
        count += 1
        awake = _awake(own, [after for after, _ in seats], name)
        order = arranged(found.source, standard[0], block, awake)
        if order is None or np.array_equal(order, np.arange(len(order))):
            continue
        moved += 1
        own.move([after for after, _ in seats], order)
        _rename(own, names, name, order)
    return Settled(standard[0], None, moved, count) if count else None


def _by_layer(own: Alignment, name: str, group: tuple[str, ...]) -> list[list[str]]:
    """Of each layer, its tensors that have experts, or belong to one of them."""
    found: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for tensor, template in own.wide.templates.items():
        if {*group} & {*template.signature.axes} or name in template.placeholders:
            numbers = tuple((key, n) for key, n in own.wide.numbers(tensor).items() if key != name)
            found.setdefault(numbers, []).append(tensor)
    return list(found.values())


def _awake(own: Alignment, seats: Sequence[Seat], name: str) -> np.ndarray | None:
    """[m] float64: how likely each copy is to be chosen, by the bias that only the choice sees."""
    for seat in seats:
        signature = own.wide.templates[seat.name].signature
        if len(signature.dimensions) == 1 and name not in signature.axes:
            tensor = own.tensor(seat.name, False)
            return np.asarray(tensor.read(0, tensor.shape[0]).double().numpy()[seat.at[0]])
    return None


def _rename(own: Alignment, names: Sequence[str], axis: str, order: np.ndarray) -> None:
    """Give the tensors of each expert the name of the expert that it becomes."""
    named = [name for name in names if axis in own.wide.numbers(name)]
    before = {name: own.views[name] for name in named}
    for name in named:
        old = own.wide.by_key[own.wide.key(name, **{axis: int(order[own.wide.numbers(name)[axis]])})]
        own.views[name] = before[old]
    own.forget(named)
