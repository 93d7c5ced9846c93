"""What norms let pass, what eps they then want, and what is said where no config can give it to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsurgeon.architectures.architecture import Architecture, Axis
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.eps import ENTIRE, NEGLIGIBLE_EPS, eps_change, norm_ratios
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.maps.signature import gain_factors

RMS = Architecture(
    model="None",
    norm="rms",
    eps="eps",
    axes={name: Axis(name, through="residual") for name in ("stream", "hidden", "final")}
    | {"heads": Axis("heads", through="heads"), "head": Axis("head", through="inner")}
    | {"preheads": Axis("heads", through="normed"), "prehead": Axis("head", through="normed")},
    tensors={
        "first.{weight,bias?}": "stream => hidden",
        "last.weight": "stream => final",
        "q_norm.weight": "(preheads prehead) => (heads head~)",
        "rows.weight": "prehead => heads head",
        "mlp.weight": "hidden <- hidden",
    },
)
LAYER = replace(RMS, norm="layer")
SIZES = {"stream": 6, "hidden": 6, "final": 6, "heads": 2, "preheads": 2, "head": 4, "prehead": 4}


def ratios(table: Architecture, **maps: AxisMap) -> dict[str, float]:
    return norm_ratios(table, {**{name: orders.identity(size) for name, size in SIZES.items()}, **maps})


def mapped(source: Any, size: int, scale: Any = 1.0) -> AxisMap:
    source = np.asarray(source)
    factor = np.broadcast_to(np.asarray(scale, dtype=np.float64), source.shape)
    return orders.gathered(size, source, factor, 1 / orders.ranks(source)[1] / factor, 1.0)


def behind(before: AxisMap, scale: float = 1.0) -> AxisMap:
    """What a norm writes where it reads this: every coordinate in its place, nothing where the mean was."""
    return mapped(np.where(before.means, GAP, before.source), before.size, scale)


def tiles(count: int, size: int = 6, scale: float = 1.0, tail: int = 0, what: int = GAP) -> AxisMap:
    return mapped(np.r_[np.tile(np.arange(size), count), np.full(tail, what)], size, scale)


# --- ratios ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(0, 7), st.sampled_from([1.0, 0.5, 3.0, 2**-0.5]), st.sampled_from([RMS, LAYER]))
def test_a_ratio_is_that_of_the_mean_squares_that_the_norm_sees(
    count: int, tail: int, scale: float, table: Architecture
) -> None:
    stream = tiles(count, scale=scale, tail=tail, what=MEAN if table.norm == "layer" else GAP)
    found = ratios(table, stream=stream, hidden=behind(stream), final=behind(stream, 2.0))
    x = np.random.default_rng(count).normal(size=6)
    before, after = x, stream.dense()[0] @ x
    if table.norm == "layer":
        before, after = before - before.mean(), after - after.mean()
    wanted = (after**2).mean() / (before**2).mean()
    assert found["first.weight"] == found["last.weight"] == pytest.approx(wanted, rel=1e-12)
    assert found["q_norm.weight"] == found["rows.weight"] == 1.0
    assert "mlp.weight" not in found and "first.bias" not in found


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1.0, 0.5, 2**-0.5]))
def test_a_norm_over_a_product_of_axes_has_the_product_of_their_ratios(heads: int, head: int, scale: float) -> None:
    preheads, prehead = tiles(heads, 2), tiles(head, 4, scale, tail=2)
    found = ratios(RMS, preheads=preheads, prehead=prehead, heads=tiles(heads, 2), head=behind(prehead))
    assert found["q_norm.weight"] == pytest.approx(scale**2 * 4 * head / (4 * head + 2), rel=1e-12)
    assert found["rows.weight"] == found["q_norm.weight"]


def test_whole_copies_keep_the_mean_square_to_the_last_bit() -> None:
    for count in (2, 3, 5, 7):
        assert ratios(RMS, stream=tiles(count), hidden=tiles(count), final=tiles(count))["first.weight"] == 1.0


# --- what does not pass ----------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Architecture, str, dict[str, AxisMap]]] = {
    "coordinates that move": (
        RMS, "first.weight: a norm keeps every coordinate in its place", {"stream": tiles(2), "final": tiles(2)}),
    "coordinates in another order": (
        RMS, "first.weight: a norm keeps every coordinate in its place",
        {"stream": tiles(2), "hidden": mapped(np.repeat(np.arange(6), 2), 6), "final": tiles(2)}),
    "a mean that is written behind a norm": (
        LAYER, "first.weight: a norm keeps every coordinate in its place",
        {"stream": tiles(1, tail=2, what=MEAN), "hidden": tiles(1, tail=2, what=MEAN)}),
    "heads that move": (
        RMS, "q_norm.weight: a norm keeps every coordinate in its place",
        {"preheads": mapped([0, 1, 0, 1], 2), "heads": mapped([0, 0, 1, 1], 2)}),
    "zeros in a LayerNorm": (
        LAYER, "first.weight: a LayerNorm passes only whole copies of one scale, and their mean",
        {"stream": tiles(1, tail=2), "hidden": tiles(1, tail=2), "final": tiles(1, tail=2)}),
    "a LayerNorm's coordinates of which some have more copies": (
        LAYER, "first.weight: a LayerNorm passes only whole copies of one scale, and their mean",
        {name: mapped(np.arange(8) % 6, 6, np.where(np.arange(8) % 6 < 2, 2**-0.5, 1.0)) for name in
         ("stream", "hidden", "final")}),
    "a LayerNorm's coordinates of different scales": (
        LAYER, "first.weight: a LayerNorm passes only whole copies of one scale, and their mean",
        {"stream": mapped(np.arange(6), 6, [1, 1, 1, 1, 1, 2]), "hidden": tiles(1)}),
    "a mean that weighs more than the copies": (
        LAYER, "first.weight: a LayerNorm passes only whole copies of one scale, and their mean",
        {"stream": mapped(np.r_[np.arange(6), MEAN], 6, np.r_[np.ones(6), 2.0]), "hidden": tiles(1, tail=1),
         "final": tiles(1, tail=1)}),
    "a mean in an RMSNorm": (
        RMS, "first.weight: an RMSNorm does not take the mean away",
        {"stream": tiles(1, tail=2, what=MEAN), "hidden": tiles(1, tail=2), "final": tiles(1, tail=2)}),
    "an RMSNorm's coordinates of different scales": (
        RMS, "a norm cannot pass a map that stretches some old coordinates more than others",
        {"stream": mapped(np.arange(6), 6, [1, 1, 1, 1, 1, 2])}),
    "some copies more often at one scale": (
        RMS, "a norm cannot pass a map that stretches some old coordinates more than others",
        {name: mapped(np.arange(8) % 6, 6) for name in ("stream", "hidden", "final")}),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_norm_does_not_pass(mistake: str) -> None:
    table, message, maps = REFUSED[mistake]
    with pytest.raises(PlanError, match=message):
        ratios(table, **maps)


def test_an_rms_norm_passes_more_copies_of_some_where_they_weigh_less() -> None:
    lighter = mapped(np.arange(8) % 6, 6, np.where(np.arange(8) % 6 < 2, 2**-0.5, 1.0))
    found = ratios(RMS, stream=lighter, hidden=behind(lighter), final=behind(lighter))
    assert found["first.weight"] == pytest.approx(6 / 8, rel=1e-12)


# --- norms without weights -------------------------------------------------------------------------------------------


WEIGHTLESS = replace(
    RMS, norm="layer", tensors={"mlp.weight": "hidden <- hidden"}, weightless=("stream => hidden", "stream => final")
)


@pytest.mark.parametrize("stream", [tiles(2), tiles(3, scale=3**-0.5), tiles(1, tail=2, what=MEAN)])
def test_a_norm_without_weights_writes_what_its_readers_expect(stream: AxisMap) -> None:
    factors = gain_factors(stream)
    written = mapped(np.where(stream.means, GAP, stream.source), 6, np.where(factors == 0, 1.0, factors))
    found = ratios(WEIGHTLESS, stream=stream, hidden=written, final=written)
    assert found.keys() == {"stream => hidden", "stream => final"}
    x = np.random.default_rng(0).normal(size=6)

    def normalised(values: np.ndarray, eps: float) -> np.ndarray:
        centred = values - values.mean()
        return centred / np.sqrt((centred**2).mean() + eps)

    after = normalised(stream.dense()[0] @ x, 0.1 * found["stream => hidden"])
    np.testing.assert_allclose(after, written.dense()[0] @ normalised(x, 0.1), rtol=1e-12, atol=1e-12)


def test_a_norm_without_weights_cannot_give_its_readers_another_scale() -> None:
    with pytest.raises(PlanError, match="stream => hidden: a norm without weights, whose readers expect another scale"):
        ratios(WEIGHTLESS, stream=tiles(2), hidden=tiles(2, scale=0.5), final=tiles(2))


# --- eps -------------------------------------------------------------------------------------------------------------


def changed(
    found: Mapping[str, float], table: Architecture = RMS, held: tuple[str, ...] | None = None, eps: float = 1e-2
) -> tuple[float, tuple[str, ...]]:
    held = tuple(found) if held is None else held
    return eps_change(SimpleNamespace(architecture=table, templates=frozenset(held), resolved={"eps": eps}), found)  # type: ignore[arg-type]


def test_one_eps_serves_all_norms_that_want_the_same() -> None:
    assert changed({"first.weight": 0.5, "last.weight": 0.5}) == (0.5, ())


def test_what_most_norms_want_is_written_and_what_the_others_miss_is_said_with_its_size() -> None:
    eps, lossy = changed({"first.weight": 0.5, "last.weight": 0.5, "q_norm.weight": 1.0})
    assert eps == 0.5
    assert lossy == ("q_norm.weight: its norm would need an eps of 0.01; the config has only one, 0.005",)


def test_norms_that_the_checkpoint_lacks_want_nothing() -> None:
    assert changed({"first.weight": 0.5, "q_norm.weight": 1.0}, held=("first.weight",)) == (0.5, ())


def test_norms_without_weights_are_always_there() -> None:
    assert changed({"stream => hidden": 0.5, "stream => final": 0.5}, WEIGHTLESS, held=()) == (0.5, ())


@pytest.mark.parametrize(("eps", "said"), [(NEGLIGIBLE_EPS, False), (4 * NEGLIGIBLE_EPS, True), (1e-12, False)])
def test_an_eps_that_moves_nothing_is_not_spoken_of(eps: float, said: bool) -> None:
    assert bool(changed({"first.weight": 0.5, "last.weight": 0.5, "q_norm.weight": 1.0}, eps=eps)[1]) == said


def test_a_ratio_of_rounding_is_none() -> None:
    assert changed({"first.weight": 0.5, "last.weight": 0.5 * (1 + ENTIRE / 2)}) == (0.5, ())


def test_an_eps_that_the_code_fixes_beside_one_of_the_config() -> None:
    table = replace(RMS, fixed_eps=("q_norm.weight",))
    found = {"first.weight": 0.5, "last.weight": 0.5, "q_norm.weight": 1.0}
    assert changed(found, table) == (0.5, ())
    eps, lossy = changed({**found, "q_norm.weight": 0.25}, table)
    assert eps == 0.5
    (said,) = lossy
    assert "fixed in the model's code and cannot be multiplied by 0.25" in said


def test_an_eps_that_no_config_reaches_is_never_written() -> None:
    table = replace(RMS, eps=None)
    assert changed({"first.weight": 1.0, "last.weight": 1.0}, table) == (1.0, ())
    eps, lossy = changed({"first.weight": 0.5, "last.weight": 0.5}, table)
    assert eps == 1.0
    (said,) = lossy
    assert "fixed in the model's code and cannot be multiplied by 0.5" in said
