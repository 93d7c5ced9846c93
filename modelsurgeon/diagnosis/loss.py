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

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.head_path import Path, find_path, normed
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.operations.transforms.initial import deviation_for_uniform
from modelsurgeon.progress import Tell, silent

SAMPLES = 128  # tokens whose losses are averaged: of fresh models they differ by far less than a nat

# [s] float64 each, over a vocabulary: log sum e^logit, sum of logits, the logit of the token itself
VocabularySums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def predicted(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: log(e^{d sigma f} + n - 1), the loss of a tied model whose residual branches are zero."""
    return _log_sum(width * deviation * factor, vocab, 0.0)


def predicted_untied(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: log n + d sigma^2 f^2 / 2, the loss with a head of that deviation and independent of the embedding.

    It holds while the logits' variance, d sigma^2 f^2, is below 2 log n: above, few tokens make up the whole sum.
    """
    return log(vocab) + width * (deviation * factor) ** 2 / 2


def predicted_closely(vocab: int, width: int, deviation: float, factor: float = 1.0) -> float:
    """Nats: `predicted` with the variance of the other logits counted: log(e^{dsf} + (n - 1) e^{d (sf)^2 / 2})."""
    return _log_sum(width * deviation * factor, vocab, width * (deviation * factor) ** 2 / 2)


def _log_sum(exponent: float, vocab: int, other: float) -> float:
    """log(e^exponent + (n - 1) e^other), without overflow."""
    if vocab < 2:
        return exponent
    terms = exponent, log(vocab - 1) + other
    return max(terms) + math.log1p(math.exp(-abs(terms[0] - terms[1])))


@dataclass(frozen=True)
class InitialLoss:
    """What a tied head does to the loss before training; schema.json describes the fields. Losses are in nats.

    applies    whether the head reads the embedding through the final norm alone once every branch is zero
    why        what lies between them; or what the measured model has and the article's has not
    predicted  by the deviation alone: `predicted` where tied, else `predicted_untied`
    measured   mean loss of the 2-gram model that remains without branches, over all j != i for each sampled i; None
               where it does not apply; `measured_plain`: likewise with a gain of 1, no bias and no positions
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
    """Hidden states that a head reads, and what the model does to its logits.

    states  [s, d] float64: what the head reads after each sampled token
    bias    [n] float64: added to the logits, or None
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

    The loss of a token i is -log p(j | i), averaged over every other j: its expectation over random ones.
    tokens  [s] int64: the token after which the head reads each state
    """
    moments = torch.zeros(2, dtype=torch.float64, device=tokens.device)
    zeros = moments.new_zeros(len(tokens))
    sums: list[VocabularySums] = [(zeros - math.inf, zeros, zeros) for _ in readings]
    _, vocab, width = head.shape
    for _, first, block in head.blocks():
        wide = block.to(tokens.device, torch.float64)
        moments += torch.stack([wide.sum(), wide.square().sum()])
        pairs = zip(sums, readings, strict=True)
        sums = [_added(sum_, reading.logits(wide, first), tokens - first) for sum_, reading in pairs]
        tell(first + len(wide))
    mean, square = (moments / (vocab * width)).tolist()
    losses = [float((log_sum - (total - own) / max(1, vocab - 1)).mean()) for log_sum, total, own in sums]
    return losses, math.sqrt(max(0.0, square - mean**2))


def _added(sums: VocabularySums, logits: torch.Tensor, at: torch.Tensor) -> VocabularySums:
    """The sums with logits [s, r] of further tokens; `at`: the column of each state's own token, if it is in range."""
    log_sum, total, own = sums
    inside = (at >= 0) & (at < logits.shape[1])
    found = logits.gather(1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    return torch.logaddexp(log_sum, logits.logsumexp(1)), total + logits.sum(1), torch.where(inside, found, own)


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

    samples  how many tokens are drawn evenly by `seed`; all tokens where there are no more
    memory   bytes of the head that may stay in memory while it is read
    """
    path = find_path(checkpoint)
    if path is None:
        return None
    head = RowBlocks(checkpoint.tensors[path.head], memory)
    _, vocab, width = head.shape
    tokens, readings = torch.zeros(0, dtype=torch.int64), list[HeadInput]()
    if not path.why:
        generator = torch.Generator().manual_seed(seed)
        rows = checkpoint.tensors[path.embedding].shape[0]
        tokens = torch.randperm(rows, generator=generator)[:samples].sort().values
        readings = _readings(checkpoint, path, tokens, generator, device)
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


def _readings(
    checkpoint: Checkpoint, path: Path, tokens: torch.Tensor, generator: torch.Generator, device: str
) -> list[HeadInput]:
    """What the head reads with all gains, biases and (random) positions of the checkpoint, and what without any."""
    own = plain = path.scale * _rows(checkpoint, path.embedding, tokens)
    if path.positions:
        rows = checkpoint.tensors[path.positions].shape[0]
        own = own + _rows(checkpoint, path.positions, torch.randint(rows, tokens.shape, generator=generator))
    for norm in path.norms:
        gain = _vector(checkpoint, norm.gain)
        gain = None if gain is None else gain + checkpoint.architecture.offset
        own, plain = normed(norm, own, gain, _vector(checkpoint, norm.bias)), normed(norm, plain, None, None)
    own, plain = (path.factor * own).to(device), (path.factor * plain).to(device)
    return [HeadInput(own, _vector(checkpoint, path.bias, device), path.cap), HeadInput(plain)]


def _rows(checkpoint: Checkpoint, name: str, rows: torch.Tensor) -> torch.Tensor:
    """[s, d] float64: these rows of a table."""
    tensor, numbers = checkpoint.tensors[name], list[int](rows.tolist())
    return torch.cat([tensor.read(row, row + 1) for row in numbers]).double()


def _vector(checkpoint: Checkpoint, name: str | None, device: str = "cpu") -> torch.Tensor | None:
    if name is None:
        return None
    tensor = checkpoint.tensors[name]
    return tensor.read(0, tensor.shape[0]).double().reshape(-1).to(device)


def _beside(path: Path) -> str:
    """What the measured model has and the article's model has not."""
    found = ["learned positions are added to the embedding"] if path.positions else []
    found += [f"{len(path.norms)} norms one after another"] if len(path.norms) > 1 else []
    found += [f"a tanh bounds logits by {path.cap:g}"] if path.cap is not None else []
    found += ["a bias is added to the logits"] if path.bias else []
    return "; ".join(found)
