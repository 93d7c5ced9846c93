"""`verify` and `--verify`: what is published and what is not, exit codes, the table, the page, progress."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
import sys

import pytest

from modelsurgeon.cli import terminal
from modelsurgeon.verification import summary
from support import reports
from support.cli_sources import QUICK, narrow, small, unreadable, wide, with_one_number_changed
from support.command import contents, run

__all__ = ["narrow", "small", "unreadable", "wide"]  # fixtures

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
    assert min(found["seconds"].values()) > 0 and set(found["seconds"]) == {"proof", "logits", "trainable", "beside"}
    lines, text = done.err.splitlines(), html.unescape(re.sub("<[^>]*>", "", page.read_text()))
    levels = [line.split()[0] for line in lines[: len(lines) - 1]]
    expected = ["level", "proof", "config", "logits", "layers", "generation", "coverage", "trainable"]
    assert levels[:8] == expected
    assert lines[-1] == f"{small} -> {plain}: {found['verdict']}"
    assert (
        found["verdict"].startswith("same function, proven for all inputs; but ")
        and "stay copies for ever" in found["verdict"]
    )
    told = [level.result for level in summary.levels(found)]
    for said in (*told, found["trainable"]["axes"][0]["says"], found["environment"]["torch"], str(plain)):
        assert said in text, said
    assert "\r" not in done.err and "\x1b" not in done.err


def test_a_page_is_written_of_what_is_different_too_and_quietly(small, wide, tmp_path):
    with_one_number_changed(wide)
    done = run("verify", small, wide, *QUICK, "--report", tmp_path / "out.html", "--quiet")
    assert (done.code, done.out, done.err) == (1, "", "")
    assert "wrong: model.norm.weight" in (tmp_path / "out.html").read_text()


def test_maps_are_derived_where_no_record_tells_them(small, wide):
    (wide / "modelsurgeon.json").unlink()
    told, derived = (run("verify", small, wide, *QUICK, "--json", *more) for more in (("--no-infer",), ()))
    assert told.code == derived.code == 0, derived.err
    assert json.loads(told.out)["proof"] is None and "not proven: no record" in told.err
    assert told.err.endswith("same on what was run, not proven\n")
    assert derived.err.endswith("same function, proven for all inputs\n")
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


def test_what_is_not_proven_passes_unless_a_proof_is_required(small, wide):
    (wide / "modelsurgeon.json").unlink()
    unproven = "--no-infer", "--require-proof"
    codes = [run("verify", small, wide, *QUICK, *more).code for more in (unproven[:1], unproven, unproven[1:])]
    assert codes == [0, 1, 0]


def test_what_differs_beside_the_function_is_told_and_strict_makes_exit_code_1_of_it(small, wide, tmp_path):
    plain = run("verify", small, wide, *QUICK)
    assert (plain.code, run("verify", small, wide, "--strict", *QUICK).code) == (0, 0)
    assert re.search(r"beside +tokenizer, templates, ids, labels, dropout, dtype, code +same", plain.err)
    shutil.copytree(wide, tmp_path / "other")
    (tmp_path / "other" / "notes.txt").write_text("x")
    done = run("verify", small, tmp_path / "other", "--json", *QUICK)
    assert done.code == 0
    (row,) = [row for row in json.loads(done.out)["beside"] if row["what"] == "notes.txt"]
    assert row == {"what": "notes.txt", "finding": "only in result", "detail": ""}
    strict = run("verify", small, tmp_path / "other", "--strict", *QUICK)
    assert strict.code == 1 and "beside the function: notes.txt: only in result" in strict.err


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
