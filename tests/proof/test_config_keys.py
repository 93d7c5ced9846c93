"""Two configs are compared as the library reads them: a key is equal, mapped, inert for a reason, or names another."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.config import ABSENT, EFFECTIVE, INERT, READ_BESIDE, SYNONYMS
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.proof import inert
from modelsurgeon.proof.config_keys import ConfigComparison, compare_configs
from modelsurgeon.proof.proof import prove
from modelsurgeon.running.settings import as_read, class_defaults, same
from support import tiny
from support.grow import widen

Source = Callable[..., Path]
REMOVED = object()
SLIDING = {"layer_types": REMOVED, "max_window_layers": 0, "sliding_window": 4, "use_sliding_window": True}


def changed(before: Checkpoint, **changes: Any) -> Checkpoint:
    """The checkpoint with other values in its config; REMOVED takes a key away."""
    config = {**before.config, **changes}
    return replace(before, config={key: value for key, value in config.items() if value is not REMOVED})


def compared(source: Source, name: str, before: dict[str, Any], after: dict[str, Any]) -> ConfigComparison:
    """A tiny model's config with some values against the same with others, by a growth that changes nothing."""
    model = open_checkpoint(source(tiny.named(name)))
    first = changed(model, **before)
    return compare_configs(first, changed(model, **after), first)


def different(*arguments: Any) -> list[str]:
    return [one.key for one in compared(*arguments).different]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_an_absent_window_is_the_library_s_and_null_is_none(source: Source) -> None:
    found = compared(source, "mistral-untied", {"sliding_window": REMOVED}, {"sliding_window": None})
    assert [(one.key, one.source, one.result) for one in found.different] == [("sliding_window", 4096, None)]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("mistral-untied", {"sliding_window": REMOVED}, {"sliding_window": 4096}),
        ("mixtral-untied", {"head_dim": None}, {"head_dim": 8}),
        ("gpt_neox-untied", {}, {"head_dim": 16}),
        ("llama-untied", {"hidden_act": REMOVED}, {"hidden_act": "silu"}),
        ("llama-untied", {"rope_parameters": REMOVED, "rope_theta": 500}, {"rope_parameters": {"rope_theta": 5e2}}),
        (
            "llama-untied",
            {"rope_parameters": REMOVED, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 500.0}},
        ),
        (
            "llama-yarn-rope",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6}},
            {
                "rope_parameters": {
                    "beta_fast": 32.0,
                    "beta_slow": 1.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 6,
                    "rope_theta": 10000.0,
                    "rope_type": "yarn",
                    "truncate": True,
                }
            },
        ),
        ("qwen2-sliding", {}, {"max_window_layers": 28, "layer_types": ["full_attention", "sliding_attention"]}),
        ("gemma3_text-tied", {"layer_types": REMOVED}, {"layer_types": ["sliding_attention"] * 2}),
        ("smollm3-tied", {"no_rope_layers": REMOVED}, {"no_rope_layers": [1, 1]}),
        ("t5-gated", {"feed_forward_proj": "gated-gelu"}, {"dense_act_fn": "gelu_new", "is_gated_act": True}),
        ("gpt2-tied", {"n_inner": None}, {"n_inner": 128}),
        ("falcon-tied", {"ffn_hidden_size": REMOVED}, {"ffn_hidden_size": 128}),
        ("llama-untied", {"architectures": None}, {"architectures": ["LlamaForCausalLM"]}),
        ("llama-untied", {"logits_scaling": {"__float__": "Infinity"}}, {"logits_scaling": math.inf}),
        ("deberta-v2-tied", {"max_relative_positions": -1}, {"max_relative_positions": 24}),
        ("modernbert-tied", {"local_attention": 4}, {"local_attention": 5}),
    ],
)
def test_two_spellings_of_one_setting_are_equal_in_both_directions(
    name: str, before: dict[str, Any], after: dict[str, Any], source: Source
) -> None:
    assert different(source, name, before, after) == different(source, name, after, before) == []


@pytest.mark.parametrize(
    ("name", "before", "after", "keys"),
    [
        ("llama-untied", {}, {"rms_norm_eps": 0.02}, ["rms_norm_eps"]),
        ("llama-untied", {}, {"hidden_act": "gelu"}, ["hidden_act"]),
        ("bert-tied", {"hidden_act": "gelu"}, {"hidden_act": "gelu_new"}, ["hidden_act"]),
        ("llama-untied", {}, {"is_causal": False}, ["is_causal"]),
        ("bert-tied", {}, {"is_causal": True}, ["is_causal"]),
        ("llama-untied", {}, {"sliding_window": 4}, ["sliding_window"]),
        ("llama-untied", {}, {"pruned_heads": {"0": [1]}}, ["pruned_heads.0"]),
        ("bert-tied", {}, {"is_decoder": True}, ["is_decoder"]),
        ("bert-tied", {}, {"add_cross_attention": True}, ["add_cross_attention"]),
        ("gemma2-tied", {}, {"layer_types": ["full_attention"] * 2}, ["layer_types"]),
        ("qwen2-untied", {}, SLIDING, ["layer_types", "sliding_window"]),
        ("llama-untied", {}, {"architectures": ["LlamaModel"]}, ["architectures"]),
        ("t5-tied", {}, {"decoder_start_token_id": 3}, ["decoder_start_token_id"]),
        ("bart-tied", {}, {"decoder_start_token_id": 3}, ["decoder_start_token_id"]),
        ("whisper-tied", {}, {"decoder_start_token_id": 3}, ["decoder_start_token_id"]),
        ("roberta-tied", {}, {"pad_token_id": 3}, ["pad_token_id"]),
        ("bart-tied", {}, {"pad_token_id": 3}, ["pad_token_id"]),
        ("llama-sequence", {}, {"pad_token_id": 3}, ["pad_token_id"]),
        ("bert-sequence", {}, {"problem_type": "regression"}, ["problem_type"]),
        ("mixtral-untied", {"output_router_logits": True}, {"router_aux_loss_coef": 0.5}, None),
        ("mixtral-untied", {}, {"output_router_logits": True}, ["output_router_logits"]),
        ("deepseek_v3-untied", {}, {"norm_topk_prob": False}, ["norm_topk_prob"]),
        ("gptj-untied", {"rotary_dim": REMOVED}, {"rotary_dim": None}, ["rotary_dim"]),
        ("smollm3-tied", {}, {"no_rope_layers": [1, 1]}, ["no_rope_layers"]),
        ("llama-dynamic-rope", {}, {"max_position_embeddings": 48}, ["max_position_embeddings"]),
        ("gpt2-tied", {}, {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx"]),
        ("gemma3_text-tied", {}, {"query_pre_attn_scalar": 9}, ["query_pre_attn_scalar"]),
        ("gemma-tied", {}, {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ("bart-tied", {}, {"scale_embedding": True}, ["scale_embedding"]),
        ("deberta-v2-tied", {}, {"norm_rel_ebd": "none"}, ["norm_rel_ebd"]),
        ("llama-untied", {}, {"rope_theta": 500.0, "rope_parameters": None}, ["rope_parameters.rope_theta"]),
    ],
)
def test_another_function_is_named_by_its_key(
    name: str, before: dict[str, Any], after: dict[str, Any], keys: list[str] | None, source: Source
) -> None:
    after = {**before, **after}
    assert different(source, name, before, after) == (["router_aux_loss_coef"] if keys is None else keys)


@pytest.mark.parametrize(
    ("name", "key", "value", "word"),
    [
        ("llama-untied", "attention_dropout", 0.5, "dropout"),
        ("llama-untied", "pad_token_id", 3, "padding"),
        ("llama-untied", "max_position_embeddings", 48, "length"),
        ("llama-untied", "decoder_start_token_id", 3, "decoder"),
        ("llama-untied", "an_unknown_key", 3, "no key of this model type"),
        ("llama-untied", "hidden_act", "swish", "another name"),
        ("llama-untied", "dtype", "float16", "dtype"),
        ("llama-untied", "problem_type", "regression", "classifier"),
        ("llama-untied", "id2label", {"0": "cat", "1": "dog"}, "labels"),
        ("mixtral-untied", "router_aux_loss_coef", 0.5, "balances"),
        ("bert-body", "tie_word_embeddings", False, "head"),
        ("falcon-alibi", "rope_parameters", {"rope_theta": 500.0}, "rotary"),
    ],
)
def test_a_key_that_changes_nothing_is_inert_for_a_reason(
    name: str, key: str, value: Any, word: str, source: Source
) -> None:
    found = compared(source, name, {}, {key: value})
    assert found.different == ()
    assert any(word in one.reason for one in found.inert), found.inert


# --- with maps and without --------------------------------------------------------------------------------------------


def test_a_growth_maps_keys_and_a_key_left_behind_is_named(source: Source) -> None:
    before = open_checkpoint(source(tiny.named("llama-untied")))
    after = widen(before, 2, rule="exact")
    found = compare_configs(before, after, after)
    assert {"hidden_size", "intermediate_size"} <= set(found.mapped)
    assert found.different == found.inert == found.undecided == ()
    left = compare_configs(before, changed(after, intermediate_size=40), after)
    assert [(one.key, one.source, one.result, one.expected) for one in left.different] == [
        ("intermediate_size", 40, 40, 80)
    ]


def test_without_maps_what_no_growth_changes_is_named_and_the_rest_is_undecided(source: Source) -> None:
    before = open_checkpoint(source(tiny.named("granite-untied")))
    after = changed(
        widen(before, 2, rule="exact"), hidden_act="relu", logits_scaling=9.0, rope_theta=5.0, rope_parameters=None
    )
    found = compare_configs(before, after)
    assert [one.key for one in found.different] == ["hidden_act"]
    assert {"hidden_size", "logits_scaling", "rope_parameters.rope_theta"} <= set(found.undecided)
    sizes_alike = compare_configs(before, changed(before, rms_norm_eps=0.5, logits_scaling=9.0))
    assert [one.key for one in sizes_alike.different] == ["logits_scaling", "rms_norm_eps"]


def test_another_vocabulary_is_left_to_the_tokens(source: Source) -> None:
    before = open_checkpoint(source(tiny.named("llama-untied")))
    found = compare_configs(before, changed(before, vocab_size=70))
    assert (found.different, found.undecided) == ((), ("vocab_size",))


def test_other_families_are_said_first_and_nothing_else(source: Source) -> None:
    llama, gpt2 = (open_checkpoint(source(tiny.named(name))) for name in ("llama-untied", "gpt2-tied"))
    found = compare_configs(llama, gpt2)
    assert [(one.key, one.source, one.result) for one in found.different] == [("model_type", "llama", "gpt2")]


def test_files_that_the_library_cannot_read_are_compared_as_they_are_and_that_is_said(source: Source) -> None:
    broken = {"rms_norm_eps": "small"}
    found = compared(source, "llama-untied", {}, broken)
    assert [one.key for one in found.different] == ["rms_norm_eps"]
    assert found.raw and "cannot build" in found.note
    assert different(source, "llama-untied", broken, {**broken, "hidden_act": REMOVED}) == ["hidden_act"]
    assert different(source, "llama-untied", broken, broken) == []


def test_a_proof_is_wrong_by_each_key(source: Source, tmp_path: Path) -> None:
    before = open_checkpoint(source(tiny.named("mistral-untied")))
    after = changed(before, sliding_window=None, hidden_act="relu", attention_dropout=0.5)
    proof = prove(before, after, ())
    assert proof is not None and proof.config is not None
    assert [(one.name, one.detail) for one in proof.wrong] == [
        ("config.json", "hidden_act: expected 'silu', found 'relu'"),
        ("config.json", "sliding_window: expected 4, found None"),
    ]
    assert [one.key for one in proof.config.inert] == ["attention_dropout"]


def test_the_document_holds_all_of_it_and_is_json(source: Source) -> None:
    found = compared(source, "llama-untied", {}, {"hidden_act": "relu", "attention_dropout": 0.5}).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["different"] == [{"key": "hidden_act", "source": "silu", "result": "relu"}]
    assert [one["key"] for one in found["inert"]] == ["attention_dropout"]
    assert found["equal"] > 20 and found["mapped"] == found["undecided"] == []


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"), [(1e4, 10000), (math.nan, math.nan), ([1, 2.0], (1.0, 2)), (0.1 + 0.2, 0.3), (-0.0, 0.0), (None, None)]
)
def test_values_that_mean_the_same_are_the_same(a: Any, b: Any) -> None:
    assert same(a, b) and same(b, a) and same({"x": [a]}, {"x": [b]})


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (True, 1),
        (False, 0),
        (False, None),
        (1.0, True),
        (1, "1"),
        (10**400, 1e300),
        (1e-6, 1.0000001e-6),
        ([1], [1, 1]),
    ],
)
def test_values_that_may_not_mean_the_same_are_not(a: Any, b: Any) -> None:
    assert not same(a, b) and not same(b, a) and not same({"x": [a]}, {"x": [b]})


@pytest.mark.parametrize("names", SYNONYMS, ids=lambda names: min(names))
def test_names_of_one_activation_are_one_function_up_to_the_rounding_of_float32(names: frozenset[str]) -> None:
    inputs = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    first, *others = (ACT2FN[name](inputs) for name in sorted(names))
    assert all((first - other).abs().max() < 1e-10 for other in others)  # a constant of ten digits in gelu_fast


def test_activations_of_two_groups_are_two_functions() -> None:
    inputs = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    groups = [ACT2FN[min(names)](inputs) for names in SYNONYMS]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(groups) for b in groups[:i])


# --- the table of reasons ---------------------------------------------------------------------------------------------


def test_every_entry_names_families_that_exist_and_a_key_once() -> None:
    for entry in inert.entries():
        assert set(entry.families) <= set(registry.known()), entry
        assert entry.reason and len(set(entry.names)) == len(entry.names), entry


def test_every_condition_is_used() -> None:
    assert {entry.when for entry in inert.entries()} - {""} == set(inert.CONDITIONS)


@pytest.mark.parametrize("name", ["llama-untied", "bert-tied", "gpt2-tied"])
def test_bookkeeping_of_older_files_is_inert(name: str, source: Source) -> None:
    """All keys of INERT that no class lists, and what older versions saved without an effect."""
    counting = {"add_cross_attention", "decoder_start_token_id", "is_encoder_decoder", "model_type", "num_labels"}
    old = INERT - counting - set(class_defaults(open_checkpoint(source(tiny.named(name))).config["model_type"]))
    assert {"prefix", "task_specific_params", "output_past"} <= old
    assert different(source, name, {}, {**dict.fromkeys(old, 7), "pruned_heads": {}, "clip_qkv": None}) == []


def test_what_makes_the_library_load_something_else_is_no_unknown_key(source: Source) -> None:
    found = different(source, "llama-untied", {}, {"transformers_weights": "other.safetensors"})
    assert found == ["transformers_weights"]


def test_false_is_null_for_switches_alone(source: Source) -> None:
    assert different(source, "falcon-tied", {"alibi": None}, {"alibi": False}) == []
    assert different(source, "phi3-untied", {"sliding_window": None}, {"sliding_window": False}) == ["sliding_window"]


def test_no_key_with_an_effect_is_inert_in_every_family() -> None:
    always = {name for e in inert.entries() for name in e.names if not (e.families or e.other_classes or e.when)}
    assert not always & {*EFFECTIVE, *READ_BESIDE}


# Attributes of configs that code of the library reads and that are no settings of a function: methods, properties,
# what training or another class of models reads.
NO_SETTINGS = frozenset(
    """
    _attn_implementation _experts_implementation _is_quantized embedding_size get_text_config image_token_id
    kv_sharing_modes mm_tokens_per_image n_positions num_hidden_layers num_labels number_of_conv_states
    partial_rotary_factor per_layer_config rope_parameters text_config vision_config
    """.split()
)


@pytest.mark.parametrize("model_type", registry.known())
def test_what_code_reads_beside_the_config_class_is_known(model_type: str) -> None:
    """So that an unknown key is inert: the model's own code, and the code that makes all models' masks and caches."""
    made = transformers.CONFIG_MAPPING[model_type]
    folder = Path(inspect.getfile(made)).parent
    shared = [Path(transformers.__file__).parent / name for name in ("masking_utils.py", "cache_utils.py")]
    pattern = r"config\.(\w+)|getattr\(\s*(?:self\.)?config,\s*[\"'](\w+)[\"']"
    reads = {
        name
        for path in [*folder.glob("modeling_*.py"), *shared]
        for pair in re.findall(pattern, path.read_text(encoding="utf-8"))
        for name in pair
        if name
    }
    always = {name for entry in inert.entries() for name in entry.names}
    assert reads - set(class_defaults(model_type)) - set(READ_BESIDE) - always - NO_SETTINGS == set()


def test_absence_means_what_the_library_s_code_takes() -> None:
    assert READ_BESIDE["is_causal"] == ABSENT  # in a decoder it is true, in an encoder false, in T5 both
    assert as_read({"model_type": "llama", "is_causal": False}) == {
        **(as_read({"model_type": "llama"}) or {}),
        "is_causal": False,
    }
