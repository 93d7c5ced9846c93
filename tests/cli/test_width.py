"""What people read fits the width that COLUMNS names, be it in a terminal or in a pipe; what programs read stays."""

from __future__ import annotations

import io
import json
import shlex

import pytest
from rich.console import Console

from modelsurgeon.reports import console, diagnosis_report, verification_report
from modelsurgeon.reports.blocks import Listing, Paragraph, Phrase
from support import diagnoses, reports, tiny
from support.command import run

QUICK = ("--samples", 1, "--length", 8)
LONG = "checkpoints-of-a-name-that-has-no-room-beside-anything-else-in-eighty-columns-of-a-terminal"


@pytest.fixture
def small(source):
    return source(tiny.named("llama-tied"), "bfloat16")


def widest(*streams: str) -> int:
    return max(len(line.rstrip()) for text in streams for line in text.splitlines())


def shown(blocks, width: int) -> str:
    file = io.StringIO()
    console.show(blocks, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize(
    "command",
    [
        "inspect demo",
        "families",
        "families deepseek_v3",
        "families t5",
        "families falcon",
        "widen demo --factor 2 --dry-run",
        "widen demo --params 5M --rule orthogonal --dry-run",
        "untie-embeddings demo --dry-run",
    ],
)
def test_no_line_of_a_command_is_wider_than_its_columns(command, monkeypatch):
    in_a_pipe = run(*command.split())
    assert widest(in_a_pipe.out, in_a_pipe.err) > 80 or command == "inspect demo"
    for columns in (80, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = run(*command.split())
        assert done.code == 0 and 40 < widest(done.out, done.err) <= columns


def test_no_line_of_a_run_is_wider_than_its_columns(small, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    for command in (
        ("widen", small, "-o", "out", "--verify"),
        ("verify", small, "out", *QUICK, "--trainable"),
        ("verify", "--files", "out"),
        ("diagnose", small, "--weights"),
        ("diagnose", small, "out", *QUICK),
    ):
        done = run(*command)
        assert done.code == 0 and widest(done.out, done.err) <= 80, done.err


@pytest.mark.parametrize("width", [80, 100, 160])
def test_documents_fit_whatever_their_names(width):
    two = diagnoses.document(diagnoses.full(LONG), diagnoses.full("wide", 1.7))
    for document in (diagnoses.document(diagnoses.full(LONG)), two):
        assert 60 < widest(shown(diagnosis_report.brief(document), width)) <= width
    for document in (reports.full(), reports.bare(), reports.full() | {"source": LONG}):
        assert 60 < widest(shown(verification_report.brief(document), width)) <= width


def test_columns_that_are_long_leave_the_grid_where_it_has_no_room():
    rows = [("model.embed_tokens.weight", "128x64", "a sentence of many words that has no room beside the others")]
    listing = Listing(("tensor", "shape", "says"), rows, long=("tensor", "says"))
    assert len(shown([listing], 120).splitlines()) == 2
    lines = [line.rstrip() for line in shown([listing], 50).splitlines()]
    assert lines[:4] == ["tensor", "  shape", "model.embed_tokens.weight", "  128x64"]
    assert lines[4:] == ["  says: a sentence of many words that has no room", "  beside the others"]


def test_a_command_that_is_broken_is_still_the_command():
    command = f"modelsurgeon widen {'x' * 60} -o OUT --set hidden_size=1024 --set intermediate_size=4096"
    lines = shown([Paragraph(("bottleneck: ", Phrase(command, "code")))], 80)
    assert widest(lines) <= 80 and len(lines.splitlines()) == 3
    joined = lines.removeprefix("bottleneck: ").replace("\\\n", "")  # as a shell joins them
    assert shlex.split(joined) == shlex.split(command)
    quoted = f"modelsurgeon widen '{'a  b ' * 30}'"  # a line break inside quotes would change the argument
    assert shown([Paragraph(("", Phrase(quoted, "code")))], 80).replace("\n", " ").split() == quoted.split()


def test_json_and_markdown_have_no_width(monkeypatch):
    commands = ("inspect demo --json", "families --markdown", "widen demo --dry-run --json -q")
    before = [run(*command.split()).out for command in commands]
    monkeypatch.setenv("COLUMNS", "80")
    assert [run(*command.split()).out for command in commands] == before
    assert json.loads(before[0]) and widest(before[1]) > 80
