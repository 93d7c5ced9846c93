"""widen --optimizer refuses states of other optimizers, of other models, in shards, or too large for memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.training.trainer import training_state
from support.trained import Case, trained

__all__ = ["trained"]  # fixtures


def _sgd(state: dict[str, Any]) -> None:
    state["state"] = {i: {"momentum_buffer": own["exp_avg"]} for i, own in state["state"].items()}


def _eight_bits(state: dict[str, Any]) -> None:
    for own in state["state"].values():
        own["exp_avg"] = own["exp_avg"].to(torch.uint8)


def _frozen(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()
    state["state"].pop(15)


def _swapped(state: dict[str, Any]) -> None:
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]


def _radam(state: dict[str, Any]) -> None:
    for group in state["param_groups"]:
        group.pop("amsgrad")


SPOILED = {
    "expected AdamW's: step, exp_avg, exp_avg_sq": _sgd,
    "8-bit states are not read": _eight_bits,
    "groups of [15, 5] parameters, expected [16, 5] (with decay, without) or [21] (all in one group)": _frozen,
    "has shape (32, 32), expected (61, 32); is it the state of another model?": _swapped,
    "a param group without 'amsgrad'": _radam,
}


@pytest.mark.parametrize("message", SPOILED)
def test_another_optimizers_state_is_refused(message: str, trained: Callable[[str], Case], tmp_path: Path) -> None:
    state = torch.load(trained("llama-exact").folder / "optimizer.pt", weights_only=True)
    SPOILED[message](state)
    torch.save(state, tmp_path / "optimizer.pt")
    assert message in _refused(trained("llama-exact"), tmp_path)


def _refused(case: Case, folder: Path, **how: Any) -> str:
    with pytest.raises(ModelSurgeonError) as error:
        training_state(case.before, case.after, folder, **how)
    return str(error.value)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_a_folder_without_one_whole_state_is_refused(
    trained: Callable[[str], Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = trained("llama-exact")
    assert "no optimizer.pt" in _refused(case, tmp_path)
    torch.save(_Code(), tmp_path / "optimizer.pt")
    assert "cannot be read as tensors alone" in _refused(case, tmp_path)
    assert not capsys.readouterr().out
    (tmp_path / "global_step6").mkdir()
    assert "global_step6 is a state in shards" in _refused(case, tmp_path)


def test_a_scheduler_of_another_kind_is_refused(trained: Callable[[str], Case], tmp_path: Path) -> None:
    case = trained("llama-exact")
    (tmp_path / "optimizer.pt").symlink_to(case.folder / "optimizer.pt")
    torch.save({"eta_min": 1e-5, "base_lrs": [1.0, 1.0]}, tmp_path / "scheduler.pt")
    assert "expected the state of a LambdaLR" in _refused(case, tmp_path)
    torch.save({"lr_lambdas": [None], "base_lrs": [1.0], "_last_lr": [1.0]}, tmp_path / "scheduler.pt")
    assert "lr_lambdas has 1 entries, and the optimizer 2 groups" in _refused(case, tmp_path)


def test_too_little_memory_and_an_output_in_the_way_are_refused(trained: Callable[[str], Case], tmp_path: Path) -> None:
    case = trained("llama-exact")
    assert "the grown state of the optimizer is in memory" in _refused(case, case.folder, memory=300_000_000)
    assert "which is never modified" in _refused(case, case.folder, output=case.folder.parent)
