"""The README's faults: runs that are killed, interrupted, out of disk, or fed with broken files, then run again.

    python scripts/campaigns/fault_campaign.py [--kills 240 --signals 40 --full 40 --cuts 80 --flips 600] [--jobs 2]
                                               [--readme README.md]
    python scripts/campaigns/fault_campaign.py --only kill:17 [flip:3 ...]

`tests/support/faults.py` says what a fault is and which laws hold after it. stderr lists broken laws, with the command
that repeats the fault alone. Exits with 1 where a law is broken. Small disks need root; else a counter of bytes takes
their place.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from readme import write_block
from support import faults
from support.faults import BEFORE, HARMLESS, KEPT, REFUSED, STOOD, Struck

WHERE = (BEFORE, KEPT, STOOD, REFUSED, HARMLESS)
HEADINGS = ("fault", "runs", *WHERE, "wrong")
NAMES = {
    "kill": "`kill -9`",
    "signal": "SIGINT, SIGTERM",
    "full": "disk full",
    "cut": "source cut short",
    "flip": "bits flipped in headers, index, config, record",
}
COUNTS = {"kills": ("kill", 240), "signals": ("signal", 40), "full": ("full", 40), "cuts": ("cut", 80)}
COUNTS["flips"] = ("flip", 600)


def table(found: Iterable[Struck]) -> list[str]:
    """The table, with a line for each kind of fault."""
    kinds: dict[str, list[Struck]] = defaultdict(list)
    for struck in found:
        kinds[struck.kind].append(struck)
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    for kind, all_of_it in kinds.items():
        where = Counter(struck.where for struck in all_of_it)
        wrong = sum(bool(struck.wrong) for struck in all_of_it)
        cells = [len(all_of_it), *(where[name] for name in WHERE), wrong]
        lines.append(f"| {NAMES[kind]} | {' | '.join(map(str, cells))} |")
    return lines


def wanted(arguments: argparse.Namespace) -> dict[str, Sequence[int]]:
    """{kind: numbers} that the command line names."""
    if not arguments.only:
        return {kind: range(getattr(arguments, option)) for option, (kind, _) in COUNTS.items()}
    pairs = [one.split(":") for one in arguments.only]
    return {kind: [int(number) for name, number in pairs if name == kind] for kind, _ in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (_, count) in COUNTS.items():
        parser.add_argument(f"--{option}", type=int, default=count, metavar="COUNT")
    parser.add_argument("--only", nargs="+", metavar="KIND:NUMBER")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    readme = arguments.readme and arguments.readme.resolve()
    found = []
    for struck in faults.campaign(wanted(arguments), arguments.jobs):
        found.append(struck)
        if struck.wrong or arguments.only:
            said = f"WRONG: {'; '.join(struck.wrong)}" if struck.wrong else struck.where
            print(f"{struck.kind}:{struck.number}: {struck.what}: {said}", file=sys.stderr, flush=True)
    lines, wrong = table(found), any(struck.wrong for struck in found)
    print(*lines, sep="\n")
    print(f"{sum(struck.reused for struck in found)} finished shards were reused", file=sys.stderr)
    if readme and not wrong:
        write_block(readme, "faults", "\n".join(lines))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
