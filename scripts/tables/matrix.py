"""The README's matrix: every family in every form, every axis, both rules, from disk to disk in float64.

    python scripts/tables/matrix.py [--jobs 2] [--only FAMILY ...] [--readme README.md]

A cell is the worst of all forms of the family, sizes and rules: max |difference| of any output over its deviation;
"-" where the family has no such axis, "refused" where no growth of it keeps the function. stderr lists refusals, and
growths that their plans call approximate. Exits with 1 where a growth loses something that its plan does not mention.
`tests/support/growths.py` lists what is tried; the test suite runs a part of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
import transformers

from readme import write_block
from support import tiny
from support.growths import COLUMNS, NARROW, Trial, trials

HEADINGS = ("family", "forms", *COLUMNS, "weights")


def tried(name: str) -> list[Trial]:
    """All trials of a variant."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        return list(
            trials(tiny.named(name), lambda v, dtype: tiny.save(v, Path(folder, dtype), dtype), Path(folder, "grown"))
        )


def in_column(trial: Trial, column: str) -> bool:
    return column == (NARROW if trial.dtype == "BF16" else trial.growth.column)


def cell(everything: Sequence[Trial], column: str) -> str:
    """The worst of one column's trials; where all are refused, of those whose `also` names the column."""
    found = [trial for trial in everything if in_column(trial, column)]
    if all(trial.refused for trial in found):
        found += [trial for trial in everything if trial.growth.also == column and trial.dtype != "BF16"]
    errors = [trial.error for trial in found if trial.error is not None]
    if errors:
        return f"{max(errors):.0e}" if max(errors) else "0"
    if any(trial.lossy for trial in found):
        return "approximate"
    return "refused" if found else "-"


def row(model_type: str, forms: int, found: Sequence[Trial]) -> str:
    """One family's line."""
    cells = [cell(found, column) for column in COLUMNS]
    proofs = {trial.proof for trial in found} - {""}
    weights = next((word for word in ("wrong", "nothing", "rounded") if word in proofs), "exact")
    return f"| {' | '.join([model_type, str(forms), *cells, weights])} |"


def remarks(name: str, found: Sequence[Trial]) -> list[str]:
    """The lines for stderr about one variant, each refusal once."""
    wrong = [f"WRONG {name}: {trial}: {trial.wrong}" for trial in found if trial.wrong]
    why = [(trial.growth, trial.refused or "; ".join(trial.lossy)) for trial in found]
    return [*wrong, *dict.fromkeys(f"{name}: {growth}: {reason}" for growth, reason in why if reason)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", nargs="+", metavar="FAMILY")
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    variants = [v for v in tiny.variants() if arguments.only is None or v.model_type in arguments.only]
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    print(*lines, sep="\n", flush=True)
    count = wrong = 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results = zip(variants, pool.map(tried, [v.name for v in variants]), strict=True)
        for family, forms in groupby(results, key=lambda result: result[0].model_type):
            gathered = list(forms)
            for variant, found in gathered:
                for remark in remarks(variant.name, found):
                    print(remark, file=sys.stderr, flush=True)
            everything = [trial for _, found in gathered for trial in found]
            count, wrong = count + len(everything), wrong + sum(bool(trial.wrong) for trial in everything)
            lines.append(row(family, len(gathered), everything))
            print(lines[-1], flush=True)
    print(f"{count} growths of {len(variants)} forms, {wrong} wrong", file=sys.stderr)
    if arguments.readme and not wrong:
        write_block(arguments.readme, "matrix", "\n".join(lines))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
