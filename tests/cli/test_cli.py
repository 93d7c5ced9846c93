"""The command line: pipes, streams, exit codes; what is published, and what is not."""

from __future__ import annotations

import errno
import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.cli import terminal
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.saving.plan import make_plan
from modelsurgeon.saving.writer import StoppedError
from modelsurgeon.tensors.stored import Stored
from modelsurgeon.verification import summary
from support import reports, tiny
from support.command import ROOT, contents, run, shell
from support.grow import widen

COMMANDS = ("widen", "untie-embeddings", "verify")
SHOWING = ("inspect", "families")  # what they show is their result: on stdout
HEAVY = ("torch", "transformers", "rich", "huggingface_hub", "safetensors", "numpy")
QUICK = ("--samples", 1, "--length", 8)


@pytest.fixture
def small(source):
    """A tied Llama of width 32 in float32."""
    return source(tiny.named("llama-tied"))


@pytest.fixture
def narrow(source):
    """The same in bfloat16."""
    return source(tiny.named("llama-tied"), "bfloat16")


@pytest.fixture
def wide(small, tmp_path):
    assert run("widen", small, "-o", tmp_path / "wide").code == 0
    return tmp_path / "wide"


@pytest.fixture
def unreadable(monkeypatch):
    """No tensor may be read."""

    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Stored, "read", refuse)


def with_one_number_changed(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] *= 1.01
    save_file(tensors, path, {"format": "pt"})


# Pipes


def test_three_commands_in_a_pipe_prove_their_result_against_the_root(tmp_path):
    line = (
        "modelsurgeon widen demo -o wide | modelsurgeon untie-embeddings - -o untied"
        " | modelsurgeon verify demo - --samples 1 --length 16 --json"
    )
    done = shell(line, tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["same"] is True
    assert found["result"] == "untied"
    assert found["proof"]["verdict"] == "exact"
    assert "\r" not in done.err


def test_the_verdict_can_be_read_from_json_by_jq(small, wide, tmp_path):
    read = (
        "jq .same" if shutil.which("jq") else f"{sys.executable} -c 'import json; print(json.load(open(0))[\"same\"])'"
    )
    done = shell(f"modelsurgeon verify {small} {wide} --json | {read}", tmp_path)
    assert (done.code, done.out.strip().lower()) == (0, "true"), done.err


def test_a_reader_that_leaves_early_causes_no_traceback_and_does_not_hide_that_models_differ(small, tmp_path):
    shutil.copytree(small, tmp_path / "other")
    with_one_number_changed(tmp_path / "other")
    line = f"(modelsurgeon verify {small} other --json; echo $? >code) | head -n 0"
    done = shell(line, tmp_path)
    assert (done.out, (tmp_path / "code").read_text()) == ("", "1\n"), done.err
    assert not any(word in done.err for word in ("BrokenPipe", "Traceback", "Exception ignored"))


@pytest.mark.parametrize("stdin", ["", "\n", "   \n"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_dash_with_nothing_on_stdin_is_refused(command, stdin, tmp_path):
    rest = ["demo"] if command == "verify" else ["-o", tmp_path / "out"]
    done = run(command, "-", *rest, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert done.err == "modelsurgeon: Invalid value: no path came on stdin; did the command before fail?\n"
    assert contents(tmp_path) == {}


def test_a_failure_at_the_head_of_a_pipe_fails_the_pipe_with_a_line_from_each(tmp_path):
    line = "modelsurgeon widen nowhere -o wide | modelsurgeon untie-embeddings - -o untied"
    done = shell(line, tmp_path)
    assert (done.code, done.out) == (2, "")
    assert sorted(done.err.splitlines()) == [
        "modelsurgeon: Invalid value: no path came on stdin; did the command before fail?",
        "modelsurgeon: nowhere: no such folder, and not a Hub id (org/name)",
    ]
    assert sorted(os.listdir(tmp_path)) == ["bin"]


def test_two_dashes_are_refused():
    done = run("verify", "-", "-", stdin="demo\n")
    assert done.code == 2 and "only one" in done.err


# Streams


def test_stdout_is_the_output_s_path_and_nothing_else(small, tmp_path):
    for command in COMMANDS[:2]:
        done = run(command, small, "-o", tmp_path / command)
        assert (done.code, done.out) == (0, f"{tmp_path / command}\n")


def test_stderr_tells_the_choices_and_has_no_progress_bar(small, tmp_path):
    done = run("widen", small, "-o", tmp_path / "out")
    assert "rule orthogonal: " in done.err and "attention head-dim: " in done.err
    assert "\r" not in done.err and "\x1b" not in done.err and "━" not in done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document(command, small, tmp_path):
    rest = [small, *QUICK] if command == "verify" else ["-o", tmp_path / "out"]
    done = run(command, small, *rest, "--json")
    assert done.code == 0, done.err
    assert isinstance(json.loads(done.out), dict)
    assert done.out.count("\n") == 1


def test_json_holds_output_and_plan(small, tmp_path):
    found = json.loads(run("widen", small, "-o", tmp_path / "out", "--json").out)
    assert found["output"] == str(tmp_path / "out")
    before = open_checkpoint(small)
    plan = json.loads(json.dumps(make_plan(before, widen(before, 2, noise=NOISE)).to_json()))
    assert found["plan"] == plan | {"peak_memory": found["plan"]["peak_memory"]}  # what is resident changes


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_leaves_stderr_empty(command, small, tmp_path):
    rest = [small, *QUICK] if command == "verify" else ["-o", tmp_path / "out"]
    done = run(command, small, *rest, "--quiet")
    assert (done.code, done.err) == (0, "")


def test_help_lists_the_commands():
    for arguments in (["--help"], ["widen", "--help"]):
        assert run(*arguments).code == 0
    assert all(f"\n  {command} " in run("--help").out for command in (*COMMANDS, *SHOWING))


def test_a_command_s_help_says_each_option_s_meaning():
    found = run("widen", "--help").out
    options = "--output --factor --set --like --params --rule --attention --rope --dtype --revision --device"
    for option in [*options.split(), "--json"]:
        line = next(line for line in found.splitlines() if option in line.split())
        assert len(line.split(option)[1].split()) > 2, line


@pytest.mark.parametrize("arguments", [["--help"], ["widen", "--help"], ["families", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from modelsurgeon.cli.main import main\n"
        "try: main()\n"
        f"except SystemExit: print('LOADED', *(set(sys.modules) & set({HEAVY})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert done.stderr == ""


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


# Outputs


def test_an_output_that_exists_is_refused_unless_overwriting_is_asked_for(small, wide):
    before = contents(wide)
    done = run("widen", small, "-o", wide, "--factor", 3)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"modelsurgeon: {wide}: exists; --overwrite replaces it\n"
    assert contents(wide) == before
    assert run("widen", small, "-o", wide, "--factor", 3, "--overwrite").code == 0
    assert open_checkpoint(wide).config["hidden_size"] == 96


def test_overwriting_leaves_no_shard_of_the_old_output(small, tmp_path):
    out = tmp_path / "out"
    assert run("widen", small, "-o", out, "--shard-size", "20KB").code == 0
    assert len(list(out.glob("model-*.safetensors"))) > 2
    (out / "README.md").write_text("of the old output")
    assert run("widen", small, "-o", out, "--overwrite").code == 0
    assert sorted(os.listdir(out)) == sorted(
        ["config.json", "generation_config.json", "model.safetensors", "modelsurgeon.json"]
    )
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_folder_that_is_no_checkpoint_is_not_replaced(small, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    before = contents(tmp_path)
    done = run("widen", small, "-o", tmp_path / "photos", "--overwrite")
    assert done.code == 2 and "is no checkpoint" in done.err
    assert contents(tmp_path) == before


def test_a_file_and_a_link_are_not_replaced(small, wide, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(wide)
    before = contents(tmp_path)
    for name in ("file", "link"):
        done = run("widen", small, "-o", tmp_path / name, "--overwrite")
        assert done.code == 2 and "exists and is no folder" in done.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("output", ["source", "source/inside", "source/a/b", "link/inside", "."])
def test_an_output_that_is_the_source_or_lies_in_it_or_holds_it_is_refused(output, small, tmp_path):
    shutil.copytree(small, tmp_path / "holder" / "source")
    shutil.copy(small / "config.json", tmp_path / "holder")  # so that the holder itself looks like a checkpoint
    (tmp_path / "holder" / "link").symlink_to("source")
    before = contents(tmp_path)
    for command in COMMANDS[:2]:
        done = run(command, tmp_path / "holder" / "source", "-o", tmp_path / "holder" / output, "--overwrite")
        assert done.code == 2 and "which is never modified" in done.err
    assert contents(tmp_path) == before


def test_parents_of_the_output_are_created(small, tmp_path):
    assert run("widen", small, "-o", tmp_path / "a" / "b" / "out").code == 0
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["out"]


def test_what_something_else_is_writing_is_left_alone(small, tmp_path):
    (tmp_path / ".out.staging").mkdir()
    (tmp_path / ".out.staging" / "model.safetensors").write_text("half of a shard")
    before = contents(tmp_path)
    done = run("widen", small, "-o", tmp_path / "out")
    assert done.code == 2 and ".out.staging" in done.err and "remove it" in done.err
    assert contents(tmp_path) == before


# Verification


def test_verify_publishes_what_is_the_same(narrow, tmp_path):
    done = run("widen", narrow, "-o", tmp_path / "out", "--verify", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    reports.validator().validate(found["verification"])
    assert found["verification"]["same"] and found["verification"]["proof"]["verdict"] == "exact"
    assert found["verification"]["result"] == str(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out"]


LOSSY = {
    "weights that are rounded": ("--rule", "orthogonal"),
    "angles that are repeated": ("--rope", "repeat", "--attention", "head-dim"),
}


@pytest.mark.parametrize("options", LOSSY.values(), ids=LOSSY)
def test_verify_publishes_nothing_of_a_lossy_request(options, narrow, tmp_path):
    done = run("widen", narrow, "-o", tmp_path / "out", *options, "--verify")
    assert (done.code, done.out) == (1, ""), done.err
    assert done.err.endswith("modelsurgeon: the result is not the same function, so nothing was written\n")
    assert "not lossless: " in done.err
    assert contents(tmp_path) == {}


def test_verify_publishes_no_rounding_of_the_trained_demo(tmp_path):
    done = run("widen", "demo", "-o", tmp_path / "out", "--rule", "orthogonal", "--verify", "--json")
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert found["output"] is None and found["verification"]["same"] is False
    assert contents(tmp_path) == {}


def test_an_output_that_fails_verification_leaves_the_old_one(narrow, tmp_path):
    out = tmp_path / "out"
    assert run("widen", narrow, "-o", out).code == 0
    before = contents(tmp_path)
    assert run("widen", narrow, "-o", out, *LOSSY["weights that are rounded"], "--verify", "--overwrite").code == 1
    assert contents(tmp_path) == before


def test_without_verify_a_lossy_request_is_carried_out_and_says_so(narrow, tmp_path):
    done = run("widen", narrow, "-o", tmp_path / "out", "--rule", "orthogonal")
    assert done.code == 0 and "not lossless: weights are rounded to BF16" in done.err


def test_verify_exits_with_0_where_both_are_the_same(small, wide):
    done = run("verify", small, wide, *QUICK)
    assert (done.code, done.out) == (0, "") and "same function" in done.err


def test_verify_exits_with_1_where_one_number_differs(small, wide):
    with_one_number_changed(wide)
    done = run("verify", small, wide, *QUICK)
    assert (done.code, done.out) == (1, "")
    assert "wrong: model.norm.weight" in done.err and "different" in done.err


@pytest.fixture
def plain(small, tmp_path):
    """The same in twice the width, in plain copies."""
    assert run("widen", small, "-o", tmp_path / "plain", "--rule", "exact", "--noise", 0).code == 0
    return tmp_path / "plain"


def test_verify_tells_the_same_as_a_table_as_json_and_as_a_page(small, plain, tmp_path):
    page = tmp_path / "out.html"
    done = run("verify", small, plain, *QUICK, "--trainable", "--json", "--report", page)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    reports.validator().validate(found)
    assert found["command"].startswith(f"modelsurgeon verify {small}") and found["settings"]["samples"] == 1
    assert min(found["seconds"].values()) > 0 and set(found["seconds"]) == {"proof", "logits", "trainable"}
    lines, text = done.err.splitlines(), html.unescape(re.sub("<[^>]*>", "", page.read_text()))
    levels = [line.split()[0] for line in lines[: len(lines) - 1]]
    assert levels[:7] == ["level", "proof", "logits", "layers", "generation", "trainable", "trainable"]
    assert lines[-1] == f"{small} -> {plain}: {found['verdict']}"
    assert found["verdict"].startswith("same function; but ") and "stay copies for ever" in found["verdict"]
    told = [level.result for level in summary.levels(found)]
    for said in (*told, found["trainable"]["axes"][0]["says"], found["environment"]["torch"], str(plain)):
        assert said in text, said
    assert "\r" not in done.err and "\x1b" not in done.err


def test_a_page_is_written_of_what_is_different_too_and_quietly(small, wide, tmp_path):
    with_one_number_changed(wide)
    done = run("verify", small, wide, *QUICK, "--report", tmp_path / "out.html", "--quiet")
    assert (done.code, done.out, done.err) == (1, "", "")
    assert "wrong: model.norm.weight" in (tmp_path / "out.html").read_text()


def test_maps_are_derived_where_that_is_asked_for_and_no_record_tells_them(small, wide):
    (wide / "modelsurgeon.json").unlink()
    told, derived = (run("verify", small, wide, *QUICK, "--json", *more) for more in ((), ("--infer",)))
    assert told.code == derived.code == 0, derived.err
    assert json.loads(told.out)["proof"] is None and "(--infer tries to derive the maps)" in told.err
    found = json.loads(derived.out)
    reports.validator().validate(found)
    assert found["proof"]["verdict"] != "wrong" and found["maps"]["from"] == "weights" and found["inferred"]["lines"]


REFUSED = {
    "a page in no folder": (("--report", "nowhere/out.html"), "no folder"),
    "a page in place of weights": (("--report", "wide/model.safetensors"), "is no report"),
    "a folder": (("--report", "wide"), "is no file"),
    "a page of hashes": (("--files", "--report", "out.html"), "--files compares nothing"),
    "a bound on nothing": (("--memory", "1GB"), "ask for both"),
    "no size": (("--device", "auto", "--memory", "much"), "memory 'much'"),
    "no device": (("--device", "tpu"), "expected cpu, auto, cuda"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_run(
    options, said, small, wide, tmp_path, unreadable, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    done = run("verify", small, wide, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err and contents(tmp_path) == before


def test_passwords_in_urls_are_not_told(small, wide, monkeypatch):
    monkeypatch.setattr(terminal, "from_stdin", lambda *names: (str(small), str(wide)))
    done = run("verify", "ftp://me:secret@host/a", wide, *QUICK, "--json")
    assert "ftp://host/a" in json.loads(done.out)["command"] and "secret" not in done.out + done.err


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_bars_with_the_time_left_are_shown_where_stderr_is_a_terminal_and_cleared(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.bars(False) as tell:
        for done in range(3):
            tell("proof", done, 2)
        tell("source [in] float32", 1, 4)
    shown = screen.getvalue()
    assert all(word in shown for word in ("proof", "100%", "source [in] float32", "25%", "-:--:--"))
    assert shown.rstrip().endswith("\x1b[2K")  # the last line is erased


@pytest.mark.parametrize("screen", [Screen(), io.StringIO()], ids=["quiet", "no terminal"])
def test_no_bar_is_shown_elsewhere(screen, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.bars(screen.isatty()) as tell:
        tell("proof", 1, 2)
    assert screen.getvalue() == ""


def test_verify_exits_with_2_where_it_is_asked_for_what_is_not_there(small, tmp_path):
    for arguments in (["nowhere"], [small, "--text", tmp_path / "nowhere"], [small, "--dtype", "int8"]):
        done = run("verify", small, *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


# Machines that fail


def fail(error):
    def write(path, *_, stop, **__):
        path.write_bytes(b"half of a shard")
        if isinstance(error, signal.Signals):
            os.kill(os.getpid(), error)
            assert stop.wait(10)
            raise StoppedError
        raise error

    return write


FAILURES = {
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 3, "No space left"),
    "no memory": (MemoryError("2 GB"), 3, "2 GB"),
    "a defect": (RuntimeError("out of\nluck"), 3, "RuntimeError: out of luck"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
    "SIGINT": (signal.SIGINT, 130, "interrupted"),
    "SIGTERM": (signal.SIGTERM, 143, ""),
}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(("error", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_a_write_that_fails_leaves_nothing_behind(error, code, said, existing, small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if existing:
        assert run("untie-embeddings", small, "-o", out).code == 0
    before = contents(tmp_path)
    monkeypatch.setattr("modelsurgeon.saving.save.write_shard", fail(error))
    done = run("widen", small, "-o", out, "--overwrite", "-q")
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == bool(said) and said in done.err and "Traceback" not in done.err
    assert contents(tmp_path) == before


def test_a_rename_that_fails_puts_the_old_output_back(small, wide, tmp_path, monkeypatch):
    before, rename = contents(wide), os.rename

    def fails_for_staged(old, new):
        if str(old).endswith(".staging/result"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fails_for_staged)
        done = run("untie-embeddings", small, "-o", wide, "--overwrite")
    assert done.code == 3 and "1 of 1 shards are kept" in done.err
    assert contents(wide) == before
    assert run("untie-embeddings", small, "-o", wide, "--overwrite").code == 0
    assert sorted(os.listdir(tmp_path)) == ["wide"]


def test_what_a_killed_overwriting_left_behind_is_cleared_away(small, wide, tmp_path):
    (tmp_path / ".wide.replaced").mkdir()
    (tmp_path / ".wide.replaced" / "config.json").write_text("{}")
    assert run("untie-embeddings", small, "-o", wide, "--overwrite").code == 0
    assert sorted(os.listdir(tmp_path)) == ["wide"]


def test_a_traceback_is_shown_only_where_it_is_asked_for(small, tmp_path, monkeypatch):
    monkeypatch.setattr("modelsurgeon.saving.save.write_shard", fail(OSError(errno.ENOSPC, "full")))
    assert "MODELSURGEON_DEBUG=1" in run("widen", small, "-o", tmp_path / "out").err
    monkeypatch.setenv("MODELSURGEON_DEBUG", "1")
    with pytest.raises(OSError, match="full"):
        run("widen", small, "-o", tmp_path / "out")
    assert contents(tmp_path) == {}
