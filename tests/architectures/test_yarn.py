"""The law of a rotated axis under YaRN, whose ramp of frequencies has bounds: they stay where they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsurgeon.architectures import rope
from support.rotary import config_of, drift, grown, yarn, yarn_bound

YARNS = {
    "plain": yarn(),
    "truncate": yarn(truncate=True),
    "exact": yarn(truncate=False),
    "falsy": yarn(truncate=None),
    "betas": yarn(beta_fast=16, beta_slow=2.5),
    "null betas": yarn(beta_fast=None, beta_slow=0),
    "from 0": yarn(beta_fast=3000),
    "from 0, exact": yarn(beta_fast=3000.0, truncate=False),
    "to the end": yarn(beta_slow=1e-7),
    "to the end, exact": yarn(beta_slow=1e-7, truncate=False),
    "all": yarn(beta_fast=3000, beta_slow=1e-7),
    "no ramp": yarn(beta_fast=5.0, beta_slow=5.0, truncate=False),
    "no ramp at 0": yarn(beta_fast=3000, beta_slow=700.0),
    "backwards": yarn(beta_fast=1, beta_slow=32),
    "past 0": yarn(beta_fast=9000, beta_slow=3000),
    "past the end": yarn(beta_fast=1e-8, beta_slow=1e-8),
    "mscale": yarn(mscale=1.0, mscale_all_dim=0.7),
    "no factor": yarn(attention_factor=1.25),
    "factor 40": yarn(factor=40.0),
}


@pytest.mark.parametrize("spelling", ["new", "old"])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("size", "theta"), [(8, 1e4), (64, 1.5e5), (96, 1e6), (128, 1e4)])
@pytest.mark.parametrize("name", YARNS)
def test_yarn_keeps_its_frequencies(name, size, theta, count, spelling):
    config = config_of("llama", size, theta, YARNS[name], spelling)
    after = grown(config, size, size, count)
    assert drift(config, after, count) <= yarn_bound(YARNS[name])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3", "gpt_oss"])
def test_yarn_of_the_families_that_use_it_keeps_its_frequencies(family, count):
    record = yarn(factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
    if family == "gpt_oss":
        record = yarn(factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False)
    config = config_of(family, 64, 1e4, record, "old")
    assert drift(config, grown(config, 64, 64, count), count) <= yarn_bound(record)


def test_yarn_that_is_exact_already_stays_as_it_is():
    config = config_of("gpt_oss", 64, 1.5e5, yarn(beta_fast=32.0, beta_slow=1.0, truncate=False))
    assert rope.nested(config, 64, 2) == {}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("truncate", [True, False])
def test_yarn_mistakes_are_seen(truncate, count):
    record = yarn(truncate=truncate, beta_fast=16, beta_slow=1e-9)  # the end of the ramp is clamped
    config = config_of("llama", 64, 1e4, record)
    right = grown(config, 64, 64, count)
    betas = rope.nested(config, 64, count)["rope_parameters"]
    for wrong in (
        config["rope_parameters"],  # betas left alone
        config["rope_parameters"] | {"truncate": not truncate},
        betas | {"beta_slow": record["beta_slow"]},
        betas | {"beta_fast": betas["beta_fast"] * 1.2},
        betas | {"truncate": False, "beta_fast": betas["beta_fast"] * 1.01},
        betas | {"beta_fast": betas["beta_slow"], "beta_slow": betas["beta_fast"]},
    ):
        assert drift(config, right | {"rope_parameters": wrong}, count) > 10 * yarn_bound(record)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_yarn_whose_bounds_are_rounded_stands_off_from_the_rounding(count):
    """Bounds may move by a fifth of a new pair without consequence."""
    config = config_of("llama", 64, 1e4, yarn(beta_fast=16))
    after = grown(config, 64, 64, count)
    for shift in (-0.2, 0.2):
        scale = 1e4 ** (2 * shift / count / 64)
        moved = {key: after["rope_parameters"][key] * scale for key in ("beta_fast", "beta_slow")}
        assert drift(config, after | {"rope_parameters": after["rope_parameters"] | moved}, count) <= yarn_bound(yarn())


@given(
    st.integers(2, 64).map(lambda pairs: 2 * pairs),
    st.integers(2, 5),
    st.sampled_from([1e3, 1e4, 1.5e5, 1e6, 5e7]),
    st.sampled_from([512, 4096, 65536]),
    st.floats(0.01, 1e4),
    st.floats(0.01, 1e4),
    st.sampled_from([True, False]),
)
def test_yarn_bounds_are_where_they_were(size, count, theta, length, fast, slow, truncate):
    """In float64, clamps and ramps of no width included: low and high of the new ramp are `count` times the old."""
    record = yarn(beta_fast=fast, beta_slow=slow, truncate=truncate, original_max_position_embeddings=length)
    config = {"rope_parameters": {**record, "rope_theta": theta}}
    after = config | rope.nested(config, size, count)
    old = ramp(config["rope_parameters"], size, np.arange(size // 2))
    new = ramp(after["rope_parameters"], size * count, count * np.arange(size // 2))
    # A few float64 roundings of indices up to 320, over a ramp that may be 0.001 narrow.
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-8)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("at", [10.0, 9.9995])
def test_a_yarn_ramp_of_no_width_stays_where_it_is(at, count):
    """Upstream makes it 0.001 pairs wide: a pair that lies there is half stretched, before and after."""
    turn = 4096 / (2 * np.pi * 1e4 ** (2 * at / 64))
    record = yarn(beta_fast=turn, beta_slow=turn, truncate=False, rope_theta=1e4)
    after = rope.nested({"rope_parameters": record}, 64, count)["rope_parameters"]
    pairs = np.arange(32)
    old, new = ramp(record, 64, pairs), ramp(after, 64 * count, count * pairs)
    assert old[10] == pytest.approx(0.5 if at < 10 else 0, abs=1e-8)
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-8)  # float64 indices over a ramp of 0.001


def ramp(record: dict[str, Any], size: int, at: np.ndarray) -> np.ndarray:
    """YaRN's ramp at pairs `at`, in float64, as _compute_yarn_parameters has it in float32."""
    turns, scale = np.array([record["beta_fast"], record["beta_slow"]]), size / (2 * np.log(record["rope_theta"]))
    low, high = scale * np.log(record["original_max_position_embeddings"] / (turns * 2 * np.pi))
    if record["truncate"]:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    high += 0.001 if low == high else 0
    return np.clip((at - low) / (high - low), 0, 1)
