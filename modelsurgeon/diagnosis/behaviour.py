"""What running a checkpoint shows: losses, hidden states, attention, and the loss with the head cut to a rank.

    >>> found = observe(open_checkpoint("demo"), RunOptions(samples=16))
    >>> found.loss, found.last.anisotropy

It reads the same windows of a text as verification does. Memory holds the outputs of one batch of four windows, one
state of [N, d] numbers at a time (the hidden states of all batches wait on disk), sums of attention and losses, and up
to three [d, d] float64 matrices for cutting the head.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.attention import Attention, Softmax
from modelsurgeon.diagnosis.head_cut import BodyReplay, HeadCut, directions, find_head
from modelsurgeon.diagnosis.states import FinalState, State, States
from modelsurgeon.progress import Tell, silent
from modelsurgeon.running import reference
from modelsurgeon.running.batches import SAMPLE, TEXT, make_windows
from modelsurgeon.running.forward import run_batch
from modelsurgeon.running.gradients import token_logits
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import TokenLosses, token_losses
from modelsurgeon.text import printable
from modelsurgeon.verification.comparison import pieces


@dataclass(frozen=True)
class Point:
    """The loss in nats with the head cut to this rank."""

    rank: int
    loss: float


@dataclass(frozen=True)
class Cuts:
    """The losses of falling ranks, the whole one first; `full`: the loss with the head as it is."""

    full: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Behaviour:
    """What was measured, as schema.json describes it; None where it does not apply, with the reason in `notes`.

    loss  nats: of the text's tokens, of 15% of them for a masked-LM; `loss_by_position`: along the windows
    last  what the head reads; for a model without a head, the last hidden state
    """

    text: Mapping[str, Any]
    windows: int
    length: int
    tokens: int
    dtype: str
    device: str
    loss: float | None
    loss_by_position: tuple[float | None, ...] | None
    states: tuple[State, ...]
    last: FinalState | None
    head_cut: Cuts | None
    attention: tuple[Softmax, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its fields but the notes, which the document has beside it."""
        return {key: value for key, value in printable(self).items() if key != "notes"}


def observe(checkpoint: Checkpoint, options: RunOptions = RunOptions(), tell: Tell = silent) -> Behaviour:
    """Run a checkpoint in `transformers`, and measure what it does.

    Raises SourceError where `transformers` cannot load the checkpoint whole, ModelSurgeonError where it cannot run it;
    OSError where the disk for hidden states is full.
    """
    begin, place = time.perf_counter(), reference.saved_folder(checkpoint)
    with ExitStack() as stack:
        stack.enter_context(reference.quiet())
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="modelsurgeon-")))
        model, unread = stack.enter_context(reference.loaded(checkpoint, place, options))
        inputs = make_windows(model, place, options)
        visit = _Visit(model, Kept(scratch / "states"), [*inputs.notes, *unread])
        visit.run(inputs.batches, tell, f"running in {options.dtype}")
        return visit.found(inputs.batches, options, begin)


def _tokens(batch: Batch) -> int:
    """The tokens that encoder and decoder read."""
    written = int(batch.real.sum()) if "decoder_input_ids" in batch.arguments else 0
    return int(batch.read.sum()) + written


def _add_losses(losses: TokenLosses, returned: Mapping[str, Any], batch: Batch) -> None:
    """Add the losses of a batch's labels; none where the model predicts no tokens."""
    logits = token_logits(returned, batch)
    if logits is None:
        return
    for row, labels in zip(logits, batch.labels, strict=True):
        places = (labels != UNLABELLED).nonzero().squeeze(-1)
        for some in pieces(places, row.shape[-1]):
            losses.add(some, token_losses(row[some.to(row.device)].double().log_softmax(-1), labels[some]))


class _Visit:
    """A model in memory that is measured batch by batch."""

    def __init__(self, model: Any, kept: Kept, notes: list[str]) -> None:
        self.model, self.head, self.notes = model, find_head(model), notes
        self.states, self.attention, self.losses = States(model, self.head, kept), Attention(model), TokenLosses()
        self.labelled = False
        self.cuts: dict[int, TokenLosses] = {}

    def run(self, batches: Sequence[Batch], tell: Tell, what: str) -> None:
        cut = self._cut(batches)
        steps, done = len(batches) * (1 + len(self.cuts)), 0
        replay = BodyReplay(self.model, cut.head) if cut else None
        self.model.config.use_cache = False  # nothing is continued
        for batch in batches:
            tell(what, done, steps)
            with ExitStack() as stack:
                stack.enter_context(self.states.watching(batch))
                stack.enter_context(self.attention)
                if replay:
                    stack.enter_context(replay.recording())
                returned = run_batch(self.model, batch, hidden_states=True)
            self.states.add(returned, batch)
            _add_losses(self.losses, returned, batch)
            del returned
            done += 1
            for rank, losses in self.cuts.items():
                assert cut and replay
                with cut.to(rank), replay.again():
                    _add_losses(losses, run_batch(self.model, batch), batch)
                done += 1
                tell(what, done, steps)
        tell(what, steps, steps)

    def found(self, batches: Sequence[Batch], options: RunOptions, begin: float) -> Behaviour:
        """What was measured, beside the options; `begin` is when the run began."""
        states, attention = self.states.described(), self.attention.rows()
        self._note(states, attention)
        full = next(iter(self.losses.means), None)
        points = tuple(Point(rank, loss) for rank, losses in self.cuts.items() for loss in losses.means)
        is_text, is_sample = batches[0].inputs == TEXT, options.text is None
        text = SAMPLE.read_text(encoding="utf-8") if options.text is None else options.text
        return Behaviour(
            {"sample": is_text and is_sample, "characters": len(text) if is_text else 0},
            sum(len(batch.real) for batch in batches),
            max(_tokens(batch) // len(batch.real) for batch in batches),
            sum(map(_tokens, batches)),
            options.dtype,
            options.device,
            full,
            next(iter(self.losses.by_position()), None),
            states,
            self.states.final(torch.finfo(self.model.dtype).eps),
            Cuts(full, points) if full is not None and points else None,
            attention,
            time.perf_counter() - begin,
            (*self.notes, *self.attention.notes),
        )

    def _note(self, states: Sequence[State], attention: Sequence[Softmax]) -> None:
        kind = type(self.model).__name__
        if not states:
            self.notes.append(f"hidden states not measured: {kind} returns none")
        if not attention:
            self.notes.append(f"attention not measured: {kind} calls no softmax over keys")
        if not self.labelled:
            self.notes.append("loss not measured: no text was read")
        elif not self.losses.means:
            self.notes.append(f"loss not measured: {kind} predicts no tokens")
        elif self.head is None:
            self.notes.append(f"head not cut: {kind} names no matrix that makes logits of hidden states")

    def _cut(self, batches: Sequence[Batch]) -> HeadCut | None:
        """The head, prepared for cutting; None where there is no head, or no loss to compare."""
        self.labelled = any(bool((batch.labels != UNLABELLED).any()) for batch in batches)
        if self.head is None or not self.labelled:
            return None
        basis = directions(self.head)
        if basis is None:
            self.notes.append("head not cut: some of its numbers are not finite")
            return None
        cut = HeadCut(self.head, basis)
        self.cuts = {rank: TokenLosses() for rank in cut.ranks}
        return cut
