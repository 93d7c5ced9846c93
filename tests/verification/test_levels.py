"""Level by level: which of verification's levels see a planted mistake, and that none passes.

scripts/campaigns/mutant_campaign.py tries every mistake at every level, and every result without one. Here are one of
each kind, and one of each set of levels that are on record; test_verify.py has the proof of all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.proof.proof import prove
from support import tiny
from support.draws import EXHAUSTIVE
from support.levels import DECIDING, seen_by, widened
from support.mutant import KINDS, LEVELS, UNSEEN, Mutant
from support.mutants import every_mutant, every_noisy_mutant

MUTANTS = [*every_mutant(), *every_noisy_mutant()]


def firsts(mutants: Iterable[Mutant], of: Callable[[Mutant], Hashable]) -> list[Mutant]:
    """The first one of each, or all. They are not drawn: a level can miss a mistake by little; these are on record."""
    mutants = list(mutants)
    if EXHAUSTIVE:
        return mutants
    found: dict[Hashable, Mutant] = {}
    for mutant in mutants:
        found.setdefault(of(mutant), mutant)
    return list(found.values())


ODD = firsts(MUTANTS, lambda m: m.levels)
SOME = [*ODD, *firsts((m for m in MUTANTS if m.kind not in {odd.kind for odd in ODD}), lambda m: m.kind)]
NARROW = firsts(SOME, lambda m: "bf16" in m.levels)  # bf16 takes as long as all other levels


@pytest.mark.parametrize("mutant", SOME, ids=str)
def test_a_mistake_is_seen_by_the_levels_on_record(mutant: Mutant, source: Callable[..., Path], tmp_path: Path) -> None:
    before, narrow = open_checkpoint(source(tiny.named(mutant.family))), mutant in NARROW
    planted = widened(mutant, before, tmp_path / "result")
    mutant.plant(planted)
    seen = seen_by(before, open_checkpoint(planted), narrow)
    assert seen == (mutant.levels if narrow else mutant.levels - {"bf16"})


@pytest.mark.parametrize("mutant", [*every_noisy_mutant()], ids=str)
def test_noise_that_is_wrong_is_proven_wrong_and_other_noise_is_not(
    mutant: Mutant, source: Callable[..., Path], tmp_path: Path
) -> None:
    before = open_checkpoint(source(tiny.named(mutant.family)))
    result = widened(mutant, before, tmp_path / "result")
    planted = shutil.copytree(result, tmp_path / "planted")
    mutant.plant(planted)
    verdicts = [prove(before, open_checkpoint(folder)) for folder in (result, planted)]
    assert [verdict.summary == "wrong" for verdict in verdicts if verdict] == [False, True]


def test_no_mistake_passes() -> None:
    assert [str(mutant) for mutant in MUTANTS if not mutant.levels & {*DECIDING}] == []


def test_the_record_is_of_these_mistakes_and_levels() -> None:
    assert UNSEEN.keys() <= {str(mutant) for mutant in MUTANTS}
    assert {level for levels in UNSEEN.values() for level in levels.split()} <= {*LEVELS}
    assert {mutant.kind for mutant in MUTANTS} == {*KINDS}
    assert len({str(mutant) for mutant in MUTANTS}) == len(MUTANTS)
