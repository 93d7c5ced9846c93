"""The loss before training: what tying the head to the embedding does to it, predicted and measured.

While every residual branch is near zero, the model is a 2-gram model: after token i its logits are those of the normed
embedding, f h_i . v_j with h_i = norm(w_i). Tied (v = w) the token itself stands out: f h_i . w_i is about d sigma f
for a deviation sigma, every other logit about 0. Text rarely repeats a token, so the loss starts at

    log(e^{d sigma f} + n - 1)              predicted(vocab=n, width=d, deviation=sigma, factor=f)

instead of log n, which guessing evenly takes (Su Jianlin, https://spaces.ac.cn/archives/9698, equation 9). The standard
deviation that makes the two meet is (log n) / (d f). With a head of its own, independent of the embedding, the loss is
log n and half of the logits' variance.

    >>> round(predicted(32000, 768, 0.02), 2), round(log(32000), 2)
    (15.36, 10.37)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import torch

from modelsurgeon.checkpoints.head_path import Path, find_path, normed
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.operations.transforms.initial import deviation_for_uniform
from modelsurgeon.progress import Tell, silent

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint

SAMPLES = 128  # tokens whose losses are averaged: of fresh models they differ by far less than a nat


def predicted(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: log(e^{d sigma f} + n - 1), the loss of a tied model whose residual branches are zero."""
    return _log_sum(width * deviation * factor, vocab, 0.0)


def predicted_untied(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: log n + d sigma^2 f^2 / 2, the loss with a head of that deviation and independent of the embedding.

    The second term is half of the logits' variance. It holds while that is below 2 log n: above, few tokens of
    the vocabulary make up the whole sum.
    """
    return log(vocab) + width * (deviation * factor) ** 2 / 2


def predicted_closely(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: `predicted`, and the variance of the other logits with it: log(e^{dsf} + (n - 1) e^{d (sf)^2 / 2})."""
    return _log_sum(width * deviation * factor, vocab, width * (deviation * factor) ** 2 / 2)


def _log_sum(exponent: float, vocab: int, other: float) -> float:
    """log(e^exponent + (n - 1) e^other), without overflow."""
    if vocab < 2:
        return exponent
    terms = exponent, log(vocab - 1) + other
    return max(terms) + math.log1p(math.exp(-abs(terms[0] - terms[1])))


@dataclass(frozen=True)
class InitialLoss:
    """What a tied head does to the loss before training; nats.

    applies    whether the head reads the embedding through the final norm alone once every branch is zero
    why        what lies between them; or what the measured model has beside the article's
    tied       whether the head is the embedding
    uniform    log n
    predicted  by the deviation alone: `predicted` where tied, else `predicted_untied`
    exponent   d sigma f
    factor     f: what the model multiplies its logits by
    deviation  sigma, of the head
    deviation_for_uniform  what sigma would have to be
    measured   mean loss of the 2-gram model that the weights are without branches, over all j != i for each sampled i;
               None where it does not apply
    measured_plain  the same with a gain of 1 and no bias, no positions
    samples    how many tokens were sampled
    """

    applies: bool
    why: str
    tied: bool
    uniform: float
    predicted: float
    exponent: float
    factor: float
    deviation: float
    deviation_for_uniform: float
    measured: float | None
    measured_plain: float | None
    samples: int


@dataclass(frozen=True)
class HeadInput:
    """Hidden states that a head reads, and what becomes of the logits.

    states  [s, d] float64: what the head reads after each sampled token
    bias    [n] float64: what is added to the logits, or None
    cap     the bound that a tanh puts on them, or None
    """

    states: torch.Tensor
    bias: torch.Tensor | None = None
    cap: float | None = None

    def logits(self, block: torch.Tensor, first: int) -> torch.Tensor:
        """[s, r] for rows first:first + r of the head, [r, d] float64."""
        found = self.states @ block.T
        if self.bias is not None:
            found += self.bias[first : first + len(block)]
        return found if self.cap is None else found.div_(self.cap).tanh_().mul_(self.cap)


def bigram_loss(
    head: RowBlocks,
    tokens: torch.Tensor,
    readings: Sequence[HeadInput],
    tell: Callable[[int], object] = lambda rows: None,
) -> tuple[list[float], float]:
    """(mean loss of each reading, standard deviation of the head's numbers), the head read once, block by block.

    The loss of a token i is -log p(j | i), averaged over every other j: that is its expectation over random ones.

    tokens  [s] int64: the token after which the head reads each state
    """
    device = tokens.device
    sums = [_VocabularySums.empty(len(tokens), device) for _ in readings]
    moments = torch.zeros(2, dtype=torch.float64, device=device)
    _, vocab, width = head.shape
    for _, first, block in head.blocks():
        wide = block.to(device, torch.float64)
        moments += torch.stack([wide.sum(), wide.square().sum()])
        for sum_, reading in zip(sums, readings, strict=True):
            sum_.add(reading.logits(wide, first), tokens - first)
        tell(first + len(wide))
    mean, square = (moments / (vocab * width)).tolist()
    return [sum_.loss(vocab) for sum_ in sums], math.sqrt(max(0.0, square - mean**2))


@dataclass
class _VocabularySums:
    """Sums over a vocabulary, [s] float64 each: log sum e^logit, sum of logits, the token's own logit."""

    exponentials: torch.Tensor
    logits: torch.Tensor
    own: torch.Tensor

    @classmethod
    def empty(cls, count: int, device: torch.device) -> _VocabularySums:
        nothing = torch.zeros(count, dtype=torch.float64, device=device)
        return cls(torch.full_like(nothing, -math.inf), nothing, nothing.clone())

    def add(self, logits: torch.Tensor, at: torch.Tensor) -> None:
        """Logits [s, r] of further tokens; `at`: where in them the token itself is, if it is."""
        self.exponentials = torch.logaddexp(self.exponentials, logits.logsumexp(1))
        self.logits = self.logits + logits.sum(1)
        inside = (at >= 0) & (at < logits.shape[1])
        own = logits.gather(1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        self.own = torch.where(inside, own, self.own)

    def loss(self, vocab: int) -> float:
        others = (self.logits - self.own) / max(1, vocab - 1)
        return float((self.exponentials - others).mean())


def initial_loss(
    checkpoint: Checkpoint,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    memory: int = 64 << 20,
    device: str = "cpu",
    tell: Tell = silent,
) -> InitialLoss | None:
    """The analysis of a checkpoint, lazy or not; None where it has no output head over a vocabulary.

    samples  tokens that are looked at, all of them where there are no more; drawn evenly by `seed`
    memory   bytes of the head that may stay in memory while it is read
    """
    path = find_path(checkpoint)
    if path is None:
        return None
    head = RowBlocks(checkpoint.tensors[path.head], memory)
    _, vocab, width = head.shape
    tokens, readings = torch.zeros(0, dtype=torch.int64), list[HeadInput]()
    if not path.why:
        tokens, places = _sampled(checkpoint, path, samples, seed)
        readings = [_own(checkpoint, path, tokens, places), _plain(checkpoint, path, tokens)]
        readings = [_moved(reading, device) for reading in readings]
    losses, deviation = bigram_loss(head, tokens.to(device), readings, lambda rows: tell("initial loss", rows, vocab))
    measured, plain = losses or (None, None)
    rule = predicted if path.tied else predicted_untied
    return InitialLoss(
        applies=not path.why,
        why=path.why or _beside(path),
        tied=path.tied,
        uniform=log(vocab),
        predicted=rule(vocab, width, deviation, path.factor),
        exponent=width * deviation * path.factor,
        factor=path.factor,
        deviation=deviation,
        deviation_for_uniform=deviation_for_uniform(vocab, width, path.factor),
        measured=measured,
        measured_plain=plain,
        samples=len(tokens),
    )


def _sampled(checkpoint: Checkpoint, path: Path, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, rows of their positions), evenly drawn; all tokens where there are no more."""
    generator = torch.Generator().manual_seed(seed)
    vocab = checkpoint.tensors[path.embedding].shape[0]
    tokens = torch.randperm(vocab, generator=generator)[:samples].sort().values
    rows = checkpoint.tensors[path.positions].shape[0] if path.positions else 1
    return tokens, torch.randint(rows, tokens.shape, generator=generator)


def _own(checkpoint: Checkpoint, path: Path, tokens: torch.Tensor, places: torch.Tensor) -> HeadInput:
    """What the head reads with all norms, gains, biases and positions of the checkpoint."""
    states = path.scale * _rows(checkpoint, path.embedding, tokens)
    if path.positions:
        states = states + _rows(checkpoint, path.positions, places)
    for norm in path.norms:
        gain = _vector(checkpoint, norm.gain)
        gain = None if gain is None else gain + checkpoint.architecture.offset
        states = normed(norm, states, gain, _vector(checkpoint, norm.bias))
    return HeadInput(path.factor * states, _vector(checkpoint, path.bias), path.cap)


def _plain(checkpoint: Checkpoint, path: Path, tokens: torch.Tensor) -> HeadInput:
    """What the head reads with gain 1, no bias and no positions."""
    states = path.scale * _rows(checkpoint, path.embedding, tokens)
    for norm in path.norms:
        states = normed(norm, states, None, None)
    return HeadInput(path.factor * states)


def _moved(reading: HeadInput, device: str) -> HeadInput:
    bias = None if reading.bias is None else reading.bias.to(device)
    return HeadInput(reading.states.to(device), bias, reading.cap)


def _rows(checkpoint: Checkpoint, name: str, at: torch.Tensor) -> torch.Tensor:
    """[s, d] float64: these rows of a table."""
    tensor = checkpoint.tensors[name]
    found: list[int] = at.tolist()
    return torch.cat([tensor.read(row, row + 1) for row in found]).double()


def _vector(checkpoint: Checkpoint, name: str | None) -> torch.Tensor | None:
    if name is None:
        return None
    tensor = checkpoint.tensors[name]
    return tensor.read(0, tensor.shape[0]).double().reshape(-1)


def _beside(path: Path) -> str:
    """What the measured model has and the article's model has not."""
    said = ["learned positions are added to the embedding"] if path.positions else []
    said += [f"{len(path.norms)} norms one after another"] if len(path.norms) > 1 else []
    said += [f"a tanh bounds logits by {path.cap:g}"] if path.cap is not None else []
    said += ["a bias is added to the logits"] if path.bias else []
    return "; ".join(said)
