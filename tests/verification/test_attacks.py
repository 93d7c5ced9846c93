"""No attack fools `verify`, and what is no attack raises no alarm: the catalogue, entry by entry.

All entries are tried where all is; else one of each kind, record and right verdict, drawn by the commit.
scripts/campaigns/mutant_campaign.py tries them outside of the suite, and writes the README's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest

from support import draws
from support.attacks import grown
from support.attacks.attack import DIFFERENT, KINDS, LEVELS, PROVEN, RECORDS, REFUSED, RUN, VERDICTS, Attack, copied
from support.attacks.catalogue import every_attack
from support.attacks.table import summary
from support.attacks.tried import Workshop, tried
from support.command import ROOT
from support.planting import nothing, rows_times

ATTACKS = every_attack()
MISTAKES = [*grown.every_mistake(), *grown.every_noisy_mistake()]
TOKENS = "model.embed_tokens.weight"


def some(attacks: list[Attack], of: Callable[[Attack], Hashable], name: str) -> list[Attack]:
    """One of each, drawn by the commit; or all."""
    if draws.EXHAUSTIVE:
        return attacks
    shuffled = draws.chance(name).sample(attacks, len(attacks))
    return list({of(attack): attack for attack in shuffled}.values())


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("attack", some(ATTACKS, lambda one: one.kind, "attacks"), ids=str)
def test_an_attack_gets_the_right_verdict_from_the_levels_that_must_see_it(attack: Attack, workshop: Workshop) -> None:
    assert tried(attack, workshop).wrong(attack) == ""


@pytest.mark.parametrize("attack", some(MISTAKES, lambda one: one.record, "unrecorded attacks"), ids=str)
def test_no_mistake_is_proven_where_its_record_is_not_looked_at(attack: Attack, workshop: Workshop) -> None:
    outcome = tried(attack.given(ignore_record=True), workshop)
    seen = attack.levels & {"config", "outputs"}
    assert outcome.verdict in ((DIFFERENT, REFUSED) if seen else (DIFFERENT, REFUSED, RUN))


def test_an_entry_that_is_wrong_is_seen(workshop: Workshop) -> None:
    llama, token = copied("llama-tied"), rows_times(TOKENS, -3, 4)
    same, other = (tried(llama.differs("weight", "", plant, ""), workshop) for plant in (nothing, token))
    assert "expected different" in same.wrong(llama.differs("weight", "nothing", nothing, ""))
    assert other.wrong(llama.differs("weight", "a token", token, "outputs")) == ""
    assert "verdict: different" in other.wrong(llama.passes("weight", "a token", token))
    assert "not seen by proof" in other.wrong(llama.differs("weight", "a token", token, "proof"))
    assert "does not name" in other.wrong(llama.differs("weight", "a token", token, "outputs", "a word of nobody"))


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_the_catalogue_is_of_every_kind_record_level_and_verdict() -> None:
    assert {attack.kind for attack in ATTACKS} == {*KINDS}
    assert {attack.record for attack in ATTACKS} == {*RECORDS}
    assert {attack.verdict for attack in ATTACKS} == {*VERDICTS}
    assert frozenset[str]().union(*(attack.levels for attack in ATTACKS)) == {*LEVELS}


def test_the_catalogue_is_large_and_of_many_families() -> None:
    families = {attack.made.variant.model_type for attack in ATTACKS if attack.made.family != "demo"}
    assert len(ATTACKS) >= 150 and len(families) >= 15


def test_no_two_attacks_have_one_name() -> None:
    made = ((str(attack), attack.record, repr(replace(attack.made, before=None))) for attack in ATTACKS)
    assert [name for name, times in Counter(made).items() if times > 1] == []


def test_what_is_different_must_be_seen_by_a_level_that_decides() -> None:
    deciding = {*LEVELS} - {"beside"}
    unseen = [str(a) for a in ATTACKS if a.verdict == DIFFERENT and a.kind != "pair" and not a.levels & deciding]
    assert unseen == []


def test_what_is_proven_has_no_level_that_sees_it_but_what_is_beside() -> None:
    assert [str(a) for a in ATTACKS if a.verdict == PROVEN and a.levels - {"beside"}] == []


def test_the_readme_counts_the_catalogue() -> None:
    assert summary(ATTACKS) in (ROOT / "README.md").read_text(encoding="utf-8")
