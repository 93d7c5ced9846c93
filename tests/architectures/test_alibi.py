"""ALiBi slopes are those of the library, and every old head finds its own among the new ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon
from transformers.models.mpt import modeling_mpt

from modelsurgeon.architectures import alibi, registry
from modelsurgeon.maps.axis_map import GAP

FAMILIES = {"bloom": alibi.bloom, "mpt": alibi.mpt, "falcon": alibi.falcon}
ULP = 2**-23  # float32: NumPy and torch may round a power to neighbouring numbers
GROWTHS = ((1, 2), (4, 6), (4, 8), (5, 7), (8, 12), (12, 16), (12, 24), (16, 32), (20, 40), (32, 48))


def upstream(family: str, n: int) -> np.ndarray:
    """[n] float64: what the library adds to the score of the second key of two, by head."""
    mask = torch.ones(1, 2, dtype=torch.long)
    if family == "mpt":
        bias = -modeling_mpt.build_mpt_alibi_tensor(n, 2)[:, 0, 0]
    elif family == "bloom":
        bias = modeling_bloom.build_alibi_tensor(mask, n, torch.float32)[:, 0, 1]
    else:
        bias = modeling_falcon.build_alibi_tensor(mask, n, torch.float32)[:, 0, 1]
    return bias.double().numpy()


def slopes(family: str) -> Callable[[int], np.ndarray]:
    return lambda n: FAMILIES[family]({}, n)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [*range(1, 40), 64, 71, 112, 128])
def test_slopes_are_those_of_the_library(family, n):
    found = slopes(family)(n)
    assert found.dtype == np.float64
    if family == "falcon":  # bfloat16: equal, since no slope lies near the middle between two of its numbers
        digits = 2**8 * np.frexp(alibi.bloom({}, n))[0]
        assert np.abs(digits % 1 - 0.5).min() > 1000 * 2**8 * ULP
    np.testing.assert_allclose(found, upstream(family, n), rtol=0 if family == "falcon" else ULP)


def test_slopes_in_another_order_scale_or_dtype_are_seen():
    assert not np.allclose(np.sort(alibi.bloom({}, 12)), upstream("bloom", 12), rtol=ULP)
    assert not np.allclose(alibi.mpt({}, 8), -modeling_mpt.build_mpt_alibi_tensor(8, 2, 16)[:, 0, 0].numpy(), rtol=ULP)
    assert not np.array_equal(alibi.bloom({}, 12), upstream("falcon", 12))


def test_mpt_adds_the_same_slopes_whatever_its_config_says():
    assert np.array_equal(alibi.mpt({"attn_config": {"alibi": False, "alibi_bias_max": 16}}, 8), alibi.mpt({}, 8))
    sizes = {"d_model": 16, "n_heads": 4, "n_layers": 1, "vocab_size": 8, "max_seq_len": 8}
    config = modeling_mpt.MptConfig(**sizes, attn_config={"alibi": False, "alibi_bias_max": 16})
    with torch.random.fork_rng():
        model = modeling_mpt.MptModel(config)
    seen = []
    model.blocks[0].attn.register_forward_pre_hook(
        lambda _, given, named: seen.append(named["position_bias"]), with_kwargs=True
    )
    model(torch.tensor([[1, 2]]))
    np.testing.assert_allclose(-seen[0][:, 0, -2].double().numpy(), alibi.mpt({}, 4), rtol=ULP)


@pytest.mark.parametrize(
    ("config", "slopes"),
    [({}, None), ({"alibi": False}, None), ({"alibi": None}, None), ({"alibi": True}, alibi.falcon)],
)
def test_falcon_has_slopes_only_where_its_config_says_so(config, slopes):
    assert registry.find("falcon").fitted(config, ()).axes["heads"].slopes is slopes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "m"), GROWTHS)
def test_every_old_head_finds_its_slope_among_the_librarys_new_ones(family, n, m):
    places = alibi.placed(slopes(family)(n), slopes(family)(m))
    assert places.dtype == np.int64 and places.shape == (m,)
    assert sorted(places[places != GAP]) == list(range(n))
    kept = places != GAP
    # float32 powers of two neighbouring bases: SAME; at most 32 heads here, each rounded by torch to a neighbour or not
    bound = alibi.SAME + 2 * ULP
    np.testing.assert_allclose(upstream(family, m)[kept], upstream(family, n)[places[kept]], rtol=bound)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "m"), GROWTHS)
def test_heads_that_are_repeated_instead_are_seen(family, n, m):
    tiled = np.arange(m) % n
    assert not np.allclose(upstream(family, m), upstream(family, n)[tiled], rtol=alibi.SAME + 2 * ULP)


def test_places_of_powers_of_two_are_every_other_one():
    assert alibi.placed(alibi.bloom({}, 4), alibi.bloom({}, 8)).tolist() == [-1, 0, -1, 1, -1, 2, -1, 3]
    assert alibi.placed(alibi.mpt({}, 4), alibi.mpt({}, 6)).tolist() == [0, 1, 2, 3, -1, -1]


def test_equal_slopes_are_shared_out_one_each():
    assert alibi.placed(np.array([0.5, 0.5]), np.array([0.5, 0.25, 0.5])).tolist() == [0, GAP, 1]
    assert alibi.placed(np.array([0.5, 0.5]), np.array([0.5, 0.25])) is None


def test_a_slope_takes_the_nearest_place():
    near = 0.5 * (1 + 5e-7)
    assert alibi.placed(np.array([near]), np.array([0.5, near])).tolist() == [GAP, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "m"), [(8, 4), (6, 4), (2, 1)])
def test_fewer_heads_are_refused(family, n, m):
    assert alibi.placed(slopes(family)(n), slopes(family)(m)) is None


@pytest.mark.parametrize("error", [2e-6, -2e-6])
def test_a_slope_that_is_off_is_refused(error):
    new = alibi.bloom({}, 8)
    new[3] *= 1 + error
    assert alibi.placed(alibi.bloom({}, 4), new) is None


def test_no_old_heads_fit_everywhere_and_no_new_ones_nowhere():
    assert alibi.placed(np.empty(0), np.array([0.5])).tolist() == [GAP]
    assert alibi.placed(np.array([0.5]), np.empty(0)) is None


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 24), st.integers(0, 24))
def test_more_heads_have_all_slopes_of_fewer(family, n, more):
    places = alibi.placed(slopes(family)(n), slopes(family)(n + more))
    assert sorted(places[places != GAP]) == list(range(n))


def test_reachable_counts_are_named():
    assert alibi.reachable(slopes("falcon"), 4, 8) == (5, 6, 7, 8)
    assert alibi.reachable(slopes("bloom"), 4, 4) == ()
    # The float32 base of 128 heads is off by more than SAME after as many steps as BLOOM-176B's 112 heads take.
    assert alibi.reachable(slopes("bloom"), 112, 130) == tuple(range(113, 128))
    assert 128 in alibi.reachable(slopes("mpt"), 112, 130)
