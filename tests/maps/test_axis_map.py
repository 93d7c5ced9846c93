"""The laws of axis maps, for every constructor, against dense matrices."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsurgeon.errors import PlanError
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.orders import power_of_two_shares
from support import draws

LAYOUTS = ("half", "interleaved")
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def identities(draw):
    return orders.identity(draw(st.integers(1, 40)))


@st.composite
def even_copies(draw):
    """The orthogonal rule: both sides take 1/sqrt(k), times the root of the gain."""
    size, count, gain = draw(st.integers(1, 24)), draw(st.integers(1, 7)), draw(GAINS)
    factor = (gain / count) ** 0.5
    return orders.copies(size, count, factor, [factor] * count, gain)


@st.composite
def exact_copies(draw):
    """The rule exact: writers repeat, readers take powers of two."""
    size, count, gain = draw(st.integers(1, 24)), draw(st.integers(1, 7)), draw(GAINS)
    return orders.copies(size, count, gain, power_of_two_shares(count), gain)


@st.composite
def split_writers(draw):
    """A tied head: readers are equal, writers are parts of a sum."""
    flipped = draw(exact_copies())
    return AxisMap(flipped.size, flipped.source, flipped.share, flipped.scale, flipped.gain, split="writers")


@st.composite
def nested(draw):
    size, count, gain = 2 * draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(GAINS)
    source = orders.nested_pairs(size, count, draw(st.sampled_from(LAYOUTS)))
    return orders.gathered(size, source, np.full(len(source), gain), np.ones(len(source)), gain)


@st.composite
def repeated(draw):
    size, count, gain = 2 * draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(GAINS)
    source = orders.repeated_pairs(size, count, draw(st.sampled_from(LAYOUTS)))
    even = np.full(len(source), (gain / count) ** 0.5)
    return orders.gathered(size, source, even, even, gain)


@st.composite
def mean_tails(draw):
    """Whole tiles and the mean of all behind them: sizes that are no multiple, behind a LayerNorm."""
    size, count, rest = draw(st.integers(1, 24)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    source = np.r_[np.tile(np.arange(size), count), np.full(rest, MEAN)]
    scale = draw(st.sampled_from([1.0, count**-0.5]))
    return orders.gathered(size, source, np.full(len(source), scale), np.full(len(source), 1 / scale / count), 1.0)


@st.composite
def tailed(draw):
    """More copies of some coordinates than of others, each written and read with what its count asks for."""
    size, gain = draw(st.integers(1, 24)), draw(GAINS)
    source, rank, count = orders.tiled(size, size + draw(st.integers(0, 40)))
    scale = draw(st.sampled_from([np.ones(len(source)), np.sqrt(1 / count)]))
    parts = draw(st.sampled_from([orders.shares(rank, count), 1 / count]))
    return orders.gathered(size, source, scale, gain * parts / scale, gain)


@st.composite
def arbitrary(draw, size=None):
    """Any number of copies of each coordinate in any order, gaps and means between, factors that obey the law."""
    size, gain = draw(st.integers(1, 8)) if size is None else size, draw(GAINS)
    rng = np.random.default_rng(draw(SEEDS))
    source = rng.permutation(np.r_[np.arange(size), rng.integers(MEAN, size, draw(st.integers(0, 12)))])
    scale, count = rng.uniform(0.25, 4.0, len(source)), orders.ranks(source)[1]
    return orders.gathered(size, source, scale, gain / count / scale, gain)


@st.composite
def chains(draw):
    """Two or three growths one after another."""
    grown = draw(SIMPLE)
    for _ in range(draw(st.integers(1, 2))):
        size, count = grown.new_size, draw(st.integers(1, 3))
        later = draw(
            st.sampled_from(
                [
                    orders.copies(size, count, 1.0, power_of_two_shares(count)),
                    orders.copies(size, count, count**-0.5, [count**-0.5] * count),
                    orders.gathered(
                        size,
                        np.r_[np.arange(size), np.full(count, GAP)],
                        np.ones(size + count),
                        np.ones(size + count),
                        1.0,
                    ),
                ]
            )
        )
        grown = grown.then(later)
    return grown


GAINS = st.sampled_from([1.0, 2.0, 0.5, 2.0**0.5, 3.0**0.5])
CONSTRUCTORS = {
    "identity": identities(),
    "copies, even": even_copies(),
    "copies, exact": exact_copies(),
    "copies, writers split": split_writers(),
    "nested pairs": nested(),
    "repeated pairs": repeated(),
    "tiled, the last one cut short": tailed(),
    "tiled, then the mean": mean_tails(),
    "gathered": arbitrary(),
}
SIMPLE = st.one_of(*CONSTRUCTORS.values())
CONSTRUCTORS["then"] = chains()

each_constructor = pytest.mark.parametrize("constructor", CONSTRUCTORS)
data = st.data()


# --- laws ------------------------------------------------------------------------------------------------------------


@each_constructor
@settings(max_examples=draws.examples(25))
@given(data)
def test_gathering_what_was_spread_gives_the_axis_back(constructor, data):
    grown = data.draw(CONSTRUCTORS[constructor])
    spread, gather = grown.dense()
    assert spread.shape == (grown.new_size, grown.size)
    assert gather.shape == (grown.size, grown.new_size)
    # float64 sums of at most 7 * 9 products round by some 1e-16 each
    np.testing.assert_allclose(
        gather @ spread, grown.gain * np.eye(grown.size), rtol=0, atol=1e-14 * max(1, grown.gain)
    )


@each_constructor
@settings(max_examples=draws.examples(25))
@given(data)
def test_the_vectors_say_what_the_matrices_say(constructor, data):
    grown = data.draw(CONSTRUCTORS[constructor])
    spread, gather = grown.dense()
    np.testing.assert_allclose(grown.fold_matrix_diagonal(), np.diag(gather @ spread), rtol=0, atol=1e-14)
    np.testing.assert_allclose(grown.energy(), (spread[~grown.means] ** 2).sum(0), rtol=1e-14)
    np.testing.assert_array_equal(grown.gaps, ~spread.any(1))
    np.testing.assert_array_equal(grown.copied, gather.any(0))
    np.testing.assert_array_equal(grown.counts, (gather != 0).sum(1))
    eye = np.eye(grown.size)
    assert grown.is_identity == (np.array_equal(spread, eye) and np.array_equal(gather, eye))


@each_constructor
@settings(max_examples=draws.examples(25))
@given(data)
def test_a_mean_is_the_mean_of_all_old_coordinates_and_nobody_reads_it(constructor, data):
    grown = data.draw(CONSTRUCTORS[constructor])
    spread, gather = grown.dense()
    old = np.random.default_rng(grown.new_size).normal(size=grown.size)
    # float64 sums of at most 40 numbers, in another order
    np.testing.assert_allclose(
        (spread @ old)[grown.means], grown.scale[grown.means] * old.mean(), rtol=1e-13, atol=1e-14
    )
    assert not gather[:, grown.means].any()
    assert np.all(grown.gaps.astype(int) + grown.copied + grown.means == 1)


@each_constructor
@settings(max_examples=draws.examples(25))
@given(data)
def test_a_record_gives_back_the_same_vectors_to_the_last_bit(constructor, data):
    grown = data.draw(CONSTRUCTORS[constructor])
    again = AxisMap.from_json(json.loads(json.dumps(grown.to_json())))
    assert (again.size, again.gain, again.split) == (grown.size, grown.gain, grown.split)
    for name in ("source", "scale", "share"):
        before, after = getattr(grown, name), getattr(again, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def assert_composed(first, second):
    """The map of both is the product of their matrices; where that is none of this form it is refused."""
    (spread, gather), (later_spread, later_gather) = first.dense(), second.dense()
    columns = spread.sum(0)
    if second.means.any() and not np.allclose(columns, columns[0], rtol=1e-13):
        with pytest.raises(PlanError, match="weigh differently"):
            first.then(second)
        return
    grown = first.then(second)
    composed_spread, composed_gather = grown.dense()
    # float64 sums of some twenty products
    np.testing.assert_allclose(composed_spread, later_spread @ spread, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(composed_gather, gather @ later_gather, rtol=1e-13, atol=1e-15)
    assert grown.gain == first.gain * second.gain


@given(SIMPLE, data)
def test_one_growth_after_another_is_the_product_of_their_matrices(first, data):
    assert_composed(first, data.draw(arbitrary(first.new_size)))


@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 5), data)
def test_a_mean_of_what_weighs_alike_is_a_mean_of_the_old_ones(size, count, rest, data):
    """Tiles and means behind them, and any map after that: such growths always compose."""
    first = orders.gathered(
        size, np.r_[np.tile(np.arange(size), count), np.full(rest, MEAN)],
        np.full(size * count + rest, 0.5), np.full(size * count + rest, 2 / count), 1.0,
    )  # fmt: skip
    assert_composed(first, data.draw(arbitrary(first.new_size)))


def test_a_mean_of_what_weighs_differently_is_refused():
    uneven = orders.gathered(2, np.array([0, 1, 1]), np.ones(3), np.array([1.0, 0.5, 0.5]), 1.0)
    averaged = orders.gathered(3, np.array([0, 1, 2, MEAN]), np.ones(4), np.ones(4), 1.0)
    with pytest.raises(PlanError, match="a mean of coordinates that weigh differently is no mean of the old ones"):
        uneven.then(averaged)


@given(SIMPLE, data)
def test_three_growths_compose_either_way(first, data):
    second = data.draw(arbitrary(first.new_size).filter(lambda grown: not grown.means.any()))
    third = orders.copies(second.new_size, 2, 1.0, (0.5, 0.5))
    one, other = first.then(second).then(third), first.then(second.then(third))
    np.testing.assert_array_equal(one.source, other.source)
    for name in ("scale", "share"):  # float64 products of three factors
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-14)


@given(SIMPLE)
def test_growing_by_the_identity_changes_nothing(grown):
    for same in (orders.identity(grown.size).then(grown), grown.then(orders.identity(grown.new_size))):
        np.testing.assert_array_equal(same.source, grown.source)
        np.testing.assert_array_equal(same.scale, grown.scale)
        np.testing.assert_array_equal(same.share, grown.share)


def test_growths_of_different_sizes_do_not_follow_one_another():
    with pytest.raises(PlanError, match="an axis of 6 cannot be grown by a map of 5"):
        orders.copies(3, 2, 1.0, (0.5, 0.5)).then(orders.identity(5))


# --- constructors ----------------------------------------------------------------------------------------------------


def test_a_record_is_short_where_the_map_is_regular():
    grown = orders.copies(4096, 4, 1.0, power_of_two_shares(4))
    assert len(json.dumps(grown.to_json())) < 300


@pytest.mark.parametrize("count", range(1, 65))
def test_shares_are_powers_of_two_that_sum_to_one_and_are_as_even_as_they_can_be(count):
    shares = power_of_two_shares(count)
    assert len(shares) == count
    assert sum(shares) == 1.0
    assert {float(np.frexp(share)[0]) for share in shares} == {0.5}
    assert max(shares) <= 2 * min(shares)
    assert list(shares) == sorted(shares, reverse=True)


def test_shares_of_two_three_and_five():
    assert power_of_two_shares(2) == (1 / 2, 1 / 2)
    assert power_of_two_shares(3) == (1 / 2, 1 / 4, 1 / 4)
    assert power_of_two_shares(5) == (1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8)


@given(st.integers(1, 30), st.integers(0, 90))
def test_tiles_are_cut_short_and_say_which_copy_of_how_many_each_is(size, further):
    source, rank, count = orders.tiled(size, size + further)
    np.testing.assert_array_equal(source, [j % size for j in range(size + further)])
    for i in range(size):
        here = source == i
        assert rank[here].tolist() == list(range(here.sum()))
        assert set(count[here].tolist()) == {here.sum()}
    np.testing.assert_array_equal(np.stack(orders.ranks(source)), np.stack([rank, count]))


@given(st.lists(st.integers(MEAN, 5), max_size=40))
def test_ranks_count_copies_from_the_left_and_leave_gaps_and_means_alone(source):
    rank, count = orders.ranks(np.asarray(source, dtype=np.int64))
    for j, of in enumerate(source):
        wanted = (source[:j].count(of), source.count(of)) if of >= 0 else (0, 1)
        assert (rank[j], count[j]) == wanted


@given(st.integers(1, 30), st.integers(0, 90))
def test_shares_of_counts_that_differ_are_those_of_each_count(size, further):
    source, rank, count = orders.tiled(size, size + further)
    found = orders.shares(rank, count)
    for i in range(size):
        assert tuple(found[source == i]) == power_of_two_shares(int(count[i]))


def test_copies_are_whole_tiles():
    grown = orders.copies(2, 2, scale=1.0, shares=(0.5, 0.5))
    np.testing.assert_array_equal(grown.source, [0, 1, 0, 1])
    np.testing.assert_array_equal(grown.scale, [1, 1, 1, 1])
    np.testing.assert_array_equal(grown.share, [0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.integers(1, 64), st.integers(1, 4), st.sampled_from([1e4, 5e5, 1e6]))
def test_nested_pairs_keep_their_frequencies(layout, pairs, count, base):
    """A pair of the new head that copies old pair j turns as fast as j did: base ** (-2 j / d)."""
    size = 2 * pairs
    source = orders.nested_pairs(size, count, layout)

    def pair(coordinate, of):
        return coordinate % (of // 2) if layout == "half" else coordinate // 2

    for new, old in enumerate(source):
        if old != GAP:
            exponents = 2 * pair(new, size * count) / (size * count), 2 * pair(old, size) / size
            # float64 rounds the exponent by 1e-16; times log(base) that is 1e-14 of the frequency
            assert base ** -exponents[0] == pytest.approx(base ** -exponents[1], rel=1e-14)
            half = (new >= size * count // 2, old >= size // 2) if layout == "half" else (new % 2, old % 2)
            assert half[0] == half[1]


@pytest.mark.parametrize("make", [orders.nested_pairs, orders.repeated_pairs])
@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.integers(1, 16), st.integers(1, 4))
def test_every_old_coordinate_finds_its_place_and_pairs_stay_pairs(make, layout, pairs, count):
    size = 2 * pairs
    source = make(size, count, layout)
    assert len(source) == size * count
    copies = np.bincount(source[source != GAP], minlength=size)
    assert set(copies.tolist()) == {1 if make is orders.nested_pairs else count}
    by_pair = source.reshape(2, -1).T if layout == "half" else source.reshape(-1, 2)
    for first, second in by_pair:
        assert (first == GAP) == (second == GAP)
        if first != GAP:
            assert second - first == (size // 2 if layout == "half" else 1)


def test_the_articles_way_repeats_pairs_side_by_side():
    np.testing.assert_array_equal(orders.repeated_pairs(4, 2, "interleaved"), [0, 1, 0, 1, 2, 3, 2, 3])
    np.testing.assert_array_equal(orders.repeated_pairs(4, 2, "half"), [0, 0, 1, 1, 2, 2, 3, 3])


def test_a_rotary_layout_that_nobody_knows_is_refused():
    with pytest.raises(PlanError, match="unknown rotary layout 'thirds': half or interleaved"):
        orders.nested_pairs(4, 2, "thirds")
