"""Which head of a source each head of a result copies, and which coordinate inside of a head each of its own.

A head is told by what does not depend on the order of the coordinates in it: the products of its queries with its keys,
those of its values with what reads them, and of rows with themselves. With noise, parts of a sum still add up to the
same products. Query heads stay with their key-value head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelsurgeon.architectures.norms import is_normalised, is_written_by_norm
from modelsurgeon.growth.kinds.inner import rotated_size
from modelsurgeon.growth.kinds.kind import Maps, kind_of
from modelsurgeon.proof.coordinates import joined_axes
from modelsurgeon.proof.places import allowed
from modelsurgeon.proof.places.alignment import Alignment
from modelsurgeon.proof.places.arranged import Order, Place, Settled, arranged, settle, tiles
from modelsurgeon.proof.places.model_parts import Held, modules
from modelsurgeon.proof.places.reordered import Seat, alike
from modelsurgeon.proof.places.sketches import match

MINOR = 0.03  # the weight of what only decides between heads whose queries and keys are alike


@dataclass(frozen=True)
class Carriers:
    """The axes of query heads, and of the key-value heads that they share, those before norms among them.

    before, after  (query heads, key-value heads) of the source and of the result
    """

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def axes(self) -> tuple[str, ...]:
        """All of them."""
        return self.queries + self.keys


def carriers(own: Alignment, name: str) -> Carriers:
    """The axes of heads that belong to those of this name, which lead or follow."""
    table, growth = own.growth.architecture, own.growth
    name = table.axes[name].follows or name
    served = next((a for a, axis in table.axes.items() if axis.follows == name and kind_of(axis).is_head), name)
    joined = {axis: names for names in joined_axes(table) for axis in names}
    keys = joined[served] if served != name else ()
    sizes = [(size[name], size[served]) for size in (growth.sizes, growth.targets)]
    return Carriers(joined[name], keys, *sizes)


def heads(own: Alignment, name: str, maps: Maps, standard: Sequence[np.ndarray]) -> Settled | None:
    """Reorder the heads of each attention; heads that stand for their positions (ALiBi) stay where they are."""
    if own.growth.axis(name).slopes or own.growth.axis(name).follows or not standard:
        return None
    axes = carriers(own, name)
    found = [(names, _heads_of(own, names, axes, maps)) for names in modules(own.wide, axes.axes)]
    sources = [source for _, source in found if source is not None]
    if not sources:
        return None
    block = axes.after[0] // axes.after[1]
    group = axes.before[0] // axes.before[1]
    alike = all(np.array_equal(sources[0], source) for source in sources) and len(sources) == len(found)
    targets = sources[:1] if alike else [*standard, _grouped_tiles(sources[0], block, group)]
    for target in targets:
        orders = [None if source is None else arranged(source, target, block) for _, source in found]
        if any(order is None for order, (_, source) in zip(orders, found, strict=True) if source is not None):
            continue
        moved = 0
        for (names, _), order in zip(found, orders, strict=True):
            if order is not None and not alike and not np.array_equal(order, np.arange(len(order))):
                moved += 1
                own.move([seat for n in names for seat in own.wide.seats(n, axes.queries)], order)
                own.move([seat for n in names for seat in own.wide.seats(n, axes.keys)], order[::block] // block)
        usual = any(np.array_equal(target, one) for one in standard)
        keys = Settled(target[::block] // group, None, moved, len(found))
        own.found |= dict.fromkeys(axes.keys, keys)
        return Settled(target, None if usual else Order(target), moved, len(found))
    return None


def _grouped_tiles(source: np.ndarray, block: int, group: int) -> np.ndarray:
    """[m] int64: the sources, in tiles of key-value heads, and in tiles in each of them."""
    if block == 1:
        return tiles(source)
    inside = np.concatenate([tiles(source[at : at + block]) for at in range(0, len(source), block)])
    keys = inside[::block] // group
    rank = np.zeros(len(keys), dtype=np.int64)
    for at in range(len(keys)):
        rank[at] = np.sum(keys[:at] == keys[at])
    turn = np.lexsort((keys, rank))
    return np.asarray(inside.reshape(-1, block)[turn].ravel())


def _heads_of(own: Alignment, names: Sequence[str], axes: Carriers, maps: Maps) -> np.ndarray | None:
    """[m] int64: the query head of the source that each one of the result copies; None where there is none."""
    pairs = own.pairs(names, maps)
    if len(pairs) != len(names):
        return None
    after = _features(own, own.wide, [new for new, _ in pairs], axes, axes.after, maps)
    before = _features(own, own.narrow, [old for _, old in pairs], axes, axes.before, None)
    major = sorted(k for k in after.keys() & before.keys() if k[0] == "products")
    minor = sorted(k for k in after.keys() & before.keys() if k[0] not in ("products", "read"))
    last = sorted(k for k in after.keys() & before.keys() if k[0] == "read")
    if not major and not minor:
        return None
    weight = MINOR if major else 1.0
    parts = [[side[key] * (weight if key in minor else 1.0) for key in [*major, *minor]] for side in (after, before)]
    second = [np.concatenate([side[key] for key in last], axis=1) for side in (after, before)] if last else []
    new, old = (np.concatenate(part, axis=1) for part in parts)
    found = match(new, old, "none", second)
    if found is None or np.any(found.source < 0):
        return None
    block, group = axes.after[0] // axes.after[1], axes.before[0] // axes.before[1]
    keys = (found.source // group).reshape(-1, block)
    return found.source if np.all(keys == keys[:, :1]) else None


Features = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Rows:
    """What one tensor has of the heads.

    kind   "query", "key", "value", "read" (by the output projection), or "plain" (one number or row a head)
    layer  its numbers, as text
    axis   the one inside of the heads
    module the tensor's name without its last piece
    rows   [query heads, coordinates, WIDTH] float64: sketches; those of key-value heads repeated
    """

    kind: str
    layer: str
    axis: str
    module: str
    rows: np.ndarray


def _features(
    own: Alignment, held: Held, names: Sequence[str], axes: Carriers, counts: tuple[int, int], maps: Maps | None
) -> Features:
    """{(what, where): [query heads, numbers] float64 of unit length}."""
    every = [rows for name in names for rows in _rows(own, held, name, axes, counts, maps)]
    inner = {rows.axis for rows in every if rows.kind == "query"}
    sums: dict[tuple[str, str, str, str], np.ndarray] = {}
    for one in every:
        kind = "value" if one.kind == "key" and one.axis not in inner else one.kind
        key = kind, one.layer, one.axis, one.module if kind in ("value", "plain") else ""
        sums[key] = sums[key] + one.rows if key in sums else one.rows
    found: Features = {}
    for (kind, layer, axis, module), rows in sums.items():
        where = f"{layer} {axis} {module}"
        if kind == "query" and ("key", layer, axis, "") in sums:
            found["products", where] = _products(rows, sums["key", layer, axis, ""])
        elif kind in ("query", "value"):  # before a norm no coordinate is multiplied; values may be
            told = "products" if own.growth.axis(axis).follows else "squares"
            found[told, where] = _products(rows, rows)
        elif kind == "plain":
            found["plain", where] = rows[:, 0] / max(1e-300, float(np.sqrt((rows**2).sum(axis=(1, 2))).mean()))
        elif kind == "read":
            values = [v for (k, n, a, _), v in sums.items() if (k, n, a) == ("value", layer, axis)]
            found |= {("read", where): _products(rows, sum(values, np.zeros(1)))} if values else {}
    return found


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[heads, WIDTH * WIDTH] float64 of unit length: products summed over the coordinates of each head."""
    found = np.einsum("hiw,hiv->hwv", one, other).reshape(len(one), -1)
    return np.asarray(found / np.maximum(np.sqrt((found**2).sum(axis=1)), 1e-300)[:, None])


def _rows(
    own: Alignment, held: Held, name: str, axes: Carriers, counts: tuple[int, int], maps: Maps | None
) -> Iterator[Rows]:
    """The rows that a tensor has of heads, as far as the axes beside them are known."""
    template = held.templates[name]
    module, layer = held.key(name)[0].rpartition(".")[0], str(held.key(name)[1])
    for d, (expression, _) in enumerate(template.signature.dimensions):
        if not {*axes.axes} & {*expression.axes()}:
            continue
        sketch = own.sketch(Seat(name, d, np.zeros((0, 0), np.int64), False), maps)
        if sketch is None:
            continue
        others = [axis for axis in expression.axes() if axis not in axes.axes]
        for count, carrying in zip(counts, (axes.queries, axes.keys), strict=True):
            labels = [held.labels(template, d, axis) for axis in carrying if axis in expression.axes()]
            if not labels:
                continue
            head, read = (np.max([label[side] for label in labels], axis=0) for side in (0, 1))
            for axis in dict.fromkeys(others):
                inside, queries = held.labels(template, d, axis)
                for side, kind in ((True, "query"), (False, "key")):
                    at = np.flatnonzero((head >= 0) & (inside >= 0) & (queries == side))
                    if len(at):
                        kind = "read" if read[at].any() else kind
                        rows = _by_head(sketch[at], head[at], inside[at], count)
                        yield Rows(kind, layer, axis, module, np.repeat(rows, counts[0] // count, axis=0))
            if not others and not read.any():
                at = np.flatnonzero(head >= 0)
                rows = _by_head(sketch[at], head[at], np.zeros(len(at), np.int64), count)
                yield Rows("plain", layer, "", held.key(name)[0], np.repeat(rows, counts[0] // count, axis=0))


def _by_head(sketch: np.ndarray, head: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """[count, coordinates, WIDTH] float64: rows sorted by head and coordinate."""
    found = np.zeros((count, int(inside.max()) + 1, sketch.shape[1]))
    found[head, inside] = sketch
    return found


def inside(
    own: Alignment, name: str, group: tuple[str, ...], maps: Maps, standard: Sequence[np.ndarray]
) -> Settled | None:
    """Reorder the coordinates inside of each head that nothing turns: values, or where queries meet keys."""
    table, growth = own.growth.architecture, own.growth
    if len(group) > 1 or is_normalised(table, name) or is_written_by_norm(table, name):
        return None  # a norm's gain belongs to the coordinates of all heads
    held = [n for n, template in own.wide.templates.items() if name in template.signature.axes]
    leaders = {a for n in held for a in own.wide.templates[n].signature.axes if kind_of(table.axes[a]).is_head}
    if not leaders or not leaders <= maps.keys():
        return None
    axes = carriers(own, min(leaders, key=lambda a: table.axes[a].follows is not None))
    places, turned = [], _turned(own, name)
    for names in modules(own.wide, axes.axes):
        own_names = [n for n in names if name in own.wide.templates[n].signature.axes]
        if any(not {*axes.axes} & {*own.wide.templates[n].signature.axes} for n in own_names) or not own_names:
            return None
        places += list(_places(own, name, own_names, axes, maps, turned))
    everywhere = {n for names in modules(own.wide, axes.axes) for n in names}
    if not places or not {*held} <= everywhere:
        return None  # some tensor has the coordinates without heads
    plain = [np.where(one[turned[1] :] < 0, one[turned[1] :], one[turned[1] :] - turned[0]) for one in standard]
    plain = [one for one in plain if not np.any(one < -2)]
    settled = settle(places, plain, growth.sizes[name] - turned[0], own.precision)
    if settled is None or (turned[0] and settled.order is not None):
        return None
    return replace(own.carried_out(settled), target=_with_turned(settled.target, standard, turned))


def _with_turned(plain: np.ndarray, standard: Sequence[np.ndarray], turned: tuple[int, int]) -> np.ndarray:
    """The order of a usual map whose coordinates that are not rotated have this one."""
    rest = np.where(plain < 0, plain, plain + turned[0])
    return next((one for one in standard if np.array_equal(one[turned[1] :], rest)), rest)


def _places(
    own: Alignment, name: str, names: Sequence[str], axes: Carriers, maps: Maps, turned: tuple[int, int]
) -> Iterator[Place]:
    """One for each key-value head (or query head that shares none), matched."""
    pairs = own.pairs(names, maps)
    keyed = any({*axes.keys} & {*own.wide.templates[n].signature.axes} for n in names)
    count, old = (axes.after[1], axes.before[1]) if keyed else (axes.after[0], axes.before[0])
    shares = axes.after[0] // count, axes.before[0] // old
    leading = maps[axes.keys[0] if keyed else axes.queries[0]] if keyed else maps[axes.queries[0]]
    for head in range(count):
        source = int(leading.source[head])
        seats = []
        for after, before in pairs:
            new = _heads_from(axes, head, shares[0])
            was = _heads_from(axes, source, shares[1])
            both = alike(after, own.wide.seats(after, (name,), new), own.narrow.seats(before, (name,), was))
            seats += [(_rest(a, turned[1]), _rest(b, turned[0])) for a, b in both]
        scales = allowed.scales(own.growth, (name,), [after for after, _ in seats])
        found = own.matched(seats, maps, scales)
        if found is not None:
            yield Place(tuple(after for after, _ in seats), found)


def _heads_from(axes: Carriers, head: int, shares: int) -> dict[str, range]:
    """The query heads that use a key-value head, and that head."""
    queries = dict.fromkeys(axes.queries, range(head * shares, (head + 1) * shares))
    return {**queries, **dict.fromkeys(axes.keys, range(head, head + 1))}


def _rest(seat: Seat, turned: int) -> Seat:
    """The coordinates of a seat that are not rotated."""
    return replace(seat, at=seat.at[:, turned:])


def _turned(own: Alignment, name: str) -> tuple[int, int]:
    """How many coordinates of an axis are rotated, in the source and in the result."""
    rotary, growth = own.growth.architecture.rotary, own.growth
    if rotary is None or rotary.axis != name:
        return 0, 0
    return rotated_size(rotary, growth.config, growth.sizes[name]), rotated_size(
        rotary, growth.target, growth.targets[name]
    )
