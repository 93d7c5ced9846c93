"""The diagnosis of trained checkpoints, beside an independent computation of the same numbers.

    python scripts/tables/diagnosis.py CHECKPOINTS TEXT --write docs/diagnosis.md

CHECKPOINTS is a folder of checkpoints, TEXT a file that they never saw. Three tables:

    gains       mean gains of every norm: before the layers, in them, the last one, a masked-LM head's own
    saturation  head spectra and last hidden states, and the loss with the head cut to a part of its rank
    agreement   singular entropy and anisotropy by scipy, from tensors that safetensors and states that transformers
                gives: scipy.linalg.svdvals, scipy.stats.entropy, scipy.spatial.distance.pdist

It needs scipy, which nothing else here does. MiniLM, which others trained, is included where its package is installed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.linalg import svdvals
from scipy.spatial.distance import pdist
from scipy.stats import entropy

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.diagnosis.diagnose import diagnose_all
from modelsurgeon.running.batches import make_windows
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reference import load, quiet
from readme import write_block
from trained_checkpoints import checkpoints

SAMPLES, LENGTH = 16, 128
MEMORY = 8 * 10**9  # bytes: this process also holds what ran before
Document = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkpoints", type=Path, help="a folder of checkpoints")
    parser.add_argument("text", type=Path)
    parser.add_argument("--write", type=Path, help="write the tables between their marks in this file")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    folders = dict(checkpoints(arguments.checkpoints))
    torch.set_grad_enabled(False)
    found = {name: measured(folder, text) for name, folder in folders.items()}
    others = {name: (independent(folders[name], text, model), model) for name, model in found.items()}
    tables = {"gains": gains(found), "saturation": saturation(found), "agreement": agreement(others)}
    for name, table in tables.items():
        print(f"{table}\n")
        if arguments.write:
            write_block(arguments.write, name, table)


def measured(folder: Path, text: str) -> Document:
    options = RunOptions(text, SAMPLES, LENGTH, memory=MEMORY)
    return diagnose_all([open_checkpoint(folder)], options)[0].measures()


# --- tables ---


def gains(found: Mapping[str, Document]) -> str:
    """Mean gains by place."""
    rows = []
    for name, model in found.items():
        means = {
            place: [one["mean"] for one in model["gains"] if (one["kind"], one["place"]) == ("gain", place)]
            for place in ("embedding", "body", "last", "head")
        }
        body = means["body"]
        middle = statistics.median(body) if body else math.nan
        ratio = (means["head"] or means["last"] or [math.nan])[-1] / middle
        spread = f"{min(body):.2f} to {max(body):.2f}" if body else ""
        ends = [" ".join(f"{mean:.2f}" for mean in means[place]) for place in ("embedding", "last", "head")]
        rows.append([name, ends[0], spread, *ends[1:], f"{ratio:.2f}"])
    return table(["checkpoint", "embedding", "body", "last", "masked-LM head", "end over median of the body"], rows)


def saturation(found: Mapping[str, Document]) -> str:
    """Spectra and last states."""
    rows = []
    for name, model in found.items():
        spectrum, running = model["spectrum"], model["running"]
        rank, width = spectrum["effective_rank"], min(spectrum["shape"])
        row = [name, "x".join(map(str, spectrum["shape"])), kind(model)]
        row += [f"{spectrum['entropy']:.3f}", f"{spectrum['random_entropy']:.3f}", f"{rank / width:.2f}"]
        row += [f"{spectrum['largest_share']:.1%}", f"{running['last']['anisotropy']:.2f}"]
        row += [f"{running['last']['effective_rank']:.0f} of {running['last']['possible']}"]
        row += [shown(running["loss"]), *(shown(rise(running, width, share)) for share in (7 / 8, 1 / 2, 1 / 4))]
        rows.append(row)
    headings = ["checkpoint", "head", "", "entropy", "of a random one", "effective rank / d", "largest share"]
    headings += ["last anisotropy", "rank of last states", "loss", "+ at 7/8 d", "+ at d/2", "+ at d/4"]
    return table(headings, rows)


def kind(model: Document) -> str:
    """Whether there is a head, and whether it is the embedding."""
    return "none: embedding" if model["initial_loss"] is None else "own" if model["head"] else "tied"


def rise(running: Document, width: int, share: float) -> float | None:
    """The rise of the loss, in nats, when the head is cut to a share of its rank."""
    if not running["head_cut"]:
        return None
    points = {point["rank"]: point["loss"] for point in running["head_cut"]["points"]}
    return float(points[min(points, key=lambda rank: abs(rank - share * width))] - running["head_cut"]["full"])


def agreement(others: Mapping[str, tuple[tuple[float, float], Document]]) -> str:
    """Both measures, computed both ways, and their differences."""
    rows = []
    for name, ((kl, cosine), model) in others.items():
        pairs = [(model["spectrum"]["entropy"], kl), (last_state(model)["anisotropy"], cosine)]
        rows.append([name, *(cell for ours, theirs in pairs for cell in (f"{ours:.9f}", f"{abs(ours - theirs):.0e}"))])
    return table(["checkpoint", "singular entropy", "apart from scipy's", "anisotropy", "apart from scipy's"], rows)


def last_state(model: Document) -> Document:
    states = [state for state in model["running"]["states"] if state["side"] != "encoder"]
    found: Document = states[-1]
    return found


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


# --- the same numbers by other means ---


def independent(folder: Path, text: str, model: Document) -> tuple[float, float]:
    """(singular entropy of the head, anisotropy of the last hidden state)."""
    weight = load_file(folder / "model.safetensors")[model["spectrum"]["tensor"]].double().numpy()
    values = svdvals(weight)
    uniform = np.full(len(values), 1 / len(values))
    return float(entropy(values / values.sum(), uniform)), 1 - float(pdist(states(folder, text), "cosine").mean())


def states(folder: Path, text: str) -> np.ndarray:
    """[N, d]: the last hidden states as `transformers` returns them; no padding."""
    found = []
    with quiet():
        model, _ = load(open_checkpoint(folder), folder)
        for batch in make_windows(model, folder, RunOptions(text, SAMPLES, LENGTH)).batches:
            returned = model(**batch.arguments, output_hidden_states=True)
            hidden = getattr(returned, "decoder_hidden_states", None) or returned.hidden_states
            found.append(hidden[-1][batch.real].double().numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
