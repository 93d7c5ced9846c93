"""The config of a grown checkpoint follows from the old one and the maps: sizes, and all that depends on them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.planning import plan_maps
from modelsurgeon.growth.remap import grown_config
from modelsurgeon.growth.targets import target_config
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import identity

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4,
    "num_hidden_layers": 2, "vocab_size": 61, "rms_norm_eps": 1e-2,
}  # fmt: skip
GROUPED = {**LLAMA, "num_key_value_heads": 2, "head_dim": 8}
MIXTRAL = {**GROUPED, "model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2}
GPT_OSS = {**GROUPED, "model_type": "gpt_oss", "num_local_experts": 6, "num_experts_per_tok": 2}
OLMO = {**{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"}, "model_type": "olmo"}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 24, "vocab_size": 61,
        "layer_norm_epsilon": 1e-2}  # fmt: skip
NEOX = {
    "model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4,
    "num_hidden_layers": 2, "vocab_size": 61, "layer_norm_eps": 1e-2, "rotary_pct": 0.25,
}  # fmt: skip
GPTJ = {**GPT2, "model_type": "gptj", "rotary_dim": 4}
MPT = {"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 24, "vocab_size": 61,
       "layer_norm_epsilon": 1e-5}  # fmt: skip
FALCON = {"model_type": "falcon", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
          "vocab_size": 61, "layer_norm_epsilon": 1e-5}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 1.5, 3.0, 5.0],
    "original_max_position_embeddings": 16,
}  # fmt: skip
PHI3 = {**LLAMA, "model_type": "phi3", "max_position_embeddings": 64, "original_max_position_embeddings": 16,
        "rope_scaling": LONGROPE}  # fmt: skip


def described(config: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint of no tensors: its config is all that counts here."""
    return Checkpoint(config, {}, {}, None)  # type: ignore[arg-type]


def maps_to(checkpoint: Checkpoint, rule: str = "exact", **settings: int) -> dict[str, AxisMap]:
    target = target_config(checkpoint, {key.replace("__", "."): value for key, value in settings.items()})
    return plan_maps(Growth(checkpoint.architecture, checkpoint.resolved, target, rule))


def grown(config: Mapping[str, Any], eps: float = 1.0, rule: str = "exact", **settings: int) -> dict[str, Any]:
    checkpoint = described(config)
    return grown_config(checkpoint, maps_to(checkpoint, rule, **settings), eps)


def changes(config: Mapping[str, Any], **settings: int) -> dict[str, Any]:
    """{key: new value} of all that differs."""
    return {key: value for key, value in grown(config, **settings).items() if config.get(key) != value}


GROWTHS: list[tuple[Mapping[str, Any], dict[str, int]]] = [
    (LLAMA, {"intermediate_size": 41}),
    (LLAMA, {"hidden_size": 48}),
    (LLAMA, {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 8}),
    (GROUPED, {"num_attention_heads": 8}),
    (GROUPED, {"num_key_value_heads": 4}),
    (GROUPED, {"head_dim": 16}),
    (MIXTRAL, {"num_local_experts": 12, "num_experts_per_tok": 4}),
    (GPT_OSS, {"num_local_experts": 7}),
    (GPT2, {"n_embd": 40}),
    (GPT2, {"n_inner": 150}),
    (NEOX, {"hidden_size": 96}),
    (GPTJ, {"n_embd": 64, "rotary_dim": 8}),
    (MPT, {"d_model": 64}),
    (FALCON, {"hidden_size": 64}),
    (PHI3, {"hidden_size": 64}),
]
each_growth = pytest.mark.parametrize(
    ("config", "settings"), GROWTHS, ids=lambda part: str(part.get("model_type", part))
)


@each_growth
def test_the_grown_config_has_the_sizes_of_the_maps(config: Mapping[str, Any], settings: dict[str, int]) -> None:
    checkpoint = described(config)
    maps = maps_to(checkpoint, **settings)
    found = described(grown_config(checkpoint, maps, 1.0))
    assert found.sizes == {axis: axis_map.new_size for axis, axis_map in maps.items()}
    for key, value in settings.items():
        assert found.config[key] == value


@each_growth
def test_it_is_a_function_of_config_and_maps(config: Mapping[str, Any], settings: dict[str, int]) -> None:
    checkpoint, before = described(config), copy.deepcopy(config)
    maps = maps_to(checkpoint, **settings)
    found = grown_config(checkpoint, maps, 0.5)
    assert config == before, "the old config was touched"
    on_record = {axis: AxisMap.from_json(json.loads(json.dumps(m.to_json()))) for axis, m in maps.items()}
    assert grown_config(described(copy.deepcopy(config)), on_record, 0.5) == found
    assert json.loads(json.dumps(found)) == found
    assert [key for key in found if key in config] == list(config), "the order of its keys"


@each_growth
def test_maps_that_change_nothing_leave_it_alone(config: Mapping[str, Any], settings: dict[str, int]) -> None:
    checkpoint = described(config)
    same = {axis: identity(size) for axis, size in checkpoint.sizes.items()}
    assert grown_config(checkpoint, same, 1.0) == config


@pytest.mark.parametrize(
    ("config", "first", "second"),
    [
        (GROUPED, {"num_attention_heads": 8, "num_key_value_heads": 4}, {"num_attention_heads": 16}),
        (GROUPED, {"head_dim": 16}, {"head_dim": 32, "intermediate_size": 60}),
        (PHI3, {"hidden_size": 64}, {"hidden_size": 128}),
        (GPTJ, {"n_embd": 64, "rotary_dim": 8}, {"n_embd": 128, "rotary_dim": 16}),
        (NEOX, {"hidden_size": 128}, {"hidden_size": 256}),
        (
            MIXTRAL,
            {"num_local_experts": 12, "num_experts_per_tok": 4},
            {"num_local_experts": 24, "num_experts_per_tok": 8},
        ),
        (GPT_OSS, {"num_local_experts": 7}, {"num_local_experts": 9}),
    ],
    ids=lambda part: str(part.get("model_type", part)),
)  # fmt: skip
def test_two_growths_give_the_config_of_both_maps(
    config: Mapping[str, Any], first: dict[str, int], second: dict[str, int]
) -> None:
    before = described(config)
    maps = maps_to(before, **first)
    between = described(grown_config(before, maps, 0.5))
    later = maps_to(between, **second)
    both = {axis: maps[axis].then(later[axis]) for axis in maps}
    assert grown_config(between, later, 0.5) == grown_config(before, both, 0.25)


def test_unknown_keys_and_their_order_stay() -> None:
    config = {"my_note": [1, {"a": None}], **LLAMA, "zebra": 1.5}
    found = grown(config, intermediate_size=80)
    assert found == {**config, "intermediate_size": 80} and list(found) == list(config)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_a_size_that_was_implied_is_written_out_where_it_would_now_be_another() -> None:
    for config in (LLAMA, {**LLAMA, "head_dim": None}):
        assert changes(config, hidden_size=48) == {"hidden_size": 48, "head_dim": 8}
        wanted = {"hidden_size": 64, "num_attention_heads": 8}
        assert changes(config, **wanted) == {**wanted, "num_key_value_heads": 4}
    for config in (GPT2, {**GPT2, "n_inner": None}):
        assert changes(config, n_embd=64) == {"n_embd": 64, "n_inner": 128}
    assert changes(FALCON, hidden_size=64) == {"hidden_size": 64, "ffn_hidden_size": 128}


def test_a_size_that_was_implied_and_grows_is_written_out() -> None:
    assert changes(GPT2, n_inner=150) == {"n_inner": 150}
    wanted = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 8}
    assert changes(LLAMA, **wanted) == wanted


def test_a_size_that_is_implied_and_stays_so_is_not_written() -> None:
    assert changes(LLAMA, intermediate_size=80) == {"intermediate_size": 80}
    assert changes(LLAMA, hidden_size=64, head_dim=16) == {"hidden_size": 64, "head_dim": 16}
    assert changes(FALCON, ffn_hidden_size=200) == {"ffn_hidden_size": 200}


def test_a_size_in_a_nested_part_grows_there_and_its_neighbours_stay() -> None:
    config = {**MPT, "attn_config": {"clip_qkv": 0.5, "alibi": True, "attn_pdrop": 0.1}}
    before = copy.deepcopy(config)
    found = grown(config, d_model=64)
    assert config == before
    assert found["attn_config"] == {**before["attn_config"], "clip_qkv": pytest.approx(0.5 * 2**0.25)}
    assert list(found["attn_config"]) == list(before["attn_config"])


def test_another_name_of_a_key_follows_the_native_one() -> None:
    renamed = {("n_embed" if key == "hidden_size" else key): value for key, value in FALCON.items()}
    found = grown(renamed, hidden_size=64)
    assert found["n_embed"] == 64 and described(found).sizes["hidden"] == 64
    both = grown({**FALCON, "n_embed": 32}, hidden_size=64)
    assert both["n_embed"] == both["hidden_size"] == 64
    oss = {("num_experts" if key == "num_local_experts" else key): value for key, value in GPT_OSS.items()}
    found = grown(oss, num_experts=8)
    assert found["num_experts"] == 8 and described(found).sizes["experts"] == 8


def test_a_derived_key_follows_where_it_is_written_and_nowhere_else() -> None:
    opt = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 40, "num_attention_heads": 4, "num_hidden_layers": 2,
           "max_position_embeddings": 24, "vocab_size": 61}  # fmt: skip
    assert changes(opt, hidden_size=64) == {"hidden_size": 64}
    assert changes({**opt, "word_embed_proj_dim": 32}, hidden_size=64) == {
        "hidden_size": 64, "word_embed_proj_dim": 64}  # fmt: skip
    olmoe = {**LLAMA, "model_type": "olmoe", "num_experts": 6, "num_experts_per_tok": 2}
    assert changes({**olmoe, "head_dim": 8}, hidden_size=64) == {"hidden_size": 64, "head_dim": 16}
    assert changes(olmoe, hidden_size=64) == {"hidden_size": 64}
    assert changes({**FALCON, "num_kv_heads": 4, "multi_query": False}, hidden_size=64, num_attention_heads=8) == {
        "hidden_size": 64, "num_attention_heads": 8, "num_kv_heads": 8, "ffn_hidden_size": 128}  # fmt: skip


# --- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_as_many_times_the_experts_are_chosen_as_there_are_copies(count: int) -> None:
    wanted = {"num_local_experts": 6 * count, "num_experts_per_tok": 2 * count}
    assert changes(MIXTRAL, **wanted) == wanted
    implied = {key: value for key, value in MIXTRAL.items() if key != "num_experts_per_tok"}
    assert changes(implied, **wanted) == wanted


def test_as_many_are_chosen_where_further_experts_sleep() -> None:
    assert changes(GPT_OSS, num_local_experts=8) == {"num_local_experts": 8}


def test_where_both_are_doubled_experts_are_copied() -> None:
    wanted = {"num_local_experts": 12, "num_experts_per_tok": 4}
    assert changes(GPT_OSS, **wanted) == wanted


# --- positions -------------------------------------------------------------------------------------------------------


def test_factors_of_rotary_pairs_are_repeated_in_place() -> None:
    found = grown(PHI3, hidden_size=64)["rope_scaling"]
    assert found["short_factor"] == [1.0, 1.0, 1.1, 1.1, 1.3, 1.3, 1.7, 1.7]
    assert found["long_factor"] == [1.0, 1.0, 1.5, 1.5, 3.0, 3.0, 5.0, 5.0]
    assert PHI3["rope_scaling"] == LONGROPE and len(LONGROPE["short_factor"]) == 4  # type: ignore[arg-type]


def test_more_heads_leave_positions_alone() -> None:
    wanted = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 8}
    assert changes(PHI3, **wanted) == wanted
    assert changes(NEOX, hidden_size=128, num_attention_heads=8) == {"hidden_size": 128, "num_attention_heads": 8}


@pytest.mark.parametrize(("wider", "share"), [(96, 4 / 24), (128, 0.25)])
def test_a_share_of_rotated_coordinates_becomes_smaller_where_plain_ones_are_added(wider: int, share: float) -> None:
    found = grown(NEOX, hidden_size=wider)
    assert found["rotary_pct"] == pytest.approx(share, rel=1e-15)
    assert described(found).sizes["head"] == wider // 4


def test_a_rotated_size_of_its_own_follows_its_pairs() -> None:
    wanted = {"n_embd": 64, "n_inner": 128}
    assert changes(GPTJ, n_embd=64, rotary_dim=8) == {**wanted, "rotary_dim": 8}
    assert changes(GPTJ, n_embd=64) == wanted


# --- norms and clamps ------------------------------------------------------------------------------------------------


def test_an_eps_is_multiplied_and_one_of_rounding_is_none() -> None:
    assert grown(LLAMA, 0.5, intermediate_size=80)["rms_norm_eps"] == 5e-3
    assert grown(LLAMA, 1.0 + 1e-13, intermediate_size=80)["rms_norm_eps"] == 1e-2
    assert "rms_norm_eps" not in grown(OLMO, 0.5, intermediate_size=80)


@pytest.mark.parametrize("rule", ["exact", "orthogonal"])
def test_a_clamp_is_multiplied_as_queries_keys_and_values_are(rule: str) -> None:
    clipped = {**OLMO, "clip_qkv": 0.5}
    found = grown(clipped, rule=rule, hidden_size=64, head_dim=16)
    assert found["clip_qkv"] == pytest.approx(0.5 * 2**0.25, rel=1e-15)
    assert grown(clipped, rule=rule, hidden_size=64, num_attention_heads=8, num_key_value_heads=8)["clip_qkv"] == 0.5
    assert grown({**OLMO, "clip_qkv": None}, rule=rule, hidden_size=64)["clip_qkv"] is None


def test_a_config_that_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(ModelSurgeonError):
        grown(LLAMA, hidden_size=50)
