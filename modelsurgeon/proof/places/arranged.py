"""The order that undoes another: which coordinate goes where, so that all places have their copies alike.

arranged(np.array([2, 0, 1]), np.array([0, 1, 2]), block=1)       array([1, 2, 0])
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelsurgeon.maps.axis_map import occurrence
from modelsurgeon.proof.places.reordered import Seat
from modelsurgeon.proof.places.sketches import Match

LIKE = 1e-5  # factors whose ratio is nearer to 1 are one: sketches of rounded numbers tell them to some digits
ROUNDINGS = 8  # spacings of stored numbers by which a factor may seem to differ from a power of two


@dataclass(frozen=True, eq=False)
class Order:
    """An order of copies that is none of the usual ones.

    source  [m] int64: as in `AxisMap`
    signs   [m] float64: of the writers; None: all positive
    """

    source: np.ndarray
    signs: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Place:
    """Where the coordinates of one place are, and what they were matched with."""

    seats: tuple[Seat, ...]
    match: Match


@dataclass(frozen=True, eq=False)
class Settled:
    """What was found on an axis.

    target  [m] int64: the sources that every place now has
    order   the same with signs, where it is none of the usual orders; None: a usual one serves
    moved   how many places are reordered
    places  of so many
    moves   (place, [m] int64 order, [m] float64 factors of writers or None) of each that is
    scaled  whether coordinates are multiplied, too
    """

    target: np.ndarray
    order: Order | None
    moved: int
    places: int
    moves: tuple[tuple[Place, np.ndarray, np.ndarray | None], ...] = ()
    scaled: bool = False

    @property
    def says(self) -> str:
        """In words; empty where nothing was moved."""
        if not self.moved:
            return ""
        what = "reordered and multiplied" if self.scaled else "reordered"
        return (
            f"{what} in each of {self.places} places"
            if self.moved == self.places
            else (f"{what} in {self.moved} of {self.places} places")
        )


def arranged(
    source: np.ndarray, target: np.ndarray, block: int = 1, first: np.ndarray | None = None
) -> np.ndarray | None:
    """[m] int64: which coordinate to take for each place, so that the sources become `target`; None: there is no way.

    block  consecutive coordinates that stay together (the query heads of a key-value head)
    first  [m] float64: of equal copies, the largest are taken first
    """
    if len(source) != len(target) or len(source) % block:
        return None
    waiting = defaultdict[tuple[int, ...], list[int]](list)
    for at in range(0, len(source), block):
        waiting[tuple(sorted(source[at : at + block].tolist()))].append(at)
    order = np.zeros(len(source), dtype=np.int64)
    for at in range(0, len(target), block):
        wanted = target[at : at + block]
        if not (starts := waiting[tuple(sorted(wanted.tolist()))]):
            return None
        start = starts.pop(0)
        own = source[start : start + block]
        rank = occurrence(own) if first is None else _ranks(own, first[start : start + block])
        turn = np.lexsort((rank, own))
        order[at + np.lexsort((occurrence(wanted), wanted))] = start + turn
    return order


def _ranks(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """[m] int64: `occurrence`, in descending order of `first`."""
    order = np.argsort(-first, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = occurrence(values[order])
    return rank


def tiles(source: np.ndarray) -> np.ndarray:
    """[m] int64: the same sources in tiles: the first copy of each, the second ones, ..., then gaps."""
    rank = np.where(source < 0, len(source), occurrence(source))
    return np.asarray(source[np.lexsort((source, rank))])


def settle(places: Sequence[Place], standard: Sequence[np.ndarray], size: int, eps: float) -> Settled | None:
    """Orders and factors by which all places become alike; None where their numbers of copies differ.

    eps  the relative spacing of stored numbers
    """
    sources = [_widened(place.match.source, standard, size) for place in places]
    factors = _factors(places, eps)
    alike = all(np.array_equal(sources[0], source) for source in sources)
    usual = any(np.array_equal(sources[0], one) for one in standard)
    if alike and factors is None and len(sources[0]) == len(places[0].match.source):
        return Settled(sources[0], None if usual else Order(sources[0]), 0, len(places))
    targets = [*standard, tiles(sources[0])]
    for target in targets:
        orders = [arranged(place.match.source, _joint(target, place, size)) for place in places]
        if any(order is None for order in orders):
            continue
        moves = []
        for at, (place, order) in enumerate(zip(places, orders, strict=True)):
            factor = None if factors is None or order is None else factors[at][order]
            if order is not None and (factor is not None or not np.array_equal(order, np.arange(len(order)))):
                moves.append((place, order, factor))
        own = not any(np.array_equal(target, one) for one in standard)
        order_of_all = Order(target) if own else None
        return Settled(target, order_of_all, len(moves), len(places), tuple(moves), factors is not None)
    return None


def _widened(source: np.ndarray, standard: Sequence[np.ndarray], size: int) -> np.ndarray:
    """The sources of one part, where several parts (shared experts) are one place."""
    length = len(standard[0]) if len(standard) else len(source)
    return source[:length] if len(source) > length else source


def _joint(target: np.ndarray, place: Place, size: int) -> np.ndarray:
    """The target of a place that is several parts of the axis, one after another."""
    parts = len(place.match.source) // len(target)
    if parts <= 1:
        return target
    return np.concatenate([np.where(target < 0, target, target + part * size) for part in range(parts)])


def _factors(places: Sequence[Place], eps: float) -> list[np.ndarray] | None:
    """[m] float64 for each place: what undoes the factors of its writers; None where one factor serves all."""
    scales = [place.match.scale for place in places]
    every = np.concatenate([scale[place.match.source >= 0] for scale, place in zip(scales, places, strict=True)])
    if not len(every) or np.all(np.abs(every / every[0] - 1) < LIKE):
        return None
    held = [np.where(place.match.source >= 0, scale, 1.0) for scale, place in zip(scales, places, strict=True)]
    return [1 / rounded(scale, eps) for scale in held]


def rounded(scale: np.ndarray, eps: float) -> np.ndarray:
    """Factors that are nearly powers of two, as such."""
    power = np.sign(scale) * 2.0 ** np.round(np.log2(np.abs(scale)))
    return np.where(np.abs(scale / power - 1) < min(ROUNDINGS * eps, 2e-3), power, scale)
