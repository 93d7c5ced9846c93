"""The loss of a checkpoint as `transformers` runs it, on a text or on random ids.

    >>> measured_loss(open_checkpoint("fresh"))
    Loss(loss=10.37, tokens=508, inputs="random ids", why="")

Random ids never repeat but by chance, as the article's analysis assumes of text. Models that do not fit into the memory
asked for are read from the disk layer by layer (`reference.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.batches import SAMPLE, TEXT, tokenize
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import Reader, read_off
from modelsurgeon.running.reference import home, loaded, quiet, saved_folder
from modelsurgeon.running.token_losses import token_losses

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint

RANDOM = "random ids"
WINDOWS, LENGTH = 4, 128  # rows, and tokens of each
BYTES = 4  # of a weight as it is run: float32


@dataclass(frozen=True)
class Loss:
    """What a model loses on average.

    loss    nats a token; None where nothing was run
    tokens  how many were predicted
    inputs  "text" or "random ids"
    why     why it was not run
    """

    loss: float | None
    tokens: int = 0
    inputs: str = ""
    why: str = ""


def measured_loss(
    checkpoint: Checkpoint,
    *,
    memory: int | None = None,
    text: str | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> Loss:
    """The mean loss of a saved checkpoint in float32: on windows of a text where its tokenizer fits, or random ids.

    memory  bytes of weights that may be resident; None: all of them
    text    None: the sample that comes along
    folder  where its tokenizer lies; None: beside it
    seed    of the ids, and of the positions that a masked language model fills in
    Raises SourceError where `transformers` cannot load it whole.
    """
    place = saved_folder(checkpoint)
    spread = memory is not None and BYTES * checkpoint.parameters > memory
    options = RunOptions(device="auto", memory=memory) if spread else RunOptions()
    with quiet(), torch.no_grad(), loaded(checkpoint, place, options) as (model, _):
        generator = torch.Generator().manual_seed(seed)
        tokenizer, ids, _ = tokenize(folder or place, SAMPLE.read_text(encoding="utf-8") if text is None else text)
        try:
            reader = read_off(model, tokenizer, generator)
        except ModelSurgeonError as error:
            return Loss(None, why=str(error))
        rows, inputs = _rows(reader, ids, generator)
        if not rows:
            return Loss(None, why=f"{type(model).__name__} reads no ids")
        return _run(model, reader, rows, inputs, generator)


def _rows(reader: Reader, ids: Sequence[int], generator: torch.Generator) -> tuple[list[list[int]], str]:
    """(consecutive windows of the text, "text"), or random ones; none where the model takes no ids."""
    length = min(LENGTH, reader.longest)
    if reader.vocab == 0 or length < 2:
        return [], ""
    if len(ids) >= WINDOWS * length and max(ids) < reader.vocab:
        return [[*reader.prefix, *ids[at * length : (at + 1) * length]][:length] for at in range(WINDOWS)], TEXT
    return torch.randint(reader.vocab, (WINDOWS, length), generator=generator).tolist(), RANDOM


def _run(model: Any, reader: Reader, rows: list[list[int]], inputs: str, generator: torch.Generator) -> Loss:
    batch = reader.batch(inputs, rows, generator, labelled=True)
    outputs = model(**{name: value.to(home(model)) for name, value in batch.arguments.items()})
    logits = outputs.get("logits", outputs.get("prediction_logits"))
    if logits is None or logits.shape[:-1] != batch.labels.shape or logits.shape[-1] < reader.vocab:
        return Loss(None, why=f"{type(model).__name__} has no head over its vocabulary")
    losses = token_losses(logits.double().log_softmax(-1), batch.labels)
    return Loss(float(losses.mean()), len(losses), inputs)
