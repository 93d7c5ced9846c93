"""The law of a rotated axis that grows, against the library's own rotary embeddings: f'(count * j) = f(j)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from modelsurgeon.architectures import rope
from modelsurgeon.errors import PlanError, SourceError
from support.rotary import POWER, SCALINGS, config_of, drift, grown, longrope, sized, yarn, yarn_bound


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
