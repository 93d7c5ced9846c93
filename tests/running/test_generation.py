"""Generation: what one model writes after prompts, against another, and against itself without the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.running import batches, generation
from modelsurgeon.running.generation import Continued
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification import visits
from modelsurgeon.verification.continuations import Generation, compare_continuations
from modelsurgeon.verification.logits import LogitReport, compare_all
from support.grow import widen
from support.tiny import ROUNDING, named

OPTIONS = RunOptions(samples=1, length=12)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONG", 24)
    monkeypatch.setattr(batches, "NEW", 4)


def continued(tokens: list[list[int]], logits: torch.Tensor, cache_error: float = 0.0) -> Continued:
    return Continued(torch.tensor(tokens), logits, logits + cache_error)


MARGIN = 0.001


@pytest.fixture
def logits() -> torch.Tensor:
    """[2, 3, 40]: normal numbers of deviation 1; token 1 before token 2 by MARGIN, the others far below."""
    one = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    one[..., 1], one[..., 2] = 9.0 + MARGIN, 9.0
    return one


def compared(before: Continued, after: Continued, tolerance: float = 1e-4, allowed: float = 1e-4) -> Generation:
    return compare_continuations(before, after, tolerance, allowed)


def test_equal_tokens_are_the_same(logits: torch.Tensor) -> None:
    written = continued([[1, 1, 1], [1, 1, 1]], logits)
    found = compared(written, written)
    assert found.same and not found.tie and found.first is None
    assert (found.prompts, found.tokens, found.error) == (2, 3, 0.0)


def test_a_difference_is_told_with_its_place_its_tokens_and_the_margin(logits: torch.Tensor) -> None:
    found = compared(continued([[1, 1, 1], [1, 1, 1]], logits), continued([[1, 1, 1], [1, 3, 0]], logits))
    assert found.first is not None and astuple(found.first)[:4] == (1, 1, 1, 3)
    assert found.first.margin == pytest.approx(float(logits[1, 1, 1] - logits[1, 1, 3]))
    assert found.first.share == pytest.approx(found.first.margin / 2, rel=0.7)  # of about one deviation each
    assert not found.same and not found.tie and not found.undecided
    assert found.to_json()["first"]["at"] == 1


def test_a_margin_that_rounding_explains_is_a_tie(logits: torch.Tensor) -> None:
    before, after = continued([[1, 1, 1], [1, 1, 1]], logits), continued([[1, 2, 0], [1, 1, 1]], logits)
    assert not compared(before, after).same
    found = compared(before, after, allowed=1e-3)
    assert found.same and found.tie and found.first is not None and found.first.found == 2
    both = compared(before, continued([[1, 2, 0], [1, 1, 3]], logits), allowed=1e-3)  # a tie, and one that is none
    assert both.first is not None and both.first.found == 3 and not both.same


def test_a_margin_between_usual_and_largest_rounding_is_not_decided(logits: torch.Tensor) -> None:
    before, after = continued([[1, 1, 1], [1, 1, 1]], logits), continued([[1, 2, 0], [1, 1, 1]], logits)
    found = compared(before, after, tolerance=1e-2)
    assert found.same and found.undecided and not found.tie
    assert found.to_json()["undecided"] is True
    assert not compared(before, continued([[1, 3, 0], [1, 1, 1]], logits), tolerance=1e-2).same


def test_an_error_elsewhere_makes_no_tie_of_a_wide_margin(logits: torch.Tensor) -> None:
    """One outlier in the logits of one place, in both models: margins at other places mean what they meant."""
    outlier = logits.clone()
    outlier[..., 7] = -1e9
    before, after = continued([[1, 1, 1], [1, 1, 1]], outlier), continued([[1, 3, 0], [1, 1, 1]], outlier)
    found = compared(before, after)
    assert not found.same and not found.tie
    assert found.first is not None and found.first.share > 1


def test_logits_that_differ_are_not_the_same_though_the_tokens_are(logits: torch.Tensor) -> None:
    before = continued([[1, 1, 1], [1, 1, 1]], logits)
    assert not compared(before, continued([[1, 1, 1], [1, 1, 1]], logits + 1e-3)).same
    apart = logits.clone()
    apart[0, 2] += 1.0  # behind the first difference each goes its own way
    assert compared(before, continued([[1, 2, 1], [1, 1, 1]], apart), allowed=1e-3).error == 0
    assert not compared(before, continued([[1, 1, 1], [1, 1, 1]], logits * torch.nan)).same


def test_a_cache_may_change_the_logits_by_no_more_than_in_the_source(logits: torch.Tensor) -> None:
    tokens = [[1, 1, 1], [1, 1, 1]]
    sound, off = continued(tokens, logits), continued(tokens, logits, cache_error=0.1)
    assert not compared(sound, off).same
    assert compared(off, off).same


def widened(
    source: Callable[..., Path], name: str, folder: Path
) -> tuple[Checkpoint, Checkpoint, Mapping[str, AxisMap]]:
    before = open_checkpoint(source(named(name)))
    plan = widen(before, 2)
    return before, open_checkpoint(save(plan, folder / "wider")), plan.steps[-1].maps


def compared_behaviour(before: Checkpoint, after: Checkpoint, maps: Mapping[str, AxisMap]) -> LogitReport:
    return compare_all(before, after, OPTIONS, maps=maps, behaviour=True, in_stored=False)[0]


def test_models_that_write_continue_prompts_of_three_lengths(source: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("gpt2-tied", "t5-tied"):  # learned positions; a decoder of more layers than the encoder
        before, after, maps = widened(source, name, tmp_path / name)
        report = compared_behaviour(before, after, maps)
        found = report.generation
        assert report.same and found is not None and found.first is None
        assert (found.prompts, found.tokens) == (3, 4)
        assert max(found.error, found.cache_error, found.cache_floor) < ROUNDING
        assert json.loads(json.dumps(report.to_json()))["generation"] == found.to_json()


def test_a_cache_at_the_wrong_positions_is_not_the_same(
    source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, maps = widened(source, "gpt2-tied", tmp_path)
    plain, models = generation.continue_prompts, list[Any]()

    def shifted(model: Any, *given: Any) -> Continued:
        models.append(model)
        if len(models) == 2:  # the result
            forward = model.forward

            @wraps(forward)  # the library asks what it takes
            def late(**arguments: Any) -> Any:
                if arguments.get("use_cache") and arguments["input_ids"].shape[1] == 1:
                    arguments["position_ids"] = arguments["position_ids"] - 1
                return forward(**arguments)

            model.forward = late
        return plain(model, *given)

    monkeypatch.setattr(visits, "continue_prompts", shifted)
    report = compared_behaviour(before, after, maps)
    assert report.generation is not None and not report.same
    assert report.generation.cache_error > 0.01 > ROUNDING > report.generation.cache_floor
    assert all(c.max_rel <= limit for c, limit in zip(report.comparisons, report.limits, strict=True))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bert-tied", "BertForMaskedLM generates none, or not from text"),
        ("whisper-causal", "WhisperForCausalLM cannot: IndexError: list index out of range"),
    ],
)
def test_a_model_that_writes_nothing_says_so(name: str, why: str, source: Callable[..., Path]) -> None:
    before = open_checkpoint(source(named(name)))
    report = compared_behaviour(before, before, {})
    assert report.same and report.generation is None and report.to_json()["generation"] is None
    assert f"no text generated: {why}" in report.notes
