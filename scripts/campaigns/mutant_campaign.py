"""Planted mistakes, and which level of verification sees each.

    python scripts/campaigns/mutant_campaign.py [--jobs 2] [--only FAMILY ...] [--readme README.md]

Prints one line for each mistake of `tests/support/mutants.py`; `tests/support/levels.py` explains the levels. The
README's block `levels` counts mistakes by kind. Exits with 1 where a mistake passes, where other levels see it than are
on record, and where a result without a mistake is called different.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
import transformers

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from readme import write_block
from support import tiny
from support.levels import DECIDING, seen_by, widened
from support.mutant import KINDS, LEVELS, Mutant
from support.mutants import every_mutant, every_noisy_mutant

MUTANTS = [*every_mutant(), *every_noisy_mutant()]
ROW = "| {} |"


@dataclass(frozen=True)
class Found:
    """The outcome of one mistake.

    seen   the levels that see it
    alarm  the levels that find the result without it different
    """

    seen: frozenset[str]
    alarm: frozenset[str]

    def wrong(self, mutant: Mutant) -> str:
        """What is not as expected; empty where nothing is."""
        if self.alarm:
            return f"without the mistake it is seen by {', '.join(sorted(self.alarm))}"
        if not self.seen & {*DECIDING}:
            return "it passes"
        told = [f"{level}: {'seen' if level in self.seen else 'not seen'}" for level in self.seen ^ mutant.levels]
        return "; ".join(told) and f"not as on record: {'; '.join(told)}"


def tried(numbers: Sequence[int]) -> list[Found]:
    """Plant mistakes in copies of one result, one at a time, and verify each."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = []
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder, first = Path(name), MUTANTS[numbers[0]]
        source = open_checkpoint(tiny.save(tiny.named(first.family), folder / "source"))
        result = widened(first, source, folder / "result")
        alarm = seen_by(source, open_checkpoint(result), narrow=False)
        for number in numbers:
            planted = shutil.copytree(result, folder / str(number))
            MUTANTS[number].plant(planted)
            found.append(Found(seen_by(source, open_checkpoint(planted)), alarm))
    return found


def by_result(numbers: Sequence[int]) -> list[list[int]]:
    """The mistakes, grouped by the result that they are planted in."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        mutant = MUTANTS[number]
        key = str((mutant.family, mutant.rule, mutant.attention, mutant.settings, mutant.noise))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def row(mutant: Mutant, found: Found) -> str:
    """The line of one mistake."""
    marks = ["x" if level in found.seen else "" for level in LEVELS]
    first = next((level for level in LEVELS if level in found.seen), "none")
    return ROW.format(" | ".join([mutant.kind, mutant.name, mutant.family, *marks, first]))


def summary(seen: Sequence[tuple[Mutant, Found]]) -> str:
    """The table: how many of each kind there are, and how many each level sees."""
    lines = [ROW.format(" | ".join(["fault", "planted", *LEVELS])), "|---" * (2 + len(LEVELS)) + "|"]
    for kind in [*KINDS, "all"]:
        of_kind = [found for mutant, found in seen if kind in (mutant.kind, "all")]
        counts = [sum(level in found.seen for found in of_kind) for level in LEVELS]
        lines.append(ROW.format(" | ".join([kind, *map(str, [len(of_kind), *counts])])))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", nargs="+", metavar="FAMILY")
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    chosen = [n for n, m in enumerate(MUTANTS) if arguments.only is None or m.family in arguments.only]
    print(ROW.format(" | ".join(["kind", "fault", "family", *LEVELS, "first seen by"])))
    print("|---" * (4 + len(LEVELS)) + "|", flush=True)
    groups, seen, wrong = by_result(chosen), [], 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for numbers, founds in zip(groups, pool.map(tried, groups), strict=True):
            for mutant, found in zip([MUTANTS[number] for number in numbers], founds, strict=True):
                seen.append((mutant, found))
                print(row(mutant, found), flush=True)
                if said := found.wrong(mutant):
                    wrong += 1
                    print(f"WRONG {mutant}: {said}", file=sys.stderr, flush=True)
    print(f"\n{summary(seen)}")
    print(f"{len(seen)} faults, {wrong} wrong", file=sys.stderr)
    if arguments.readme and not wrong:
        write_block(arguments.readme, "levels", summary(seen))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
