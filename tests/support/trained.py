"""Tiny models trained for a few steps with AdamW, saved as a Trainer does, and their further losses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from support import tiny
from support.grow import widen
from support.oracle import in_float64

BEFORE, AFTER = range(6), range(6, 26)  # steps: of the small model, and of both
SOON = 8  # steps that are enough to see a mistake

# Logits of twice as many summands may be 140 eps apart (`tiny.ROUNDING`): the mean of 16 of them, each either way, by a
# quarter of that, which is 4e-6, or nine steps of a loss near 5 in float32. In float64 a thousand such steps; a mistake
# moves a loss by 1e-4 and more.
SINGLE, DOUBLE = 5e-6, 1e-12


@dataclass(frozen=True)
class Case:
    """A model trained for a few steps and saved as a Trainer does; how it is grown; its further losses."""

    variant: tiny.Variant
    folder: Path
    how: dict[str, Any]
    losses: list[float]
    wide: bool = False  # float64

    @property
    def before(self) -> Checkpoint:
        return open_checkpoint(self.folder)

    @property
    def after(self) -> Checkpoint:
        return widen(self.before, 2, **self.how)


CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama-exact": ("llama-untied", {"rule": "exact", "attention": "heads"}, False),
    "llama-orthogonal": ("llama-tied", {"rule": "orthogonal", "attention": "head-dim"}, False),
    "gpt2-exact": ("gpt2-tied", {"rule": "exact", "attention": "heads"}, False),
    "gpt2-orthogonal": ("gpt2-untied", {"rule": "orthogonal", "attention": "heads"}, True),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            made[name] = _trained(name, tmp_path_factory.mktemp(name))
        return made[name]

    return case


def _trained(name: str, folder: Path) -> Case:
    kind, how, wide = CASES[name]
    variant = tiny.named(kind)
    with in_float64() if wide else nullcontext():
        model = still(tiny.build(variant).to(torch.float64 if wide else torch.float32))
        optimizer = torch.optim.AdamW(_as_trainer(model), lr=3e-3, eps=1e-4)  # large enough to matter
        scheduler = schedule(optimizer)
        train(model, optimizer, scheduler, BEFORE)
        model.save_pretrained(folder)
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
        (folder / "trainer_state.json").write_text('{"global_step": 6}')
        losses = train(model, optimizer, scheduler, AFTER)
    return Case(variant, folder, how, losses, wide)


def _as_trainer(model: Any) -> list[dict[str, Any]]:
    decayed, undecayed = parameters_of(model)
    named = dict(model.named_parameters())
    return [
        {"params": [named[name] for name in decayed], "weight_decay": 0.1},
        {"params": [named[name] for name in undecayed], "weight_decay": 0.0},
    ]


def parameters_of(model: Any) -> tuple[list[str], list[str]]:
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    names = [name for name, _ in model.named_parameters()]
    return [n for n in names if n in decayed], [n for n in names if n not in decayed]


def still(model: Any) -> Any:
    """The model in training mode, without dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def schedule(optimizer: Any) -> Any:
    return transformers.get_scheduler("cosine", optimizer, num_warmup_steps=5, num_training_steps=50)


def train(model: Any, optimizer: Any, scheduler: Any, steps: range) -> list[float]:
    losses = []
    for step in steps:
        ids = torch.randint(3, tiny.VOCAB, (2, tiny.LENGTH), generator=torch.Generator().manual_seed(step))
        with torch.enable_grad():
            logits = model(input_ids=ids, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
