"""widen --optimizer: a grown model goes on where its source was, step for step, loss for loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.saving.save import save
from modelsurgeon.training import optimizer as growing
from modelsurgeon.training import param_groups
from modelsurgeon.training.optimizer import grown_moment
from modelsurgeon.training.trainer import training_state
from modelsurgeon.training.trajectory import Scaling, Trajectory
from support import tiny
from support.command import contents, run
from support.grow import widen
from support.oracle import in_float64
from support.trained import AFTER, CASES, DOUBLE, SINGLE, SOON, Case, schedule, still, train, trained

__all__ = ["trained"]  # fixtures


def _continued(case: Case, folder: Path, steps: range = AFTER) -> list[float]:
    """The losses of the grown model, as the documentation says to go on."""
    after = case.after
    save(after, folder, companion=training_state(case.before, after, case.folder))
    with in_float64() if case.wide else nullcontext():
        model = still((tiny.load64 if case.wide else tiny.load)(folder, case.variant.kind))
        optimizer = torch.optim.AdamW(param_groups(model, folder))
        scheduler = schedule(optimizer)
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        return train(model, optimizer, scheduler, steps)


def _distance(case: Case, losses: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(case.losses, losses, strict=False))


@pytest.mark.parametrize("name", CASES)
def test_the_grown_model_follows_the_losses_of_the_small_one(
    name: str, trained: Callable[[str], Case], tmp_path: Path
) -> None:
    case = trained(name)
    assert max(case.losses) - min(case.losses) > 0.1
    assert _distance(case, _continued(case, tmp_path / "wide")) < (DOUBLE if case.wide else SINGLE)


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "one learning rate for all": (Scaling, "lr", 1.0),
    "weight decay as it was": (Scaling, "weight_decay", 1.0),
    "eps as it was": (Scaling, "eps", 1.0),
    "moments as they were": (growing, "grown_moment", lambda m, d, c, power: grown_moment(m, d, c, 0)),
    "the second moment as the first": (growing, "grown_moment", lambda m, d, c, power: grown_moment(m, d, c, 1)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_would_not_if(
    mutant: str, trained: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    case = trained("llama-exact")
    assert _distance(case, _continued(case, tmp_path / "wide", AFTER[:SOON])) > 20 * SINGLE


class _Words(torch.utils.data.Dataset[Any]):
    """Rows of random ids, the same in every run."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(3, tiny.VOCAB, (tiny.LENGTH,), generator=torch.Generator().manual_seed(row))
        return {"input_ids": ids, "labels": ids}


def _trainer(model: Any, folder: Path, optimizer: Any = None) -> transformers.Trainer:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        save_steps=4,
        logging_steps=1,
        per_device_train_batch_size=2,
        learning_rate=3e-3,
        weight_decay=0.1,
        max_grad_norm=0.0,  # clips nothing
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return transformers.Trainer(model, arguments, train_dataset=_Words(), optimizers=(optimizer, None))


def _logged(trainer: transformers.Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_trainer_goes_on_where_the_small_ones_stood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = _trainer(still(tiny.build(tiny.named("llama-tied"))), tmp_path / "small")
    with torch.enable_grad():
        small.train()
    stood = tmp_path / "small" / "checkpoint-4"
    wide = tmp_path / "wide"
    done = run("widen", stood, "-o", wide, "--optimizer", stood, "--noise", 0, "--verify")
    assert done.code == 0, done.err
    model = still(tiny.load(wide, "LlamaForCausalLM"))
    trainer = _trainer(model, tmp_path / "large", torch.optim.AdamW(param_groups(model, wide)))
    with torch.enable_grad():
        trainer.train(resume_from_checkpoint=str(wide))
    assert len(_logged(small)) == 12
    assert _logged(trainer) == pytest.approx(_logged(small), abs=1.5e-4)  # logged with four digits: at most one apart


def test_what_is_written_is_on_record_and_a_dry_run_writes_nothing(
    trained: Callable[[str], Case], tmp_path: Path
) -> None:
    folder, wide = trained("llama-exact").folder, tmp_path / "wide"
    planned = run("widen", folder, "--optimizer", folder, "--dry-run", "--json")
    notes = json.loads(planned.out)["plan"]["notes"]
    assert any("optimizer.pt, scheduler.pt, trainer_state.json" in note for note in notes), notes
    assert any("max_grad_norm" in note for note in notes)
    assert run("widen", folder, "--optimizer", folder, "-o", wide).code == 0
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} <= set(contents(wide))
    assert run("verify", wide, "--files").code == 0
    with (wide / "optimizer.pt").open("ab") as file:
        file.write(b"x")
    assert run("verify", wide, "--files").code == 1


def test_growing_twice_by_two_is_growing_by_four(trained: Callable[[str], Case], tmp_path: Path) -> None:
    case = trained("llama-exact")
    save(case.after, tmp_path / "two", companion=training_state(case.before, case.after, case.folder))
    two = open_checkpoint(tmp_path / "two")
    twice = training_state(two, widen(two, 2, **case.how), tmp_path / "two")
    at_once = training_state(case.before, widen(case.before, 4, **case.how), case.folder)
    assert _by_name(twice.optimizer.grown()) == _by_name(at_once.optimizer.grown())
    assert twice.scheduler == at_once.scheduler


def _by_name(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (group["lr"], group["weight_decay"], group["eps"], *(v.tolist() for v in state["state"][i].values()))
        for group in state["param_groups"]
        for i, name in zip(group["params"], group["param_names"], strict=True)
    }


def test_what_copies_nothing_makes_no_large_first_steps(trained: Callable[[str], Case]) -> None:
    """A second moment of zero, this late, would let the first gradient make a step of three learning rates."""
    case = trained("gpt2-exact")
    after = widen(case.before, settings={"n_embd": 48, "n_head": 6}, rule="exact")
    state = training_state(case.before, after, case.folder)
    tail = _moments(state.optimizer.grown(), "transformer.wte.weight")
    assert bool((tail["exp_avg"][:, 32:] == 0).all()) and bool((tail["exp_avg_sq"][:, 32:] > 0).all())
    assert any("a mean of coordinates gets a gradient of its own" in note for note in state.notes)


def _moments(state: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    group = next(group for group in state["param_groups"] if name in group["param_names"])
    found: dict[str, torch.Tensor] = state["state"][group["params"][group["param_names"].index(name)]]
    return found


GRADIENTS = (
    ("gemma-tied", "orthogonal"),
    ("qwen3-tied", "orthogonal"),
    ("t5-tied", "exact"),
    ("mixtral-tied", "exact"),
)


@pytest.mark.parametrize(("name", "rule"), GRADIENTS, ids=[" ".join(case) for case in GRADIENTS])
def test_gradients_are_the_small_ones_times_what_the_law_says(
    name: str, rule: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    before = open_checkpoint(source(tiny.named(name), "float64"))
    after = widen(before, 2, rule=rule)
    save(after, tmp_path / "wide")
    small, wide = (_gradients(folder, tiny.named(name).kind) for folder in (before.origin.path, tmp_path / "wide"))
    table = before.architecture.fitted(before.resolved, small)
    law = Trajectory(table, before.resolved, after.steps[-1].maps, before.is_tied)
    for parameter, gradient in small.items():
        template = table.template(parameter)
        assert template
        wanted = grown_moment(gradient, law.gradient(template), 1 / law.constant(template), 1)
        assert float((wide[parameter] - wanted).abs().max()) < 1e-12 * float(1 + wanted.abs().max()), parameter
        found = float(wide[parameter].square().sum() / gradient.square().sum())
        assert found == pytest.approx(law.scaling(template).norm, rel=1e-9), parameter


def _gradients(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    with in_float64(), torch.enable_grad():
        model = tiny.load64(folder, kind)
        logits = model(**tiny.inputs(model), use_cache=False).logits
        (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_model_finds_its_own_groups_only(trained: Callable[[str], Case], tmp_path: Path) -> None:
    case = trained("llama-exact")
    training_state(case.before, case.after, case.folder).write(tmp_path)
    model = tiny.load(case.folder, case.variant.kind)
    assert sum(len(group["params"]) for group in param_groups(model, tmp_path)) == 21
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ModelSurgeonError, match=r"no group has the model's 'extra\.weight'"):
        param_groups(model, tmp_path)
    del model.extra, model.lm_head
    with pytest.raises(ModelSurgeonError, match=r"the model has no parameter 'lm_head\.weight'"):
        param_groups(model, tmp_path)
    with pytest.raises(ModelSurgeonError, match="its groups name no parameters"):
        param_groups(model, case.folder)
