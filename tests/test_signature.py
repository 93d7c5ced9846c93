"""The grammar of arrow signatures, and what each form does to a dimension, against dense matrices."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsurgeon import architecture, axis_map, dimension
from modelsurgeon.axis_map import GAP, AxisMap, power_of_two_shares
from modelsurgeon.dimension import along
from modelsurgeon.errors import ArchitectureError, PlanError
from modelsurgeon.signature import Atom, Concatenation, Product, gain_factors, mean_square_ratio, parse

SIZES = {"vocab": 5, "hidden": 6, "stream": 6, "mlp": 7, "kv": 2, "group": 3, "heads": 4, "head": 8, "value": 9}
Q, K, V = Atom("head", other=True), Atom("head"), Atom("value")
FORMS = {
    "mlp <- hidden": ([(Atom("mlp"), "writers"), (Atom("hidden"), "readers")], (7, 6)),
    "hidden -> mlp": ([(Atom("hidden"), "readers"), (Atom("mlp"), "writers")], (6, 7)),
    "vocab -> stream": ([(Atom("vocab"), "readers"), (Atom("stream"), "writers")], (5, 6)),
    "mlp <-": ([(Atom("mlp"), "writers")], (7,)),
    "stream => hidden": ([(Atom("hidden"), "writers")], (6,)),
    "hidden <- (kv group value)": (
        [(Atom("hidden"), "writers"), (Product((Atom("kv"), Atom("group"), V)), "readers")], (6, 54)),
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
    assert parse("stream => hidden").normalises == "stream"
    assert parse("mlp <- hidden").normalises is None


@pytest.mark.parametrize("text", ["mlp <- hidden", "hidden -> mlp"])
def test_a_bias_has_what_its_matrix_writes(text):
    assert parse(text).bias.dimensions == ((Atom("mlp"), "writers"),)
    assert parse(text).bias.shape(SIZES) == (7,)


def test_a_norms_bias_is_no_gain():
    assert parse("stream => hidden").bias.normalises is None


def test_a_signature_names_its_axes():
    assert parse("(heads (head~ + head + value)) <- hidden").axes == ("heads", "head", "head", "value", "hidden")
    assert set(parse("stream => hidden").axes) == {"stream", "hidden"}
    assert parse("3 <- hidden").axes == ("hidden",)


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
    ],
)
def test_a_signature_that_cannot_be_read_is_refused_with_its_text_and_the_place(text, place):
    with pytest.raises(ArchitectureError, match=place) as raised:
        parse(text)
    assert f"signature {text!r}: " in str(raised.value)


@pytest.mark.parametrize("text", ["=> hidden", "stream =>", "stream => hidden mlp", "stream hidden => hidden"])
def test_a_gain_has_one_axis_on_either_side(text):
    with pytest.raises(ArchitectureError):
        parse(text)


@pytest.mark.parametrize("model_type", architecture.known())
def test_every_signature_of_a_table_reads_back_from_its_text(model_type):
    for text in architecture.find(model_type).tensors.values():
        assert parse(text).text == text


# --- growth ----------------------------------------------------------------------------------------------------------


@st.composite
def maps(draw, size):
    """Any kind of map of an axis of this size."""
    count, gain = draw(st.integers(1, 3)), draw(st.sampled_from([1.0, 2.0, 3**0.5]))
    even = (gain / count) ** 0.5
    kinds = [
        axis_map.identity(size),
        axis_map.copies(size, count, gain, power_of_two_shares(count), gain),
        axis_map.copies(size, count, even, [even] * count, gain),
        AxisMap(
            size,
            np.tile(np.arange(size), count),
            np.repeat(power_of_two_shares(count), size),
            np.full(size * count, gain),
            gain,
            split="writers",
        ),
    ]
    if size % 2 == 0:
        source = axis_map.nested_pairs(size, count, draw(st.sampled_from(["half", "interleaved"])))
        kinds.append(axis_map.gathered(size, source, np.full(len(source), gain), np.ones(len(source)), gain))
    return draw(st.sampled_from(kinds))


def grown_matrix(grown):
    """[m, n]: what a dimension does to a vector that is stored along it."""
    matrix = np.zeros((grown.new_size, grown.size))
    kept = np.flatnonzero(grown.source != GAP)
    matrix[kept, grown.source[kept]] = grown.factor[kept]
    return matrix


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


@st.composite
def dimensions(draw):
    """(a dimension of any form, the dense matrix that it should be)"""
    side, form = draw(sides), draw(st.sampled_from(["axis", "product", "concatenation", "product of concatenation"]))
    parts = [draw(maps(draw(st.integers(1, 4)))) for _ in range(3)]
    dims, wanted = [along(p, side) for p in parts], [wanted_matrix(p, side) for p in parts]
    if form == "axis":
        return dims[0], wanted[0]
    if form == "product":
        return dimension.product(dims), reduce(np.kron, wanted)
    if form == "concatenation":
        return dimension.concatenation(dims), block_diagonal(*wanted)
    inner = dimension.concatenation(dims[1:])
    return dimension.product([dims[0], inner]), np.kron(wanted[0], block_diagonal(*wanted[1:]))


@given(dimensions())
def test_a_dimension_grows_by_the_product_and_the_blocks_of_its_axes_matrices(case):
    grown, wanted = case
    np.testing.assert_array_equal(grown_matrix(grown), wanted)


@given(dimensions())
def test_folding_a_grown_dimension_gives_the_old_one_back(case):
    """sum of new[j] * dual[j] over a group is old[group_source] * group_factor, whatever the numbers are."""
    grown, _ = case
    fold = np.zeros((len(grown.group_source), grown.new_size))
    fold[grown.group, np.arange(grown.new_size)] = grown.dual
    wanted = np.zeros((len(grown.group_source), grown.size))
    kept = np.flatnonzero(grown.group_source != GAP)
    wanted[kept, grown.group_source[kept]] = grown.group_factor[kept]
    # float64 products of three factors, each rounded by 1e-16
    np.testing.assert_allclose(fold @ grown_matrix(grown), wanted, rtol=1e-14, atol=1e-14)


@given(dimensions())
def test_every_old_coordinate_is_found_again_by_folding(case):
    grown, _ = case
    found = grown.group_source[grown.group_factor != 0]
    assert set(found[found != GAP].tolist()) == set(range(grown.size))


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
@given(st.data())
def test_a_signature_grows_each_dimension_by_its_own_side_and_marked_axes_by_the_other(text, data):
    grown_maps = {name: data.draw(maps(size)) for name, size in SIZES.items()}

    def dense(expression, side):
        if isinstance(expression, Product):
            return reduce(np.kron, [dense(part, side) for part in expression.parts])
        if isinstance(expression, Concatenation):
            return block_diagonal(*[dense(part, side) for part in expression.parts])
        if expression.name.isdigit():
            return np.eye(int(expression.name))
        return wanted_matrix(grown_maps[expression.name], OTHER[side] if expression.other else side)

    for (expression, side), grown in zip(FORMS[text][0], parse(text).grow(grown_maps), strict=True):
        np.testing.assert_array_equal(grown_matrix(grown), dense(expression, side))


@given(maps(6), maps(7), st.integers(0, 2**32 - 1))
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
        return axis_map.copies(size, count, scale, [1 / scale / count] * count)
    source = axis_map.nested_pairs(size, count, "half")
    return axis_map.gathered(size, source, np.full(len(source), scale), np.full(len(source), 1 / scale), 1.0)


def rms_norm(x, gain, eps):
    return x / np.sqrt((x**2).mean() + eps) * gain


@given(isometries(), st.sampled_from(["exact", "orthogonal"]), st.integers(0, 2**32 - 1))
def test_a_grown_gain_behind_a_norm_is_the_grown_output_of_the_norm(stream, rule, seed):
    rng = np.random.default_rng(seed)
    x, gain, eps = rng.normal(size=6), rng.normal(size=6), 0.1
    factor = 1.0 if rule == "exact" else (stream.size / stream.new_size) ** 0.5
    hidden = axis_map.gathered(
        6, stream.source, np.full(stream.new_size, factor), stream.scale * stream.share / factor, 1.0
    )
    (grown,) = parse("stream => hidden").grow({"stream": stream, "hidden": hidden})
    after = rms_norm(stream.dense()[0] @ x, grown_matrix(grown) @ gain, eps * mean_square_ratio(stream))
    np.testing.assert_allclose(after, hidden.dense()[0] @ rms_norm(x, gain, eps), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_norm_sees_copies_as_they_are_and_takes_their_scale_away(count):
    tiles = axis_map.copies(6, count, 1.0, power_of_two_shares(count))
    assert mean_square_ratio(tiles) == 1.0
    np.testing.assert_array_equal(gain_factors(tiles), np.ones(6 * count))
    even = axis_map.copies(6, count, count**-0.5, [count**-0.5] * count)
    assert mean_square_ratio(even) == pytest.approx(1 / count, rel=1e-15)  # one rounding of float64
    np.testing.assert_array_equal(gain_factors(even), np.ones(6 * count))


def test_a_norm_cannot_pass_a_map_that_stretches_some_coordinates_more_than_others():
    uneven = axis_map.gathered(2, np.array([0, 1, 1]), np.ones(3), np.array([1.0, 0.5, 0.5]), 1.0)
    with pytest.raises(PlanError, match="a norm cannot pass"):
        parse("stream => hidden").grow({"stream": uneven, "hidden": axis_map.identity(2)})
