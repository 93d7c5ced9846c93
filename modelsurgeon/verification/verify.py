"""Verification: is the result the same function as the source?

    1  proof       every tensor folds back to the source's, by the maps on record: all inputs, no forward pass
    2  outputs     both models in `transformers`, same inputs, float32; beside it 16 bits and their own noise
    3  behaviour   layer by layer, generating, and, if asked for, whether training tells copies apart

    >>> verify(open_checkpoint("demo"), open_checkpoint("wide")).verdict
    'same function'

The verdict is "same" where the proof finds nothing wrong and the outputs agree. Without a record there is no proof,
unless the maps can be derived from the weights, and the outputs decide alone; the report has a note. Copies that
training could never change are reported too, and do not change the verdict.
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
NEGLIGIBLE = 1e-6  # of a weight: a rounding that logits computed in float32 do not show


@dataclass(frozen=True)
class Report:
    """What was found, level by level; None where a level was not run, with the reason in `notes`.

    steps           how the result was made of the source: on record, or derived from the weights (`inferred`)
    by_proof_alone  the models are not on this disk, so nothing was run; the proof covers all inputs
    seconds         {level: wall time}
    command         the command line that asked for it
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
        if self.by_proof_alone:
            proof = self.proof
            return proof is not None and proof.summary != "wrong" and not proof.lossy and proof.rounding <= NEGLIGIBLE
        proven = self.proof is None or self.proof.summary != "wrong"
        return proven and self.logits is not None and self.logits.same

    @property
    def proven(self) -> bool:
        """Whether the weights prove it for all inputs, up to rounding."""
        return self.proof is not None and self.proof.summary != "wrong" and not self.proof.lossy

    @property
    def verdict(self) -> str:
        """same function, or different; and what training would never change."""
        return summary.verdict(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The document that schema.json describes: terminal and page show nothing else."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "same": self.same,
            "source": self.source.origin.id,
            "result": self.result.origin.id,
            "checkpoints": {"source": self.source.summary(), "result": self.result.summary()},
            "maps": self._maps(),
            "inferred": self.inferred.to_json() if self.inferred else None,
            "settings": _settings(self.options) if self.logits or self.trainable else None,
            "proof": self.proof.to_json() if self.proof else None,
            "logits": self.logits.to_json() if self.logits else None,
            "stored": self.stored.to_json() if self.stored else None,
            "trainable": self.trainable.to_json() if self.trainable else None,
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
            "environment": self.environment,
            "command": self.command,
        }
        told: dict[str, Any] = printable({**document, "verdict": summary.verdict(document)})
        return told

    def _maps(self) -> dict[str, Any] | None:
        if self.steps is None:
            return None
        told = ("operation", "version", "arguments", "lossy")
        steps = [{key: step.to_json()[key] for key in told} for step in self.steps]
        return {"from": "weights" if self.inferred else "record", "steps": steps}


def _settings(options: RunOptions) -> dict[str, Any]:
    """How the models were run, for the document."""
    text = SAMPLE.read_text(encoding="utf-8") if options.text is None else options.text
    return {
        "text": {"sample": options.text is None, "characters": len(text)},
        "samples": options.samples,
        "length": options.length,
        "dtype": options.dtype,
        "device": options.device,
        "seed": options.seed,
        "memory": options.memory,
    }


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

    infer      derive the maps from the weights where no record tells them
    behaviour  compare layers and generation too
    trainable  examine whether training would make the copies differ
    Raises what the levels raise, but for those after a proof that already found something wrong.
    """
    report = Report(source, result, options, environment(options.device), steps=steps_between(source, result))
    if report.steps is None and infer:
        report = _timed(report, "infer", _inferred, tell)
    report = _timed(report, "proof", _proven, tell)
    apart = [checkpoint.origin.id for checkpoint in (source, result) if not checkpoint.fetch()]
    if apart:
        note = f"logits not compared: {apart[0]} is read where it is, and not stored on this disk"
        report = replace(report, notes=(*report.notes, note), by_proof_alone=True)
    else:
        report = _timed(report, "logits", _compared, tell, behaviour)
    return _timed(report, "trainable", _examined, tell) if trainable else report


def _timed(report: Report, level: str, run: Any, *arguments: Any) -> Report:
    """The report with what one level adds, and the time that it took."""
    begin = time.perf_counter()
    found: Report = run(report, *arguments)
    return replace(found, seconds={**found.seconds, level: time.perf_counter() - begin})


def _inferred(report: Report, tell: Tell) -> Report:
    kinds = [checkpoint.config.get("model_type") for checkpoint in (report.source, report.result)]
    if kinds[0] != kinds[1]:
        return replace(report, notes=(f"proof skipped: model_type {kinds[1]!r} has no maps to {kinds[0]!r}",))
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
        if report.proof is None or report.proof.summary != "wrong":
            raise
        return replace(report, notes=(*report.notes, f"logits not compared: {error}"))
    return replace(report, logits=found[0], stored=found[1])


def _examined(report: Report, tell: Tell) -> Report:
    if report.steps is None:
        return replace(report, notes=(*report.notes, "trainable: not examined: no maps say what is a copy of what"))
    try:
        found = examine(report.result, composed_maps(report.steps), report.options, tell)
    except ModelSurgeonError as error:  # what was found before it still counts
        return replace(report, notes=(*report.notes, f"trainable: not examined: {error}"))
    return replace(report, trainable=found)
