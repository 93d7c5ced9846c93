"""Dimensions of every form, drawn by hypothesis, and the dense matrices that they represent."""

from __future__ import annotations

from functools import reduce

import numpy as np
from hypothesis import strategies as st

from modelsurgeon.maps import dimension, orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.dimension import along
from modelsurgeon.maps.orders import power_of_two_shares
from modelsurgeon.maps.signature import Atom, Concatenation, Dealt, Product

SIZES = {"vocab": 5, "hidden": 6, "stream": 6, "mlp": 7, "experts": 3, "kv": 2, "heads": 4, "head": 8, "value": 9}
SIZES |= {"prehead": 8, "preheads": 4}
Q, K, V, HEADS, KV = Atom("head", other=True), Atom("head"), Atom("value"), Atom("heads"), Atom("kv")
QKV = (Product((HEADS, Q)), Product((KV, K)), Product((KV, V)))
FORMS = {
    "mlp <- hidden": ([(Atom("mlp"), "writers"), (Atom("hidden"), "readers")], (7, 6)),
    "hidden -> mlp": ([(Atom("hidden"), "readers"), (Atom("mlp"), "writers")], (6, 7)),
    "vocab -> stream": ([(Atom("vocab"), "readers"), (Atom("stream"), "writers")], (5, 6)),
    "mlp <-": ([(Atom("mlp"), "writers")], (7,)),
    "stream => hidden": ([(Atom("hidden"), "writers")], (6,)),
    "hidden <- (kv heads value)": (
        [(Atom("hidden"), "writers"), (Product((KV, HEADS, V)), "readers")], (6, 72)),
    "(heads head~ + kv head + kv value) <- hidden": (
        [(Concatenation(QKV), "writers"), (Atom("hidden"), "readers")], (66, 6)),
    "kv[heads head~ + kv head + kv value] <- hidden": (
        [(Dealt("kv", QKV), "writers"), (Atom("hidden"), "readers")], (66, 6)),
    "experts (mlp + mlp) <- hidden": (
        [(Atom("experts"), "writers"), (Concatenation((Atom("mlp"), Atom("mlp"))), "writers"),
         (Atom("hidden"), "readers")], (3, 14, 6)),
    "experts~ hidden -> (mlp 2)": (
        [(Atom("experts", other=True), "readers"), (Atom("hidden"), "readers"),
         (Product((Atom("mlp"), Atom("2"))), "writers")], (3, 6, 14)),
    "1 1 -> stream": ([(Atom("1"), "readers"), (Atom("1"), "readers"), (Atom("stream"), "writers")], (1, 1, 6)),
    "prehead => heads head~": ([(HEADS, "writers"), (Q, "writers")], (4, 8)),
    "(preheads prehead) => (heads head)": ([(Product((HEADS, K)), "writers")], (32,)),
    "hidden -> (heads head~ + heads head + heads value)": (
        [(Atom("hidden"), "readers"),
         (Concatenation(tuple(Product((Atom("heads"), part)) for part in (Q, K, V))), "writers")], (6, 100)),
    "(heads (head~ + head + value)) <- hidden": (
        [(Product((Atom("heads"), Concatenation((Q, K, V)))), "writers"), (Atom("hidden"), "readers")], (100, 6)),
    "(heads head~) <- hidden": ([(Product((Atom("heads"), Q)), "writers"), (Atom("hidden"), "readers")], (32, 6)),
    "3 <- hidden": ([(Atom("3"), "writers"), (Atom("hidden"), "readers")], (3, 6)),
    "mlp <- hidden 3": ([(Atom("mlp"), "writers"), (Atom("hidden"), "readers"), (Atom("3"), "readers")], (7, 6, 3)),
    "(mlp) <- ((hidden))": ([(Atom("mlp"), "writers"), (Atom("hidden"), "readers")], (7, 6)),
}  # fmt: skip


@st.composite
def maps(draw, size, least=GAP):
    """Any kind of map of an axis of this size; with least=MEAN, of one that holds means."""
    count, gain = draw(st.integers(1, 3)), draw(st.sampled_from([1.0, 2.0, 3**0.5]))
    even = (gain / count) ** 0.5
    kinds = [lambda: scattered(size, draw(st.integers(0, 2**32 - 1)), gain, least)]
    if least == GAP:
        kinds += [
            lambda: orders.identity(size),
            lambda: orders.copies(size, count, gain, power_of_two_shares(count), gain),
            lambda: orders.copies(size, count, even, [even] * count, gain),
            lambda: written_in_parts(size, count, gain),
        ]
    else:
        kinds += [lambda: tailed(size, count, 1 + size // 2, gain)]
    if size % 2 == 0 and least == GAP:
        kinds.append(lambda: nested(size, count, draw(st.sampled_from(["half", "interleaved"])), gain))
    return draw(st.sampled_from(kinds))()


def scattered(size, seed, gain=1.0, least=GAP, multiple=1):
    """Copies of each coordinate in any order, gaps (and means) between, any factors; a size that is a multiple."""
    rng = np.random.default_rng(seed)
    source = np.r_[np.arange(size), rng.integers(least, size, rng.integers(1, 6)), np.full(int(least == MEAN), MEAN)]
    source = rng.permutation(np.r_[source, np.full(-len(source) % multiple, GAP)])
    scale, count = rng.uniform(0.25, 4.0, len(source)), orders.ranks(source)[1]
    return orders.gathered(size, source, scale, gain / count / scale, gain)


def written_in_parts(size, count, gain):
    """A tied head's axis: writers are parts of a sum, readers are equal."""
    share = np.full(size * count, gain)
    scale = np.repeat(power_of_two_shares(count), size)
    return AxisMap(size, np.tile(np.arange(size), count), scale, share, gain, split="writers")


def tailed(size, count, rest, gain=1.0):
    """Whole tiles and the mean of all behind them."""
    source = np.r_[np.tile(np.arange(size), count), np.full(rest, MEAN)]
    return orders.gathered(size, source, np.ones(len(source)), np.full(len(source), gain / count), gain)


def nested(size, count, layout, gain):
    source = orders.nested_pairs(size, count, layout)
    return orders.gathered(size, source, np.full(len(source), gain), np.ones(len(source)), gain)


def old_matrix(grown):
    """[n + means, n]: each source as a combination of old coordinates."""
    averages = [np.bincount(mean, minlength=grown.size) / len(mean) for mean in grown.means]
    return np.concatenate([np.eye(grown.size), *(average[None] for average in averages)])


def gathered_matrix(source, factor, old):
    matrix = np.zeros((len(source), old.shape[1]))
    kept = np.flatnonzero(source != GAP)
    matrix[kept] = old[source[kept]] * factor[kept, None]
    return matrix


def grown_matrix(grown):
    """[m, n]: a dimension's growth of a vector, as a matrix."""
    return gathered_matrix(grown.source, grown.factor, old_matrix(grown))


def wanted_matrix(axis, side):
    spread, gather = axis.dense()
    return spread if side == "writers" else gather.T


def block_diagonal(*blocks):
    whole = np.zeros(np.sum([block.shape for block in blocks], axis=0))
    at = np.zeros(2, dtype=int)
    for block in blocks:
        whole[at[0] : at[0] + block.shape[0], at[1] : at[1] + block.shape[1]] = block
        at += block.shape
    return whole


OTHER = {"writers": "readers", "readers": "writers"}
sides = st.sampled_from(["writers", "readers"])


PLACES = {"axis": 1, "product": 3, "concatenation": 3, "product of concatenation": 3, "concatenation of products": 4}


@st.composite
def dimensions(draw):
    """(a dimension of any form, the dense matrix that it should be); a product holds means of one of its factors."""
    side, form = draw(sides), draw(st.sampled_from(list(PLACES)))
    held = draw(st.integers(-1, PLACES[form] - 1))
    parts = [draw(maps(draw(st.integers(1, 4)), MEAN if place == held else GAP)) for place in range(4)]
    if form == "concatenation":
        parts = [draw(maps(draw(st.integers(1, 4)), draw(st.sampled_from([GAP, MEAN])))) for _ in range(3)]
    dims, wanted = [along(p, side) for p in parts[:4]], [wanted_matrix(p, side) for p in parts]
    if form == "axis":
        return dims[0], wanted[0]
    if form == "product":
        return dimension.product(dims[:3]), reduce(np.kron, wanted[:3])
    if form == "concatenation":
        return dimension.concatenation(dims), block_diagonal(*wanted)
    if form == "product of concatenation":
        inner = dimension.concatenation(dims[1:3])
        return dimension.product([dims[0], inner]), np.kron(wanted[0], block_diagonal(*wanted[1:3]))
    both = [dimension.product(dims[:2]), dimension.product(dims[2:])]
    return dimension.concatenation(both), block_diagonal(np.kron(*wanted[:2]), np.kron(*wanted[2:]))
