"""The catalogue of attacks on `verify`: every entry tried, and what came of it.

    python scripts/campaigns/mutant_campaign.py [--jobs 2] [--only WORD ...] [--list] [--readme README.md]

Prints one line for each entry of `tests/support/attacks`: what was changed in which model and with which record, the
levels that saw it, and the verdict; `tests/support/attacks/attack.py` explains them. --only tries those entries of
which a line holds one of the words; --list tries none, and prints what must see them and what is right. The README's
block `attacks` counts entries by what is attacked. Exits with 1 where a verdict is another one than the entry says, or
a level did not see what it must see.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
import transformers

from readme import write_block
from support.attacks.attack import Attack
from support.attacks.catalogue import every_attack
from support.attacks.table import ROW, row, summary
from support.attacks.tried import Outcome, Workshop, tried

ATTACKS = every_attack()


def tried_all(numbers: Sequence[int]) -> list[Outcome]:
    """Try attacks on one source after another."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        workshop = Workshop(Path(folder))
        return [_outcome(ATTACKS[number], workshop) for number in numbers]


def _outcome(attack: Attack, workshop: Workshop) -> Outcome:
    try:
        return tried(attack, workshop)
    except Exception as error:  # a traceback is the worst answer, and no reason to stop the campaign
        return Outcome(f"{type(error).__name__}: {error}", frozenset(), traceback.format_exc())


def by_source(numbers: Iterable[int]) -> list[list[int]]:
    """The attacks, grouped by the source that they share."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(ATTACKS[number].made.source_key, []).append(number)
    return list(groups.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="entries of which a line holds one of these")
    parser.add_argument("--list", action="store_true", help="try nothing: print the entries")
    parser.add_argument("--readme", type=Path, help="write the table of the catalogue, if all is as entries say")
    arguments = parser.parse_args()
    words = arguments.only or [""]
    chosen = [n for n, attack in enumerate(ATTACKS) if any(word in " | ".join(attack.line) for word in words)]
    if arguments.list:
        print("\n".join(ROW.format(" | ".join(ATTACKS[number].line)) for number in chosen))
        return 0
    print(ROW.format(" | ".join(["attacked", "model", "record", "what was changed", "seen by", "verdict"])))
    print("|---" * 6 + "|", flush=True)
    groups, wrong = by_source(chosen), 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for numbers, outcomes in zip(groups, pool.map(tried_all, groups), strict=True):
            for attack, outcome in zip([ATTACKS[number] for number in numbers], outcomes, strict=True):
                print(row(attack, outcome.seen, outcome.verdict), flush=True)
                if said := outcome.wrong(attack):
                    wrong += 1
                    print(f"WRONG {attack} ({attack.record}): {said}", file=sys.stderr, flush=True)
    print(f"\n{summary([ATTACKS[number] for number in chosen])}")
    print(f"{len(chosen)} entries, {wrong} wrong", file=sys.stderr)
    if arguments.readme and not wrong:
        write_block(arguments.readme, "attacks", summary(ATTACKS))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
