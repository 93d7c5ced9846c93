"""Query heads that share key-value heads, and heads whose positions are slopes: every count, against the law itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Axis, Config
from modelsurgeon.growth.growth import RULES, Growth
from modelsurgeon.growth.kinds import heads
from modelsurgeon.growth.kinds.heads import NoHeadsError
from modelsurgeon.growth.planning import plan_maps
from modelsurgeon.maps.axis_map import GAP

SMALL = [
    (before, after, kv_before, kv_after)
    for before in range(1, 7)
    for after in range(before, 13)
    for kv_before in range(1, before + 1)
    for kv_after in range(kv_before, after + 1)
    if before % kv_before == 0
]


def lawful(queries: np.ndarray, keys: np.ndarray, before: int, kv_before: int) -> bool:
    """Whether each new query head uses a copy of the key-value head that its source used, and none was lost."""
    group, slots = before // kv_before, len(queries) // len(keys)
    used = keys[np.arange(len(queries)) // slots]
    same = np.array_equal(used, queries // group)
    return same and set(queries.tolist()) == set(range(before)) and set(keys.tolist()) == set(range(kv_before))


def exists(before: int, after: int, kv_before: int, kv_after: int) -> bool:
    """Whether any growth obeys the law, by trying how many copies each key-value head has: order does not matter.

    Each copy of a key-value head serves `slots` query heads, and all `group` of the old ones must find a place.
    """
    if after % kv_after:
        return False
    group, slots = before // kv_before, after // kv_after
    shares = itertools.product(range(1, kv_after + 1), repeat=kv_before)
    return any(sum(share) == kv_after and min(share) * slots >= group for share in shares)


def test_every_growth_of_a_grid_is_lawful_or_there_is_none() -> None:
    refused = 0
    for before, after, kv_before, kv_after in SMALL:
        try:
            queries, keys = heads.shared(before, after, kv_before, kv_after)
        except NoHeadsError as error:
            assert not exists(before, after, kv_before, kv_after), (before, after, kv_before, kv_after, error.reason)
            refused += 1
            continue
        assert exists(before, after, kv_before, kv_after)
        assert (len(queries), len(keys)) == (after, kv_after)
        assert lawful(queries, keys, before, kv_before), (before, after, kv_before, kv_after)
    assert 0 < refused < len(SMALL)


def test_sizes_that_a_refusal_names_do_work() -> None:
    named = [
        (before, near, kv_before, kv_after)
        for before, after, kv_before, kv_after in SMALL
        for near in nearest(before, after, kv_before, kv_after)
    ]
    assert named
    assert [counts for counts in named if counts[1] < counts[0] or not exists(*counts)] == []
    for counts in named:
        heads.shared(*counts)


@pytest.mark.parametrize(("before", "kv"), [(2, 4), (6, 4)])
def test_heads_that_share_unevenly_are_refused(before: int, kv: int) -> None:
    with pytest.raises(NoHeadsError, match=f"{before} query heads cannot share {kv} key-value heads evenly"):
        heads.shared(before, 2 * before, kv, kv)


def nearest(*counts: int) -> tuple[int, ...]:
    """What a refusal names."""
    try:
        heads.shared(*counts)  # type: ignore[call-arg]
    except NoHeadsError as error:
        return error.nearest
    return ()


def test_counts_that_stay_give_back_every_head_in_its_place() -> None:
    for before, kv in itertools.product(range(1, 13), range(1, 13)):
        if before % kv == 0:
            queries, keys = heads.shared(before, before, kv, kv)
            assert queries.tolist() == list(range(before)) and keys.tolist() == list(range(kv))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("before", "kv"), [(4, 2), (6, 2), (8, 8), (6, 1)])
def test_multiples_of_both_are_whole_tiles(before: int, kv: int, count: int) -> None:
    queries, keys = heads.shared(before, before * count, kv, kv * count)
    assert queries.tolist() == list(range(before)) * count and keys.tolist() == list(range(kv)) * count


def test_more_query_heads_for_the_same_keys_stand_beside_their_sources() -> None:
    queries, keys = heads.shared(4, 8, 2, 2)
    assert keys.tolist() == [0, 1]
    assert queries.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_keys_of_their_own_for_every_query_head() -> None:
    queries, keys = heads.shared(4, 4, 2, 4)
    assert queries.tolist() == [0, 1, 2, 3] and keys.tolist() == [0, 0, 1, 1]


def test_one_key_head_for_all_may_have_copies() -> None:
    queries, keys = heads.shared(4, 12, 1, 3)
    assert keys.tolist() == [0, 0, 0] and queries.tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize(
    ("counts", "reason", "nearest"),
    [
        ((4, 10, 2, 4), "10 query heads cannot share 4 key-value heads evenly", (8, 12)),
        ((4, 4, 2, 3), "4 query heads cannot share 3 key-value heads evenly", (6,)),
        ((6, 6, 2, 3), "2 query heads share a key-value head where 3 did", (9,)),
    ],
)
def test_a_refusal_says_why_and_what_would_do(
    counts: tuple[int, int, int, int], reason: str, nearest: tuple[int, ...]
) -> None:
    with pytest.raises(NoHeadsError) as raised:
        heads.shared(*counts)
    assert reason in raised.value.reason
    assert raised.value.nearest == nearest


@pytest.mark.parametrize("rule", RULES)
def test_what_reads_copies_of_a_head_reads_shares_that_sum_to_one(rule: str) -> None:
    axes = {"heads": Axis("a", through="heads"), "kv": Axis("b", through="heads", follows="heads")}
    table = Architecture(model="None", norm="rms", eps="eps", axes=axes, tensors={})
    for before, after, kv_before, kv_after in SMALL[::3]:
        if not exists(before, after, kv_before, kv_after):
            continue
        maps = plan_maps(Growth(table, {"a": before, "b": kv_before}, {"a": after, "b": kv_after}, rule))
        queries, keys = heads.shared(before, after, kv_before, kv_after)
        assert (maps["heads"].source.tolist(), maps["kv"].source.tolist()) == (queries.tolist(), keys.tolist())
        assert set(maps["heads"].scale.tolist()) == {1.0}
        read = np.bincount(queries, weights=maps["heads"].share, minlength=before)
        np.testing.assert_allclose(read, 1, rtol=1e-15)  # thirds do not sum to 1 to the last bit
        if rule == "exact":
            assert {float(np.frexp(share)[0]) for share in maps["heads"].share} == {0.5}, "powers of two"


# --- heads of their own, and slopes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(4, 4), (4, 8), (4, 6), (3, 7)])
def test_heads_with_keys_of_their_own_are_tiled_to_any_count(before: int, after: int) -> None:
    assert heads.alone(before, after).tolist() == [j % before for j in range(after)]


@pytest.mark.parametrize("slopes", [alibi.bloom, alibi.mpt])
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 8), (4, 16), (6, 12), (4, 6)])
def test_with_slopes_a_head_goes_where_its_slope_is_or_is_refused(
    slopes: Callable[[Config, int], np.ndarray], before: int, after: int
) -> None:
    old, new = slopes({}, before), slopes({}, after)
    reachable = all(np.isclose(new, slope, rtol=1e-6, atol=0).any() for slope in old)
    if not reachable:
        with pytest.raises(NoHeadsError, match=f"slopes of {before} heads are not among those of {after}"):
            heads.alone(before, after, old, new)
        return
    placed = heads.alone(before, after, old, new)
    assert sorted(placed[placed != GAP].tolist()) == list(range(before))
    heads.check_slopes(placed, old, new)


def test_slopes_that_stay_leave_every_head_where_it_is() -> None:
    slopes = alibi.bloom({}, 6)
    assert heads.alone(6, 6, slopes, slopes).tolist() == list(range(6))


def test_tiled_heads_have_other_slopes_and_are_refused() -> None:
    with pytest.raises(NoHeadsError, match="copies of a head would have other ALiBi slopes"):
        heads.check_slopes(np.tile(np.arange(4), 2), alibi.bloom({}, 4), alibi.bloom({}, 8))


def test_without_slopes_heads_stand_anywhere() -> None:
    heads.check_slopes(np.tile(np.arange(4), 2), None, None)
