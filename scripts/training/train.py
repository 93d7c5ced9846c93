"""How training separates copies: a trained checkpoint is grown, with noise and without, and trained for some steps.

    python scripts/training/train.py demo
    python scripts/training/train.py CHECKPOINT --seeds 3 --steps 800 --device cuda --text heldout.txt > train.md

For each noise and seed: AdamW in float32, dropout off, windows of the text in an order drawn from the seed; the last
tenth of the text is kept back. It prints two tables in Markdown, then all numbers as JSON: the rank of the grown
matrices (beside the full one), how many pairs of copies are stuck, the cosines between copies' weights, and the loss on
the text that is kept back and of the last batches. Without noise ranks must stay as they are, and cosines 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA adds in any order

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.operations.widen import NOISE, Widen
from modelsurgeon.running.batches import SAMPLE, tokenize
from modelsurgeon.running.gradients import prediction_loss
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import Batch, Reader, TokenRows, read_off
from modelsurgeon.running.reference import loaded, quiet
from modelsurgeon.saving.save import save
from modelsurgeon.verification.trainable import CopiedAxis, MatrixRank, measure

KEPT_BACK = 0.1  # of the text
WINDOWS = 16  # at most, of what is kept back
EVERY = 100  # steps between two lines on stderr
LAST = 50  # steps whose batches' losses are averaged


@dataclass(frozen=True)
class State:
    """A model at one time.

    loss   nats a token, on the text that is kept back
    axes   copies: cosines of weights and gradients
    ranks  of grown matrices
    """

    loss: float
    axes: tuple[CopiedAxis, ...]
    ranks: tuple[MatrixRank, ...]

    @property
    def rank(self) -> int:
        """The sum over all grown matrices."""
        return sum(rank.weight_rank for rank in self.ranks)

    @property
    def full(self) -> int:
        """The largest possible `rank`."""
        return sum(min(rank.shape) for rank in self.ranks)


@dataclass(frozen=True)
class Trained:
    """One run: before, after, and the loss of every step's batch."""

    noise: float
    seed: int
    before: State
    after: State
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Text:
    """Token ids to learn from, and windows that are kept back."""

    ids: Sequence[int]
    kept: TokenRows

    @classmethod
    def of(cls, ids: Sequence[int], length: int) -> Text:
        """Raises SystemExit where the text is too short."""
        cut = len(ids) - max(length + 1, int(len(ids) * KEPT_BACK))
        if cut <= length:
            raise SystemExit(f"a text of {len(ids)} tokens is too short for windows of {length}: name a longer --text")
        starts = range(cut, len(ids) - length + 1, length)
        return cls(ids[:cut], [list(ids[at : at + length]) for at in starts][:WINDOWS])

    def rows(self, count: int, length: int, generator: torch.Generator) -> TokenRows:
        """Random windows."""
        starts = torch.randint(len(self.ids) - length + 1, (count,), generator=generator).tolist()
        return [list(self.ids[at : at + length]) for at in starts]


def trained(source: Checkpoint, noise: float, seed: int, options: argparse.Namespace) -> Trained:
    """Grow, save, load and train. Raises SystemExit where the model predicts no tokens, or has no tokenizer."""
    wide = Widen(factor=options.factor, rule=options.rule, dtype="float32", noise=noise, seed=seed).apply(source)
    with tempfile.TemporaryDirectory() as parent:
        folder = save(wide, Path(parent) / "grown")
        grown = open_checkpoint(folder)
        tokenizer, ids, why = tokenize(folder, options.text.read_text(encoding="utf-8"))
        if not ids:
            raise SystemExit(f"{source.origin.id}: {why[0]}")
        with loaded(grown, folder, RunOptions(device=options.device)) as (model, _):
            generator = torch.Generator().manual_seed(seed)
            reader, text = read_off(model, tokenizer, generator), Text.of(ids, options.length)
            kept = reader.batch("text", text.kept, torch.Generator().manual_seed(0), labelled=True)
            before = state(model, grown, kept)
            losses = tuple(train(model, reader, text, generator, options))
            return Trained(noise, seed, before, state(model, grown, kept), losses)


def train(
    model: Any, reader: Reader, text: Text, generator: torch.Generator, options: argparse.Namespace
) -> Sequence[float]:
    """The loss of every step's batch, before that step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    losses = []
    for step in range(options.steps):
        rows = text.rows(options.batch, options.length, generator)
        loss = mean_loss(model, reader.batch("text", rows, generator, labelled=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % EVERY == 0:
            print(f"step {step + 1} of {options.steps}: {mean(losses[-EVERY:]):.4f}", file=sys.stderr, flush=True)
    return losses


def mean_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Nats a token."""
    found = prediction_loss(model, batch)
    if found is None:
        raise SystemExit(f"{type(model).__name__} predicts no tokens")
    return found[0] / found[1]


def state(model: Any, grown: Checkpoint, kept: Batch) -> State:
    """The present copies and ranks, by one backward pass on the text that is kept back."""
    model.zero_grad()
    loss = mean_loss(model, kept)
    loss.backward()
    axes, ranks = measure(model, grown, composed_maps(grown.steps), int(kept.real.sum()), [])
    return State(loss.item(), axes, ranks)


def tables(runs: Sequence[Trained]) -> str:
    """Two tables: ranks and losses, and the cosines of each axis' copies; one line a noise, over its seeds."""
    by_noise = {noise: [run for run in runs if run.noise == noise] for noise in dict.fromkeys(r.noise for r in runs)}
    axes = [axis.axis for axis in runs[0].after.axes if axis.pairs]
    first = [
        "noise",
        "rank before",
        "rank after",
        "full rank",
        "pairs stuck",
        "kept back: before",
        "after",
        f"last {LAST} batches",
    ]
    second = ["noise", *(f"{axis}: cosine before" if at == 0 else f"{axis}: after" for axis in axes for at in (0, 1))]
    lines = [_line(first), _line(["---"] * len(first))]
    for noise, same in by_noise.items():
        stuck = [f"{sum(a.stuck for a in r.after.axes)} of {sum(a.pairs for a in r.after.axes)}" for r in same]
        cells = [
            _over([run.before.rank for run in same], 0),
            _over([run.after.rank for run in same], 0),
            str(same[0].after.full),
            ", ".join(dict.fromkeys(stuck)),
            _over([run.before.loss for run in same], 4),
            _over([run.after.loss for run in same], 4),
            _over([mean(run.losses[-LAST:]) for run in same], 4),
        ]
        lines.append(_line([f"{noise:g}", *cells]))
    lines += ["", _line(second), _line(["---"] * len(second))]
    for noise, same in by_noise.items():
        cells = [
            _over([_cosine(when, axis) for when in states], 6)
            for axis in axes
            for states in ([run.before for run in same], [run.after for run in same])
        ]
        lines.append(_line([f"{noise:g}", *cells]))
    return "\n".join(lines)


def _cosine(at: State, axis: str) -> float:
    """The mean cosine of the weights of an axis's pairs."""
    return next(a.weight_cosine.mean for a in at.axes if a.axis == axis and a.weight_cosine)


def _over(values: Sequence[float], digits: int) -> str:
    """The mean over the seeds, and its deviation where that is not zero."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkpoint", help="a folder, a Hub id or demo: a model that predicts tokens, with its tokenizer"
    )
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--rule", default="auto", help="rule of the growth: auto, orthogonal or exact")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, NOISE], metavar="AMOUNT")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, for the noise and the order of the text")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8, help="windows a step")
    parser.add_argument("--length", type=int, default=128, help="tokens a window")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--text", type=Path, default=SAMPLE, help="file to train on [default: the bundled sample]")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)  # equal copies must get gradients that are equal to the last bit
    source = open_checkpoint(options.checkpoint)
    runs = []
    with quiet():
        for noise in options.noise:
            for seed in range(options.seeds):
                print(f"noise {noise:g}, seed {seed}", file=sys.stderr, flush=True)
                runs.append(trained(source, noise, seed, options))
    print(tables(runs), end="\n\n")
    how = {**vars(options), "text": str(options.text), "torch": torch.__version__}
    print(json.dumps({"options": how, "runs": [asdict(run) for run in runs]}))


if __name__ == "__main__":
    main()
