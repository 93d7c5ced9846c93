"""What running a checkpoint tells: losses, hidden states, attention, and the loss with the head cut to a rank.

    >>> found = run(open_checkpoint("demo"))
    >>> found.loss, found.last.anisotropy

It reads the same windows of a text as verification does. One batch of four windows is run at a time, and its answers
are in memory; of hidden states all batches' wait on disk, and one state of [N, d] numbers is in memory while it is
described; of attention and losses sums outlive a batch. The head's part takes a [d, d] float64 matrix or three.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.attention import Attention, Softmax
from modelsurgeon.diagnosis.head_cut import HeadCut, Replay, directions, find_head
from modelsurgeon.diagnosis.states import Spread, State, States, real_positions, spread
from modelsurgeon.progress import Tell, silent
from modelsurgeon.running import reference
from modelsurgeon.running.batches import SAMPLE, TEXT, Sampling, make_windows
from modelsurgeon.running.gradients import token_logits
from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.text import printable
from modelsurgeon.verification.comparison import NUMBERS
from modelsurgeon.verification.visits import run_batch

HEAD = "what the head reads"


@dataclass(frozen=True)
class Point:
    """The loss, in nats, with a head of this rank."""

    rank: int
    loss: float


@dataclass(frozen=True)
class Cuts:
    """Heads of falling rank, the whole one first; `full` is the loss of the head as it is."""

    full: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Running:
    """What was measured; None where it does not apply, with the reason in `notes`.

    text              {"sample": whether it is the program's own, "characters": how many}; 0 where no text was read
    windows           rows that were run
    length            tokens of each; 0 of a model that takes none
    tokens            in all: what encoder and decoder read
    dtype, device     as asked
    loss              nats: mean cross entropy of the text's tokens (of a masked-LM, of 15% of them)
    loss_by_position  nats: the same at each position of the windows; None where none has a label
    states            in the order of the model: the embedding's output first, the last hidden state last
    last              what the head reads; of a model without one, the last hidden state
    attention         in the order of the model
    seconds           wall time
    notes             what was not measured, and why
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
    last: Spread | None
    head_cut: Cuts | None
    attention: tuple[Softmax, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its fields but the notes, which stand beside it in the document."""
        cut, positions = self.head_cut, self.loss_by_position
        return {
            **{name: printable(value) for name, value in vars(self).items() if name != "notes"},
            "text": dict(self.text),
            "loss_by_position": None if positions is None else [printable(loss) for loss in positions],
            "states": [_fields(state) for state in self.states],
            "last": self.last.to_json() if self.last else None,
            "head_cut": {"full": printable(cut.full), "points": [_fields(point) for point in cut.points]}
            if cut
            else None,
            "attention": [_fields(row) for row in self.attention],
        }


def _fields(row: Any) -> dict[str, Any]:
    return {name: printable(value) for name, value in vars(row).items()}


def run(
    checkpoint: Checkpoint,
    *,
    text: str | None = None,
    samples: int = 16,
    length: int = 128,
    dtype: str = "float32",
    device: str = "cpu",
    memory: int | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    tell: Tell = silent,
) -> Running:
    """Run a checkpoint in `transformers`, and measure what it does.

    text      None: the sample that comes with the program
    samples   how many windows of it, of `length` tokens each
    device    cpu, cuda, cuda:1; auto: over all GPUs, then memory, and from the disk what does not fit
    memory    of auto: bytes of weights in memory beside the GPUs; None: what is free
    seed      of the positions that a masked language model fills in, and of ids where no tokenizer fits
    Raises SourceError where `transformers` cannot load the checkpoint whole, ModelSurgeonError where it cannot run it;
    OSError where the disk for hidden states is full.
    """
    begin, place = time.perf_counter(), reference.saved_folder(checkpoint)
    how = reference.Running(device, memory, trust_remote_code)
    with ExitStack() as stack:
        stack.enter_context(reference.quiet())
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="modelsurgeon-")))
        model, unread = stack.enter_context(reference.loaded(checkpoint, place, dtype, how))
        inputs = make_windows(model, place, Sampling(text, samples, length, seed))
        visit = _Visit(model, Kept(scratch / "states"), [*inputs.notes, *unread])
        visit.run(inputs.batches, tell, f"running in {dtype}")
        is_read = inputs.batches[0].inputs == TEXT
        characters = len(SAMPLE.read_text(encoding="utf-8") if text is None else text) if is_read else 0
        return visit.found(
            text={"sample": is_read and text is None, "characters": characters},
            windows=sum(len(batch.real) for batch in inputs.batches),
            length=max(_tokens(batch) // len(batch.real) for batch in inputs.batches),
            tokens=sum(map(_tokens, inputs.batches)),
            dtype=dtype,
            device=device,
            seconds=time.perf_counter() - begin,
        )


def _tokens(batch: Batch) -> int:
    """How many tokens encoder and decoder read."""
    written = int(batch.real.sum()) if "decoder_input_ids" in batch.arguments else 0
    return int(batch.read.sum()) + written


@dataclass
class _Losses:
    """Cross entropies of some batches.

    parts  [labels, 2] float64 for each: position in the window, nats
    """

    parts: list[torch.Tensor] = field(default_factory=list)

    def add(self, returned: Mapping[str, Any], batch: Batch) -> None:
        logits = token_logits(returned, batch)
        if logits is None:
            return
        for row, labels in zip(logits, batch.labels.to(logits.device), strict=True):
            asked = (labels != UNLABELLED).nonzero().squeeze(-1)
            for places in asked.split(max(1, NUMBERS // row.shape[-1])):
                scores, goals = row[places].double().log_softmax(-1), labels[places].unsqueeze(-1)
                losses = -scores.gather(-1, goals).squeeze(-1)
                self.parts.append(torch.stack([places.double(), losses], 1).cpu())

    @property
    def mean(self) -> float | None:
        """Over all labels."""
        found = torch.cat(self.parts) if self.parts else torch.empty(0, 2)
        return float(found[:, 1].mean()) if len(found) else None

    def by_position(self) -> tuple[float | None, ...] | None:
        if self.mean is None:
            return None
        places, losses = torch.cat(self.parts).unbind(1)
        counts = torch.bincount(places.long())
        sums = torch.bincount(places.long(), weights=losses)
        pairs = zip(sums.tolist(), counts.tolist(), strict=True)
        return tuple(total / count if count else None for total, count in pairs)


class _Visit:
    """Everything that is asked of a model, batch by batch."""

    def __init__(self, model: Any, kept: Kept, notes: list[str]) -> None:
        self.model, self.kept, self.notes = model, kept, notes
        self.states, self.attention, self.losses = States(model, kept), Attention(model), _Losses()
        self.head, self.labelled = find_head(model), False
        self.cuts: dict[int, _Losses] = {}
        self._batches = 0

    def run(self, batches: Sequence[Batch], tell: Tell, what: str) -> None:
        cut = self._cut(batches)
        steps, done = len(batches) * (1 + len(self.cuts)), 0
        replay = Replay(self.model, cut.head) if cut else None
        self.model.config.use_cache = False  # nothing is continued
        for batch in batches:
            tell(what, done, steps)
            with ExitStack() as stack:
                stack.enter_context(self._head_seen(batch))
                stack.enter_context(self.states.watching())
                stack.enter_context(self.attention)
                if replay:
                    stack.enter_context(replay.recording())
                returned = run_batch(self.model, batch, output_hidden_states=True)
            self.states.add(returned, batch)
            self.losses.add(returned, batch)
            del returned
            done, self._batches = done + 1, self._batches + 1
            for rank, losses in self.cuts.items():
                assert cut and replay
                with cut.to(rank), replay.again():
                    losses.add(run_batch(self.model, batch), batch)
                done += 1
                tell(what, done, steps)
        tell(what, steps, steps)

    def found(self, **asked: Any) -> Running:
        """What was measured, beside what was asked."""
        states, rows = self.states.described(), self.attention.rows()
        self._note(states, rows)
        full, points = self.losses.mean, [(rank, losses.mean) for rank, losses in self.cuts.items()]
        cuts = tuple(Point(rank, loss) for rank, loss in points if loss is not None)
        return Running(
            **asked,
            loss=full,
            loss_by_position=self.losses.by_position(),
            states=states,
            last=self._last(),
            head_cut=Cuts(full, cuts) if full is not None and cuts else None,
            attention=rows,
            notes=(*self.notes, *self.attention.notes),
        )

    def _note(self, states: Sequence[State], rows: Sequence[Softmax]) -> None:
        """What is missing, and why."""
        kind = type(self.model).__name__
        if not states:
            self.notes.append(f"hidden states not measured: {kind} returns none")
        if not rows:
            self.notes.append(f"attention not measured: {kind} calls no softmax over keys")
        if not self.labelled:
            self.notes.append("loss not measured: no text was read")
        elif self.losses.mean is None:
            self.notes.append(f"loss not measured: {kind} predicts no tokens")
        elif self.head is None:
            self.notes.append(f"head not cut: {kind} names no matrix that makes logits of hidden states")

    def _cut(self, batches: Sequence[Batch]) -> HeadCut | None:
        """The head, ready to be cut; None where there is none, or nothing to lose."""
        self.labelled = any(bool((batch.labels != UNLABELLED).any()) for batch in batches)
        if self.head is None or not self.labelled:
            return None
        basis = directions(self.head)
        if basis is None:
            self.notes.append("head not cut: some of its numbers are not finite")
            return None
        cut = HeadCut(self.head, basis)
        self.cuts = {rank: _Losses() for rank in cut.ranks}
        return cut

    @contextmanager
    def _head_seen(self, batch: Batch) -> Iterator[None]:
        """Within it, what the head reads is kept."""

        def see(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            self.kept.put(f"{self._batches} {HEAD}", real_positions(given[0], batch.real))

        handle = self.head.register_forward_pre_hook(see) if self.head is not None else None
        try:
            yield
        finally:
            if handle:
                handle.remove()

    def _last(self) -> Spread | None:
        """Of what the head reads, or of the last hidden state."""
        name = HEAD if all(f"{batch} {HEAD}" in self.kept for batch in range(self._batches)) else self.states.last
        return spread(self.states.vectors(name), torch.finfo(self.model.dtype).eps) if name else None
