"""Config fuzz: what is said of two configs is what the library computes with them, in float64 from end to end.

Every key of every family's config class gets other plausible values. Called "different" and equal outputs is a false
alarm; called nothing and other outputs is a miss. There is none of either. All trials take hours: a run draws some, and
with MODELSURGEON_EXHAUSTIVE=1 tries all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import open_folder
from modelsurgeon.checkpoints.record import Origin
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.proof import config_keys, inert
from modelsurgeon.running.settings import as_read
from support import config_fuzz, config_trials, draws, tiny

TRIALS = 3  # of each form that is drawn
FORMS = 14  # that are drawn
ALL = config_fuzz.forms()
TRIED = ALL if draws.EXHAUSTIVE else draws.chance("config fuzz").sample(ALL, FORMS)
# Keys that are inert whatever the model is: tried on the usual form of each family, not on all others too.
ALWAYS = {name for e in inert.entries() for name in e.names if not (e.families or e.other_classes or e.when)}


def misjudged(variant: tiny.Variant, folder: Path, trials: list[config_trials.Trial] | None = None) -> list[str]:
    """What is said wrongly of some trials of a variant; None: drawn ones, or all."""
    runs = config_fuzz.Runs(variant, folder)
    config = runs.config
    source = open_folder(Origin(variant.name, LocalFolder(folder)))
    if trials is None:
        every = config_trials.trials(config, as_read(config) or {})
        trials = [trial for trial in every if variant.main or trial.key not in ALWAYS]
        if not draws.EXHAUSTIVE:
            trials = draws.chance(f"config fuzz {variant.name}").sample(trials, TRIALS)
    found = []
    for trial in trials:
        changed = trial.of(config)
        outcome, where = runs.outcome(changed)
        said = config_keys.compare_configs(source, replace(source, config=changed), source).different
        missed = outcome == "differs" and not said
        if missed or (outcome == "same" and said and trial.key.split(".")[0] not in config_trials.DECIDED):
            found.append(f"{trial}: {outcome} ({where}), but said to differ by {[one.key for one in said]}")
    return found


@pytest.mark.parametrize("variant", TRIED, ids=str)
def test_what_is_said_of_a_config_is_what_the_library_computes(variant: tiny.Variant, tmp_path: Path) -> None:
    assert misjudged(variant, tmp_path / "source") == []


def test_every_family_and_every_reason_by_reading_is_tried() -> None:
    assert {variant.model_type for variant in ALL} == set(registry.known())
    keys = {*config_trials.FURTHER}
    for variant in ALL:
        keys |= as_read({"model_type": variant.model_type}).keys()  # type: ignore[union-attr]
    assert set(config_trials.DECIDED) <= keys


# --- planted mistakes -------------------------------------------------------------------------------------------------

WINDOW = config_trials.Trial("sliding_window", None)
DROPOUT = config_trials.Trial("attention_dropout", 0.5)


def test_a_key_that_is_wrongly_called_inert_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = inert.Entry("planted", ("sliding_window",))
    monkeypatch.setattr(inert, "entries", lambda: (planted,))
    (line,) = misjudged(tiny.named("mistral-untied"), tmp_path / "source", [WINDOW])
    assert line.startswith("sliding_window=None: differs")


def test_a_key_without_its_reason_is_a_false_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "entries", lambda: ())
    (line,) = misjudged(tiny.named("mistral-untied"), tmp_path / "source", [DROPOUT])
    assert line.startswith("attention_dropout=0.5: same")


def test_both_are_judged_rightly_as_they_are(tmp_path: Path) -> None:
    assert misjudged(tiny.named("mistral-untied"), tmp_path / "source", [WINDOW, DROPOUT]) == []
