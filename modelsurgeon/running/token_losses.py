"""The cross entropy of tokens, in nats: of each labelled position, on average, and by the position in a window.

    losses = TokenLosses()
    losses.add(places, token_losses(logits.log_softmax(-1), labels))      batch after batch
    losses.means, losses.by_position()

Several models that read the same windows go side by side: `losses.add(places, before, after)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from modelsurgeon.running.reader import UNLABELLED

Means = tuple[float | None, ...]


def token_losses(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[labelled] nats: the cross entropy at each position that has a label.

    log_probabilities  [..., vocab]: the log-softmax of the logits
    labels             [...] int64: the token that each position should predict, or UNLABELLED
    """
    labels = labels.to(log_probabilities.device)
    scores = log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -scores[labels != UNLABELLED]


@dataclass
class TokenLosses:
    """The losses of all batches so far.

    parts  [labelled, 1 + models] float64 for each batch: position in the window, each model's loss in nats
    """

    parts: list[torch.Tensor] = field(default_factory=list)

    def add(self, places: torch.Tensor, *losses: torch.Tensor) -> None:
        """One batch: [labelled] positions in the window, and each model's [labelled] losses."""
        if len(places):
            self.parts.append(torch.stack([places.cpu().double(), *(one.cpu().double() for one in losses)], 1))

    @property
    def means(self) -> tuple[float, ...]:
        """Nats over all labels, for each model; empty where there were no labels."""
        return tuple(torch.cat(self.parts)[:, 1:].mean(0).tolist()) if self.parts else ()

    @property
    def apart(self) -> float | None:
        """Nats: the standard error of the difference of two models' means; None where there were no labels."""
        if not self.parts:
            return None
        found = torch.cat(self.parts)
        differences = found[:, 2] - found[:, 1]
        return float(differences.std(correction=0) / len(differences) ** 0.5)

    def by_position(self) -> tuple[Means, ...]:
        """Nats at each position of the window, for each model; None where no label is at the position."""
        if not self.parts:
            return ()
        losses = torch.cat(self.parts)
        places = losses[:, 0].long()
        counts = torch.bincount(places)
        sums = losses.new_zeros(len(counts), losses.shape[1] - 1).index_add_(0, places, losses[:, 1:])
        return tuple(
            tuple(mean if count else None for mean, count in zip(means, counts.tolist(), strict=True))
            for means in (sums / counts.unsqueeze(-1)).T.tolist()
        )
