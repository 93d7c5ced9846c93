"""Diagnosis: everything that is measured of one checkpoint, and the verdicts on it.

from the weights    numbers, gains, matrices, copies (one pass); embedding and head; the head's spectrum
from running it     losses, hidden states, attention, the head cut to a rank
verdicts            each number beside its limits (thresholds.toml)

>>> diagnose_all([open_checkpoint("demo")])[0].verdicts[0].verdict
'fine'
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.head_path import find_path
from modelsurgeon.diagnosis.behaviour import Behaviour, observe
from modelsurgeon.diagnosis.loss import InitialLoss, initial_loss
from modelsurgeon.diagnosis.verdicts import Judgement, judge, remedies
from modelsurgeon.diagnosis.weights.embedding import TokenTable, measure_table
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.scan import Scan, scan
from modelsurgeon.diagnosis.weights.spectral_norm import of_spectrum
from modelsurgeon.diagnosis.weights.spectrum import Spectrum, memory_for, spectrum
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.progress import Tell, silent
from modelsurgeon.running.environment import environment
from modelsurgeon.running.options import RunOptions
from modelsurgeon.tensors.budget import room
from modelsurgeon.text import printable

FORMAT = 1  # of the document; schema.json describes it
MEMORY = 10**9  # bytes
OPTIONS = RunOptions(samples=16)
LEAST = 128 << 20  # bytes for the pass over the weights: some blocks, each in the dtypes that it is measured in

T = TypeVar("T")


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one checkpoint; None where it does not apply, with the reason in `notes`.

    seconds  {"weights": wall time, "running": wall time or None}
    memory   {"bound": bytes that the weights' part may have resident, "peak": bytes that were, libraries among them}
    """

    checkpoint: Checkpoint
    scan: Scan
    embedding: TokenTable | None = None
    head: TokenTable | None = None
    initial_loss: InitialLoss | None = None
    spectrum: Spectrum | None = None
    running: Behaviour | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float | None] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    verdicts: tuple[Judgement, ...] = ()

    def __repr__(self) -> str:
        return f"Diagnosis({self.checkpoint.origin.id!r}, {len(self.findings)} findings)"

    @property
    def findings(self) -> tuple[Judgement, ...]:
        """What is to be acted on or watched, the worst first."""
        return tuple(one for word in ("act", "watch") for one in self.verdicts if one.verdict == word)

    def measures(self) -> dict[str, Any]:
        """The document without verdicts."""
        layers = {matrix.layer for matrix in self.scan.matrices if matrix.layer is not None}
        return {
            "source": self.checkpoint.origin.id,
            **self.checkpoint.summary(),
            "layers": len(layers) or None,
            **{part: printable(getattr(self, part)) for part in ("embedding", "head", "initial_loss", "spectrum")},
            "running": self.running and self.running.to_json(),
            **self.scan.to_json(),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "memory": self.memory,
        }

    def to_json(self) -> dict[str, Any]:
        """One entry of the document's "models": schema.json describes it."""
        found: dict[str, Any] = printable({**self.measures(), "verdicts": self.verdicts})
        return found


def document(found: Sequence[Diagnosis], device: str, command: str) -> dict[str, Any]:
    """The document that schema.json describes: all that terminal, page and plots show is read off it.

    command  the command line that asked for it
    """
    models = [one.to_json() for one in found]
    parts = {"format": FORMAT, "models": models, "command": command, "environment": environment(device)}
    document: dict[str, Any] = printable(parts)
    return document


def diagnose_all(
    checkpoints: Sequence[Checkpoint],
    options: RunOptions = OPTIONS,
    *,
    weights_only: bool = False,
    tell: Tell = silent,
) -> list[Diagnosis]:
    """Measure checkpoints, the weights of all before any of them is run, and judge what was found.

    options  `memory` bounds what is resident while weights are measured, too, and is 1 GB where it is None; weights
             are measured on the CPU where `device` is auto
    Raises what `check` raises where a checkpoint does not fit its table, PlanError where so little memory is too
    little, and SourceError where a tensor cannot be read.
    """
    automatic, memory = options.device == "auto", MEMORY if options.memory is None else options.memory
    place = "cpu" if automatic else options.device
    running = replace(options, memory=memory if automatic else None)
    for checkpoint in checkpoints:
        check(checkpoint)  # what it notes is of copies: none is made
    found = [_weigh(checkpoint, memory, place, tell) for checkpoint in checkpoints]
    if not weights_only:
        found = [_run(one, running, tell) for one in found]
    return [replace(one, verdicts=judge(one.measures(), remedies(one.checkpoint))) for one in found]


def _weigh(checkpoint: Checkpoint, memory: int, device: str, tell: Tell) -> Diagnosis:
    """Measure the weights, with time and memory."""
    budget = _budget(checkpoint, memory)
    found, seconds = _timed(lambda: _weights(checkpoint, budget, device, tell))
    return replace(found, seconds={"weights": seconds, "running": None}, memory={"bound": memory, "peak": _peak()})


def _weights(checkpoint: Checkpoint, budget: int, device: str, tell: Tell) -> Diagnosis:
    path, names = find_path(checkpoint), _tables(checkpoint)
    if not names:
        return Diagnosis(checkpoint, scan(checkpoint, budget, device=device, tell=tell))
    head = path.head if path and not path.tied else None
    of = head or names[0]
    spread = replace(spectrum(RowBlocks(checkpoint.tensors[of], 0), device=device, tell=tell), tensor=of)
    known = {of: of_spectrum(spread)}

    def measured(name: str) -> TokenTable:
        return measure_table(checkpoint, name, memory=budget, device=device, tell=tell)

    return Diagnosis(
        checkpoint,
        scan(checkpoint, budget, device=device, known=known, tell=tell),
        embedding=measured(names[0]),
        head=measured(head) if head else None,
        initial_loss=initial_loss(checkpoint, memory=budget, device=device, tell=tell),
        spectrum=spread,
    )


def _tables(checkpoint: Checkpoint) -> list[str]:
    """The names on disk of the embedding and of a separate head, where they exist."""
    tie, canonical = checkpoint.architecture.tie, checkpoint.architecture.canonical
    named = {canonical(name): name for name in checkpoint.tensors}
    return [named[name] for name in (tie.embedding, tie.head) if name in named] if tie else []


def _budget(checkpoint: Checkpoint, memory: int) -> int:
    """Bytes for blocks and for the head's Gram matrix. Raises PlanError where the memory is too little."""
    return room(memory, max([LEAST, *(memory_for(*checkpoint.tensors[name].shape) for name in _tables(checkpoint))]))


def _run(found: Diagnosis, options: RunOptions, tell: Tell) -> Diagnosis:
    """The diagnosis with what running the model shows, or with the reason why it cannot be run."""
    checkpoint = found.checkpoint
    if not checkpoint.fetch():
        note = f"not run: {checkpoint.origin.id} is read where it is, and not stored on this disk"
        return replace(found, notes=(*found.notes, note))
    try:
        ran, seconds = _timed(lambda: observe(checkpoint, options, tell))
    except ModelSurgeonError as error:  # what the weights showed is still true
        return replace(found, notes=(*found.notes, f"not run: {error}"))
    return replace(found, running=ran, seconds={**found.seconds, "running": seconds}, notes=(*found.notes, *ran.notes))


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def _peak() -> int:
    """The most bytes that were resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
