"""The results of train_widths.py: their JSON and their tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon.files.durable import replace

HEADINGS = ("loss", "last batches", "entropy", "of random", "effective rank / d", "largest share", "anisotropy")


@dataclass(frozen=True)
class Measured:
    """One model at one step.

    train_loss  of the last batches; None before training
    cuts        (rank, loss with the head cut to it by SVD), by rank; the last one is the whole head
    """

    width: int
    step: int
    tokens: int
    parameters: int
    loss: float
    train_loss: float | None
    entropy: float
    random_entropy: float
    effective_rank: float
    largest_share: float
    anisotropy: float
    cuts: list[list[float]]
    seconds: float

    def cut(self, rank: int) -> float | None:
        """The loss at that rank, if it was measured."""
        return next((loss for at, loss in self.cuts if at == rank), None)


@dataclass
class Results:
    """All results so far."""

    options: dict[str, Any]
    environment: dict[str, str]
    corpus: dict[str, Any]
    widths: list[Measured] = field(default_factory=list)
    heads: list[dict[str, float]] = field(default_factory=list)
    training: list[Measured] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `dump` wrote."""
        raw = json.loads(path.read_text(encoding="ascii"))
        lists = {name: [Measured(**entry) for entry in raw[name]] for name in ("widths", "training")}
        return cls(**{**raw, **lists})

    def dump(self, path: Path | None) -> None:
        """All numbers, as JSON."""
        if path:
            replace(path, json.dumps(asdict(self)))


def blocks(results: Results) -> Iterator[tuple[str, str]]:
    """(name, Markdown) of every block that has results."""
    if results.widths:
        yield "widths", "\n\n".join([setting(results), widths_table(results), doublings_table(results)])
        yield "widths-rank", rank_table(results)
    if results.training:
        yield "widths-training", training_table(results.training)


def setting(results: Results) -> str:
    """A sentence on models and data."""
    how, corpus, where = results.options, results.corpus, results.environment
    tokens = how["steps"] * how["batch"] * how["length"]
    return (
        f"Llamas of {how['layers']} layers, {'tied' if how['tied'] else 'untied'}, {how['vocab']:,} tokens; trained on "
        f"{tokens / 1e6:.1f}M tokens each ({tokens / corpus['tokens']:.1f} times the text, Python source), measured on "
        f"{corpus['kept']:,} that were kept back. {where['device']}, torch {where['torch']}, seed {how['seed']}."
    )


def widths_table(results: Results) -> str:
    """One line a width."""
    headings = ["width", "parameters"]
    lines = [[str(m.width), f"{m.parameters / 1e6:.1f}M", *cells(m)] for m in results.widths]
    return table([*headings, *HEADINGS], lines)


def cells(m: Measured) -> list[str]:
    """One under each of HEADINGS."""
    shares = (m.effective_rank / m.width, m.largest_share, m.anisotropy)
    return [number(value) for value in (m.loss, m.train_loss, m.entropy, m.random_entropy, *shares)]


def doublings_table(results: Results) -> str:
    """The gain of doubling a width, beside the measures."""
    loss = {m.width: m.loss for m in results.widths}
    heads = {int(head["rank"]): head["after"] for head in results.heads}
    lines = []
    for m in results.widths:
        half, eighth = m.cut(m.width // 2), m.cut(m.width - m.width // 8)
        gains = [gain(loss.get(m.width), loss.get(2 * m.width)), gain(heads.get(m.width), heads.get(2 * m.width))]
        lines.append([str(m.width), *gains, gain(half, m.loss), gain(eighth, m.loss)])
    headings = ["width d", "gained by width 2d", "by rank 2d of the widest's head", "lost by a cut to d/2", "to 7d/8"]
    return table(headings, lines)


def rank_table(results: Results) -> str:
    """One line a rank."""
    loss = {m.width: m.loss for m in results.widths}
    heads = {int(head["rank"]): head["after"] for head in results.heads}
    cut_at = {int(rank) for m in results.widths for rank, _ in m.cuts}
    ranks = sorted({rank for rank in cut_at if rank.bit_count() == 1} | set(loss))
    lines = [
        [str(r), number(loss.get(r)), number(heads.get(r)), *(number(m.cut(r)) for m in results.widths)] for r in ranks
    ]
    cut = [f"width {m.width}, cut" for m in results.widths]
    return table(["rank", "model of that width", f"width {max(loss)}, trained at that rank", *cut], lines)


def training_table(training: Sequence[Measured]) -> str:
    """One line a snapshot."""
    headings = ["step", "tokens"]
    lines = [[f"{m.step:,}", f"{m.tokens / 1e6:.1f}M", *cells(m)] for m in training]
    return table([*headings, *HEADINGS], lines)


def gain(before: float | None, after: float | None) -> str:
    """The fall of the loss, if both were measured."""
    return "" if before is None or after is None else number(before - after)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---:"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
