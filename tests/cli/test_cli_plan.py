"""Commands that plan: dry runs, the table, and the sizes that options ask for."""

from __future__ import annotations

import json

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from support.cli_sources import COMMANDS, small, unreadable, wide
from support.command import contents, run

__all__ = ["small", "unreadable", "wide"]  # fixtures

# The plan


def test_a_dry_run_reads_no_tensor_and_writes_nothing(unreadable, tmp_path):
    for command in COMMANDS[:2]:
        done = run(command, "demo", "-o", tmp_path / "out", "--dry-run")
        assert (done.code, done.out) == (0, ""), done.err
    assert contents(tmp_path) == {}


def test_a_dry_run_needs_no_output():
    assert run("widen", "demo", "--dry-run").code == 0
    done = run("widen", "demo")
    assert done.code == 2 and "-o" in done.err and "--dry-run" in done.err


def test_the_plan_has_a_row_for_each_template(unreadable):
    checkpoint = open_checkpoint("demo")
    templates = {checkpoint.architecture.template(name).name for name in checkpoint.tensors}
    done = run("widen", "demo", "--dry-run", "--json")
    rows = json.loads(done.out)["plan"]["rows"]
    assert {row["template"] for row in rows} == templates
    assert sum(row["count"] for row in rows) == len(checkpoint.tensors)
    lines = done.err.splitlines()
    for row in rows:
        line = next(line for line in lines if line.startswith(row["template"] + " "))
        assert row["signature"] in line and "x".join(map(str, row["after"])) in line and row["precision"] in line


def test_the_plan_shown_is_the_plan_carried_out(small, tmp_path):
    planned = json.loads(run("widen", small, "--dry-run", "--json").out)["plan"]
    done = json.loads(run("widen", small, "-o", tmp_path / "out", "--json").out)["plan"]
    assert planned == done | {"peak_memory": planned["peak_memory"]}  # what is resident changes
    assert planned["bytes"][1] == sum(t.nbytes for t in open_checkpoint(tmp_path / "out").tensors.values())


# What to grow to


def grown(*arguments):
    """The config that a dry run plans, as far as its notes tell: {key: new value as text}."""
    done = run("widen", *arguments, "--dry-run", "--json")
    assert done.code == 0, done.err
    (said,) = (note for note in json.loads(done.out)["plan"]["notes"] if note.startswith("config: "))
    changed = said.removeprefix("config: ").partition(";")[0].split(", ")
    return {change.split()[0]: change.split(" -> ")[1] for change in changed}


def test_sizes_are_set_one_by_one_by_the_keys_of_the_config(small):
    found = grown(small, "--set", "intermediate_size=50", "--set", "hidden_size=48")
    assert found == {"hidden_size": "48", "intermediate_size": "50", "rms_norm_eps": "0.00666667"}


def test_a_size_that_is_set_wins_over_the_factor_the_other_config_and_the_parameters(small, wide):
    for option in (("--factor", 2), ("--like", wide), ("--params", "60K")):
        assert grown(small, *option, "--set", "intermediate_size=201")["intermediate_size"] == "201"


@pytest.mark.parametrize("other", ["folder", "file"])
def test_the_widths_of_another_config_are_taken(other, small, wide):
    config = json.loads((wide / "config.json").read_text())
    found = grown(small, "--like", wide if other == "folder" else wide / "config.json")
    assert found["hidden_size"] == str(config["hidden_size"]) and found["head_dim"] == str(config["head_dim"])


def test_settings_that_were_chosen_come_first_on_stderr_and_are_in_the_json(small):
    done = run("widen", small, "--params", "60K", "--dry-run", "--json")
    document = json.loads(done.out)
    settings = document["settings"]
    assert done.err.splitlines()[0] == "settings: " + " ".join(f"{key}={value}" for key, value in settings.items())
    assert settings["num_attention_heads"] == 2 * settings["num_key_value_heads"]
    said = f"{document['plan']['parameters'][1]:,} parameters are the nearest to 60K in these proportions"
    assert said in document["plan"]["notes"]
    assert run("widen", small, "--params", "60K", "--dry-run", "--quiet").err == ""


def test_what_is_not_taken_from_the_other_config_is_a_note(small, wide):
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    done = run("widen", small, "--like", wide, "--dry-run")
    assert "num_hidden_layers 2 (there 7)" in done.err


TARGETS = {
    "a key without a value": (("--set", "hidden_size"), "expected KEY=VALUE"),
    "no whole number": (("--set", "hidden_size=6.5"), "expected a whole number"),
    "an unknown key": (("--set", "n_embd=64"), "n_embd: not a width of llama; what can grow: hidden_size"),
    "depth": (("--set", "num_hidden_layers=9"), "num_hidden_layers: depth does not grow"),
    "the vocabulary": (("--set", "vocab_size=99"), "vocab_size: the vocabulary does not grow"),
    "less": (("--set", "hidden_size=16"), "growth never takes away"),
    "the same": (("--set", "hidden_size=32"), "nothing to grow"),
    "two values": (("--set", "hidden_size=64", "--set", "hidden_size=96"), "hidden_size is set twice"),
    "no number of parameters": (("--params", "big"), "'big' parameters: expected"),
    "fewer parameters": (("--params", "1K"), "already"),
    "a factor that is none": (("--factor", "two"), "should be a valid integer"),
    "a factor of one": (("--factor", 1), "expected a whole number of 2 or more"),
    "no other config": (("--like", "nowhere"), "nowhere: no such config.json"),
    "a Hub id that is nowhere": (("--like", "org/nothing"), "the Hub cannot be reached"),
    "another config and a factor": (("--like", "demo", "--factor", 2), "--factor and --like each name all widths"),
    "another config and parameters": (("--like", "demo", "--params", "1B"), "--like and --params each name all"),
    "a factor and parameters": (("--factor", 2, "--params", "1B"), "--factor and --params each name all widths"),
    "an attention that grows nothing": (("--attention", "heads", "--set", "hidden_size=64"), "what --factor grows"),
}


@pytest.mark.parametrize(("options", "said"), TARGETS.values(), ids=TARGETS)
def test_a_target_that_is_none_is_refused_in_one_line(options, said, small, tmp_path):
    done = run("widen", small, "-o", tmp_path / "out", *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert contents(tmp_path) == {}


def test_a_config_of_another_family_is_refused(small, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    done = run("widen", small, "--dry-run", "--like", tmp_path)
    assert done.code == 2 and "the other config is of model_type 'gpt2', expected 'llama'" in done.err


def test_a_model_grown_to_sizes_of_its_own_is_the_same_function(small, tmp_path):
    sizes = ("--set", "hidden_size=48", "--set", "num_attention_heads=6", "--set", "intermediate_size=44")
    done = run("widen", small, "-o", tmp_path / "out", *sizes, "--verify", "--json")
    assert done.code == 0 and json.loads(done.out)["verification"]["same"], done.err
