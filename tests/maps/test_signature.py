"""The grammar of arrow signatures, and what each form does to a dimension, against dense matrices."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsurgeon.architectures import registry
from modelsurgeon.errors import ArchitectureError, PlanError
from modelsurgeon.maps import dimension, orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.dimension import along
from modelsurgeon.maps.orders import power_of_two_shares
from modelsurgeon.maps.signature import Atom, Concatenation, Dealt, Product, gain_factors, mean_square_ratio, parse

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


# --- grammar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORMS)
def test_a_signature_gives_its_dimensions_in_stored_order(text):
    dimensions, shape = FORMS[text]
    assert list(parse(text).dimensions) == dimensions
    assert parse(text).shape(SIZES) == shape


def test_a_gain_normalises_what_stands_left_of_its_arrow():
    assert parse("stream => hidden").normalises == Atom("stream")
    assert parse("prehead => heads head~").normalises == Atom("prehead")
    assert parse("(preheads prehead) => (heads head)").normalises == Product((Atom("preheads"), Atom("prehead")))
    assert parse("mlp <- hidden").normalises is None


def test_a_gain_writes_as_many_axes_as_it_normalises_and_its_rows_are_none_of_them():
    assert parse("stream => hidden").gains == ("hidden",)
    assert parse("prehead => heads head~").gains == ("head",)
    assert parse("(preheads prehead) => (heads head)").gains == ("heads", "head")


@pytest.mark.parametrize("text", ["mlp <- hidden", "hidden -> mlp"])
def test_a_bias_has_what_its_matrix_writes(text):
    assert parse(text).bias.dimensions == ((Atom("mlp"), "writers"),)
    assert parse(text).bias.shape(SIZES) == (7,)


@pytest.mark.parametrize("text", ["stream => hidden", "prehead => heads head~", "(preheads prehead) => (heads head)"])
def test_a_norms_bias_is_no_gain(text):
    assert parse(text).bias.normalises is None
    assert parse(text).bias.dimensions == parse(text).dimensions


def test_a_signature_names_its_axes():
    assert parse("(heads (head~ + head + value)) <- hidden").axes == ("heads", "head", "head", "value", "hidden")
    assert set(parse("stream => hidden").axes) == {"stream", "hidden"}
    assert parse("3 <- hidden").axes == ("hidden",)
    assert parse("kv[heads head + kv value] <-").axes == ("kv", "heads", "head", "kv", "value")
    assert parse("prehead => heads head~").axes == ("heads", "head", "prehead")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("mlp hidden", "no arrow"),
        ("", "no arrow"),
        ("mlp <- hid-den", "cannot read '-den'"),
        ("mlp <- hidden?", r"cannot read '\?'"),
        ("(mlp <- hidden", "a bracket that is not closed"),
        ("mlp <- (heads head", "a bracket that is not closed"),
        ("mlp) <- hidden", r"a stray '\)'"),
        ("mlp + mlp <- hidden", r"a stray '\+'"),
        ("() <- hidden", r"nothing before '\)'"),
        ("(heads + ) <- hidden", r"nothing before '\)'"),
        ("(+ heads) <- hidden", r"nothing before '\+'"),
        ("mlp <- hidden <- heads", "signature"),
        ("a -> b -> c", "signature"),
        ("a => b => c", "signature"),
        ("kv[heads head <- hidden", "a bracket that is not closed"),
        ("kv[heads head) <- hidden", r"a stray '\)'"),
        ("(heads head] <- hidden", r"a stray '\]'"),
        ("kv[] <- hidden", r"nothing before '\]'"),
        ("kv [heads] <- hidden", r"cannot read '\[heads\]'"),
        ("2[heads] <- hidden", r"cannot read '\[heads\]'"),
        ("~head <- hidden", "cannot read '~head'"),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused_with_its_text_and_the_place(text, place):
    with pytest.raises(ArchitectureError, match=place) as raised:
        parse(text)
    assert f"signature {text!r}: " in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("=> hidden", "a norm reads one axis, or one product of axes"),
        ("stream =>", "a norm reads one axis, or one product of axes"),
        ("stream hidden => hidden", "a norm reads one axis, or one product of axes"),
        ("(stream + hidden) => hidden", "a norm reads one axis, or one product of axes"),
        ("(heads (head + value)) => (heads head)", "a norm reads one axis, or one product of axes"),
        ("kv[heads] => heads", "a norm reads one axis, or one product of axes"),
        ("stream => (heads head)", "a norm writes as many axes as it reads"),
        ("(heads head) => hidden", "a norm writes as many axes as it reads"),
        ("(heads head) => heads head", "a norm writes as many axes as it reads"),
        ("stream => (hidden + hidden)", "a norm writes as many axes as it reads"),
    ],
)
def test_a_gain_has_as_many_axes_on_either_side(text, words):
    with pytest.raises(ArchitectureError, match=words):
        parse(text)


@pytest.mark.parametrize("model_type", registry.known())
def test_every_signature_of_a_table_reads_back_from_its_text(model_type):
    for text in registry.find(model_type).tensors.values():
        assert parse(text).text == text


# --- growth ----------------------------------------------------------------------------------------------------------


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
    """[n + means, n]: what each number that a source may have stands for."""
    averages = [np.bincount(mean, minlength=grown.size) / len(mean) for mean in grown.means]
    return np.concatenate([np.eye(grown.size), *(average[None] for average in averages)])


def gathered_matrix(source, factor, old):
    matrix = np.zeros((len(source), old.shape[1]))
    kept = np.flatnonzero(source != GAP)
    matrix[kept] = old[source[kept]] * factor[kept, None]
    return matrix


def grown_matrix(grown):
    """[m, n]: what a dimension does to a vector that is stored along it."""
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


@given(dimensions())
def test_a_dimension_grows_by_the_product_and_the_blocks_of_its_axes_matrices(case):
    grown, wanted = case
    # a mean of some is a sum of products, rounded by 1e-16 each
    np.testing.assert_allclose(grown_matrix(grown), wanted, rtol=1e-15, atol=1e-16)


@given(dimensions())
def test_folding_a_grown_dimension_gives_the_old_one_back(case):
    """sum of new[j] * dual[j] over a group is old[group_source] * group_factor, whatever the numbers are."""
    grown, _ = case
    fold = np.zeros((len(grown.group_source), grown.new_size))
    fold[grown.group, np.arange(grown.new_size)] = grown.dual
    wanted = gathered_matrix(grown.group_source, grown.group_factor, old_matrix(grown))
    # float64 products of three factors, each rounded by 1e-16
    np.testing.assert_allclose(fold @ grown_matrix(grown), wanted, rtol=1e-14, atol=1e-14)


def test_a_product_cannot_hold_means_of_two_of_its_factors():
    both = [along(tailed(3, 1, 1), "writers"), along(tailed(2, 2, 1), "writers")]
    with pytest.raises(PlanError, match="a dimension cannot hold means of two axes"):
        dimension.product(both)
    assert len(dimension.concatenation(both).means) == 2


@pytest.mark.parametrize("split", ["readers", "writers"])
def test_readers_ignore_a_mean_and_writers_hold_it_where_they_are_no_parts_of_a_sum(split):
    source, ones = np.array([0, 1, 2, MEAN]), np.ones(4)
    held = orders.gathered(3, source, ones, ones, 1.0, split)
    assert along(held, "readers").source.tolist() == [0, 1, 2, GAP] and not along(held, "readers").means
    if split == "writers":
        with pytest.raises(PlanError, match="split among its writers cannot hold a mean"):
            along(held, "writers")
    else:
        (mean,) = along(held, "writers").means
        assert along(held, "writers").source.tolist() == [0, 1, 2, 3] and mean.tolist() == [0, 1, 2]


@given(dimensions(), st.integers(0, 2**32 - 1))
def test_a_rearranged_dimension_is_the_same_between_two_permutations(case, seed):
    grown, wanted = case
    rng = np.random.default_rng(seed)
    before, after = rng.permutation(grown.size), rng.permutation(grown.new_size)
    moved = grown.rearranged(before, after)
    np.testing.assert_allclose(grown_matrix(moved), wanted[after][:, before], rtol=1e-15, atol=1e-16)
    fold = np.zeros((len(moved.group_source), moved.new_size))
    fold[moved.group, np.arange(moved.new_size)] = moved.dual
    folded = gathered_matrix(moved.group_source, moved.group_factor, old_matrix(moved))
    np.testing.assert_allclose(fold @ grown_matrix(moved), folded, rtol=1e-14, atol=1e-14)


@given(dimensions())
def test_what_is_emptied_is_as_large_and_copies_nothing(case):
    grown, _ = case
    assert grown.emptied.new_size == grown.new_size
    assert not grown_matrix(grown.emptied).any()
    np.testing.assert_array_equal(grown_matrix(grown.without_factors) != 0, grown_matrix(replaced(grown)) != 0)


def replaced(grown):
    """The dimension with a 1 for every factor, zeros too."""
    return replace(grown, factor=np.ones(grown.new_size))


@given(dimensions())
def test_every_old_coordinate_is_found_again_by_folding(case):
    grown, _ = case
    found = grown.group_source[grown.group_factor != 0]
    assert set(found[found != GAP].tolist()) >= set(range(grown.size))


@given(dimensions())
def test_runs_say_what_the_vectors_say(case):
    grown, _ = case
    assert [run.start for run in grown.runs] == [0, *(run.stop for run in grown.runs)][:-1]
    for run in grown.runs:
        span = np.arange(run.stop - run.start)
        wanted = np.full(len(span), GAP) if run.source == GAP else run.source + span
        np.testing.assert_array_equal(grown.source[run.start : run.stop], wanted)
        assert set(grown.factor[run.start : run.stop].tolist()) == {run.factor}


@pytest.mark.parametrize("text", [text for text in FORMS if "=>" not in text])
@settings(max_examples=15)
@given(st.data())
def test_a_signature_grows_each_dimension_by_its_own_side_and_marked_axes_by_the_other(text, data):
    seeds = st.integers(0, 2**32 - 1)
    grown_maps = {name: data.draw(maps(size)) for name, size in SIZES.items()}
    for name in ("kv", "heads"):  # sizes that can be dealt out
        hands = grown_maps["kv"].new_size if name == "heads" else 1
        grown_maps[name] = scattered(SIZES[name], data.draw(seeds), multiple=hands)
    grown_maps["stream"] = data.draw(maps(6, MEAN))
    for (expression, side), grown in zip(FORMS[text][0], parse(text).grow(grown_maps), strict=True):
        np.testing.assert_allclose(grown_matrix(grown), dense(expression, side, grown_maps), rtol=1e-15, atol=1e-16)


def dense(expression, side, grown_maps):
    """[m, n]: what an expression does, from the dense matrices of its axes."""
    if isinstance(expression, Product):
        return reduce(np.kron, [dense(part, side, grown_maps) for part in expression.parts])
    if isinstance(expression, Concatenation):
        return block_diagonal(*[dense(part, side, grown_maps) for part in expression.parts])
    if isinstance(expression, Dealt):
        blocks, dealer = [dense(part, side, grown_maps) for part in expression.parts], grown_maps[expression.along]
        rows, columns = ([block.shape[axis] for block in blocks] for axis in (0, 1))
        return dealt(rows, dealer.new_size) @ block_diagonal(*blocks) @ dealt(columns, dealer.size).T
    if expression.name.isdigit():
        return np.eye(int(expression.name))
    return wanted_matrix(grown_maps[expression.name], OTHER[side] if expression.other else side)


def dealt(sizes, hands):
    """[n, n]: the permutation that deals parts of these sizes, one after another, out to so many hands."""
    places = [sum(sizes[:i]) + hand * (size // hands) + j
              for hand in range(hands) for i, size in enumerate(sizes) for j in range(size // hands)]  # fmt: skip
    return np.eye(sum(sizes))[places]


def test_parts_are_dealt_out_hand_by_hand():
    """Falcon-40b: each key-value head's queries, its key, its value."""
    same = {name: orders.identity(size) for name, size in {"kv": 2, "heads": 4, "head": 1, "value": 1}.items()}
    twice = {**same, "kv": orders.copies(2, 2, 1.0, (0.5, 0.5)), "heads": orders.copies(4, 2, 1.0, (0.5, 0.5))}
    (grown,) = parse("kv[heads head~ + kv head + kv value] <-").grow(twice)
    rows = np.array(["q0", "q1", "k0", "v0", "q2", "q3", "k1", "v1"])
    assert rows[grown.source].tolist() == [*rows, *rows]
    assert parse("kv[heads head~ + kv head + kv value] <-").grow(same)[0].is_identity


def test_parts_that_do_not_divide_cannot_be_dealt_out():
    thrice = {"kv": orders.copies(2, 2, 1.0, (0.5, 0.5)), "heads": orders.copies(2, 3, 1.0, (0.5, 0.25, 0.25))}
    with pytest.raises(PlanError, match=r"parts of \[6, 4\] cannot be dealt out to 4"):
        parse("kv[heads + kv] <-").grow(thrice)


@given(st.one_of(maps(6), maps(6, MEAN)), st.one_of(maps(7), maps(7, MEAN)), st.integers(0, 2**32 - 1))
def test_a_grown_matrix_on_a_grown_input_is_the_grown_output(hidden, mlp, seed):
    """W' (E x) = gain E (W x): the law that widening rests on, through the signature of a linear layer."""
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(7, 6)), rng.normal(size=6)
    rows, columns = parse("mlp <- hidden").grow({"mlp": mlp, "hidden": hidden})
    grown = grown_matrix(rows) @ weight @ grown_matrix(columns).T
    spread = hidden.dense()[0] @ x
    np.testing.assert_allclose(grown @ spread, hidden.gain * mlp.dense()[0] @ (weight @ x), rtol=1e-12, atol=1e-12)


@given(maps(8), st.integers(0, 2**32 - 1))
def test_an_inner_product_changes_by_the_gain_alone(head, seed):
    """Queries (`head~`) read what keys (`head`) write."""
    q, k = np.random.default_rng(seed).normal(size=(2, 8))
    queries = grown_matrix(parse("head~ <-").grow({"head": head})[0]) @ q
    keys = grown_matrix(parse("head <-").grow({"head": head})[0]) @ k
    np.testing.assert_allclose(queries @ keys, head.gain * (q @ k), rtol=1e-12, atol=1e-12)


# --- gains -----------------------------------------------------------------------------------------------------------


@st.composite
def isometries(draw):
    """Maps that a norm can pass: all old coordinates are stretched alike, copied or not, with gaps or without."""
    size, count = 6, draw(st.integers(1, 4))
    scale = draw(st.sampled_from([1.0, count**-0.5, 0.5, 3.0]))
    if draw(st.booleans()):
        return orders.copies(size, count, scale, [1 / scale / count] * count)
    source = orders.nested_pairs(size, count, "half")
    return orders.gathered(size, source, np.full(len(source), scale), np.full(len(source), 1 / scale), 1.0)


def rms_norm(x, gain, eps):
    return x / np.sqrt((x**2).mean() + eps) * gain


def layer_norm(x, gain, eps):
    return rms_norm(x - x.mean(), gain, eps)


@given(isometries(), st.sampled_from(["exact", "orthogonal"]), st.integers(0, 2**32 - 1))
def test_a_grown_gain_behind_a_norm_is_the_grown_output_of_the_norm(stream, rule, seed):
    rng = np.random.default_rng(seed)
    x, gain, eps = rng.normal(size=6), rng.normal(size=6), 0.1
    factor = 1.0 if rule == "exact" else (stream.size / stream.new_size) ** 0.5
    hidden = orders.gathered(
        6, stream.source, np.full(stream.new_size, factor), stream.scale * stream.share / factor, 1.0
    )
    (grown,) = parse("stream => hidden").grow({"stream": stream, "hidden": hidden})
    after = rms_norm(stream.dense()[0] @ x, grown_matrix(grown) @ gain, eps * mean_square_ratio(stream))
    np.testing.assert_allclose(after, hidden.dense()[0] @ rms_norm(x, gain, eps), rtol=1e-12, atol=1e-12)


@given(st.integers(1, 3), st.integers(0, 7), st.sampled_from([1.0, 0.5, 3.0]), st.integers(0, 2**32 - 1))
def test_a_layer_norm_takes_the_mean_that_stands_behind_the_copies_away(count, rest, scale, seed):
    rng = np.random.default_rng(seed)
    x, gain, eps = rng.normal(size=6), rng.normal(size=6), 0.1
    source = np.r_[np.tile(np.arange(6), count), np.full(rest, MEAN)]
    stream = orders.gathered(6, source, np.full(len(source), scale), np.full(len(source), 1 / scale / count), 1.0)
    behind = np.where(source == MEAN, GAP, source)
    hidden = orders.gathered(6, behind, np.full(len(source), 0.7), np.full(len(source), 1 / 0.7 / count), 1.0)
    (grown,) = parse("stream => hidden").grow({"stream": stream, "hidden": hidden})
    after = layer_norm(stream.dense()[0] @ x, grown_matrix(grown) @ gain, eps * mean_square_ratio(stream))
    np.testing.assert_allclose(after, hidden.dense()[0] @ layer_norm(x, gain, eps), rtol=1e-12, atol=1e-12)


@given(isometries(), isometries(), st.integers(0, 2**32 - 1))
def test_a_norm_over_a_product_of_axes_passes_the_product_of_their_maps(heads, head, seed):
    """OLMo2: one norm over all coordinates of all heads."""
    rng = np.random.default_rng(seed)
    x, gain, eps = rng.normal(size=36), rng.normal(size=36), 0.1
    written = {"preheads": heads, "prehead": head, "heads": heads, "head": head}
    (grown,) = parse("(preheads prehead) => (heads head)").grow(written)
    spread = np.kron(heads.dense()[0], head.dense()[0])
    ratio = mean_square_ratio(heads) * mean_square_ratio(head)
    after = rms_norm(spread @ x, grown_matrix(grown) @ gain, eps * ratio)
    np.testing.assert_allclose(after, spread @ rms_norm(x, gain, eps), rtol=1e-12, atol=1e-12)


@given(isometries(), maps(4), st.integers(0, 2**32 - 1))
def test_a_gain_of_many_rows_normalises_its_last_dimension(head, heads, seed):
    """Cohere: a gain of its own for each head, [heads, head]."""
    rng = np.random.default_rng(seed)
    x, gain, eps = rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), 0.1
    rows, columns = parse("prehead => heads head").grow({"prehead": head, "heads": heads, "head": head})
    grown = grown_matrix(rows) @ gain @ grown_matrix(columns).T
    each = heads.source  # heads in copies of scale 1
    for new, old in enumerate(each):
        if old != GAP:
            after = rms_norm(head.dense()[0] @ x[old], grown[new], eps * mean_square_ratio(head))
            before = head.dense()[0] @ rms_norm(x[old], gain[old], eps) * heads.scale[new]
            np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)


def test_a_mean_has_no_part_in_what_a_norm_sees():
    tail = tailed(6, 2, 3)
    assert mean_square_ratio(tail) == pytest.approx(12 / 15, rel=1e-15)
    np.testing.assert_array_equal(gain_factors(tail)[12:], np.zeros(3))
    np.testing.assert_allclose(gain_factors(tail)[:12], (15 / 12) ** 0.5, rtol=1e-15)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_norm_sees_copies_as_they_are_and_takes_their_scale_away(count):
    tiles = orders.copies(6, count, 1.0, power_of_two_shares(count))
    assert mean_square_ratio(tiles) == 1.0
    np.testing.assert_array_equal(gain_factors(tiles), np.ones(6 * count))
    even = orders.copies(6, count, count**-0.5, [count**-0.5] * count)
    assert mean_square_ratio(even) == pytest.approx(1 / count, rel=1e-15)  # one rounding of float64
    np.testing.assert_array_equal(gain_factors(even), np.ones(6 * count))


def test_a_norm_cannot_pass_a_map_that_stretches_some_coordinates_more_than_others():
    uneven = orders.gathered(2, np.array([0, 1, 1]), np.ones(3), np.array([1.0, 0.5, 0.5]), 1.0)
    with pytest.raises(PlanError, match="a norm cannot pass"):
        parse("stream => hidden").grow({"stream": uneven, "hidden": orders.identity(2)})
