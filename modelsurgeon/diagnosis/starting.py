"""What training starts from: predicted and measured initial loss, before an operation and after it.

>>> round(expected(4096, spread=1.0), 3), round(math.log(4096) + 1 / 2, 3)
(8.818, 8.818)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.head_path import find_path
from modelsurgeon.diagnosis.loss import initial_loss
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.losses import Loss, measured_loss
from modelsurgeon.text import printable

Side = dict[str, Any]

NODES = 200  # of the Gauss-Hermite quadrature over one logit: exact far beyond the digits that are shown
STEP = 0.05  # of the integral, whose integrand is smooth on the scale of 1
FAR = 40.0  # where e^(-e^u Z) is 1 to the last bit, and 0


def sides(before: Checkpoint | None, folder: Path, memory: int | None, *, measure: bool = True) -> dict[str, Side]:
    """{"before", "after"}: the initial loss of the source, where there is one, and of what was written.

    Each is the analysis (`InitialLoss`) with two more keys: "expected", the loss of independent logits of the analysed
    deviation (None where the analysis does not apply), and "run", what `transformers` measures (`Loss`).
    memory   bytes of weights that may be resident
    measure  whether the models are run
    """
    after = open_checkpoint(folder)
    tokenizer = before.origin.folder.path if before else folder
    found = {"before": _side(before, tokenizer, memory, measure)} if before else {}
    return {**found, "after": _side(after, folder, memory, measure)}


def _side(checkpoint: Checkpoint, tokenizer: Path | None, memory: int | None, measure: bool) -> Side:
    run = _run(checkpoint, tokenizer, memory) if measure else Loss(None, why="not asked for")
    analysis, path = initial_loss(checkpoint), find_path(checkpoint)
    side: Side = {"expected": None, "run": printable(run)}
    if analysis and path:
        side = {**printable(analysis), **side}
        if analysis.applies:
            vocab, width = checkpoint.tensors[path.head].shape
            spread = math.sqrt(width) * analysis.deviation * analysis.factor
            side["expected"] = printable(expected(vocab, spread, analysis.exponent if analysis.tied else None))
    return side


def _run(checkpoint: Checkpoint, tokenizer: Path | None, memory: int | None) -> Loss:
    if checkpoint.origin.folder.path is None:
        return Loss(None, why=f"{checkpoint.origin.id} is read where it is, and not stored on this disk")
    try:
        return measured_loss(checkpoint, memory=memory, folder=tokenizer)
    except (ModelSurgeonError, MemoryError) as error:  # the operation itself is done; this is only its report
        return Loss(None, why=str(error))


def expected(vocab: int, spread: float, own: float | None = None) -> float:
    """Nats: E log sum e^x over `vocab` independent x of N(0, spread^2), the loss of a head that ignores its input.

    That is log n + s^2 / 2 while s^2 is well below 2 log n; above, a few tokens make up the sum, and it grows as
    s sqrt(2 log n) does (the random energy model: Derrida 1981, doi 10.1103/PhysRevB.24.2613). For a head of deviation
    sigma after a norm of gain 1, s = sqrt(d) sigma f.
    own  the known logit of one of the tokens: d sigma f of the token itself where the head is the embedding
    """
    # Of Z, the sum: e^(-e^u Z) falls from 1 to 0 around u = -log Z, so its integral from far below, L, is
    # -log Z - gamma - L (Gumbel's mean); and the mean of e^(-e^u Z) is a product over tokens.
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    top = max(own or 0.0, spread * math.sqrt(2 * math.log(max(2, vocab)))) + math.log(vocab)
    u = np.arange(-top - 4 * spread - FAR, FAR / 8 + 4 * spread, STEP)
    one = np.exp(-np.exp(np.minimum(u[:, None] + spread * nodes, FAR))) @ weights
    others = (vocab - (own is not None)) * np.log(np.maximum(one, np.finfo(float).tiny))
    left = np.exp(others - (0.0 if own is None else np.exp(np.minimum(u + own, FAR))))
    return float(-u[0] - STEP * (left.sum() - 1 / 2) - np.euler_gamma)
