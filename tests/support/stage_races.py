"""Runs in their own processes, which race or are killed; and mistakes planted in the code that keeps them apart.

`elsewhere("NAME", ...)` calls a function of this module in a new process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelsurgeon.errors import OutputError
from modelsurgeon.files import durable
from modelsurgeon.saving import ownership
from modelsurgeon.saving.staging import REQUEST, Stage, staged
from support.stages import ONE_WRITES, ROUNDS, save, write


def elsewhere(function: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that calls a function of this module."""
    code = f"import sys; from support import stage_races; stage_races.{function}(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> str:
    """Let the process go on, wait for its end, and return its output."""
    return process.communicate("\n", timeout=60)[0].strip()


def stay(out: str, shards: str) -> None:
    """Finish some shards, print that, and wait for a line on stdin."""
    with staged(out, "a", shards=3, needed=0) as stage:
        write(stage, after=int(shards))
        print("ready", flush=True)
        sys.stdin.readline()
        write(stage)


def die_between_renames(out: str) -> None:
    rename = os.rename

    def kill(old: Path, new: Path) -> None:
        if Path(old).name == "result":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(old, new)

    os.rename = kill  # type: ignore[assignment]
    save(Path(out), "new", overwrite=True)


def race(folder: str, before: str, mutant: str = "") -> None:
    """Start rounds of four runs at once and print their outcomes; of a mutant, until it is seen."""
    if mutant:
        MUTANTS[mutant](setattr)
    for number in range(ROUNDS):
        place = Path(folder, str(number))
        place.mkdir()
        prepare(place / "out", before)
        print(found := contend(place / "out", 4), flush=True)
        if mutant and found != ONE_WRITES:
            return


def prepare(out: Path, before: str) -> None:
    """Prepare what the runs find: nothing, a dead owner, or the shards of a failed run."""
    if before != "nothing":
        if (child := os.fork()) == 0:
            with staged(out, "a", shards=3, needed=0) as stage:
                write(stage, after=1)
                os._exit(0)
        os.waitpid(child, 0)
    if before == "kept":
        next(out.parent.glob("*/owner.1")).unlink()


def contend(out: Path, count: int) -> str:
    """The outcomes of processes that start at once: + holds the stage until all have tried, - is refused, ! fails."""
    begin, answers, leave = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            os.close(begin[1]), os.close(leave[1])
            os.read(begin[0], 1)
            try:
                with staged(out, "a", shards=3, needed=0):
                    os.write(answers[1], b"+")
                    os.read(leave[0], 1)
            except OutputError:
                os.write(answers[1], b"-")
            except Exception:
                os.write(answers[1], b"!")
            finally:
                os._exit(0)
        children.append(child)
    os.close(begin[1])
    found = b"".join(os.read(answers[0], 1) for _ in range(count))
    os.close(leave[1])
    for child in children:
        os.waitpid(child, 0)
    for descriptor in (begin[0], *answers, leave[0]):
        os.close(descriptor)
    return "".join(sorted(found.decode()))


def finish_often(out: str, times: str, met: str) -> None:
    """Save again and again until runs have met, which the file `met` shows; print how often a run was refused."""
    done = refused = 0
    while done < int(times) or not Path(met).exists():
        try:
            save(Path(out), overwrite=True)
            done += 1
        except OutputError as error:
            assert "another run writes it" in str(error) or "other runs write it" in str(error), error
            refused += 1
            Path(met).touch()
    print(refused)


# Whole or absent


def look_then_create(path: Path, text: str) -> bool:
    if path.exists():
        return False
    time.sleep(0.02)
    path.write_text(text)
    return True


MUTANTS = {
    "ownership by look and create": lambda setter: setter(durable, "create", look_then_create),
    "no second look": lambda setter: setter(ownership.Owner, "_stand_alone", lambda self, mine: None),
    "sizes for hashes": lambda setter: setter(Stage, "_holds", lambda self, name, entry: True),
    "any request": lambda setter: setter(Stage, "begin", begin_with_any(Stage.begin)),
    "nothing synced": lambda setter: setter(Stage, "complete", lambda self: None),
    "everyone is dead": lambda setter: setter(ownership, "_is_dead", lambda record, path: True),
}


def begin_with_any(begin):
    def mistaken(self, request):
        if (self._place / REQUEST).exists():
            (self._place / REQUEST).write_text(request)
        begin(self, request)

    return mistaken


def caught(mutant, check, monkeypatch, *arguments):
    MUTANTS[mutant](monkeypatch.setattr)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*arguments)
