"""The README does what it says: its commands run, in order, and print what it shows."""

import re
from pathlib import Path

import pytest

from support.command import Finished, shell

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
PYTHON = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All shell blocks, run as one script."""
    return shell(COMMANDS, tmp_path_factory.mktemp("readme"), "-eu")


def test_its_shell_commands_all_succeed(shown: Finished) -> None:
    assert COMMANDS.count("modelsurgeon") >= 7
    assert shown.code == 0, shown.err


def test_stdout_is_the_outputs_and_nothing_else(shown: Finished) -> None:
    assert shown.out.split() == ["wide", "untied"]  # widen's and untie's other paths went down the pipe


def test_the_proof_is_the_one_it_shows(shown: Finished) -> None:
    assert "weights: 39 exact" in README
    assert shown.err.count("weights: 40 exact") == 2  # untied: one tensor more
    assert shown.err.count("same function") == 2


def test_its_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON, "README.md", "exec"), {})
    assert (tmp_path / "wide-from-python" / "config.json").exists()
