"""The law of a rotated axis that grows, against the library's own rotary embeddings: f'(count * j) = f(j)."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    ModernBertConfig,
    Phi3Config,
    StableLmConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.stablelm.modeling_stablelm import StableLmRotaryEmbedding

from modelsurgeon.architectures import rope
from modelsurgeon.errors import PlanError, SourceError

FAMILIES = {
    "deepseek_v2": (DeepseekV2Config, DeepseekV2RotaryEmbedding),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3RotaryEmbedding),
    "gemma3_text": (Gemma3TextConfig, Gemma3RotaryEmbedding),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXRotaryEmbedding),
    "gpt_oss": (GptOssConfig, GptOssRotaryEmbedding),
    "llama": (LlamaConfig, LlamaRotaryEmbedding),
    "modernbert": (ModernBertConfig, ModernBertRotaryEmbedding),
    "phi3": (Phi3Config, Phi3RotaryEmbedding),
    "stablelm": (StableLmConfig, StableLmRotaryEmbedding),
}
DEFAULT_PARTIAL = {"gpt_neox": 0.25, "phi3": 1.0, "stablelm": 0.25}
LENGTH = {"original_max_position_embeddings": 4096}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 8.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LENGTH},
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}
EPS32 = 2**-23


def sized(family: str, size: int) -> dict[str, Any]:
    """The part of config.json that says how large a head is, for two heads of one layer."""
    found: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 2 * size}
    if family.startswith("deepseek"):
        return found | {"qk_rope_head_dim": size}
    return found if family in ("gpt_neox", "stablelm", "modernbert") else found | {"head_dim": size}


def config_of(family: str, size: int, theta: float, record: dict[str, Any], spelling: str = "new") -> dict[str, Any]:
    """A config.json in the spelling of v5 ("new") or of v4 ("old")."""
    config = sized(family, size) | {"max_position_embeddings": 32768, "model_type": family, "hidden_act": "gelu"}
    if spelling == "new":
        return config | {"rope_parameters": {**record, "rope_theta": theta}}
    record = {key: value for key, value in record.items() if key != "rope_type"} | {"type": record["rope_type"]}
    return config | {"rope_theta": theta, "rope_scaling": record}


def embedding(config: dict[str, Any]) -> tuple[Any, torch.nn.Module]:
    """The library's reading of a config.json, and its rotary embedding."""
    kind, module = FAMILIES[config["model_type"]]
    loaded = kind(**json.loads(json.dumps(config)))
    return loaded, module(loaded)


def frequencies(config: dict[str, Any], layer: str = "", length: int | None = None) -> tuple[np.ndarray, float]:
    """(inverse frequencies [pairs], what cosines and sines are multiplied by)."""
    loaded, module = embedding(config)
    if length is None:
        prefix = f"{layer}_" if layer else ""
        found, scaling = getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling")
    else:
        found, scaling = ROPE_INIT_FUNCTIONS[loaded.rope_parameters["rope_type"]](loaded, "cpu", seq_len=length)
    return found.double().numpy(), float(scaling)


def grown(config: dict[str, Any], size: int, rotated: int, count: int) -> dict[str, Any]:
    return {**config, **sized(config["model_type"], size * count), **rope.nested(config, rotated, count)}


def drift(before: dict[str, Any], after: dict[str, Any], count: int, **where: Any) -> float:
    """The largest relative change of an old pair's frequency."""
    (old, scaling), (new, new_scaling) = frequencies(before, **where), frequencies(after, **where)
    assert scaling == new_scaling
    assert len(new) == count * len(old)
    idle = old == 0
    assert np.array_equal(new[::count] == 0, idle)
    return float(np.abs(new[::count][~idle] / old[~idle] - 1).max(initial=0.0))


def yarn(**more: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": 8.0, **LENGTH, **more}


def longrope(size: int) -> dict[str, Any]:
    short = (1 + np.arange(size // 2) / 7).tolist()
    return {"rope_type": "longrope", "short_factor": short, "long_factor": [9 * f for f in short], **LENGTH}


# What float32 leaves of a frequency, relative. The exponents are equal to the last bit, but a power of one in a vector
# and of one that stands alone may be a unit apart; then each is inverted, and divided by a factor.
POWER = 4 * EPS32


def yarn_bound(record: dict[str, Any]) -> float:
    """What float32 leaves of a YaRN frequency, relative.

    The ramp of both configs is rounded a few times to EPS32 of 1; where it has all but ended, an error of the full
    frequency is `factor` times as large beside the stretched one.
    """
    return 4 * EPS32 * record["factor"]


@pytest.mark.parametrize("spelling", ["new", "old"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("size", "theta"), [(8, 1e4), (20, 1e4), (24, 1e4), (64, 5e5), (96, 1e6), (128, 1e4)])
@pytest.mark.parametrize("kind", SCALINGS)
def test_types_that_only_know_exponents_keep_their_frequencies(kind, size, theta, count, spelling):
    config = config_of("llama", size, theta, {"rope_type": kind, **SCALINGS[kind]}, spelling)
    assert rope.nested(config, size, count) == {}
    assert drift(config, grown(config, size, size, count), count) <= POWER


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3", "gpt_oss", "llama", "phi3"])
def test_default_rope_of_every_family_keeps_its_frequencies(family, theta, count):
    config = config_of(family, 64, theta, {"rope_type": "default"})
    assert drift(config, grown(config, 64, 64, count), count) <= POWER


@pytest.mark.parametrize("spelling", ["new", "old"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("size", "theta"), [(8, 1e4), (96, 1e4), (64, 1e6)])
@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_longrope_keeps_its_frequencies_short_and_long(kind, size, theta, count, spelling):
    config = config_of("phi3", size, theta, longrope(size) | {"rope_type": kind}, spelling)
    assert rope.kinds(config) == ("longrope",)
    after = grown(config, size, size, count)
    assert set(rope.nested(config, size, count)) == {"rope_parameters" if spelling == "new" else "rope_scaling"}
    for length in (None, 10000):
        assert drift(config, after, count, length=length) <= POWER


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
def test_factor_lists_that_are_tiled_are_seen(key, count):
    config = config_of("phi3", 64, 1e4, longrope(64))
    wrong = grown(config, 64, 64, count)
    wrong["rope_parameters"][key] = config["rope_parameters"][key] * count
    assert drift(config, wrong, count, length=1 if key == "short_factor" else 10000) > 0.1


@pytest.mark.parametrize("change", [{"long_factor": [1.0]}, {"short_factor": None}, {"short_factor": "none"}])
def test_factor_lists_of_another_length_are_refused(change):
    config = {"rope_parameters": longrope(16) | change}
    with pytest.raises(SourceError, match="expected a list of 8"):
        rope.nested(config, 16, 2)


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


def layered(family: str, outer: dict[str, Any], **more: Any) -> dict[str, Any]:
    records = {
        "full_attention": yarn(rope_theta=1e6, **more),
        "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    }
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    return config_of(family, 64, 1e4, {}) | layers | {"rope_parameters": records | outer}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("family", "outer", "inner"),
    [
        ("gemma3_text", {}, {}),
        ("gemma3_text", {}, {"truncate": False}),  # upstream reads `truncate` beside the records, never inside of one
        ("gemma3_text", {"truncate": False}, {"beta_slow": 1e-20}),
        ("modernbert", {}, {}),
        ("modernbert", {}, {"truncate": False}),
    ],
)
def test_records_of_layer_types_keep_their_frequencies(family, outer, inner, count):
    config = layered(family, outer, **inner)
    assert rope.kinds(config) == ("yarn", "linear")
    after = grown(config, 64, 64, count) | {"num_hidden_layers": 2}
    bound = yarn_bound(config["rope_parameters"]["full_attention"])
    assert drift(config, after, count, layer="sliding_attention") <= POWER
    assert drift(config, after, count, layer="full_attention") <= bound
    wrong = after | {"rope_parameters": config["rope_parameters"]}
    assert drift(config, wrong, count, layer="full_attention") > 10 * bound


def test_nothing_is_changed_in_place():
    for record in (longrope(16), yarn(), {"full_attention": yarn(rope_theta=1e4)}):
        config = {"rope_parameters": record, "rope_theta": 1e4, "max_position_embeddings": 64}
        before = copy.deepcopy(config)
        assert rope.nested(config, 16, 2)["rope_parameters"] != before["rope_parameters"]
        assert rope.nested(config, 16, 1) == {}
        rope.appended(config, 16, 24)
        assert config == before


@pytest.mark.parametrize(("size", "partial", "count"), [(20, 0.3, 2), (20, 0.49, 3), (16, 0.06, 2), (64, 0.25, 3)])
def test_idle_pairs_of_the_proportional_type_stay_idle(size, partial, count):
    record = {"rope_type": "proportional", "partial_rotary_factor": partial}
    config = config_of("llama", size, 1e4, record)
    assert drift(config, grown(config, size, size, count), count) <= POWER


def test_a_proportional_share_that_lets_an_idle_pair_turn_is_seen():
    config = config_of("llama", 10, 1e4, {"rope_type": "proportional", "partial_rotary_factor": 0.5})
    assert rope.nested(config, 10, 2) != {}
    with pytest.raises(AssertionError):
        drift(config, config | sized("llama", 20), 2)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_type": "axial"}},
        {"rope_scaling": {"type": "su"}},
        {"rope_parameters": {"full_attention": {"rope_type": "axial"}, "sliding_attention": {}}},
    ],
)
def test_unknown_types_are_refused_by_name(config):
    kind = rope.kinds(config)[0]
    assert repr(kind) in rope.reasons_against_nesting(config)
    with pytest.raises(PlanError, match=kind):
        rope.nested(config, 16, 2)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"rope_scaling": yarn(), "local_rope_theta": 1e4, "global_rope_theta": 2e4}, "several thetas"),
        ({"rope_scaling": yarn(), "rope_parameters": {"full_attention": {}}}, "beside rope_scaling"),
    ],
)
def test_records_that_no_one_value_serves_are_refused(config, reason):
    assert reason in rope.reasons_against_nesting(config)
    with pytest.raises(PlanError, match=reason):
        rope.nested(config, 16, 2)


def test_plain_coordinates_beside_two_readings_are_refused():
    with pytest.raises(PlanError, match="beside rope_scaling"):
        rope.appended({"rope_scaling": yarn(), "rope_parameters": {"full_attention": {}}}, 8, 16)


def test_an_odd_number_of_rotated_coordinates_is_refused():
    with pytest.raises(PlanError, match="odd"):
        rope.nested({}, 5, 2)


@pytest.mark.parametrize(
    "change",
    [{"rope_theta": None}, {"rope_theta": "1e4"}, {"rope_theta": 1}, {"beta_fast": -1}, {"beta_slow": float("nan")}],
)
def test_yarn_without_what_it_needs_is_refused(change):
    with pytest.raises(SourceError, match=r"config\.json"):
        rope.nested({"rope_parameters": yarn(rope_theta=1e4) | change}, 16, 2)


@pytest.mark.parametrize("kind", [*(k for k in SCALINGS if k != "proportional"), "yarn", "longrope"])
@pytest.mark.parametrize("spelling", ["new", "old"])
def test_the_known_types_can_nest(kind, spelling):
    record = longrope(16) if kind == "longrope" else {"rope_type": kind, **SCALINGS.get(kind, yarn())}
    config = config_of("llama", 16, 1e4, record, spelling)
    assert rope.kinds(config) == (kind,)
    assert rope.reasons_against_nesting(config) is None


@pytest.mark.parametrize("config", [{}, {"rope_parameters": None}, {"rope_scaling": None}, {"rope_theta": 1e4}])
def test_a_config_that_names_no_type_has_the_default(config):
    assert rope.kinds(config) == ("default",)
    assert list(rope.records(config)) == [None]
    assert rope.nested(config, 16, 2) == {}


def test_a_record_wins_over_legacy_keys_and_rope_scaling_over_rope_parameters():
    config = {"rope_theta": 1.0, "partial_rotary_factor": 0.5, "rope_parameters": {"rope_theta": 2.0, "factor": None}}
    assert rope.records(config) == {None: {"rope_type": "default", "rope_theta": 2.0, "partial_rotary_factor": 0.5}}
    config["rope_scaling"] = {"type": "linear", "factor": 4.0}
    assert rope.records(config)[None]["rope_theta"] == 1.0
    assert rope.kinds(config) == ("linear",)


@pytest.mark.parametrize("spelling", ["new", "old", "both"])
@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_records_are_what_the_library_reads(kind, spelling):
    record = {"rope_type": kind, **SCALINGS.get(kind, yarn())}
    config = config_of("llama", 16, 5e5, record, "new" if spelling == "new" else "old")
    config |= {"original_max_position_embeddings": 2048}
    if spelling == "both":
        config |= {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}
    loaded, _ = embedding(config)
    found = rope.records(config)[None]
    ours = {key: value for key, value in found.items() if key != "truncate"}
    assert ours == {key: value for key, value in loaded.rope_parameters.items() if key in ours}
    assert found["original_max_position_embeddings" if kind != "linear" else "factor"] in (2048, 8.0)


def test_old_thetas_of_layer_types_are_found():
    config = {
        "rope_parameters": {"full_attention": {"type": "linear"}, "sliding_attention": {}, "other": None},
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
    }
    found = rope.records(config)
    assert {name: record["rope_theta"] for name, record in found.items()} == {
        "full_attention": 1e6,
        "sliding_attention": 1e4,
    }


@pytest.mark.parametrize(
    ("config", "partial", "expected"),
    [
        ({}, None, 80),
        ({"partial_rotary_factor": 0.5}, None, 80),
        ({}, 0.25, 20),
        ({"rotary_pct": 0.5}, 0.25, 40),
        ({"partial_rotary_factor": 0.4}, 0.25, 32),
        ({"partial_rotary_factor": 0.4, "rope_parameters": {"partial_rotary_factor": 0.75}}, 0.25, 60),
        ({"rope_scaling": {"partial_rotary_factor": 0.75}}, 0.25, 60),
        ({"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}}, 1.0, 80),
        ({"rope_parameters": {"a": {"partial_rotary_factor": 0.5}, "b": {}}, "rotary_pct": 0.5}, 0.25, 40),
    ],
)
def test_the_rotated_size_is_the_share_that_the_config_names(config, partial, expected):
    assert rope.rotated_size(config, 80, partial) == expected


def test_the_rotated_size_may_have_a_key_of_its_own():
    assert rope.rotated_size({"rotary_dim": 64}, 256, None, "rotary_dim") == 64
    assert rope.rotated_size({"rotary_dim": None}, 256, None, "rotary_dim") == 256


@pytest.mark.parametrize(
    "config",
    [
        {"partial_rotary_factor": "half"},
        {"partial_rotary_factor": 1.5},
        {"partial_rotary_factor": float("nan")},
        {"rotary_dim": 20},
        {"rope_parameters": {"a": {"partial_rotary_factor": 0.5}, "b": {"partial_rotary_factor": 0.25}}},
        {"rope_parameters": [1]},
    ],
)
def test_a_rotated_size_that_makes_no_sense_is_refused(config):
    with pytest.raises(SourceError, match=r"config\.json"):
        rope.rotated_size(config, 16, 1.0, "rotary_dim")


PLACES = {
    "inside": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}},
    "inside, old": {"rope_scaling": {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}},
    "nowhere": {},
    "record without": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
}


@pytest.mark.parametrize("place", [*PLACES, "legacy"])
@pytest.mark.parametrize("family", sorted(DEFAULT_PARTIAL))
def test_appended_coordinates_leave_the_frequencies_alone(family, place):
    if place != "legacy":
        places = json.loads(json.dumps(PLACES[place]))
    else:
        places = {"rotary_pct" if family == "gpt_neox" else "partial_rotary_factor": 0.75}
    for record in places.values() if family == "phi3" and place != "legacy" else ():
        record.pop("factor", None)
        record.pop("type", None)
        record |= {"rope_type": "default"}
    config = sized(family, 40) | {"model_type": family} | places
    rotated = rope.rotated_size(config, 40, DEFAULT_PARTIAL[family])
    changes = rope.appended(config, rotated, 56)
    after = config | sized(family, 56) | changes
    assert rope.rotated_size(after, 56, DEFAULT_PARTIAL[family]) == rotated
    assert set(changes) == (set(places) or {"rope_parameters"})
    assert drift(config, after, 1) == 0
    assert len(frequencies(config | sized(family, 56))[0]) != rotated // 2  # the share left alone is seen


def test_every_statement_of_the_share_follows():
    config = {"rotary_pct": 0.5, "partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.5}}
    changes = rope.appended(config, 16, 64)
    assert changes == {
        "rotary_pct": 0.25,
        "partial_rotary_factor": 0.25,
        "rope_parameters": {"partial_rotary_factor": 0.25},
    }
    nested = {"rope_parameters": {"a": {"partial_rotary_factor": 0.5}, "b": {"partial_rotary_factor": 0.5}}}
    assert rope.appended(nested, 16, 64) == {
        "rope_parameters": {"a": {"partial_rotary_factor": 0.25}, "b": {"partial_rotary_factor": 0.25}}
    }


@pytest.mark.parametrize("kind", ["yarn", "longrope", "llama3", "dynamic"])
def test_appended_coordinates_leave_scaled_frequencies_alone(kind):
    record = longrope(24) if kind == "longrope" else {"rope_type": kind, **SCALINGS.get(kind, yarn())}
    family = "phi3" if kind == "longrope" else "gpt_neox"
    config = config_of(family, 32, 1e4, record | {"partial_rotary_factor": 0.75})
    after = config | sized(family, 40) | rope.appended(config, 24, 40)
    assert drift(config, after, 1) == 0


def test_nested_pairs_and_appended_coordinates_can_follow_one_another():
    config = config_of("phi3", 32, 1e4, longrope(24) | {"partial_rotary_factor": 0.75})
    changed = config | rope.nested(config, 24, 2)
    changed |= rope.appended(changed, 48, 100)
    assert drift(config, changed | sized("phi3", 100), 2) <= POWER


def test_appended_coordinates_are_refused_where_frequencies_follow_the_whole_axis():
    with pytest.raises(PlanError, match="proportional"):
        rope.appended({"rope_parameters": {"rope_type": "proportional"}}, 16, 32)
    with pytest.raises(PlanError, match="do not fit"):
        rope.appended({}, 32, 16)


@given(st.integers(1, 4096).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))))
def test_a_share_gives_back_the_number_it_was_made_from(sizes):
    rotated, size = sizes
    share = rope.appended({}, rotated, size)["rope_parameters"]["partial_rotary_factor"]
    assert int(size * share) == rotated
