"""The README does what it says: its commands run, in order, and print what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
PYTHON = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """All shell blocks, run as one script."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "modelsurgeon").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modelsurgeon "$@"\n')
    (folder / "modelsurgeon").chmod(0o755)
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": root}
    script = f"set -euo pipefail\n{COMMANDS}"
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


def test_its_shell_commands_all_succeed(shown: subprocess.CompletedProcess[str]) -> None:
    assert COMMANDS.count("modelsurgeon") >= 7
    assert shown.returncode == 0, shown.stderr


def test_stdout_is_the_outputs_and_nothing_else(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.stdout.split() == ["wide", "untied"]  # widen's and untie's other paths went down the pipe


def test_the_proof_is_the_one_it_shows(shown: subprocess.CompletedProcess[str]) -> None:
    assert "weights: 39 exact" in README
    assert shown.stderr.count("weights: 40 exact") == 2  # untied: one tensor more
    assert shown.stderr.count("same function") == 2


def test_its_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON, "README.md", "exec"), {})
    assert (tmp_path / "wide-from-python" / "config.json").exists()
