"""What training starts from: predicted and measured initial loss, before an operation and after it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.head_path import find_path
from modelsurgeon.diagnosis.expected import expected
from modelsurgeon.diagnosis.loss import initial_loss
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.losses import Loss, measured_loss
from modelsurgeon.text import printable

Side = dict[str, Any]


def sides(before: Checkpoint | None, folder: Path, memory: int | None, *, measure: bool = True) -> dict[str, Side]:
    """{"before", "after"}: of the source, where there is one, and of what was written.

    Each is the analysis (`InitialLoss`), and besides: "expected", nats, of independent logits of its deviation, the
    token's own among them where the head is the embedding, None where the analysis does not apply; and "run", what
    `transformers` loses (`Loss`).
    memory   bytes of weights that may be resident
    measure  whether the models are run
    """
    after = open_checkpoint(folder)
    tokenizer = before.origin.folder.path if before else folder
    found = {"before": _side(before, tokenizer, memory, measure)} if before else {}
    return {**found, "after": _side(after, folder, memory, measure)}


def _side(checkpoint: Checkpoint, tokenizer: Path | None, memory: int | None, measure: bool) -> Side:
    loss = _run(checkpoint, tokenizer, memory) if measure else Loss(None, why="not asked for")
    found: Side = printable({**_analysis(checkpoint), "run": loss})
    return found


def _analysis(checkpoint: Checkpoint) -> Side:
    analysis, path = initial_loss(checkpoint), find_path(checkpoint)
    if analysis is None or path is None:
        return {"expected": None}
    vocab, width = checkpoint.tensors[path.head].shape
    spread = math.sqrt(width) * analysis.deviation * analysis.factor
    own = analysis.exponent if analysis.tied else None
    return {**printable(analysis), "expected": expected(vocab, spread, own) if analysis.applies else None}


def _run(checkpoint: Checkpoint, tokenizer: Path | None, memory: int | None) -> Loss:
    if checkpoint.origin.folder.path is None:
        return Loss(None, why=f"{checkpoint.origin.id} is read where it is, and not stored on this disk")
    try:
        return measured_loss(checkpoint, memory=memory, folder=tokenizer)
    except (ModelSurgeonError, MemoryError) as error:  # the operation itself is done; this only tells of it
        return Loss(None, why=str(error))
