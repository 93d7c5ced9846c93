"""Draws, by the commit, a part of the cases that are too many for every run; MODELSURGEON_EXHAUSTIVE=1 tries all.

    drawn(VARIANTS, ("float32", "bfloat16"), "untying")  # [(variant, dtype), ...]: each variant once

Draws depend on SEED and on the name of what is drawn, so that a test's draw does not change with the tests around it.
SEED is the hash of the commit; MODELSURGEON_SEED repeats the draw of another one. Workers inherit both variables from
the process that starts them, so that all collect the same tests.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

SEED_VARIABLE, EXHAUSTIVE_VARIABLE = "MODELSURGEON_SEED", "MODELSURGEON_EXHAUSTIVE"
NO_COMMIT = "no-commit"
TIMES = 20  # more examples of hypothesis where all cases are tried


def commit() -> str:
    """The first twelve digits of the commit's hash; NO_COMMIT where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return NO_COMMIT
    return done.stdout.strip()[:12] if done.returncode == 0 else NO_COMMIT


SEED = os.environ[SEED_VARIABLE] = os.environ.get(SEED_VARIABLE) or commit()
EXHAUSTIVE = os.environ.get(EXHAUSTIVE_VARIABLE) == "1"


def chance(name: str) -> random.Random:
    """The generator of one draw."""
    return random.Random(f"{SEED} {name}")


def drawn(things: Iterable[A], ways: Iterable[B], name: str) -> list[tuple[A, B]]:
    """Each thing in one way, every way about equally often; or each thing in every way."""
    things, ways = list(things), list(ways)
    if EXHAUSTIVE:
        return [(thing, way) for thing in things for way in ways]
    generator = chance(name)
    shuffled = generator.sample(ways, len(ways))
    dealt = [shuffled[index % len(ways)] for index in range(len(things))]
    return list(zip(things, generator.sample(dealt, len(dealt)), strict=True))


def some(things: Iterable[A], count: int, name: str) -> list[A]:
    """So many of the things, in their order; or all."""
    things = list(things)
    if EXHAUSTIVE:
        return things
    chosen = set(chance(name).sample(range(len(things)), count))
    return [thing for index, thing in enumerate(things) if index in chosen]


def examples(count: int) -> int:
    """So many examples of hypothesis, or TIMES as many."""
    return count * TIMES if EXHAUSTIVE else count


def report() -> str:
    """The line that a run prints: its seed, and how to repeat it."""
    what = "all is tried" if EXHAUSTIVE else "drawn"
    why = " (no commit was found)" if SEED == NO_COMMIT else ""
    return f"{what} by seed {SEED}{why}; repeat it with {SEED_VARIABLE}={SEED}"
