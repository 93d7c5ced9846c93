"""Draws by the commit: always the same for one seed, other ones for another, and nothing left out of any of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support import draws

THINGS, WAYS = [f"family {n}" for n in range(13)], ["exact", "orthogonal", "third"]


@pytest.fixture(params=["a", "b", "c", "d"])
def seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(draws, "EXHAUSTIVE", False)
    monkeypatch.setattr(draws, "SEED", request.param)
    return str(request.param)


def test_every_thing_is_drawn_once_and_every_way_about_as_often(seed: str) -> None:
    found = draws.drawn(THINGS, WAYS, "rules")
    assert [thing for thing, _ in found] == THINGS
    assert sorted(Counter(way for _, way in found).values()) == [4, 4, 5]


def test_one_seed_draws_one_thing_and_another_seed_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "EXHAUSTIVE", False)
    found = []
    for seed in ("a", "b", "a"):
        monkeypatch.setattr(draws, "SEED", seed)
        found.append((draws.drawn(THINGS, WAYS, "rules"), draws.drawn(THINGS, WAYS, "dtypes")))
    assert found[0] == found[2] != found[1]
    assert found[0][0] != found[0][1]  # a draw has a name, too


def test_all_is_tried_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "EXHAUSTIVE", True)
    assert draws.drawn("ab", "xy", "") == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert draws.examples(50) == 50 * draws.TIMES
    assert draws.report().startswith("all is tried by seed ")


def told(folder: Path, **variables: str) -> str:
    """What a new process says of its draws, with another copy of the module."""
    source = Path(draws.__file__).read_text(encoding="utf-8")
    (folder / "draws.py").write_text(source, encoding="utf-8")
    unset = (draws.SEED_VARIABLE, draws.EXHAUSTIVE_VARIABLE)
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", "import draws; print(draws.report())"]
    done = subprocess.run(command, env=inherited | variables, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_seed_is_the_commit_and_can_be_named(tmp_path: Path) -> None:
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m one"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert told(tmp_path) == f"drawn by seed {head[:12]}; repeat it with MODELSURGEON_SEED={head[:12]}"
    assert told(tmp_path, MODELSURGEON_SEED="xyz") == "drawn by seed xyz; repeat it with MODELSURGEON_SEED=xyz"


def test_without_a_commit_the_seed_is_a_constant_and_the_run_says_so(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("no repository")
    assert "seed no-commit (no commit was found)" in told(tmp_path)


def test_workers_inherit_the_seed() -> None:
    assert os.environ[draws.SEED_VARIABLE] == draws.SEED
