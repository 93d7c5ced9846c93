"""Does the measured bottleneck show where widening pays? Llamas of several widths, trained from nothing and measured.

    python scripts/training/train_widths.py --device cuda --json widths.json
    python scripts/training/train_widths.py --read widths.json --write docs/diagnosis.md
    python scripts/training/train_widths.py --widths 16 32 --steps 5 --long 8 --head-steps 3 --vocab 512 \
        --corpus modelsurgeon

All widths have the same layers, text, order of the text and steps; heads and intermediate size are in proportion. The
text is the Python source of the packages installed beside torch (or --corpus), in tokens that are learnt from it; some
files are kept back (corpus.py). Three tables, the blocks of docs/diagnosis.md (widths.py):

    widths           loss, the head's spectrum and anisotropy by width; what twice the width gains, beside what is lost
                     where the trained head is cut
    widths-rank      the loss by the rank of the head: cut, and trained on the frozen states of the widest model
    widths-training  the narrowest model, trained on and on: arXiv 2404.07647 saw the spectrum get flat, then spike, and
                     anisotropy and loss go up with it (figures 3 to 5)

Heads on frozen states are figure 6 of arXiv 2404.07647, but for their beginning: there random numbers and 150M tokens,
here the cut of the trained head, from which a training of minutes comes far enough. Losses are nats a token of what was
kept back, in float32. --json is written after every model: what was measured stays if the rest fails.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

import torch
import transformers
from corpus import Data, data
from torch.nn import functional
from widths import Measured, Results, blocks

from modelsurgeon.diagnosis.weights.spectrum import effective_rank, entropy, largest_share, random_entropy
from readme import write_block

HEAD_DIM = 32
WARMUP = 0.05  # of the steps
LEAST = 0.1  # of the learning rate, at the end
DECAY = 0.1  # of matrices; Pythia's
CLIPPED = 1.0
EVERY = 250  # steps between two lines on stderr
LAST = 50  # steps whose batches' losses are averaged
POSITIONS = 8192  # rows whose logits are in memory at a time when a loss is measured
SNAPSHOTS = (0, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1)  # of the long training


def new_model(width: int, vocab: int, options: argparse.Namespace) -> Any:
    """A Llama with fresh weights; all widths begin from the same seed."""
    torch.manual_seed(options.seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, width // HEAD_DIM),
        max_position_embeddings=options.length,
        tie_word_embeddings=options.tied,
        bos_token_id=None,
        eos_token_id=0,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config).to(options.device)


def autocast(device: str) -> torch.autocast:
    """Autocast to bfloat16 on a GPU; nothing elsewhere."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda")


def fit(
    what: str,
    parameters: Sequence[torch.nn.Parameter],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    data: Data,
    steps: int,
    rate: float,
    options: argparse.Namespace,
    snapshots: Mapping[int, Callable[[float | None], None]],
) -> None:
    """AdamW with warmup and a cosine.

    snapshots  {steps: called after so many, with the last batches' loss}
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, steps))
    batches, last = data.batches(options.batch, options.seed), deque[torch.Tensor](maxlen=LAST)
    for step in range(steps + 1):
        if step in snapshots:
            snapshots[step](torch.stack(list(last)).mean().item() if last else None)
        if step % EVERY == 0 and last:
            print(f"{what}: step {step} of {steps}: {last[-1].item():.4f}", file=sys.stderr, flush=True)
        if step == steps:
            break
        loss = loss_of(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIPPED)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        last.append(loss.detach())


def share_of_rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: linear warmup, then a cosine."""
    warmup = max(1, int(steps * WARMUP))
    if step < warmup:
        return (step + 1) / warmup
    way = (step - warmup) / max(1, steps - warmup)
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(1.0, way))) / 2


def train(
    model: Any,
    data: Data,
    steps: int,
    stops: Sequence[int],
    options: argparse.Namespace,
    record: Callable[[Measured], None],
) -> None:
    """Train a model and measure it after each of these numbers of steps; cut its head after the last."""
    width, started = model.config.hidden_size, time.perf_counter()

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with autocast(options.device):
            logits = model(rows[:, :-1]).logits
            return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())

    def snapshot(step: int, loss: float | None) -> None:
        seconds, tokens = time.perf_counter() - started, step * options.batch * options.length
        found = measured(model, data, cut=step == steps)
        record(Measured(width, step, tokens, train_loss=loss, seconds=seconds, **found))

    rate = options.rate * math.sqrt(64 / width)
    snapshots = {stop: partial(snapshot, stop) for stop in stops}
    fit(f"width {width}", list(model.parameters()), loss_of, data, steps, rate, options, snapshots)


def measured(model: Any, data: Data, cut: bool) -> dict[str, Any]:
    """The loss, the spectrum, the anisotropy, and the loss of the head cut to some ranks."""
    head, states = model.lm_head.weight.detach(), states_of(model, data)
    basis, singular = right_basis(head)
    width, values = len(singular), singular.numpy()
    loss = head_loss(states, head, data)
    ranks = sorted({2**at for at in range(3, width.bit_length())} | {width // 2, width - width // 8}) if cut else []
    cuts = [[rank, head_loss(project(states, basis[:rank]), head, data)] for rank in ranks if rank < width]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
        "entropy": entropy(values),
        "random_entropy": random_entropy(*head.shape),
        "effective_rank": effective_rank(values),
        "largest_share": largest_share(values),
        "anisotropy": anisotropy(states),
        "cuts": [*cuts, [width, loss]],
    }


@torch.no_grad()
def states_of(model: Any, data: Data) -> torch.Tensor:
    """[positions, d] float32: the head's inputs, after the last norm, on the text that is kept back."""
    step = max(1, POSITIONS // data.kept.shape[1])
    return torch.cat([model.model(rows[:, :-1]).last_hidden_state.flatten(0, 1) for rows in data.kept.split(step)])


@torch.no_grad()
def head_loss(states: torch.Tensor, head: torch.Tensor, data: Data) -> float:
    """Nats a token, in float32; added up in float64."""
    total = torch.zeros((), dtype=torch.float64, device=states.device)
    labels = data.kept[:, 1:].flatten().long()
    for part, label in zip(states.split(POSITIONS), labels.split(POSITIONS), strict=True):
        total += functional.cross_entropy(part @ head.T, label, reduction="sum").double()
    return total.item() / len(labels)


def right_basis(head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """([d, d] right singular vectors as rows, [d] singular values, descending), in float64 on the CPU."""
    triangle = torch.linalg.qr(head.double().cpu(), mode="r").R
    _, values, basis = torch.linalg.svd(triangle)
    return basis, values


def project(states: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """The states projected to these directions, which cuts the head: h V V' W' is h (W V V')'."""
    basis = basis.to(states)
    return (states @ basis.T) @ basis


def anisotropy(states: torch.Tensor) -> float:
    """The mean cosine of all pairs of different positions: (|sum of unit vectors|^2 - N) / (N (N - 1))."""
    count = len(states)
    total = functional.normalize(states.double(), dim=1).sum(0)
    return ((total @ total).item() - count) / (count * (count - 1))


def trained_head(model: Any, rank: int, data: Data, options: argparse.Namespace) -> dict[str, float]:
    """W = A B, A [n, r] and B [r, d], trained from the cut on, on the states of a frozen model."""
    head, states = model.lm_head.weight.detach(), states_of(model, data)
    basis = right_basis(head)[0][:rank].to(head)
    a, b = torch.nn.Parameter(head @ basis.T), torch.nn.Parameter(basis.clone())

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with autocast(options.device):
            with torch.no_grad():
                read = model.model(rows[:, :-1]).last_hidden_state
            return functional.cross_entropy((read @ b.T @ a.T).flatten(0, 1), rows[:, 1:].flatten())

    def loss() -> float:
        return head_loss(states @ b.detach().T, a.detach(), data)

    before, rate = loss(), options.rate * math.sqrt(64 / len(head.T))
    fit(f"head of rank {rank}", [a, b], loss_of, data, options.head_steps, rate, options, {})
    return {"rank": rank, "before": before, "after": loss()}


def run(options: argparse.Namespace) -> Results:
    """Run everything; write --json after each model and snapshot."""
    name = torch.cuda.get_device_name() if torch.device(options.device).type == "cuda" else "CPU"
    environment = {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}
    how = {k: v for k, v in vars(options).items() if k not in ("json", "read", "write", "corpus")}
    text, widths = data(options), sorted(options.widths)
    results = Results({**how, "vocab": text.vocab}, environment, text.says)

    def record(entries: list[Any], entry: Any) -> None:
        entries.append(entry)
        results.dump(options.json)

    for width in widths:
        model = new_model(width, text.vocab, options)
        train(model, text, options.steps, [options.steps], options, partial(record, results.widths))
    for rank in widths if options.head_steps else ():
        record(results.heads, trained_head(model, rank, text, options))
    if options.long:
        stops = sorted({round(options.long * share) for share in SNAPSHOTS})
        model = new_model(widths[0], text.vocab, options)
        train(model, text, options.long, stops, options, partial(record, results.training))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tied", action="store_true", help="tie the head to the embedding")
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--head-steps", type=int, default=500, help="steps of each head on frozen states; 0: none")
    parser.add_argument("--long", type=int, default=8000, help="steps of the narrowest model's snapshots; 0: none")
    parser.add_argument("--batch", type=int, default=128, help="rows a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    parser.add_argument("--rate", type=float, default=4e-3, help="of width 64; else times sqrt(64 / width)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept-rows", type=int, default=1024, help="most rows that are kept back")
    parser.add_argument("--corpus", type=Path, nargs="+", default=[Path(torch.__file__).parents[1]], help="folders")
    parser.add_argument("--megabytes", type=int, default=200, help="most megabytes of the corpus")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--read", type=Path, metavar="FILE", help="read such numbers instead of training")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write into this file's blocks, not to stdout")
    options = parser.parse_args()
    for name, text in blocks(Results.read(options.read) if options.read else run(options)):
        if options.write:
            write_block(options.write, name, text)
        else:
            print(f"<!-- {name} -->\n{text}\n<!-- /{name} -->\n")


if __name__ == "__main__":
    main()
