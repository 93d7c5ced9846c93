"""Level 2 of verification: run both checkpoints in `transformers` on the same inputs, and compare what they return.

    >>> report, in_stored_dtype = compare_all(open_checkpoint("demo"), open_checkpoint("demo-x2"))
    >>> report.same
    True

One model at a time is in memory: the source runs first, and all its outputs are kept on disk; then the result runs on
the same inputs and is compared batch by batch. An output whose last axis grew is folded by that axis' map
(`forward.py`). If the source is stored in 16 bits, both models run a second time in that dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell, silent
from modelsurgeon.running.batches import TEXT
from modelsurgeon.running.coverage import Coverage
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reference import quiet, saved_folder
from modelsurgeon.tensors.dtypes import DTYPE_NAMES
from modelsurgeon.text import printable
from modelsurgeon.verification.comparison import Comparison
from modelsurgeon.verification.continuations import Generation, compare_continuations
from modelsurgeon.verification.layers import Layers
from modelsurgeon.verification.visits import Answers, ResultAnswers, Visits

# Float32 forward passes of one function in another order of summation differ by 2e-6 to 3e-5 of the outputs' deviation
# (46 families, design.md); a planted mistake (a share x 1.01, an eps left alone) moves them by more than 1e-3.
TOLERANCE = 1e-4
NOISE = 2.0  # two 16-bit passes of one function differ from its float32 pass by the noise floor each
NARROW = ("bfloat16", "float16")


@dataclass(frozen=True)
class Pairs:
    """The same numbers before and after, in order."""

    before: tuple[float | None, ...]
    after: tuple[float | None, ...]


@dataclass(frozen=True)
class LogitReport:
    """The comparison of what two models return for the same inputs.

    dtype             what both computed in
    noise             16 bits only: the source against itself in more bits, in the order of `comparisons`
    notes             what was not run, and why
    seconds           wall time
    perplexity        "before" and "after", of the text; None where it has no labels
    layers            hidden states, where behaviour was compared: where a difference begins, not whether there is one
    generation        continuations of prompts, where behaviour was compared and the models write text
    loss_by_position  nats: the mean cross entropy at each position of the text's windows
    scatter           some logits of all inputs
    coverage          how much was fed of what the source can look up
    """

    dtype: str
    comparisons: tuple[Comparison, ...]
    noise: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    perplexity: dict[str, float] | None = None
    layers: Layers | None = None
    generation: Generation | None = None
    loss_by_position: Pairs | None = None
    scatter: Pairs | None = None
    coverage: Coverage | None = None

    @property
    def limits(self) -> tuple[float, ...]:
        """The limit of each comparison's `max_rel`: TOLERANCE, or in 16 bits what the noise of its output allows."""
        return tuple(_limit(self.noise, comparison.output) for comparison in self.comparisons)

    @property
    def same(self) -> bool:
        """Whether outputs were compared, all are within their limits, and written text agrees."""
        pairs = zip(self.comparisons, self.limits, strict=True)
        agree = bool(self.comparisons) and all(math.isfinite(c.max_rel) and c.max_rel <= limit for c, limit in pairs)
        return agree and (self.generation is None or self.generation.same)

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict and the tolerance behind it."""
        layers, generation = (part and part.to_json() for part in (self.layers, self.generation))
        verdict = {"dtype": self.dtype, "same": self.same, "tolerance": TOLERANCE}
        return {**verdict, **printable(self), "layers": layers, "generation": generation}


def compare_all(
    source: Checkpoint,
    result: Checkpoint,
    options: RunOptions = RunOptions(),
    *,
    result_path: Path | None = None,
    maps: Mapping[str, AxisMap] | None = None,
    behaviour: bool = False,
    thorough: bool = False,
    in_stored: bool = True,
    tell: Tell = silent,
) -> tuple[LogitReport, LogitReport | None]:
    """Compare what both checkpoints return: (computed in `options.dtype`, in the 16 bits that the source is stored in).

    result_path  the folder of a result that is not published yet; None: the one that it was opened from
    maps         {axis: map} from source to result; an axis without one did not grow
    behaviour    also long and shifted rows, padding on the left, hidden states, and text that both write
    thorough     feed every row that can be looked up, and reach beyond windows, as far as a budget goes (no proof)
    in_stored    also in the source's 16 bits, beside the noise floor
    Raises SourceError where `transformers` cannot load a checkpoint whole, ModelSurgeonError where the outputs differ
    in size and no map says how, or where there is nothing to run; OSError where the disk for temporary files is full.
    """
    dtype, place = options.dtype, result_path or saved_folder(result)
    stored = next((name for name in NARROW if DTYPE_NAMES[name] == source.dtype and in_stored), None)
    wanted = dict.fromkeys(filter(None, [dtype, stored]))
    wide = dtype if dtype not in NARROW else "float32"  # what noise is measured from
    with quiet(), TemporaryDirectory(prefix="modelsurgeon-") as scratch:
        visits = Visits(source, result, place, maps or {}, options, Path(scratch), tell, behaviour, thorough)
        before: dict[str, Answers] = {}
        for each in dict.fromkeys([wide, *wanted]):
            before[each] = visits.ask_source(each, before.get(wide))
        reports = {each: _report(each, before[each], visits.compare_result(each, before[each])) for each in wanted}
    return reports[dtype], reports[stored] if stored else None


def _report(dtype: str, before: Answers, after: ResultAnswers) -> LogitReport:
    comparisons = after.tallies.comparisons(before.deviations)
    generation, positions = None, after.tallies.by_position(TEXT)
    if before.continued and after.continued:
        error = max(one.max_abs for one in comparisons if one.output == "logits")
        tolerance, deviation = _limit(before.noise, "logits"), float(before.deviations["logits"])
        generation = compare_continuations(before.continued, after.continued, deviation, tolerance, error)
    seconds, perplexity = before.seconds + after.seconds, _perplexity(comparisons)
    losses, scatter = Pairs(*positions) if positions else None, Pairs(*map(tuple, after.tallies.sample()))
    found = LogitReport(
        dtype, comparisons, before.noise, after.notes, seconds, perplexity, after.layers, generation, losses, scatter
    )
    return replace(found, coverage=before.coverage)


def _perplexity(comparisons: Iterable[Comparison]) -> dict[str, float] | None:
    """Exp of the mean cross entropy of the first output over tokens that has the text's labels."""
    for one in comparisons:
        if one.inputs == TEXT and one.loss_before is not None and one.loss_after is not None:
            return {"before": _exp(one.loss_before), "after": _exp(one.loss_after)}
    return None


def _limit(noise: tuple[Comparison, ...], output: str) -> float:
    return max([TOLERANCE, *(NOISE * one.max_rel for one in noise if one.output == output)])


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
