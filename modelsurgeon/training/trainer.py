"""A checkpoint of Hugging Face's Trainer: its state is read, grown, and written into the grown model's folder.

    optimizer.pt          moments and param groups               grown (`optimizer.py`)
    scheduler.pt          learning rates, one for each group     one for each new group
    trainer_state.json    the progress of training               unchanged

training_args.bin and rng_state.pth are pickles of more than tensors; they are neither opened nor copied. The parameters
in a Trainer's state have no names: their order is that of the model's parameters in `transformers`, and every moment
must have the shape of its parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import OutputError, PlanError, SourceError
from modelsurgeon.files.file import LocalFile
from modelsurgeon.files.json_file import read_json
from modelsurgeon.running.reference import loadable, model_class, quiet
from modelsurgeon.tensors import budget
from modelsurgeon.text import show_size
from modelsurgeon.training.optimizer import AdamState, adam_state, read_state
from modelsurgeon.training.trajectory import Trajectory

OPTIMIZER, SCHEDULER, TRAINER = "optimizer.pt", "scheduler.pt", "trainer_state.json"
FILES = (OPTIMIZER, SCHEDULER, TRAINER)
RATES = ("base_lrs", "_last_lr")  # of a scheduler: a number for each group
SHARDED = ("global_step*", "optimizer_*", "pytorch_model_fsdp*", "rank*-optimizer.pt", "optimizer.bin")


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The files that will be written beside a grown model.

    files      the source's, by name
    scheduler  grown; None where there is none
    """

    files: Mapping[str, LocalFile]
    optimizer: AdamState
    scheduler: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on disk, nearly."""
        return self.optimizer.nbytes

    @cached_property
    def peak(self) -> int:
        """Bytes resident during `write`: the old moments, mapped, and the new ones."""
        return budget.resident() + budget.SLACK + self.optimizer.old_nbytes + self.optimizer.nbytes

    def write(self, folder: Path) -> None:
        """Write the files, with all grown moments in memory: torch saves them so.

        Raises SourceError where a source file has changed since the plan.
        """
        torch.save(self.optimizer.grown(), folder / OPTIMIZER)
        if self.scheduler is not None:
            torch.save(dict(self.scheduler), folder / SCHEDULER)
        if TRAINER in self.files:
            (folder / TRAINER).write_bytes(self.files[TRAINER].read())
        for file in self.files.values():
            file.check_unchanged()


def training_state(
    before: Checkpoint, after: Checkpoint, folder: str | Path, memory: int | None = None, output: Path | None = None
) -> TrainingState:
    """The growth of a Trainer's checkpoint where `before` grows to `after` in one step; moments are not read yet.

    folder  the Trainer's checkpoint
    memory  bytes that this process may have resident
    output  the folder that will be written
    Raises SourceError for a state that is not one file, not AdamW's, or not that of `before`; PlanError where it needs
    more memory, or where growth makes new parameters; OutputError where the output would take the folder's place.
    """
    folder = Path(folder)
    if output and (output.resolve() == folder.resolve() or output.resolve() in folder.resolve().parents):
        raise OutputError(f"{output}: holds the optimizer's state {folder}, which is never modified")
    _check_one_file(folder)
    files = {name: LocalFile(folder / name) for name in FILES if (folder / name).is_file()}
    shapes, orders = parameters(before)
    law = _law(before, after, tuple(shapes))
    state = adam_state(folder / OPTIMIZER, read_state(folder / OPTIMIZER), law, shapes, orders)
    if TRAINER in files:
        read_json(files[TRAINER])
    scheduler = _scheduler(folder / SCHEDULER, state) if SCHEDULER in files else None
    result = TrainingState(files, state, scheduler, tuple(_notes(files, state, after)))
    if memory is not None and result.peak > memory:
        raise PlanError(
            f"memory {show_size(memory)}: the grown state of the optimizer is in memory while it is written, "
            f"{show_size(state.nbytes)}, which makes {show_size(result.peak)} in all; ask for so much"
        )
    return result


def _check_one_file(folder: Path) -> None:
    """Raise SourceError where the state is in several files, or missing."""
    sharded = sorted(path.name for pattern in SHARDED for path in folder.glob(pattern) if path.name != OPTIMIZER)
    if sharded:
        raise SourceError(f"{folder}: {sharded[0]} is a state in shards (DeepSpeed, FSDP); expected {OPTIMIZER}")
    if not (folder / OPTIMIZER).is_file():
        raise SourceError(f"{folder}: no {OPTIMIZER}; expected a checkpoint folder of Trainer")


def parameters(checkpoint: Checkpoint) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[tuple[str, ...], ...]]]:
    """({name: shape} of what `transformers` trains, {an order's name for people: the names of each group}).

    The model is built without its weights.
    """
    from transformers import AutoConfig, Trainer

    chosen = model_class(checkpoint)
    with quiet(), torch.device("meta"):
        config = AutoConfig.for_model(**loadable(checkpoint.config))
        model = chosen.from_config(config) if hasattr(chosen, "from_config") else chosen(config)
        if _has_own_head(checkpoint):  # T5's, which the library would tie until it sees that it differs
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    groups = (tuple(n for n in trained if n in decayed), tuple(n for n in trained if n not in decayed))
    return trained, {"with decay, without": groups, "all in one group": (tuple(trained),)}


def _law(before: Checkpoint, after: Checkpoint, names: tuple[str, ...]) -> Trajectory:
    """The law for the parameters of `transformers`, whose names and layout may differ from those on disk."""
    steps = after.steps[len(before.steps) :]
    if len(steps) != 1:
        raise PlanError(f"--optimizer: {len(steps)} steps between the two models, expected one")
    table = registry.find(before.config.get("model_type"))
    fitted = table.fitted(table.resolve(before.config), names)
    return Trajectory(fitted, before.resolved, steps[0].maps, before.is_tied and not _has_own_head(before))


def _has_own_head(checkpoint: Checkpoint) -> bool:
    """Whether a head is stored that the library ties to the embedding only where both are equal."""
    tie = checkpoint.architecture.tie
    return bool(tie and tie.forced and checkpoint.has(tie.head))


def _scheduler(path: Path, state: AdamState) -> dict[str, Any]:
    """A scheduler's state with a learning rate for each new group. Raises SourceError unless it is a LambdaLR's."""
    found, count = read_state(path), len(state.groups)
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    if not {"base_lrs", "lr_lambdas"} <= set(lists) <= {*RATES, "lr_lambdas"}:
        raise SourceError(f"{path}: expected the state of a LambdaLR, as get_scheduler makes; found {', '.join(found)}")
    uneven = [key for key, value in lists.items() if len(value) != count]
    if uneven:
        raise SourceError(f"{path}: {uneven[0]} has {len(lists[uneven[0]])} entries, and the optimizer {count} groups")
    grown = {
        key: [values[group] * times[0] if key in RATES else values[group] for group, times, _ in state.split]
        for key, values in lists.items()
    }
    return {**found, **grown}


def _notes(files: Mapping[str, LocalFile], state: AdamState, after: Checkpoint) -> list[str]:
    low, high = state.norms()
    names = f"{', '.join(files)} of {files[OPTIMIZER].path.parent}"
    notes = [
        f"optimizer: {names} go along, {show_size(state.nbytes)}, in memory while written; {len(state.split)} param "
        f"groups where there were {len(state.groups)}, which modelsurgeon.training.param_groups makes again"
    ]
    if after.steps[-1].arguments.get("noise"):
        notes.append("optimizer: moments grow without noise; copies that differ leave the source's trajectory")
    if (round(low, 9), round(high, 9)) != (1.0, 1.0):
        notes.append(
            f"optimizer: gradients are {low:.3g} to {high:.3g} times as long, by tensor: clipping by their norm "
            "(max_grad_norm) acts otherwise wherever it acts"
        )
    for reason, tensors in state.reasons().items():
        more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
        notes.append(f"optimizer: {tensors[0]}{more}: the source's trajectory is followed only nearly: {reason}")
    return notes


def param_groups(model: Any, folder: str | Path) -> list[dict[str, Any]]:
    """The groups for torch.optim.AdamW, with which it can load the folder's optimizer.pt.

    model  the folder's, as `transformers` loads it
    Raises SourceError where the folder has no grown state, or the state of another model.
    """
    path = Path(folder) / OPTIMIZER
    groups, parameters = [], dict(model.named_parameters())
    for group in read_state(path).get("param_groups", ()):
        if "param_names" not in group:
            raise SourceError(f"{path}: its groups name no parameters; expected a state that widen --optimizer wrote")
        unknown = [name for name in group["param_names"] if name not in parameters]
        if unknown:
            raise SourceError(f"{path}: the model has no parameter {unknown[0]!r}; is it the state of another one?")
        named = [(name, parameters.pop(name)) for name in group["param_names"]]
        options = {key: value for key, value in group.items() if key not in ("params", "param_names", "initial_lr")}
        groups.append({**options, "lr": group.get("initial_lr", group["lr"]), "params": named})
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if trained or not groups:
        raise SourceError(f"{path}: no group has the model's {trained[0]!r}" if trained else f"{path}: no param groups")
    return groups
