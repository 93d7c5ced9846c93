"""The differences between two models' outputs, added up batch by batch: only sums are kept.

deviation = Deviation()       while the source runs
deviation.add(before)
tally = Tally()               while the result runs
tally.add(before, after, labels, places)
tally.comparison("text", "logits", float(deviation))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import Means, TokenLosses, token_losses

NUMBERS = 2**22  # compared at a time: 32 MB of float64
TOKENS = ("logits", "prediction_logits")  # outputs over the vocabulary, if they are as wide as it
PAIRS = 500  # numbers before and after that a report has: enough for a plot


@dataclass(frozen=True)
class Comparison:
    """One output for one kind of input.

    inputs       "text", "random ids, length 7", "padded batch"
    output       "logits", "prediction_logits", "last_hidden_state", "pooler_output" ...
    positions    how many positions were compared (rows, where an output has one for each row)
    max_abs      the largest difference
    max_rel      the largest difference over the standard deviation of the source's output for all inputs
    kl, top1     nats, the mean of KL(source || result); how often both prefer the same token; None for other outputs
    loss_before  nats: the source's mean cross entropy where the text has labels; loss_after is the result's
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
    """The standard deviation of one output over all inputs, computed on `device`; of a constant output, its size.

    Parts are merged by their means and squares: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979).
    """

    device: str = "cpu"
    count: int = 0
    mean: float = 0.0
    square: float = 0.0

    def add(self, value: torch.Tensor) -> None:
        """Add the output of one batch."""
        for part in (piece.to(self.device).double() for piece in pieces(value) if piece.numel()):
            mean, total = float(part.mean()), self.count + part.numel()
            apart = mean - self.mean
            self.square += float((part - mean).square().sum()) + apart**2 * self.count * part.numel() / total
            self.mean += apart * part.numel() / total
            self.count = total

    def __float__(self) -> float:
        return math.sqrt(self.square / max(1, self.count)) or abs(self.mean) or 1.0


@dataclass
class Tally:
    """The sums for one output (over `tokens` or not) and one kind of input, computed on `device`."""

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
                p, q, label = old.log_softmax(-1), new.log_softmax(-1), labels[at : at + len(old)]
                kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)  # rounding takes it below zero by 1e-17
                self.kl += float(kl.sum())
                self.agreed += int((old.argmax(-1) == new.argmax(-1)).sum())
                place = places[at : at + len(old)][label != UNLABELLED]
                self.losses.add(place, token_losses(p, label), token_losses(q, label))
            at += len(old)

    def comparison(self, inputs: str, output: str, deviation: float) -> Comparison:
        """The largest difference and the means of all that was added."""
        largest = float(self.largest)
        found = Comparison(inputs, output, self.positions, largest, largest / deviation)
        if not self.tokens:
            return found
        before, after = self.losses.means or (None, None)
        kl, top1 = self.kl / self.positions, self.agreed / self.positions
        return replace(found, kl=kl, top1=top1, loss_before=before, loss_after=after)


class Tallies:
    """Every output for every kind of input, and a sample of the numbers themselves.

    of       {(inputs, output): Tally}, in the order of the source's outputs
    scatter  [pairs, 2] for each batch: the source's number and the result's, drawn by the seed
    """

    def __init__(self, vocab: int, seed: int, device: str = "cpu") -> None:
        self.vocab, self.device, self._generator = vocab, device, torch.Generator().manual_seed(seed)
        self.of: dict[tuple[str, str], Tally] = {}
        self.scatter: list[torch.Tensor] = []

    def add(self, batch: Batch, before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> None:
        """One batch; outputs that only one of them has are left out."""
        labels, places = batch.labels[batch.real], batch.real.nonzero()[:, 1]
        common = [name for name in before if name in after]
        for name in common:
            tokens = name in TOKENS and before[name].shape[-1] == self.vocab
            tally = self.of.setdefault((batch.inputs, name), Tally(tokens, self.device))
            tally.add(before[name], after[name], labels, places)
        for name in common[:1]:
            drawn = torch.randint(before[name].numel(), (PAIRS,), generator=self._generator)
            self.scatter.append(torch.stack([one[name].flatten()[drawn].double() for one in (before, after)], 1))

    def comparisons(self, deviations: Mapping[str, Deviation]) -> tuple[Comparison, ...]:
        """One for each kind of input and output; `deviations` are those of the source's outputs."""
        return tuple(tally.comparison(*key, float(deviations[key[1]])) for key, tally in self.of.items())

    def by_position(self, inputs: str) -> tuple[Means, ...]:
        """(before, after): nats at each position, for the first output over tokens; empty where nothing has labels."""
        found = (tally.losses.by_position() for (kind, _), tally in self.of.items() if kind == inputs)
        return next((means for means in found if means), ())

    def sample(self) -> list[list[float]]:
        """[before, after]: PAIRS numbers each, the same number from each batch."""
        each = -(-PAIRS // max(1, len(self.scatter)))
        sampled: list[list[float]] = torch.cat([pairs[:each] for pairs in self.scatter])[:PAIRS].T.tolist()
        return sampled


def pieces(value: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, ...]:
    """Some positions at a time, each of `width` numbers; None: the size of the last dimension."""
    return torch.split(value, max(1, NUMBERS // max(1, value.shape[-1] if width is None else width)))
