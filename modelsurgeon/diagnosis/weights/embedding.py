"""An embedding, or a head: how large its rows and components are, and which are far from the others.

    measure_table(checkpoint, "model.embed_tokens.weight", memory=64 << 20).far_rows["count"]

* Sign-based optimisers (Lion, arXiv 2302.06675; Tiger, https://spaces.ac.cn/archives/9512) step by the same amount
  whatever the gradient, and leave components near +-100 in rows of rare tokens. They are measured against the robust
  deviation, 1.4826 times the median of |x - median|, which such components do not move.
* Rows that no training reached lie at the mean of all rows: resize_token_embeddings of transformers draws new ones from
  N(mean, 1e-9 covariance), 3e-5 of the typical distance from it. Others are zero, equal to one another, or belong to
  no token at all (Land and Bartolo, "Fishing for Magikarp", arXiv 2405.05417).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.weights.embedding_passes import EXAMPLES, FAR, First, read_first, read_second
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.tokens import Tokens, read_tokens
from modelsurgeon.progress import Tell, silent


@dataclass(frozen=True)
class TokenTable:
    """One table of rows by token; schema.json describes the fields."""

    tensor: str
    vocab: int
    width: int
    mean: float
    deviation: float
    norms: dict[str, Any]
    far_rows: dict[str, Any]
    far_components: dict[str, Any]
    components: dict[str, Any]
    dead: dict[str, Any]
    duplicates: dict[str, Any]
    untrained: dict[str, Any]
    tokenizer: dict[str, int] | None


def measure_table(
    checkpoint: Checkpoint, name: str, *, memory: int, device: str = "cpu", tell: Tell = silent
) -> TokenTable:
    """Measure an embedding or a head, [vocab, width], by its name on disk; keeps up to `memory` bytes of it."""
    rows = RowBlocks(checkpoint.tensors[name], memory)
    _, vocab, width = rows.shape
    first = read_first(rows, device, lambda done: tell(name, done, 2 * vocab))
    second = read_second(rows, first, device, lambda done: tell(name, vocab + done, 2 * vocab))
    tokens, groups = read_tokens(checkpoint.side_files), _groups(first)
    texts, (mean, deviation) = tokens.texts, first.moments
    copied, examples = {row: one[0] for one in groups for row in one[1:]}, [one[:EXAMPLES] for one in groups[:EXAMPLES]]
    return TokenTable(
        tensor=name,
        vocab=vocab,
        width=width,
        mean=mean,
        deviation=deviation,
        norms=_norms(first.norms),
        far_rows=_far_rows(first, texts),
        far_components={
            "count": second.far,
            "largest": second.largest / first.robust if first.robust else None,
            "examples": [
                {"row": row, "token": texts.get(row), "column": at, "value": value, "times": abs(value) / first.robust}
                for value, row, at in second.farthest
            ],
        },
        components={"median_deviation": first.robust, "columns": _columns(first.columns)},
        dead={"count": int(first.dead.sum()), "examples": first.dead.nonzero()[:EXAMPLES, 0].tolist()},
        duplicates={"groups": len(groups), "rows": len(copied), "examples": examples},
        untrained=_untrained(first.dead, copied, second.at_mean, tokens),
        tokenizer={"tokens": len(texts), "added": len(tokens.added)} if texts else None,
    )


def _groups(first: First) -> list[list[int]]:
    """Groups of equal rows that are not zero, in the order of their first rows."""
    leaders = first.equal.first[0]
    found: dict[int, list[int]] = {}
    for row in np.flatnonzero((leaders != np.arange(len(leaders))) & ~first.equal.zero[0]).tolist():
        found.setdefault(int(leaders[row]), [int(leaders[row])]).append(row)
    return [found[leader] for leader in sorted(found)]


def _norms(norms: torch.Tensor) -> dict[str, Any]:
    """Norms of rows with 101 quantiles from 0% to 100%, each of them the norm of some row."""
    ordered = norms.sort().values
    places = torch.linspace(0, len(ordered) - 1, 101, dtype=torch.float64).round().long()
    quantiles: list[float] = ordered[places].tolist()
    return {"median": quantiles[50], "min": quantiles[0], "max": quantiles[-1], "quantiles": quantiles}


def _far_rows(first: First, texts: Mapping[int, str]) -> dict[str, Any]:
    times = first.norms / first.median if first.median else torch.ones_like(first.norms)
    far = ((times > FAR) | (times < 1 / FAR)) & ~first.dead
    rows = far.nonzero()[:, 0]
    farthest = rows[times[rows].log().abs().argsort(descending=True)[:EXAMPLES]].tolist()
    examples = [
        {"row": row, "token": texts.get(row), "norm": float(first.norms[row]), "times": float(times[row])}
        for row in farthest
    ]
    return {"count": len(rows), "examples": examples}


def _columns(deviations: torch.Tensor) -> dict[str, Any]:
    largest = int(deviations.argmax())
    return {"median": float(deviations.median()), "max": float(deviations[largest]), "column": largest}


def _untrained(dead: torch.Tensor, copied: dict[int, int], at_mean: torch.Tensor, tokens: Tokens) -> dict[str, Any]:
    """Rows that training never reached; the examples begin with added tokens and end with rows without a token."""
    why = {row: f"equal to row {earlier}" for row, earlier in copied.items()}
    why |= dict.fromkeys(at_mean.nonzero()[:, 0].tolist(), "at the mean of all rows")
    why |= dict.fromkeys(dead.nonzero()[:, 0].tolist(), "zero")
    texts, added = tokens.texts, tokens.added
    beyond = [row for row in range(len(dead)) if row not in texts] if texts else []
    why |= {row: "no token has this row" for row in beyond if row not in why}
    named = sorted(why, key=lambda row: (row not in added, bool(texts) and row not in texts, row))
    return {
        "count": len(why),
        "added": sum(row in added for row in why),
        "beyond": len(beyond),
        "examples": [{"row": row, "token": texts.get(row), "why": why[row]} for row in named[:EXAMPLES]],
    }
