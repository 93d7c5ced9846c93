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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.growth.kinds.kind import kind_of
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
from modelsurgeon.verification.limits import BLIND, EPS, NARROW, SHARE, TOLERANCE, Limits, wide_of
from modelsurgeon.verification.visits import Answers, ResultAnswers, Visits

FAR = 2.0  # times the usual limits: beyond it, the run in the stored 16 bits decides beside the one in more


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
    blind             outputs whose numbers are apart by less than `dtype` rounds them: they tell models apart no more
    slack             times the usual limits that noise sets
    routed            whether experts are chosen in 16 bits, as rounding wills
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
    blind: tuple[str, ...] = ()
    slack: float = 1.0
    routed: bool = False
    coverage: Coverage | None = None

    @property
    def limits(self) -> tuple[float, ...]:
        """The limit of each comparison's `max_rel`: TOLERANCE, or in 16 bits what the noise of its output allows."""
        return tuple(self._by_output[comparison.output].max_rel for comparison in self.comparisons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The differences between outputs that rounding does not explain, one line each."""
        return tuple(dict.fromkeys(self._broken()))

    @property
    def decides(self) -> bool:
        """Whether differences down to TOLERANCE show: not in 16 bits, nor where outputs tell nothing."""
        read = any(one.output not in self.blind and one.positions > one.unread for one in self.comparisons)
        return self.dtype not in NARROW and read

    @property
    def same(self) -> bool:
        """Whether outputs were compared, nothing differs by more than rounding explains, and written text agrees."""
        agree = bool(self.comparisons) and not self.reasons
        return agree and (self.generation is None or self.generation.same)

    @property
    def _by_output(self) -> dict[str, Limits]:
        found = {}
        for output in dict.fromkeys(one.output for one in self.comparisons):
            mine, noise = ([one for one in part if one.output == output] for part in (self.comparisons, self.noise))
            found[output] = Limits.of(self.dtype, mine, noise, self.slack, self.routed)
        return found

    def _broken(self) -> Iterator[str]:
        limits = self._by_output
        for comparison in self.comparisons:
            yield from limits[comparison.output].broken(comparison)
        for output, limit in limits.items():
            yield from limit.broken_mean([one for one in self.comparisons if one.output == output])
        if self.comparisons and not self.decides and self.dtype not in NARROW and self.layers and self.layers.first:
            yield f"{self.layers.inputs}: {self.layers.first.name} differs, and the outputs tell nothing"

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict and the tolerance behind it."""
        layers, generation = (part and part.to_json() for part in (self.layers, self.generation))
        verdict = {"dtype": self.dtype, "same": self.same, "decides": self.decides, "reasons": list(self.reasons)}
        limits = printable(tuple(self._by_output.values()))
        shown = {**verdict, "tolerance": TOLERANCE, "limits": limits, **printable(self)}
        del shown["routed"]  # its limits say it
        return {**shown, "layers": layers, "generation": generation}


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
    in_stored    also in the source's 16 bits, beside the noise floor; only what is FAR beyond it counts
    Raises SourceError where `transformers` cannot load a checkpoint whole, ModelSurgeonError where the outputs differ
    in size and no map says how, or where there is nothing to run; OSError where the disk for temporary files is full.
    """
    dtype, place = options.dtype, result_path or saved_folder(result)
    stored = next((name for name in NARROW if DTYPE_NAMES[name] == source.dtype and in_stored), None)
    wanted = dict.fromkeys(filter(None, [dtype, stored]))
    wide = wide_of(dtype)
    with quiet(), TemporaryDirectory(prefix="modelsurgeon-") as scratch:
        visits = Visits(source, result, place, maps or {}, options, Path(scratch), tell, behaviour, thorough)
        before: dict[str, Answers] = {}
        for each in dict.fromkeys([wide, *wanted]):
            before[each] = visits.ask_source(each, before.get(wide))
        routed = any(kind_of(axis).is_expert for axis in source.architecture.axes.values())
        rules = {each: (1.0 if each == dtype else FAR, routed and each in NARROW) for each in wanted}
        reports = {
            each: _report(each, before[each], visits.compare_result(each, before[each]), *rules[each])
            for each in wanted
        }
    return reports[dtype], reports[stored] if stored else None


def _report(dtype: str, before: Answers, after: ResultAnswers, slack: float, routed: bool) -> LogitReport:
    positions, comparisons = after.tallies.by_position(TEXT), after.tallies.comparisons()
    blind = [name for name, one in before.deviations.items() if one.grain(EPS[dtype]) > BLIND]
    found = LogitReport(
        dtype,
        comparisons,
        before.noise,
        seconds=before.seconds + after.seconds,
        perplexity=_perplexity(comparisons),
        layers=None if routed else after.layers,
        loss_by_position=Pairs(*positions) if positions else None,
        scatter=Pairs(*map(tuple, after.tallies.sample())),
        blind=() if dtype in NARROW else tuple(blind),
        slack=slack,
        routed=routed,
        coverage=before.coverage,
    )
    if before.continued and after.continued:
        limits = found._by_output["logits"]
        allowed = max(TOLERANCE, SHARE * max((one.typical for one in found.noise if one.output == "logits"), default=0))
        written = compare_continuations(before.continued, after.continued, limits.max_rel, allowed)
        found = replace(found, generation=written)
    return replace(found, notes=(*after.notes, *_untold(found)))


def _untold(found: LogitReport) -> Iterator[str]:
    """What this run cannot tell, one line each."""
    if found.dtype in NARROW and found.slack == 1 and not found.routed:
        least = max(found.limits, default=TOLERANCE)
        yield f"{found.dtype} cannot tell differences below {least:.1e} of the deviation: run in float32 for that"
    if found.routed:
        yield f"{found.dtype}: a router that rounds otherwise sends tokens elsewhere, so only usual differences count"
    for output in found.blind:
        yield f"{output} can hardly tell models apart: in {found.dtype} its numbers are as far apart as rounding"
    for one in found.comparisons:
        if one.unread:
            yield f"{one.inputs}: {one.output}: neither side has a finite number at {one.unread} of {one.positions}"


def _perplexity(comparisons: Iterable[Comparison]) -> dict[str, float] | None:
    """Exp of the mean cross entropy of the first output over tokens that has the text's labels."""
    for one in comparisons:
        if one.inputs == TEXT and one.loss_before is not None and one.loss_after is not None:
            return {"before": _exp(one.loss_before), "after": _exp(one.loss_after)}
    return None


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
