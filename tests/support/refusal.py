"""Growth that both rules must refuse, and growth beside it that must change no output."""

from __future__ import annotations

from functools import cache

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import RULES
from support import tiny
from support.grow import widen
from support.growths import Growth, Source

# One form of every family, its head its own where it has one: nothing is refused on a tie's account.
FAMILIES = [v for v in tiny.variants() if v.main and not v.tied]


@pytest.fixture(scope="module")
def checkpoint(source):
    """checkpoint(name) -> the variant's, on disk, opened once."""
    return cache(lambda name: open_checkpoint(source(tiny.named(name))))


@pytest.fixture
def refusal(checkpoint):
    """refusal(name, **settings) -> the PlanError's message, which must be equal under both rules."""

    def said(name, **settings):
        found = set()
        for rule in RULES:
            with pytest.raises(PlanError) as raised:
                widen(checkpoint(name), settings=settings, rule=rule)
            found.add(str(raised.value))
        (message,) = found
        assert "\n" not in message
        return message

    return said


@pytest.fixture
def lossless(source, tmp_path):
    """lossless(name, **settings): assert that the growth changes no output, under both rules."""

    def tried(name, **settings):
        small = Source(tiny.named(name), source(tiny.named(name), "float64"))
        for rule in RULES:
            trial = small.try_out(Growth("", str(settings), settings), rule, tmp_path / rule)
            assert (trial.refused, trial.lossy, trial.wrong) == ("", (), ""), rule

    return tried
