"""What a config says of rotary positions, in every spelling; and coordinates appended without a rotation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsurgeon.architectures import rope
from modelsurgeon.errors import PlanError, SourceError
from support.rotary import (
    DEFAULT_PARTIAL,
    POWER,
    SCALINGS,
    config_of,
    drift,
    embedding,
    frequencies,
    longrope,
    sized,
    yarn,
)


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
