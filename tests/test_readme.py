"""The README does what it says: its commands run, in order, and print what it shows."""

import re
from pathlib import Path

import pytest

from support.command import shell

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
PYTHON = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))


def test_its_shell_commands_print_what_it_shows_and_stdout_is_the_outputs_alone(tmp_path: Path) -> None:
    shown = shell(COMMANDS, tmp_path, "-eu")  # all shell blocks, as one script
    assert COMMANDS.count("modelsurgeon") >= 7
    assert shown.code == 0, shown.err
    assert shown.out.split() == ["wide", "untied"]  # widen's and untie's other paths went down the pipe
    assert "weights: 39 exact" in README
    assert shown.err.count("weights: 40 exact") == 2  # untied: one tensor more
    assert shown.err.count("same function, proven for all inputs") == 2


def test_its_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON, "README.md", "exec"), {})
    assert (tmp_path / "wide-from-python" / "config.json").exists()
