"""Limits that one number cannot break: planted outliers, what is not finite, and what 16 bits cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.verification.comparison import Comparison, Tallies
from modelsurgeon.verification.deviation import Deviation, spreads
from modelsurgeon.verification.layers import States
from modelsurgeon.verification.limits import TOLERANCE
from modelsurgeon.verification.logits import LogitReport

VOCAB, POSITIONS = 512, 24
LOWEST = torch.finfo(torch.float32).min
ROUNDING = 1e-6  # of a deviation, or of a larger number: what float32 does over some layers


def normal(seed: int, width: int = VOCAB, positions: int = POSITIONS) -> torch.Tensor:
    return 3 * torch.randn(positions, width, generator=torch.Generator().manual_seed(seed))


def rounded(value: torch.Tensor, error: float = ROUNDING, seed: int = 9) -> torch.Tensor:
    """The same numbers as another order of summation would have computed them."""
    wobble = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
    return value + error * wobble * torch.maximum(value.abs(), torch.tensor(3.0)).nan_to_num(0, 0, 0)


def comparisons(
    before: torch.Tensor, after: torch.Tensor, tokens: bool = True, noise: bool = False, labelled: bool = False
) -> tuple[Comparison, ...]:
    deviation = Deviation(tokens)
    deviation.add(before)
    tallies = Tallies({"logits": deviation}, seed=0)
    real = torch.ones(1, len(before), dtype=torch.bool)
    labels = torch.arange(len(before)).unsqueeze(0) if labelled else torch.full((1, len(before)), UNLABELLED)
    tallies.add(Batch("text", {}, real, real, labels), {"logits": before}, {"logits": after})
    return tallies.comparisons(noise)


def report(before: torch.Tensor, after: torch.Tensor, tokens: bool = True, labelled: bool = False) -> LogitReport:
    return LogitReport("float32", comparisons(before, after, tokens, labelled=labelled))


def narrow(wide: torch.Tensor, before: torch.Tensor, after: torch.Tensor, labelled: bool = False) -> LogitReport:
    """Of a bfloat16 run: the source in float32 and in 16 bits, the result in 16 bits."""
    noise = comparisons(wide, before, noise=True, labelled=labelled)
    return LogitReport("bfloat16", comparisons(before, after, labelled=labelled), noise)


# {what is planted in source and result alike: function of the numbers}
Plant = Callable[[torch.Tensor], torch.Tensor]


def filled(where: object, number: float) -> Plant:
    def plant(value: torch.Tensor) -> torch.Tensor:
        planted = value.clone()
        planted[where] = number  # type: ignore[index]
        return planted

    return plant


def added(where: object, number: float) -> Plant:
    def plant(value: torch.Tensor) -> torch.Tensor:
        planted = value.clone()
        planted[where] += number  # type: ignore[index]
        return planted

    return plant


EVERY = slice(None)
OUTLIERS: Mapping[str, Plant] = {
    "nothing": lambda value: value,
    "one bias of -1e9": added((EVERY, 5), -1e9),
    "one bias of 1e9": added((EVERY, 5), 1e9),
    "one of each": lambda value: added((EVERY, 6), 1e9)(added((EVERY, 5), -1e9)(value)),
    "one masked token": filled((EVERY, 5), LOWEST),
    "one token at -inf": filled((EVERY, 5), -math.inf),
    "one number at inf": filled((3, 5), math.inf),
    "one number that is nan": filled((3, 5), math.nan),
    "half of the tokens masked": filled((EVERY, slice(0, None, 2)), -1e9),
    "nine tenths of the tokens masked": filled((EVERY, slice(0, 9 * VOCAB // 10)), -1e9),
    "one position of huge numbers": lambda value: torch.cat([value[:3], value[3:4] * 1e9, value[4:]]),
    "a position without variance": filled(3, 0.0),
    "a common offset": added(EVERY, -100.0),
    "a position that is not finite": filled(3, math.nan),
}


@pytest.mark.parametrize("name", OUTLIERS)
def test_outliers_that_both_share_hide_nothing(name: str) -> None:
    plant = OUTLIERS[name]
    before, other = plant(normal(0)), plant(normal(1))
    assert report(before, plant(rounded(normal(0)))).reasons == ()
    assert not report(before, other).same
    small = report(before, plant(rounded(normal(0), 30 * TOLERANCE)))  # a hundredth of what two random models are apart
    assert not small.same


@pytest.mark.parametrize("name", [name for name in OUTLIERS if "token" not in name])
def test_outlier_channels_of_hidden_states_hide_nothing(name: str) -> None:
    plant = OUTLIERS[name]
    before = plant(normal(0))
    assert report(before, plant(rounded(normal(0))), tokens=False).reasons == ()
    assert not report(before, plant(rounded(normal(0), 30 * TOLERANCE)), tokens=False).same


def test_an_outlier_is_compared_in_proportion_to_its_size() -> None:
    before = added((EVERY, 5), 3e4)(normal(0))
    assert report(before, rounded(before), tokens=False).same
    wrong = before.clone()
    wrong[:, 5] *= 1.001
    assert not report(before, wrong, tokens=False).same


def test_the_unit_is_the_standard_deviation_of_normal_numbers() -> None:
    found = spreads(normal(0, width=4096))
    assert float(found.median()) == pytest.approx(3, rel=0.05)
    assert float(found.min()) > 2 and float(found.max()) < 4  # 1024 pairs: 6% apart
    assert spreads(torch.full((2, 40), 7.0)).tolist() == [0, 0]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_numbers_at_a_position_are_judged_by_column(width: int) -> None:
    before = normal(0, width, positions=40)
    before[:, -1] += 1e4 * (width > 1)  # one label whose bias is huge
    assert report(before, rounded(before), tokens=False).same
    wrong = before.clone()
    wrong[:, 0] += 0.01
    assert not report(before, wrong, tokens=False).same
    assert report(before[:1], rounded(before[:1]), tokens=False).same  # one number: its own size is the measure


def test_an_output_that_is_constant_is_compared_by_its_size() -> None:
    before = torch.full((POSITIONS, VOCAB), 5.0)
    assert report(before, before * (1 + 2**-22)).same
    assert not report(before, before + 0.01).same
    assert not report(torch.zeros(4, 40), torch.full((4, 40), 1e-3)).same


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_one_side_alone_has_finite_is_different_in_every_dtype(number: float) -> None:
    before, after = normal(0), filled((3, 5), number)(normal(0))
    for found in (report(before, after), report(after, before), narrow(before, before, after)):
        assert not found.same and "1 numbers are finite on one side alone" in found.reasons[0]
        assert math.isnan(found.comparisons[0].max_rel)
    assert not report(filled((3, 5), math.inf)(before), filled((3, 5), -math.inf)(before)).same


def test_a_source_that_overflows_by_itself_has_a_noise_of_its_finite_numbers() -> None:
    """An fp16 run whose own result is nan at one position: that position must be nan in the result, others judge."""
    wide = normal(0)
    before = filled(3, math.nan)(rounded(wide, 1e-3, seed=1))
    after = filled(3, math.nan)(rounded(wide, 1e-3, seed=2))
    found = narrow(wide, before, after)
    assert found.same and math.isfinite(found.limits[0])
    assert found.comparisons[0].unread == 1
    assert not narrow(wide, before, rounded(wide, 1e-3, seed=2)).same
    assert not narrow(wide, before, filled(3, math.nan)(rounded(wide, 0.1, seed=2))).same


def test_one_noisy_position_does_not_raise_the_limits_of_all() -> None:
    """An expert that 16 bits choose otherwise at one position: the usual error still tells."""
    wide = normal(0)
    before, after, wrong = (rounded(wide, error, seed) for seed, error in ((1, 2e-3), (2, 2e-3), (3, 3e-2)))
    before[3] = normal(7)[3]
    assert narrow(wide, before, after).limits[0] > 1
    assert narrow(wide, before, after).same
    assert any("typically off" in line for line in narrow(wide, before, wrong).reasons)


def test_kl_and_loss_have_a_say_where_16_bits_hide_the_largest_error() -> None:
    wide = normal(0)
    before, after, wrong = (rounded(wide, 2e-3, seed) for seed in (1, 2, 2))
    assert not narrow(wide, before, after, labelled=True).reasons
    wrong[:, :POSITIONS] += 0.05  # every label is likelier by a little, less than the largest error allows
    found = narrow(wide, before, wrong, labelled=True).reasons
    assert len(found) == 1 and ": loss " in found[0]
    assert any("KL" in line for line in narrow(wide, before, rounded(wide, 2e-2, 2)).reasons)


def test_beside_float32_a_run_in_16_bits_counts_where_it_is_far_beyond_its_noise() -> None:
    wide = normal(0)
    before = rounded(wide, 2e-3, 1)
    for error, alone, beside in ((2e-3, False, False), (6e-3, True, False), (4e-2, True, True)):
        found = narrow(wide, before, rounded(before, error, 2))
        assert bool(found.reasons) == alone
        assert bool(replace(found, slack=2.0).reasons) == beside


def test_another_preferred_token_is_different_unless_the_margin_is_small() -> None:
    before = normal(0)
    top = before.argmax(-1)
    tied = before.clone()
    tied[torch.arange(POSITIONS), (top + 1) % VOCAB] = before.amax(-1) - 1e-5
    swapped = tied.clone()
    swapped[torch.arange(POSITIONS), (top + 1) % VOCAB] = before.amax(-1) + 1e-5
    found = report(tied, swapped)
    assert found.same and found.comparisons[0].top1 == 0
    other = before.clone()
    other[torch.arange(POSITIONS), (top + 1) % VOCAB] = before.amax(-1) + 1e-5
    flipped = report(before, other)
    assert any("another token is preferred" in line for line in flipped.reasons)


def test_a_run_in_16_bits_does_not_decide_and_one_that_tells_nothing_neither() -> None:
    wide = normal(0)
    found = narrow(wide, rounded(wide, 2e-3, 1), rounded(wide, 2e-3, 2))
    assert found.same and not found.decides
    assert report(wide, wide).decides
    nothing = filled(EVERY, math.nan)(wide)
    assert not report(nothing, nothing).decides
    constant = Deviation(tokens=True)
    constant.add(added(EVERY, 1e9)(wide))
    assert constant.grain(2**-23) > 0.01 > deviation_of(added(EVERY, -100.0)(wide)).grain(2**-23)


def deviation_of(value: torch.Tensor) -> Deviation:
    deviation = Deviation(tokens=True)
    deviation.add(value)
    return deviation


def test_a_state_has_a_noise_floor_of_its_own(tmp_path: Path) -> None:
    wide = normal(0, width=64).unsqueeze(0)
    kept, wider = Kept(tmp_path / "kept"), Kept(tmp_path / "wide")
    wider.put("a", wide)
    wider.put("b", wide)
    kept.put("a", rounded(wide, 1e-3, 1))
    kept.put("b", rounded(wide, 5e-2, 1))
    states = States("bfloat16", kept, wider)
    within = states.compared("b", rounded(wide, 5e-2, 2))
    assert within is not None and not within.differs and within.noise is not None and within.noise > 0.05
    beyond = states.compared("a", rounded(wide, 5e-2, 2))
    assert beyond is not None and beyond.differs and beyond.limit < within.limit
    alone = States("float32", kept).compared("a", kept.get("a"))
    assert alone is not None and alone.noise is None and not alone.differs
    broken = states.compared("a", filled((0, 1, 2), math.nan)(wide))
    assert broken is not None and broken.differs
    assert states.compared("a", wide[..., :3]) is None
