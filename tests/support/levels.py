"""Which levels of verification see a planted mistake: for test_levels.py and mutant_campaign.py.

    seen = seen_by(source, open_checkpoint(planted))  # {"proof", "logits"}

    proof       the weights do not fold back into the source's
    logits      outputs differ in float32, over one forward pass
    layers      hidden states differ; it shows where, and does not decide
    generation  the written text differs, or the cache changes it
    bf16        outputs differ in bfloat16 by more than that type's own noise

A result that the library cannot load or run, or that returns another shape, is seen by all levels that run it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.proof.proof import prove
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification.logits import LogitReport, compare_all
from support.grow import widen
from support.mutant import Mutant

DECIDING = ("proof", "logits", "generation")  # the levels that decide the verdict
SHORT = RunOptions(length=16, samples=1)


def widened(mutant: Mutant, source: Checkpoint, folder: Path) -> Path:
    """The correct result, into which a mistake is planted later."""
    factor = None if mutant.settings else 2
    how = {"rule": mutant.rule, "attention": mutant.attention}
    return save(widen(source, factor, mutant.settings, **how, noise=mutant.noise), folder)


def seen_by(source: Checkpoint, result: Checkpoint, narrow: bool = True) -> frozenset[str]:
    """The levels at which the result differs from its source; of bf16 only where `narrow`."""
    proof = prove(source, result)
    found = {"proof"} if proof and proof.summary == "wrong" else set()
    maps = composed_maps(result.steps)
    try:
        found |= _differs(compare_all(source, result, SHORT, maps=maps, behaviour=True)[0])
        if narrow and not compare_all(source, result, replace(SHORT, dtype="bfloat16"), maps=maps)[0].same:
            found.add("bf16")
    except ModelSurgeonError:
        found |= {"logits", "layers", "generation", "bf16"}
    return frozenset(found)


def _differs(report: LogitReport) -> set[str]:
    seen = {
        "logits": bool(report.reasons),
        "layers": report.layers is not None and report.layers.first is not None,
        "generation": report.generation is not None and not report.generation.same,
    }
    return {level for level, differs in seen.items() if differs}
