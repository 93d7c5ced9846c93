"""No false alarm: whatever does not change the function is never called different, and with a record it is proven.

A case is a model of some family, operations on it that lose nothing, and the way in which the result, or the source,
lies on the disk. Some are drawn by the commit, each of another operation, disguise and family; all with
MODELSURGEON_EXHAUSTIVE=1.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import ArchitectureError, PlanError, SourceError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.model import verify
from modelsurgeon.operations.insert_layers import InsertLayers
from modelsurgeon.operations.operation import Operation
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.operations.widen import NOISE, Widen
from modelsurgeon.saving.save import save
from modelsurgeon.verification.report import Report
from support import draws, tiny
from support.disguises import DISGUISES

NOTHING = "nothing"  # is done: the result is the source
ATTENTION = ("heads", "head-dim")
WIDENED = tuple(
    f"{rule} {attention}{' noise' if noise else ''}" for rule in RULES for attention in ATTENTION for noise in (0, 1)
)
CHAINS = ("chain", "chain noise")
MAIN = [variant for variant in tiny.variants() if variant.main]
SOME = 6  # cases of every run


@dataclass(frozen=True)
class Case:
    """done: what is done to the source. hidden: the disguise. both: whether the source wears it, too."""

    variant: tiny.Variant
    done: str
    hidden: str
    both: bool = False

    def __str__(self) -> str:
        return f"{self.variant}, {self.done}, {self.hidden}{' on both' * self.both}"


def everything() -> Iterator[Case]:
    """Every form of every family by every growth; the main forms in every disguise."""
    chance = draws.chance("no false alarm, all")
    for variant in tiny.variants():
        for done in (NOTHING, *WIDENED, *CHAINS):
            yield Case(variant, done, chance.choice(list(DISGUISES)), chance.random() < 0.25)
    for variant in MAIN:
        for hidden in DISGUISES:
            yield Case(variant, chance.choice([NOTHING, *WIDENED, *CHAINS]), hidden)


def some() -> Iterator[Case]:
    """A draw of other operations, other disguises and other families each."""
    chance = draws.chance("no false alarm")
    families = chance.sample(sorted({variant.model_type for variant in tiny.variants()}), SOME)
    done, hidden = [NOTHING, *WIDENED, *CHAINS], list(DISGUISES)
    shuffled = chance.sample(done, len(done)), chance.sample(hidden, len(hidden))
    for at, family in enumerate(families):
        variant = chance.choice([variant for variant in tiny.variants() if variant.model_type == family])
        yield Case(variant, *(ways[at % len(ways)] for ways in shuffled), both=at % 4 == 3)


FOUND = [  # false alarms of the past
    Case(tiny.named("roformer-question"), "exact head-dim", "as it is"),
    Case(tiny.named("albert-question"), "exact head-dim", "copied"),
    Case(tiny.named("mpt-six-heads"), "exact heads", "saved again"),
    Case(tiny.named("t5-body"), "orthogonal head-dim", "without a record"),
    Case(tiny.named("vit"), "chain", "copied"),
]
CASES = [*FOUND, *(everything() if draws.EXHAUSTIVE else some())]


def operations(done: str, source: Checkpoint, main: bool) -> list[Operation]:
    """What is done: one operation, or three; one that this family has no growth for is left out by `grown`."""
    if done == NOTHING:
        return []
    noise = NOISE if done.endswith("noise") else 0.0
    if done in WIDENED:
        rule, attention, *_ = done.split()
        return [Widen(factor=2, rule=rule, attention=attention, noise=noise)]
    counters = source.architecture.counters
    layers = {name: _doubled(key, source) for name, key in counters.items() if name.endswith("layer")}
    inserted = [InsertLayers(layers)] if layers and main else []  # bodies and classifiers name and count theirs apart
    untied = [UntieEmbeddings()] if source.has_head and source.is_tied else []
    return [Widen(factor=2, attention="heads", noise=noise), *untied, *inserted, Widen(factor=2, attention="head-dim")]


def _doubled(key: object, source: Checkpoint) -> list[int | None]:
    count = int(source.architecture.value(source.resolved, str(key)))
    return [old for layer in range(count) for old in (layer, None)]


def grown(case: Case, source: Checkpoint) -> Checkpoint:
    """The result, lazily; without the operations that this family refuses, or has only with a loss."""
    result = source
    for operation in operations(case.done, source, case.variant.main):
        try:
            after = applied(operation, result)
            check(after)
        except (PlanError, SourceError, ArchitectureError):
            continue
        result = result if after.lossy else after
    return result


def judged(case: Case, source: Path, folder: Path) -> tuple[Report, bool]:
    """The verdict; whether it must be a proof: by a record, or of what was only disguised."""
    before = shutil.copytree(source, folder / "source")
    checkpoint = open_checkpoint(before)
    result = grown(case, checkpoint)
    changed = len(result.steps) > 0
    after = save(result, folder / "result" / "it") if changed else shutil.copytree(before, folder / "result" / "it")
    after = DISGUISES[case.hidden].do(after, case.variant)
    if case.both:
        (folder / "before").mkdir()
        before = DISGUISES[case.hidden].do(before.rename(folder / "before" / "it"), case.variant)
    return verify(before, after, samples=1, length=16), DISGUISES[case.hidden].keeps_record or not changed


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_computes_the_same_is_never_called_different(
    case: Case, source: Callable[..., Path], tmp_path: Path
) -> None:
    narrow = case.hidden == "cast wider" or case.done.startswith("exact head-dim")
    report, provable = judged(case, source(case.variant, "bfloat16" if narrow else "float32"), tmp_path)
    assert report.same, (report, report.notes, report.unproven)
    assert report.proven or not provable, (report, report.notes, report.unproven)
