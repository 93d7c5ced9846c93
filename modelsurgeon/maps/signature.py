"""Arrow signatures: one string says which axes make a stored tensor, and which of them it writes or reads.

    mlp <- hidden                        nn.Linear, stored [out, in]: reads hidden, writes mlp
    hidden -> mlp                        Conv1D, stored [in, out]
    vocab -> stream                      a lookup table
    mlp <-                               a bias: writes, reads nothing
    stream => hidden                     a norm's gain: normalises the stream, writes hidden
    (kv group value)                     one dimension that is the row-major product of axes
    (heads head~ + heads head)           dimensions one after another
    (heads (head~ + head + value))       the same per head
    kv[heads head~ + kv head]            dealt out: the first kv head's share of each part, then the next one's ...
    prehead => heads head~               a gain of many rows: normalises its last dimension
    (heads prehead) => (heads head~)     a norm over a product of axes
    head~                                the other side of an inner product: queries *read* the head axis of the keys
    3                                    a dimension of three that never grows

`parse` gives the dimensions in stored order. A gain's growth depends on two maps (`gain_factors`): the norm divides by
the length of what it reads, so only the shape of that map counts, not its scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from modelsurgeon.errors import ArchitectureError, PlanError
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import GAP, AxisMap
from modelsurgeon.maps.dimension import Dimension

ROUNDING = 1e-13  # squares and roots of float64 factors agree to this; what differs by more is another number
TOKEN = r"\s*([A-Za-z_]\w*[~\[]?|\d+|[()\]+])"


@dataclass(frozen=True)
class Atom:
    """An axis by its name, or a fixed size; `other` is the mark `~`."""

    name: str
    other: bool = False
    is_plain = True

    @property
    def alone(self) -> str:
        """The name of the axis that this is, seen from its own side; "" where it is something else."""
        return "" if self.other else self.name

    def axes(self) -> tuple[str, ...]:
        """The names in it, in order."""
        return () if self.name.isdigit() else (self.name,)

    def size(self, sizes: Mapping[str, int]) -> int:
        """How large the dimension is for these sizes of axes."""
        return int(self.name) if self.name.isdigit() else sizes[self.name]

    def grow(self, maps: Mapping[str, AxisMap], side: str) -> Dimension:
        """The growth of the dimension, for its "writers" or its "readers"."""
        if self.name.isdigit():
            return dimension.ungrown(int(self.name))
        other_side = {"writers": "readers", "readers": "writers"}[side]
        return dimension.along(maps[self.name], other_side if self.other else side)


class _Several:
    parts: tuple[Expression, ...]
    alone = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is an axis or a product of axes."""
        return False

    def axes(self) -> tuple[str, ...]:
        """The names in it, in order."""
        return tuple(axis for part in self.parts for axis in part.axes())

    def size(self, sizes: Mapping[str, int]) -> int:
        """How large the dimension is for these sizes of axes."""
        return sum(part.size(sizes) for part in self.parts)

    def grow(self, maps: Mapping[str, AxisMap], side: str) -> Dimension:
        """The growth of the dimension, for its "writers" or its "readers"."""
        return dimension.concatenation([part.grow(maps, side) for part in self.parts])


@dataclass(frozen=True)
class Product(_Several):
    """The row-major product of its parts."""

    parts: tuple[Expression, ...]

    @property
    def is_plain(self) -> bool:
        return all(part.is_plain and len(part.axes()) < 2 for part in self.parts)

    def size(self, sizes: Mapping[str, int]) -> int:
        return int(np.prod([part.size(sizes) for part in self.parts], dtype=object))

    def grow(self, maps: Mapping[str, AxisMap], side: str) -> Dimension:
        return dimension.product([part.grow(maps, side) for part in self.parts])


@dataclass(frozen=True)
class Concatenation(_Several):
    """Its parts one after another."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Dealt(_Several):
    """Its parts dealt out along an axis: for each of its coordinates, an equal share of every part."""

    along: str
    parts: tuple[Expression, ...]

    def axes(self) -> tuple[str, ...]:
        return (self.along, *super().axes())

    def grow(self, maps: Mapping[str, AxisMap], side: str) -> Dimension:
        parts = [part.grow(maps, side) for part in self.parts]
        dealer = maps[self.along]
        before = _dealt([part.size for part in parts], dealer.size)
        after = _dealt([part.new_size for part in parts], dealer.new_size)
        return dimension.concatenation(parts).rearranged(before, after)


Expression = Atom | Product | Concatenation | Dealt


def _dealt(sizes: list[int], hands: int) -> np.ndarray:
    """[sum of sizes] int64: the place, in the parts one after another, of each place of the dealt layout."""
    if any(size % hands for size in sizes):
        raise PlanError(f"parts of {sizes} cannot be dealt out to {hands}")
    starts = np.cumsum([0, *sizes[:-1]])
    shares = [start + np.arange(size).reshape(hands, -1) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate(shares, axis=1).ravel()


@dataclass(frozen=True)
class Signature:
    """A parsed signature.

    dimensions  (expression, "writers" | "readers") in stored order
    normalises  of a norm's gain: the axis or the product of axes to the left of `=>`
    """

    text: str
    dimensions: tuple[tuple[Expression, str], ...]
    normalises: Expression | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names in it, in order."""
        own = tuple(axis for expression, _ in self.dimensions for axis in expression.axes())
        return own + (self.normalises.axes() if self.normalises else ())

    def axes_of(self, side: str) -> tuple[str, ...]:
        """The axes that it writes ("writers") or reads ("readers"), in stored order."""
        return tuple(axis for expression, own in self.dimensions if own == side for axis in expression.axes())

    @property
    def gains(self) -> tuple[str, ...]:
        """The axes that a norm's gain writes, in the order of those that it normalises."""
        return self.dimensions[-1][0].axes()

    @property
    def written(self) -> tuple[tuple[Expression, str], ...]:
        """The dimensions that a bias of this tensor has."""
        return tuple(pair for pair in self.dimensions if pair[1] == "writers")

    @property
    def bias(self) -> Signature:
        """The signature of this tensor's bias: the dimensions that the tensor writes."""
        return Signature(f"{self.text} (bias)", self.written)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The stored shape for these sizes of axes."""
        return tuple(expression.size(sizes) for expression, _ in self.dimensions)

    def grow(self, maps: Mapping[str, AxisMap]) -> tuple[Dimension, ...]:
        """The growth of each stored dimension; a gain's is divided by the factor that the norm itself applies.

        Raises PlanError where a norm cannot pass the map of what it reads.
        """
        grown = tuple(expression.grow(maps, side) for expression, side in self.dimensions)
        if self.normalises is None:
            return grown
        gain, divided = grown[-1], np.ones(1)
        for axis in self.normalises.axes():
            divided = np.outer(divided, gain_factors(maps[axis])).ravel()
        copied = gain.source != GAP
        factor = np.where(copied, gain.factor / np.where(copied, divided, 1.0), 0.0)
        group_divided = np.ones(len(gain.group_source))
        group_divided[gain.group[copied]] = divided[copied]
        if np.array_equal(group_divided[gain.group[copied]], divided[copied]):
            gain = replace(gain, factor=factor, group_factor=gain.group_factor / group_divided)
        else:
            gain = replace(gain, factor=factor, dual=gain.dual * np.where(copied, divided, 1.0))
        return (*grown[:-1], gain)


def gain_factors(axis: AxisMap) -> np.ndarray:
    """[m] float64: the factor by which a norm over `axis` already multiplies each new coordinate (0 in gaps and means).

    The norm divides by the root of the mean square, which the map changes by sqrt(energy * n / m).
    Raises PlanError unless E is an isometry up to one factor.
    """
    ratio = mean_square_ratio(axis)
    root = np.sqrt(ratio)
    factors = np.where(axis.copied, axis.scale, 0.0) / root
    return np.where(np.abs(factors - 1) < ROUNDING, 1.0, factors)


def mean_square_ratio(axis: AxisMap) -> float:
    """The factor by which the map changes the mean square of a norm's input; the norm's eps must change by it too."""
    energy = axis.energy()
    if not np.allclose(energy, energy[0], rtol=ROUNDING, atol=0):
        raise PlanError("a norm cannot pass a map that stretches some old coordinates more than others")
    ratio = float(energy[0]) * axis.size / axis.new_size
    for near in (round(ratio), 1 / max(1, round(1 / ratio))):
        if near and abs(ratio / near - 1) < ROUNDING:
            return float(near)
    return ratio


@lru_cache(maxsize=4096)
def parse(text: str) -> Signature:
    """Read one signature. Raises ArchitectureError with the text and the place where it goes wrong."""
    try:
        if "=>" in text:
            return _norm(text)
        for arrow, first, second in (("->", "readers", "writers"), ("<-", "writers", "readers")):
            if arrow in text:
                before, after = text.split(arrow)
                return Signature(text, _sides(before, first) + _sides(after, second))
        raise ValueError("no arrow")
    except ValueError as error:
        raise ArchitectureError(f"signature {text!r}: {error}") from None


def _sides(text: str, side: str) -> tuple[tuple[Expression, str], ...]:
    if unread := re.sub(f"^(?:{TOKEN})*", "", text).strip():
        raise ValueError(f"cannot read {unread!r}")
    tokens = re.findall(TOKEN, text)
    dimensions: list[tuple[Expression, str]] = []
    while tokens:
        dimensions.append((_factor(tokens), side))
    return tuple(dimensions)


def _norm(text: str) -> Signature:
    read, written = (_sides(part, "writers") for part in text.split("=>"))
    normalises = read[0][0] if len(read) == 1 else None
    if not written or normalises is None or not normalises.is_plain:
        raise ValueError("a norm reads one axis, or one product of axes")
    if not written[-1][0].is_plain or len(normalises.axes()) != len(written[-1][0].axes()):
        raise ValueError("a norm writes as many axes as it reads")
    return Signature(text, written, normalises)


def _factor(tokens: list[str]) -> Expression:
    token = tokens.pop(0)
    if token in ")]+":
        raise ValueError(f"a stray {token!r}")
    if token == "(":
        terms = _terms(tokens, ")")
        return terms[0] if len(terms) == 1 else Concatenation(terms)
    if token.endswith("["):
        return Dealt(token[:-1], _terms(tokens, "]"))
    return Atom(token.removesuffix("~"), token.endswith("~"))


def _terms(tokens: list[str], closing: str) -> tuple[Expression, ...]:
    """The sum up to a closing bracket, each term of it a product."""
    terms: list[Expression] = []
    factors: list[Expression] = []
    while tokens:
        if tokens[0] not in (")", "]", "+"):
            factors.append(_factor(tokens))
            continue
        token = tokens.pop(0)
        if not factors:
            raise ValueError(f"nothing before {token!r}")
        terms.append(factors[0] if len(factors) == 1 else Product(tuple(factors)))
        factors = []
        if token == closing:
            return tuple(terms)
        if token != "+":
            raise ValueError(f"a stray {token!r}")
    raise ValueError("a bracket that is not closed")
