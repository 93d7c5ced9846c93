"""The differences between two models' outputs, added up batch by batch: only sums are kept.

deviation = Deviation()       while the source runs
deviation.add(before)
tally = Tally(deviation)      while the result runs
tally.add(before, after, labels, places)
tally.comparison("text", "logits")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import Means, TokenLosses, token_losses
from modelsurgeon.verification.deviation import Deviation

NUMBERS = 2**22  # compared at a time: 32 MB of float64
TOKENS = ("logits", "prediction_logits")  # outputs over the vocabulary, if they are as wide as it
PAIRS = 500  # numbers before and after that a report has: enough for a plot


@dataclass(frozen=True)
class Comparison:
    """One output for one kind of input.

    A *deviation* is that of the source's output at the position (deviation.py).

    inputs       "text", "random ids, length 7", "padded batch"
    output       "logits", "prediction_logits", "last_hidden_state", "pooler_output" ...
    positions    how many positions were compared (rows, where an output has one for each)
    max_abs      the largest difference; nan where one side alone is not finite
    max_rel      the largest difference in deviations; nan where one side alone is not finite
    typical      deviations: the root mean square of the differences at a position, the median over positions
    nonfinite    numbers that are finite on one side alone, or infinite with different signs
    unread       positions where neither side has a finite number, so that nothing was compared
    kl, top1     nats, the mean of KL(source || result); how often both prefer the same token; None for other outputs
    flip         deviations: the largest margin by which the source prefers its token where the result prefers another
    unit         nats: the root mean square of the unit (deviation.py) of the source's preferred token
    loss_before  nats: the source's mean cross entropy where the text has labels; loss_after is the result's
    loss_apart   nats: the standard error of the difference of the two means
    """

    inputs: str
    output: str
    positions: int
    max_abs: float
    max_rel: float
    typical: float = 0.0
    nonfinite: int = 0
    unread: int = 0
    kl: float | None = None
    top1: float | None = None
    flip: float | None = None
    unit: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    loss_apart: float | None = None


@dataclass(frozen=True)
class Errors:
    """The differences between two outputs; numbers that are not finite in the same way on both sides are equal.

    largest    the largest difference of finite numbers
    worst      [positions] the largest difference in units; `typical` is the root of their mean square
    nonfinite  [positions] int64: numbers that are finite on one side alone, or infinite with different signs
    unread     [positions] bool: neither side has a finite number
    """

    largest: float
    worst: torch.Tensor
    typical: torch.Tensor
    nonfinite: torch.Tensor
    unread: torch.Tensor


def errors(before: torch.Tensor, after: torch.Tensor, units: torch.Tensor) -> Errors:
    """Compare [positions, width] float64 numbers, in units of the same shape."""
    equal = (before == after) | (before.isnan() & after.isnan())
    apart = (before - after).abs_().masked_fill_(equal, 0)
    broken = ~apart.isfinite()
    apart.masked_fill_(broken, 0)
    largest = float(apart.max()) if apart.numel() else 0.0
    apart.div_(units)
    unread = ~(before.isfinite() | broken).any(-1)
    worst, typical = apart.amax(-1), apart.square_().mean(-1).sqrt_()
    return Errors(largest, worst, typical, broken.sum(-1), unread)


@dataclass
class Tally:
    """The sums for one output of one kind of input; `deviation` is that of the source's output."""

    deviation: Deviation
    positions: int = 0
    largest: float = 0.0
    worst: float = 0.0
    nonfinite: int = 0
    unread: int = 0
    typical: list[torch.Tensor] = field(default_factory=list)
    kl: float = 0.0
    agreed: int = 0
    flip: float = 0.0
    square: float = 0.0
    read: int = 0
    losses: TokenLosses = field(default_factory=TokenLosses)

    def add(self, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> None:
        """One batch: [positions, width] twice; each position's label and its place in the window, [positions] int64."""
        self.positions += len(before)
        at, device = 0, self.deviation.device
        for piece, other in zip(pieces(before), pieces(after), strict=True):
            old, new = piece.to(device).double(), other.to(device).double()
            units = self.deviation.units(piece)
            found = errors(old, new, units)
            self._add_errors(found)
            if self.deviation.tokens:
                label, place = labels[at : at + len(old)], places[at : at + len(old)]
                p, q = old.log_softmax(-1), new.log_softmax(-1)
                self._add_tokens(old, new, units)
                self._add_kl(p, q, (found.nonfinite == 0) & ~found.unread)
                self.losses.add(place[label != UNLABELLED], token_losses(p, label), token_losses(q, label))
            at += len(old)

    def _add_errors(self, found: Errors) -> None:
        self.largest, self.worst = max(self.largest, found.largest), max(self.worst, float(found.worst.max()))
        self.nonfinite += int(found.nonfinite.sum())
        self.unread += int(found.unread.sum())
        self.typical.append(found.typical[~found.unread].cpu())

    def _add_tokens(self, old: torch.Tensor, new: torch.Tensor, units: torch.Tensor) -> None:
        preferred, found = old.argmax(-1), new.argmax(-1)
        self.agreed += int((preferred == found).sum())
        self.square += float(units.gather(-1, preferred.unsqueeze(-1)).square().sum())
        for row in (preferred != found).nonzero()[:, 0].tolist():
            pair = torch.stack([preferred[row], found[row]])
            margin = float((old[row, pair[0]] - old[row, pair[1]]) / units[row, pair].sum())
            self.flip = max(self.flip, margin)

    def _add_kl(self, p: torch.Tensor, q: torch.Tensor, read: torch.Tensor) -> None:
        """Log-probabilities, and the positions that count; what has no probability in the source adds nothing."""
        share = p.exp()
        kl = (p - q).mul_(share).masked_fill_(share == 0, 0).sum(-1)
        counted = read & ~kl.isnan()  # where both have a nan, neither has probabilities
        self.kl += float(kl[counted].clamp(min=0).sum())  # rounding takes it below zero by 1e-17
        self.read += int(counted.sum())

    def comparison(self, inputs: str, output: str, noise: bool = False) -> Comparison:
        """The largest difference and the means of all that was added.

        noise  whether the source is compared with itself: numbers that one side alone has finite are left out
        """
        typical = torch.cat(self.typical) if self.typical else torch.zeros(0)
        largest, worst = (self.largest, self.worst) if noise or not self.nonfinite else (math.nan, math.nan)
        middle = float(typical.median()) if len(typical) else 0.0
        found = Comparison(inputs, output, self.positions, largest, worst, middle, self.nonfinite, self.unread)
        if not self.deviation.tokens:
            return found
        before, after = self.losses.means or (None, None)
        return replace(
            found,
            kl=self.kl / max(1, self.read),
            top1=self.agreed / self.positions,
            flip=self.flip,
            unit=math.sqrt(self.square / self.positions),
            loss_before=before,
            loss_after=after,
            loss_apart=self.losses.apart,
        )


class Tallies:
    """Every output for every kind of input, and a sample of the numbers themselves.

    deviations  {output: Deviation} of the source's outputs
    of          {(inputs, output): Tally}, in the order of the source's outputs
    scatter     [pairs, 2] for each batch: the source's number and the result's, drawn by the seed
    """

    def __init__(self, deviations: Mapping[str, Deviation], seed: int) -> None:
        self.deviations, self._generator = deviations, torch.Generator().manual_seed(seed)
        self.of: dict[tuple[str, str], Tally] = {}
        self.scatter: list[torch.Tensor] = []

    def add(self, batch: Batch, before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> None:
        """One batch; outputs that only one of them has are left out."""
        labels, places = batch.labels[batch.real], batch.real.nonzero()[:, 1]
        common = [name for name in before if name in after]
        for name in common:
            tally = self.of.setdefault((batch.inputs, name), Tally(self.deviations[name]))
            tally.add(before[name], after[name], labels, places)
        for name in common[:1]:
            drawn = torch.randint(before[name].numel(), (PAIRS,), generator=self._generator)
            self.scatter.append(torch.stack([one[name].flatten()[drawn].double() for one in (before, after)], 1))

    def comparisons(self, noise: bool = False) -> tuple[Comparison, ...]:
        """One for each kind of input and output; `noise`: as of `Tally.comparison`."""
        return tuple(tally.comparison(*key, noise) for key, tally in self.of.items())

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
