"""The command line: pipes, streams, help, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.saving.plan import make_plan
from support.cli_sources import COMMANDS, QUICK, small, wide, with_one_number_changed
from support.command import ROOT, contents, run, shell
from support.grow import widen

__all__ = ["small", "wide"]  # fixtures

SHOWING = ("inspect", "families")  # what they show is their result: on stdout
HEAVY = ("torch", "transformers", "rich", "huggingface_hub", "safetensors", "numpy")


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
