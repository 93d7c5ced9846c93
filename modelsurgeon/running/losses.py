"""The loss of a checkpoint as `transformers` runs it, on a text or on random ids.

    >>> measured_loss(open_checkpoint("fresh"))
    Loss(loss=10.37, tokens=508, inputs="random ids", why="")

Random ids repeat by chance alone, as the article's analysis assumes of text. A model that needs more than the given
memory is read from the disk layer by layer (`reference.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.batches import SAMPLE, TEXT, tokenize
from modelsurgeon.running.forward import forward
from modelsurgeon.running.gradients import token_logits
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import Reader, TokenRows, read_off
from modelsurgeon.running.reference import loaded, quiet, saved_folder
from modelsurgeon.running.token_losses import token_losses

WINDOWS, LENGTH = 4, 128  # rows, and tokens of each


@dataclass(frozen=True)
class Loss:
    """A model's mean loss.

    loss    nats a token; None where nothing was run
    tokens  the number of predicted tokens
    inputs  "text" or "random ids"
    why     the reason why nothing was run
    """

    loss: float | None
    tokens: int = 0
    inputs: str = ""
    why: str = ""


def measured_loss(checkpoint: Checkpoint, *, memory: int | None = None, folder: Path | None = None) -> Loss:
    """The mean loss of a saved checkpoint in float32, on the sample text; on random ids where no tokenizer fits.

    memory  bytes of weights that may be resident; None: all of them
    folder  holds the tokenizer; None: the checkpoint's own
    Raises SourceError where `transformers` cannot load the whole checkpoint.
    """
    place, float32 = saved_folder(checkpoint), 4  # bytes of a weight
    spread = memory is not None and float32 * checkpoint.parameters > memory
    options = RunOptions(device="auto", memory=memory) if spread else RunOptions()
    with quiet(), torch.no_grad(), loaded(checkpoint, place, options) as (model, _):
        generator = torch.Generator().manual_seed(options.seed)
        tokenizer, ids, _ = tokenize(folder or place, SAMPLE.read_text(encoding="utf-8"))
        try:
            reader = read_off(model, tokenizer, generator)
        except ModelSurgeonError as error:
            return Loss(None, why=str(error))
        rows, inputs = _rows(reader, ids, generator)
        if not rows:
            return Loss(None, why=f"{type(model).__name__} reads no ids")
        batch = reader.batch(inputs, rows, generator, labelled=True)
        logits = token_logits(forward(model, batch), batch)
        if logits is None or logits.shape[-1] < reader.vocab:
            return Loss(None, why=f"{type(model).__name__} has no head over its vocabulary")
        losses = token_losses(logits.double().log_softmax(-1), batch.labels)
        return Loss(float(losses.mean()), len(losses), inputs)


def _rows(reader: Reader, ids: Sequence[int], generator: torch.Generator) -> tuple[TokenRows, str]:
    """(consecutive windows of the text, or rows of random ids, which of both); no rows where the model takes no ids."""
    length = min(LENGTH, reader.longest)
    if reader.vocab == 0 or length < 2:
        return [], ""
    if len(ids) >= WINDOWS * length and max(ids) < reader.vocab:
        return [[*reader.prefix, *ids[at * length : (at + 1) * length]][:length] for at in range(WINDOWS)], TEXT
    return torch.randint(reader.vocab, (WINDOWS, length), generator=generator).tolist(), "random ids"
