"""What each form of a signature does to a dimension that grows, against dense matrices."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsurgeon.errors import PlanError
from modelsurgeon.maps import dimension, orders
from modelsurgeon.maps.axis_map import GAP, MEAN
from modelsurgeon.maps.dimension import along
from modelsurgeon.maps.signature import Concatenation, Dealt, Product, parse
from support import draws
from support.dimensions import (
    FORMS,
    OTHER,
    SIZES,
    block_diagonal,
    dimensions,
    gathered_matrix,
    grown_matrix,
    maps,
    old_matrix,
    scattered,
    tailed,
    wanted_matrix,
)


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
@settings(max_examples=draws.examples(15))
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
