"""How far two models' outputs lie apart, batch after batch: nothing but sums outlives a batch.

deviation = Deviation()       while the source runs
deviation.add(before)
tally = Tally()               while the result runs
tally.add(before, after, labels, places)
tally.comparison("text", "logits", float(deviation))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import Means, TokenLosses, token_losses

NUMBERS = 2**22  # compared at a time: 32 MB of float64
TOKENS = ("logits", "prediction_logits")  # outputs that are over the vocabulary, where they are as wide
PAIRS = 500  # numbers before and after that a report holds: enough for a plot


@dataclass(frozen=True)
class Comparison:
    """One output for one kind of input.

    inputs       "text", "random ids, length 7", "padded batch"
    output       "logits", "prediction_logits", "last_hidden_state", "pooler_output" ...
    positions    how many positions were compared (rows, where an output has one for each row)
    max_abs      the largest difference
    max_rel      the same over the standard deviation of the source's output for all inputs
    kl           nats: the mean of KL(source || result), for logits over the vocabulary
    top1         the share of positions where both have their largest logit at the same token
    loss_before  nats: the source's mean cross entropy where the text has labels
    loss_after   nats: the result's
    """

    inputs: str
    output: str
    positions: int
    max_abs: float
    max_rel: float
    kl: float | None = None
    top1: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None


@dataclass
class Deviation:
    """The standard deviation of one output over all inputs; of a constant output, its size; worked out on `device`.

    Parts are merged by their means and squares: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979).
    """

    device: str = "cpu"
    count: int = 0
    mean: float = 0.0
    square: float = 0.0

    def add(self, value: torch.Tensor) -> None:
        for piece in pieces(value):
            part = piece.to(self.device).double()
            if not part.numel():
                continue
            mean, total = float(part.mean()), self.count + part.numel()
            apart = mean - self.mean
            self.square += float((part - mean).square().sum()) + apart**2 * self.count * part.numel() / total
            self.mean += apart * part.numel() / total
            self.count = total

    def __float__(self) -> float:
        return math.sqrt(self.square / max(1, self.count)) or abs(self.mean) or 1.0


@dataclass
class Tally:
    """One output for one kind of input, added up.

    tokens  whether the output is over the vocabulary, and has tokens to agree on
    device  where it is worked out
    losses  the source's and the result's
    """

    tokens: bool = False
    device: str = "cpu"
    positions: int = 0
    largest: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    kl: float = 0.0
    agreed: int = 0
    losses: TokenLosses = field(default_factory=TokenLosses)

    def add(self, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> None:
        """One batch: [positions, width] twice; each position's label and its place in the window, [positions] int64."""
        self.positions += len(before)
        at = 0
        for piece, other in zip(pieces(before), pieces(after), strict=True):
            old, new = piece.to(self.device).double(), other.to(self.device).double()
            largest = (old - new).abs().max().cpu()
            self.largest = torch.maximum(self.largest, largest)  # keeps a nan, as Python's max does not
            if self.tokens:
                self._add_tokens(old, new, labels[at : at + len(old)], places[at : at + len(old)])
            at += len(old)

    def _add_tokens(self, old: torch.Tensor, new: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> None:
        before, after = old.log_softmax(-1), new.log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1).clamp(min=0)  # rounding takes it below zero by 1e-17
        self.kl += float(kl.sum())
        self.agreed += int((old.argmax(-1) == new.argmax(-1)).sum())
        self.losses.add(places[labels != UNLABELLED], token_losses(before, labels), token_losses(after, labels))

    def comparison(self, inputs: str, output: str, deviation: float) -> Comparison:
        """What was added up."""
        largest = float(self.largest)
        if not self.tokens:
            return Comparison(inputs, output, self.positions, largest, largest / deviation)
        kl, top1 = self.kl / self.positions, self.agreed / self.positions
        loss = self.losses.means or (None, None)
        return Comparison(inputs, output, self.positions, largest, largest / deviation, kl, top1, *loss)


class Tallies:
    """Every output for every kind of input, and a sample of the numbers themselves.

    of       {(inputs, output): Tally}, in the order of the source's answers
    scatter  [pairs, 2] for each batch: the source's number and the result's, drawn by the seed
    """

    def __init__(self, vocab: int, seed: int, device: str = "cpu") -> None:
        self.vocab, self.device = vocab, device
        self.of: dict[tuple[str, str], Tally] = {}
        self.scatter: list[torch.Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, batch: Batch, before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> None:
        """One batch; outputs that only one of them has are left out."""
        labels, places = batch.labels[batch.real], batch.real.nonzero()[:, 1]
        for name in (name for name in before if name in after):
            tokens = name in TOKENS and before[name].shape[-1] == self.vocab
            tally = self.of.setdefault((batch.inputs, name), Tally(tokens, self.device))
            tally.add(before[name], after[name], labels, places)
        first = next((name for name in before if name in after), None)
        if first:
            drawn = torch.randint(before[first].numel(), (PAIRS,), generator=self._generator)
            self.scatter.append(torch.stack([one[first].flatten()[drawn].double() for one in (before, after)], 1))

    def comparisons(self, deviations: Mapping[str, Deviation]) -> tuple[Comparison, ...]:
        return tuple(
            tally.comparison(inputs, name, float(deviations[name])) for (inputs, name), tally in self.of.items()
        )

    def by_position(self, inputs: str) -> tuple[Means, ...]:
        """(before, after): nats at each position, for the first output over tokens; empty where nothing has labels."""
        found = (tally.losses.by_position() for (kind, _), tally in self.of.items() if kind == inputs)
        return next((means for means in found if means), ())

    def sample(self) -> tuple[list[float], list[float]]:
        """(before, after): PAIRS numbers, as many of each batch."""
        each = -(-PAIRS // max(1, len(self.scatter)))
        before, after = torch.cat([pairs[:each] for pairs in self.scatter])[:PAIRS].T.tolist()
        return before, after


def pieces(value: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, ...]:
    """Some positions at a time, where each has so many numbers; its last dimension's if `width` is None."""
    return torch.split(value, max(1, NUMBERS // max(1, value.shape[-1] if width is None else width)))
