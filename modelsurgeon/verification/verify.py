"""Verification: is the result the same function as the source?

    1  proof       every tensor folds back to the source's, by the maps on record: all inputs, no forward pass
    2  outputs     both models in `transformers`, same inputs, float32; beside it 16 bits and their own noise
    3  behaviour   layer by layer, generating, and, if asked for, whether training tells copies apart

    >>> verify(open_checkpoint("demo"), open_checkpoint("wide")).verdict
    'same function'

The verdict is "same" if the proof finds nothing wrong and the outputs agree. Without a record there is no proof, unless
the maps can be derived from the weights; then the outputs decide alone, and the report has a note. Copies that training
could never change are reported, too, and do not change the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.infer import Inferred, infer
from modelsurgeon.proof.proof import Proof, prove, steps_between
from modelsurgeon.running.batches import SAMPLE
from modelsurgeon.running.environment import Environment, environment
from modelsurgeon.running.options import RunOptions
from modelsurgeon.text import printable
from modelsurgeon.verification import summary
from modelsurgeon.verification.logits import LogitReport, compare_all
from modelsurgeon.verification.trainable import Trainability, examine

FORMAT = 1  # of the document; schema.json describes it


@dataclass(frozen=True)
class Report:
    """The findings of each level; None for a level that was not run, with the reason in `notes`.

    steps           how the source became the result: on record, or derived from the weights (`inferred`)
    by_proof_alone  whether the models are not on this disk, so that nothing was run; the proof covers all inputs
    seconds         {level: wall time}
    command         the command line of the verification
    """

    source: Checkpoint
    result: Checkpoint
    options: RunOptions
    environment: Environment
    steps: tuple[Step, ...] | None = None
    inferred: Inferred | None = None
    proof: Proof | None = None
    logits: LogitReport | None = None
    stored: LogitReport | None = None
    trainable: Trainability | None = None
    notes: tuple[str, ...] = ()
    by_proof_alone: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    command: str | None = None

    def __repr__(self) -> str:
        return f"Report({self.verdict!r}, same={self.same}, proven={self.proven})"

    @property
    def same(self) -> bool:
        """Whether no level that was run found a difference; at least the outputs, or the proof alone, must be there."""
        if self.by_proof_alone:
            return self.proven and self.proof is not None and self.proof.rounding <= summary.NEGLIGIBLE
        return not self._is_wrong and self.logits is not None and self.logits.same

    @property
    def _is_wrong(self) -> bool:
        return self.proof is not None and self.proof.summary == "wrong"

    @property
    def proven(self) -> bool:
        """Whether the weights prove it for all inputs, up to rounding."""
        return self.proof is not None and not self._is_wrong and not self.proof.lossy

    @property
    def verdict(self) -> str:
        """Same function, or different; and what training would never change."""
        return summary.verdict(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The document that schema.json describes: terminal and page show nothing else."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "same": self.same,
            "source": self.source.origin.id,
            "result": self.result.origin.id,
            "checkpoints": {"source": self.source.summary(), "result": self.result.summary()},
            "maps": None if self.steps is None else self._maps(),
            "inferred": self.inferred and self.inferred.to_json(),
            "settings": self._settings() if self.logits or self.trainable else None,
            "proof": self.proof and self.proof.to_json(),
            "logits": self.logits and self.logits.to_json(),
            "stored": self.stored and self.stored.to_json(),
            "trainable": self.trainable and self.trainable.to_json(),
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
            "environment": self.environment,
            "command": self.command,
        }
        printed: dict[str, Any] = printable({**document, "verdict": summary.verdict(document)})
        return printed

    def _maps(self) -> dict[str, Any]:
        shown = ("operation", "version", "arguments", "lossy")
        steps = [{key: step.to_json()[key] for key in shown} for step in self.steps or ()]
        return {"from": "weights" if self.inferred else "record", "steps": steps}

    def _settings(self) -> dict[str, Any]:
        """How the models were run; of the text only the length."""
        settings, text = printable(self.options), self.options.text
        del settings["trust_remote_code"]
        characters = len(SAMPLE.read_text(encoding="utf-8") if text is None else text)
        return {**settings, "text": {"sample": text is None, "characters": characters}}


def verify(
    source: Checkpoint,
    result: Checkpoint,
    options: RunOptions = RunOptions(),
    *,
    infer: bool = False,
    behaviour: bool = False,
    trainable: bool = False,
    tell: Tell = silent,
) -> Report:
    """Compare two checkpoints.

    infer      derive the maps from the weights if no record has them
    behaviour  compare layers and generation, too
    trainable  examine whether training would make the copies differ
    Raises as each level does, but not where outputs cannot be compared after the proof has found something wrong.
    """
    report = Report(source, result, options, environment(options.device), steps=steps_between(source, result))
    if report.steps is None and infer:
        report = _timed(report, "infer", _inferred, tell)
    report = _timed(report, "proof", _proven, tell)
    if elsewhere := [checkpoint.origin.id for checkpoint in (source, result) if not checkpoint.fetch()]:
        note = f"logits not compared: {elsewhere[0]} is read where it is, and not stored on this disk"
        report = replace(report, notes=(*report.notes, note), by_proof_alone=True)
    else:
        report = _timed(report, "logits", _compared, tell, behaviour)
    return _timed(report, "trainable", _examined, tell) if trainable else report


def _timed(report: Report, level: str, run: Any, *arguments: Any) -> Report:
    """The report with the findings of one level and the time that it took."""
    begin = time.perf_counter()
    found: Report = run(report, *arguments)
    return replace(found, seconds={**found.seconds, level: time.perf_counter() - begin})


def _inferred(report: Report, tell: Tell) -> Report:
    before, after = (checkpoint.config.get("model_type") for checkpoint in (report.source, report.result))
    if before != after:
        return replace(report, notes=(f"proof skipped: model_type {after!r} has no maps to {before!r}",))
    found = infer(report.source, report.result, tell=tell)
    return replace(report, inferred=found, steps=found.steps)


def _proven(report: Report, tell: Tell) -> Report:
    if report.notes:
        return report
    if report.steps is None:
        why = "its record does not begin at this source" if report.result.steps else "no record of how it was made"
        return replace(report, notes=(f"proof skipped: {why} (--infer tries to derive the maps)",))
    derived = report.steps if report.inferred else None
    return replace(report, proof=prove(report.source, report.result, derived, tell=tell))


def _compared(report: Report, tell: Tell, behaviour: bool) -> Report:
    maps = composed_maps(report.steps or ())
    try:
        found = compare_all(report.source, report.result, report.options, maps=maps, behaviour=behaviour, tell=tell)
    except ModelSurgeonError as error:
        if not report._is_wrong:
            raise
        return replace(report, notes=(*report.notes, f"logits not compared: {error}"))
    return replace(report, logits=found[0], stored=found[1])


def _examined(report: Report, tell: Tell) -> Report:
    if report.steps is None:
        return replace(report, notes=(*report.notes, "trainable: not examined: no maps say what is a copy of what"))
    try:
        found = examine(report.result, composed_maps(report.steps), report.options, tell)
    except ModelSurgeonError as error:  # the findings before it still count
        return replace(report, notes=(*report.notes, f"trainable: not examined: {error}"))
    return replace(report, trainable=found)
