"""Gains of norms: which maps a norm passes, and what its gain becomes, against the norm itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsurgeon.errors import PlanError
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN
from modelsurgeon.maps.orders import power_of_two_shares
from modelsurgeon.maps.signature import gain_factors, mean_square_ratio, parse
from support.dimensions import grown_matrix, maps, tailed


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
