"""Faults from outside: a small part of `scripts/campaigns/fault_campaign.py`, and mistakes that it must see."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from modelsurgeon.checkpoints import checkpoint
from modelsurgeon.files import durable
from modelsurgeon.saving import save, staging
from support import draws
from support.faults import BEFORE, HARMLESS, KEPT, KINDS, REFUSED, SIGNALS, STOOD, campaign, moment_of
from support.stand import OUT, Stand, build

SMALL = {"kill": 8, "signal": 4, "full": 3, "cut": 4, "flip": 24}
FULL = {"kill": 240, "signal": 40, "full": 40, "cut": 80, "flip": 600}
# Of the full campaign's numbers. Signals and full disks are too few to be drawn: one of these meets finished shards.
SOME = {kind: draws.chance(f"faults: {kind}").sample(range(FULL[kind]), count) for kind, count in SMALL.items()}
SOME |= {kind: [*range(SMALL[kind])] for kind in ("signal", "full")}
MOST = 40  # faults that a mutant may live through
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # numpy's begin when it is imported


# Processes of their own, of one thread: `python -c "test_faults.NAME(...)"`


def elsewhere(function: str, *arguments: object) -> list[dict[str, Any]]:
    """The lines of JSON that a function of this module prints."""
    code = f"import sys, test_faults; test_faults.{function}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **ONE_THREAD},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def tried(numbers: str, jobs: str) -> None:
    """Print what became of the faults of these numbers, {kind: numbers}."""
    for struck in campaign(json.loads(numbers), int(jobs)):
        print(json.dumps(asdict(struck)), flush=True)


def planted() -> None:
    """Print, for every mutant, what was seen to be wrong."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stand = build(Path(folder))
        for name, mutant in MUTANTS.items():
            print(json.dumps({"name": name, "wrong": mutant.seen(stand)}), flush=True)
        os.chdir("/")


# Mistakes


@dataclass(frozen=True)
class Mutant:
    """A mistake in how outputs are written.

    plant  makes it, in every run
    words  of what must be seen
    kind   of the faults that it is seen by
    scene  what the faults disturb; any where it is empty
    """

    plant: Callable[[], object]
    words: str
    kind: str = "kill"
    scene: str = ""

    def seen(self, stand: Stand) -> list[str]:
        """What was wrong, up to the first run of which these words were said."""
        found = list[str]()
        for number in itertools.islice(self._numbers(), MOST):
            found += KINDS[self.kind](replace(stand, plant=self.plant), number).wrong
            if self.words in "".join(found):
                break
        return found

    def _numbers(self) -> Iterator[int]:
        """Of signals, those at a call: what a time meets, the speed of a machine decides."""
        for number in itertools.count():
            if self.kind in SIGNALS:
                scene, _, _, timed = moment_of(self.kind, random.Random(f"{self.kind} {number}"))
                if timed or self.scene not in ("", scene):
                    continue
            yield number


class Equal(str):
    """Equal to every other."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


def believe_shards() -> None:
    staging.Stage._holds = lambda *rest: True  # type: ignore[method-assign, assignment]


def believe_requests() -> None:
    read = durable.read
    durable.read = lambda path: Equal() if path.name == staging.REQUEST else read(path)


def write_in_place() -> None:
    staging.RESULT = "../out"
    staging._publish = lambda *rest: None


def appear_early() -> None:
    write = save._write_rest

    def early(*arguments: Any) -> None:
        checkpoint, shards, folder, *rest = arguments
        folder.rename(OUT)
        write(checkpoint, shards, OUT, *rest)
        OUT.rename(folder)

    save._write_rest = early


def remove_the_old_one_first() -> None:
    def publish(folder: Path, target: Path, *rest: object) -> None:
        shutil.rmtree(target)
        os.rename(folder, target)

    staging._publish = publish


def believe_the_disk() -> None:
    staging._check_space = lambda *rest: None


def believe_json() -> None:
    checkpoint.read_json = lambda file, limits=None: json.loads(file.read())


MUTANTS = {
    "finished shards are believed": Mutant(believe_shards, "not that of an undisturbed run", scene="widen"),
    "requests are believed": Mutant(believe_requests, "not that of an undisturbed run", scene="another request"),
    "the output is written in its place": Mutant(write_in_place, "half-written output"),
    "it appears before all is written": Mutant(appear_early, "half-written output", scene="untie"),
    "the old output goes first": Mutant(remove_the_old_one_first, "half-written output", scene="overwrite"),
    "nobody looks at the free space": Mutant(believe_the_disk, "it was not told before", kind="full"),
    "JSON is believed": Mutant(believe_json, "exit code 3", kind="flip"),
}


# Tests


def hold(numbers: dict[str, list[int]], jobs: int) -> None:
    """Every law, after the faults of these numbers; and they were of the kinds that they should be."""
    found = elsewhere("tried", json.dumps(numbers), jobs)
    counts = {kind: len(chosen) for kind, chosen in numbers.items()}
    wrong = [one for one in found if one["wrong"]]
    assert [f"fault_campaign.py --only {one['kind']}:{one['number']}: {one}" for one in wrong] == []
    assert Counter(one["kind"] for one in found) == counts
    where = {kind: Counter(one["where"] for one in found if one["kind"] == kind) for kind in counts}
    for kind in ("kill", "signal", "full"):
        assert where[kind].keys() <= {BEFORE, KEPT, STOOD, HARMLESS} | ({REFUSED} if kind == "full" else set())
        assert where[kind][KEPT] > 0, where
    for kind in ("cut", "flip"):
        assert where[kind].keys() <= {REFUSED, HARMLESS} and where[kind][REFUSED] >= counts[kind] / 2, where
    assert sum(one["reused"] for one in found) > sum(where[kind][KEPT] for kind in where) / 2


def test_after_every_fault_the_same_command_ends_well_and_no_half_output_is_ever_seen():
    hold(SOME, 1)


@pytest.mark.slow
def test_after_hundreds_of_faults_too():
    hold({kind: [*range(count)] for kind, count in FULL.items()}, 2)


def test_every_planted_mistake_is_seen():
    found = {one["name"]: one["wrong"] for one in elsewhere("planted")}
    assert [name for name, mutant in MUTANTS.items() if mutant.words not in "".join(found[name])] == [], found
