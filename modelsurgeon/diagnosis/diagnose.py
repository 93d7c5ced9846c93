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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
LEAST = 128 << 20  # bytes for the pass over the weights: some blocks, each in every dtype that a measure needs


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one checkpoint; None where it does not apply, with the reason in `notes`.

    seconds  {"weights": wall time, "running": wall time or None}
    memory   bytes resident: {"bound": what measuring weights may take, "peak": the most so far, libraries included}
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
        """The verdicts "act", then the verdicts "watch"."""
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
        return dict(printable({**self.measures(), "verdicts": self.verdicts}))


def document(found: Sequence[Diagnosis], device: str, command: str) -> dict[str, Any]:
    """The document that schema.json describes: all that is shown of a diagnosis, and the command that asked for it."""
    models = [one.to_json() for one in found]
    return dict(printable({"format": FORMAT, "models": models, "command": command, "environment": environment(device)}))


def diagnose_all(
    checkpoints: Sequence[Checkpoint], options: RunOptions = OPTIONS, *, weights_only: bool = False, tell: Tell = silent
) -> list[Diagnosis]:
    """Measure the weights of all checkpoints, run each unless `weights_only`, and judge what was found.

    options  `memory` also bounds what is resident while weights are measured, 1 GB where it is None; weights are
             measured on the CPU where `device` is auto
    Raises what `check` raises where a checkpoint does not fit its table, PlanError where the memory is too little,
    and SourceError where a tensor cannot be read.
    """
    automatic, memory = options.device == "auto", MEMORY if options.memory is None else options.memory
    running = replace(options, memory=memory if automatic else None)
    for checkpoint in checkpoints:
        check(checkpoint)  # its notes are about writing copies, and nothing is written here
    device = "cpu" if automatic else options.device
    found = [_weigh(checkpoint, memory, device, tell) for checkpoint in checkpoints]
    if not weights_only:
        found = [_run(one, running, tell) for one in found]
    return [replace(one, verdicts=judge(one.measures(), remedies(one.checkpoint))) for one in found]


def _weigh(checkpoint: Checkpoint, memory: int, device: str, tell: Tell) -> Diagnosis:
    """Measure the weights, with time and memory. Raises PlanError where the memory is too little."""
    tie, canonical = checkpoint.architecture.tie, checkpoint.architecture.canonical
    named = {canonical(name): name for name in checkpoint.tensors}
    tables = [named[name] for name in (tie.embedding, tie.head) if name in named] if tie else []
    budget = room(memory, max([LEAST, *(memory_for(*checkpoint.tensors[name].shape) for name in tables)]))
    begin = time.perf_counter()
    found = _weights(checkpoint, tables, budget, device, tell)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds: dict[str, float | None] = {"weights": time.perf_counter() - begin, "running": None}
    notes = (*found.notes, *checkpoint.not_judged)
    return replace(found, seconds=seconds, memory={"bound": memory, "peak": peak}, notes=notes)


def _weights(checkpoint: Checkpoint, tables: Sequence[str], budget: int, device: str, tell: Tell) -> Diagnosis:
    """What the weights show; `tables`: the names on disk of the embedding and of a separate head, where they exist."""
    if not tables:
        return Diagnosis(checkpoint, scan(checkpoint, budget, device=device, tell=tell))
    path = find_path(checkpoint)
    head = path.head if path and not path.tied else None
    of = head or tables[0]
    spread = replace(spectrum(RowBlocks(checkpoint.tensors[of], 0), device=device, tell=tell), tensor=of)
    return Diagnosis(
        checkpoint,
        scan(checkpoint, budget, device=device, known={of: of_spectrum(spread)}, tell=tell),
        embedding=measure_table(checkpoint, tables[0], memory=budget, device=device, tell=tell),
        head=measure_table(checkpoint, head, memory=budget, device=device, tell=tell) if head else None,
        initial_loss=initial_loss(checkpoint, memory=budget, device=device, tell=tell),
        spectrum=spread,
    )


def _run(found: Diagnosis, options: RunOptions, tell: Tell) -> Diagnosis:
    """The diagnosis with what running the model shows, or with the reason why it cannot be run."""
    checkpoint = found.checkpoint
    if not checkpoint.fetch():
        note = f"not run: {checkpoint.origin.id} is read where it is, and not stored on this disk"
        return replace(found, notes=(*found.notes, note))
    begin = time.perf_counter()
    try:
        ran = observe(checkpoint, options, tell)
    except ModelSurgeonError as error:  # what the weights showed is still true
        return replace(found, notes=(*found.notes, f"not run: {error}"))
    seconds = {**found.seconds, "running": time.perf_counter() - begin}
    return replace(found, running=ran, seconds=seconds, notes=(*found.notes, *ran.notes))
