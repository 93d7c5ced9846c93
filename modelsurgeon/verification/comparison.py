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
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.text import printable

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

    def to_json(self) -> dict[str, Any]:
        """Its fields; a number that JSON does not know is a string ("nan", "inf")."""
        return {name: printable(value) for name, value in asdict(self).items()}


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
    losses  [labels, 3] float64 for each batch: position in the window, the source's cross entropy, the result's
    """

    tokens: bool = False
    device: str = "cpu"
    positions: int = 0
    largest: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    kl: float = 0.0
    agreed: int = 0
    losses: list[torch.Tensor] = field(default_factory=list)

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
        asked = labels != UNLABELLED
        if bool(asked.any()):
            rows, goals = asked.nonzero().squeeze(-1).to(old.device), labels[asked].unsqueeze(-1).to(old.device)
            losses = [-scores[rows].gather(-1, goals).squeeze(-1).cpu() for scores in (before, after)]
            self.losses.append(torch.stack([places[asked].double(), *losses], 1))

    def comparison(self, inputs: str, output: str, deviation: float) -> Comparison:
        """What was added up."""
        largest = float(self.largest)
        if not self.tokens:
            return Comparison(inputs, output, self.positions, largest, largest / deviation)
        kl, top1 = self.kl / self.positions, self.agreed / self.positions
        loss = torch.cat(self.losses)[:, 1:].mean(0).tolist() if self.losses else (None, None)
        return Comparison(inputs, output, self.positions, largest, largest / deviation, kl, top1, *loss)

    def by_position(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        """(before, after): nats, the mean cross entropy at each position of the window; None where no label stood."""
        losses = torch.cat(self.losses)
        places = losses[:, 0].long()
        sums = losses.new_zeros(int(places.max()) + 1, 3).index_add_(0, places, losses.new_ones(len(losses), 3))
        counts = sums[:, 0]
        sums = torch.zeros_like(sums).index_add_(0, places, losses) / counts.unsqueeze(-1)
        before, after = (
            tuple(value if count else None for value, count in zip(column, counts.tolist(), strict=True))
            for column in sums[:, 1:].T.tolist()
        )
        return before, after


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

    def by_position(self, inputs: str) -> tuple[tuple[float | None, ...], tuple[float | None, ...]] | None:
        """The tally's own, of the first output over tokens for these inputs; None where nothing has labels."""
        found = (tally for (kind, _), tally in self.of.items() if kind == inputs and tally.losses)
        return next((tally.by_position() for tally in found), None)

    def sample(self) -> tuple[list[float], list[float]]:
        """(before, after): PAIRS numbers, as many of each batch."""
        each = -(-PAIRS // max(1, len(self.scatter)))
        before, after = torch.cat([pairs[:each] for pairs in self.scatter])[:PAIRS].T.tolist()
        return before, after


def folded(value: torch.Tensor, axis_map: AxisMap | None) -> torch.Tensor:
    """[..., m] -> [..., n]: what was written along a grown axis, as a reader of the axis sees it (D y / gain)."""
    if axis_map is None or axis_map.new_size != value.shape[-1]:
        return value
    kept = torch.from_numpy(axis_map.copied)
    parts = value[..., kept].double() * torch.from_numpy(axis_map.share)[kept]
    sums = parts.new_zeros(*value.shape[:-1], axis_map.size)
    return sums.index_add_(-1, torch.from_numpy(axis_map.source)[kept], parts) / axis_map.gain


def pieces(value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Some positions at a time."""
    return torch.split(value, max(1, NUMBERS // max(1, value.shape[-1])))
