"""What to grow to: settings as typed, a factor, another config, a number of parameters; and what is said of it."""

from __future__ import annotations

import json
from math import log

import huggingface_hub
import pytest

from modelsurgeon.checkpoints.changes import config_changes
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.source import DEMO, read_config_of
from modelsurgeon.errors import ModelSurgeonError, PlanError, SourceError
from modelsurgeon.growth.targets import by_config, by_factor, by_settings, settable
from modelsurgeon.operations.transforms.proportions import Proportions, by_parameters
from modelsurgeon.text import COUNTS, parse_count
from support import tiny
from support.cache import COMMIT, cache, cached
from support.grow import widen

__all__ = ["cache"]  # a fixture

# A tied OLMo, whose norms have no weights, is refused until it is untied.
MAIN = [v for v in tiny.variants() if v.main and v.name != "olmo-tied"]


@pytest.fixture
def llama(source) -> Checkpoint:
    return open_checkpoint(source(tiny.named("llama-untied")))


@pytest.fixture
def gpt2(source) -> Checkpoint:
    return open_checkpoint(source(tiny.named("gpt2-implied-mlp")))


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_taken_under_the_family_s_own_names(gpt2):
    assert by_settings(gpt2, ["hidden_size=64", " n_head = 8 "]) == {"n_embd": 64, "n_head": 8}
    assert by_settings(gpt2, ["hidden_size=64", "n_embd=64"]) == {"n_embd": 64}


def test_nested_settings_are_named_with_a_dot(source, tmp_path):
    checkpoint = open_checkpoint(source(tiny.named("mpt-tied")))
    assert all("." not in key or by_settings(checkpoint, [f"{key}=9"]) for key in settable(checkpoint.architecture))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hidden_size", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("hidden_size=", "hidden_size is '', expected a whole number"),
        ("hidden_size=1.5", "hidden_size is '1.5', expected a whole number"),
        ("hidden_size=-64", "expected a whole number"),
        ("hidden_size=0", "hidden_size is 0, expected a whole number of 1 or more"),
        ("hidden_size=6_4", "expected a whole number"),
        ("hidden_size=\u0666\u0664", "expected a whole number"),
        ("hidden_size=" + "9" * 99, "expected a whole number"),
        ("n_embd=64", "n_embd: not a width of llama; what can grow: hidden_size, "),
        ("num_hidden_layers=4", "num_hidden_layers: depth does not grow"),
        ("vocab_size=99", "vocab_size: the vocabulary does not grow"),
        ("rope_parameters.rope_theta=2", "not a width of llama"),
    ],
)
def test_what_is_no_setting_is_refused(text, said, llama):
    with pytest.raises(PlanError) as caught:
        by_settings(llama, [text])
    assert said in str(caught.value)


def test_two_values_of_one_key_are_refused(gpt2):
    with pytest.raises(PlanError, match="n_embd is set twice, to 64 and to 96"):
        by_settings(gpt2, ["hidden_size=64", "n_embd=96"])


def test_a_setting_wins_over_the_factor(llama):
    wide = widen(llama, 2, {"intermediate_size": 100})
    assert (wide.config["hidden_size"], wide.config["intermediate_size"]) == (64, 100)


@pytest.mark.parametrize("variant", MAIN, ids=str)
def test_a_factor_is_a_short_form_of_settings_and_leaves_ranks_alone(variant, source):
    checkpoint = open_checkpoint(source(variant))
    for attention in ("heads", "head-dim"):
        settings = by_factor(checkpoint, 2, attention)
        assert settings and set(settings) <= set(settable(checkpoint.architecture))
        axes = checkpoint.architecture.axes.values()
        assert not set(settings) & {axis.key for axis in axes if axis.through in ("rank", "experts", "fixed")}


# --- another config --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", MAIN, ids=str)
def test_a_widened_model_s_config_is_a_target_that_gives_the_same_widths(variant, source):
    checkpoint = open_checkpoint(source(variant))
    wide = widen(checkpoint, 2)
    settings, notes = by_config(checkpoint, wide.config)
    again = widen(checkpoint, settings=settings)
    assert again.sizes == wide.sizes
    assert not [note for note in notes if "eps" not in note and "rms" not in note]


def test_what_is_not_taken_from_the_other_config_is_told(llama):
    other = {**llama.config, "num_hidden_layers": 9, "rms_norm_eps": 0.5, "hidden_act": "gelu", "hidden_size": 64}
    settings, notes = by_config(llama, other)
    assert settings["hidden_size"] == 64
    assert notes == (
        "not taken from the other config: hidden_act silu (there gelu), num_hidden_layers 2 (there 9), "
        "rms_norm_eps 0.01 (there 0.5)",
    )


def test_a_config_of_nothing_but_widths_is_enough(gpt2):
    settings, notes = by_config(gpt2, {"model_type": "gpt2", "n_embd": 64, "n_head": 8})
    assert settings == {"n_embd": 64, "n_inner": 256, "n_head": 8} and not notes
    with pytest.raises(SourceError, match="no 'n_head'"):
        by_config(gpt2, {"model_type": "gpt2", "n_embd": 64})


def test_a_config_of_another_family_is_refused(llama):
    for other in ({"model_type": "gpt2"}, {}):
        with pytest.raises(PlanError, match=r"the other config is of model_type .*, expected 'llama'"):
            by_config(llama, other)


def test_a_config_is_read_from_a_file_a_folder_the_demo_or_the_hub(cache, tmp_path, monkeypatch):
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_bytes((DEMO / "config.json").read_bytes())
    cached(cache, folder, COMMIT)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)  # of a Hub id nothing else is asked for
    found = [read_config_of(source) for source in (folder / "config.json", folder, "demo", "org/name")]
    assert all(config == found[0] for config in found)


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all", "org/nothing", "", "x" * 300, "org/.."])
def test_a_config_that_is_not_there_is_refused(source, cache):
    with pytest.raises(SourceError):
        read_config_of(source)


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"model_type": 3}'])
def test_a_config_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    for source in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(SourceError):
            read_config_of(source)


# --- a number of parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", MAIN, ids=str)
def test_parameters_are_counted_from_the_signatures(variant, source):
    checkpoint = open_checkpoint(source(variant))
    wide = widen(checkpoint, 2)
    proportions = Proportions(checkpoint)
    recomputed = sum(checkpoint.architecture.is_recomputed(name) for name in checkpoint.tensors)
    assert not recomputed and proportions.present == checkpoint.parameters
    assert proportions.parameters(wide.sizes) == wide.parameters


@pytest.mark.parametrize("variant", MAIN, ids=str)
def test_the_nearest_size_of_the_same_proportions_is_lossless_and_has_the_parameters_it_says(variant, source):
    checkpoint = open_checkpoint(source(variant))
    wanted = 3 * checkpoint.parameters
    settings, count = by_parameters(checkpoint, wanted)
    wide = widen(checkpoint, settings=settings)
    assert wide.parameters == count and not wide.lossy
    heads = {name for name, axis in checkpoint.architecture.axes.items() if axis.through == "heads"}
    kept = {name for name, axis in checkpoint.architecture.axes.items() if axis.through in ("inner", "rank", "experts")}
    ratios = {wide.sizes[name] / checkpoint.sizes[name] for name in heads & set(wide.sizes)}
    keyed = {name for name in heads if checkpoint.architecture.axes[name].key}
    assert len({wide.sizes[name] / checkpoint.sizes[name] for name in keyed}) == 1 and max(ratios) > 1
    assert all(wide.sizes[name] == checkpoint.sizes[name] for name in kept)


def test_no_other_step_is_nearer(llama):
    wanted = 200_000
    proportions = Proportions(llama)
    found = []
    for step in range(proportions.unit + 1, 40):
        try:
            wide = widen(llama, settings=proportions.settings(step))
        except ModelSurgeonError:
            continue
        found.append(wide.parameters)
    assert by_parameters(llama, wanted)[1] == min(found, key=lambda count: abs(log(count / wanted)))


def test_settings_that_are_chosen_already_stay(llama):
    settings, count = by_parameters(llama, 100_000, {"intermediate_size": 41})
    assert settings["intermediate_size"] == 41
    assert count == widen(llama, settings=settings).parameters


def test_fewer_parameters_than_there_are_and_sizes_that_nothing_has_are_refused(llama, source):
    with pytest.raises(PlanError, match=r"the model has .* already, and growth never takes away"):
        by_parameters(llama, llama.parameters)
    with pytest.raises(PlanError, match=r"no size of the same proportions near 100,000 parameters .* cannot share"):
        by_parameters(llama, 100_000, {"num_key_value_heads": 3, "num_attention_heads": 5})
    tied = open_checkpoint(source(tiny.named("olmo-tied")))
    with pytest.raises(PlanError, match=r"no size of the same proportions .* untie first"):
        by_parameters(tied, 2 * tied.parameters)


@pytest.mark.parametrize(
    ("text", "count"), [("1.5B", 1_500_000_000), ("350M", 350_000_000), ("7b", 7 * 10**9), (" 12 K ", 12_000), ("9", 9)]
)
def test_numbers_of_parameters_are_read_as_people_write_them(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "B", "1.5GB", "-1B", "0", "0.0001K", "1e9", "1,5B", "9" * 40, "1.5 B B"])
def test_what_is_no_number_of_parameters_is_refused(text):
    assert "B" in COUNTS
    with pytest.raises(PlanError, match=r"expected a number of them, as in 350M or 1.5B"):
        parse_count(text)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_a_note_tells_what_changes_in_the_config_and_what_follows(gpt2, llama):
    wide = widen(gpt2, settings={"n_embd": 48, "n_head": 4})
    said = config_changes(gpt2, wide)
    assert wide.notes[0] == f"config: {said}"
    assert "n_embd 32 -> 48" in said and "n_inner (implied) -> 128" in said
    assert said.endswith("; so head 8 -> 12, value 8 -> 12")
    assert config_changes(llama, llama) == ""


def test_long_values_are_counted_and_nested_ones_named_with_a_dot(source):
    checkpoint = open_checkpoint(source(tiny.named("llama-longrope")))
    said = config_changes(checkpoint, widen(checkpoint, 4, attention="head-dim"))
    assert "rope_parameters.short_factor [1.0, 1.1, 1.2, 1.3] -> (16 values)" in said


def test_every_size_of_the_result_is_the_one_that_was_asked_for(llama):
    texts = ["hidden_size=48", "intermediate_size=50", "num_attention_heads=8", "num_key_value_heads=4", "head_dim=16"]
    wide = widen(llama, settings=by_settings(llama, texts))
    assert all(wide.config[key] == int(value) for key, _, value in (text.partition("=") for text in texts))
    assert json.loads(json.dumps(wide.steps[-1].arguments))["settings"]["hidden_size"] == 48
