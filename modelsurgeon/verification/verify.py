"""Verification: is the result the same function as the source?

    1  proof       every tensor folds back to the source's, by the maps on record: all inputs, no forward pass
    2  outputs     both models in `transformers`, same inputs, float32; beside it 16 bits and their own noise
    3  behaviour   layer by layer, generating, and, if asked for, whether training tells copies apart
    -  beside      tokenizer, templates, labels, dtypes ...: they have no say in the verdict (`beside.py`)

    >>> verify(open_checkpoint("demo"), open_checkpoint("wide")).verdict
    'same function, proven for all inputs'

Without a record the maps are derived from the weights first. Maps that do not fit prove nothing, either way: then the
outputs decide alone, and the verdict says that it is not proven (`report.py`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.weight_files import CONFIG
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof.config_keys import ConfigComparison, compare_configs
from modelsurgeon.proof.infer import infer as infer_maps
from modelsurgeon.proof.proof import prove, steps_between
from modelsurgeon.running.environment import environment
from modelsurgeon.running.options import RunOptions
from modelsurgeon.verification.beside import compare_beside
from modelsurgeon.verification.logits import compare_all
from modelsurgeon.verification.report import Report
from modelsurgeon.verification.trainable import examine


def verify(
    source: Checkpoint,
    result: Checkpoint,
    options: RunOptions = RunOptions(),
    *,
    infer: bool = True,
    ignore_record: bool = False,
    behaviour: bool = False,
    trainable: bool = False,
    tell: Tell = silent,
) -> Report:
    """Compare two checkpoints.

    infer          derive the maps from the weights if no record has them
    ignore_record  judge the result as if it had no record
    behaviour      compare layers and generation, too
    trainable      examine whether training would make the copies differ
    Raises as each level does, but not where outputs cannot be compared after the proof has found something wrong, or
    where the families differ. Raises ModelSurgeonError where nothing decides.
    """
    result = result.without_record if ignore_record else result
    report = Report(source, result, options, environment(options.device), steps=steps_between(source, result))
    if len(families := {side.config.get("model_type"): None for side in (source, result)}) > 1:
        names = ", ".join(map(str, families))
        report = replace(report, notes=(f"the families differ ({names}): no maps lead from one to the other",))
    elif report.steps is None and infer:
        report = _timed(report, "infer", _inferred, tell)
    report = _timed(report, "proof", _proven, tell)
    report = report if report.families_differ else replace(report, config=_settings(report))
    if elsewhere := [checkpoint.origin.id for checkpoint in (source, result) if not checkpoint.fetch()]:
        note = f"logits not compared: {elsewhere[0]} is read where it is, and not stored on this disk"
        report = replace(report, notes=(*report.notes, note), by_proof_alone=True)
        if not report.same and (report.proof is None or report.inferred):
            raise ModelSurgeonError(f"nothing decides: {'; '.join([*report.notes, *report.unproven])}")
    else:
        report = _timed(report, "logits", _compared, tell, behaviour)
    report = _timed(report, "trainable", _examined, tell) if trainable else report
    unread = [f"{side.origin.id}: {note}" for side in (source, result) for note in side.not_judged]
    report = replace(report, notes=(*report.notes, *unread))
    return _timed(report, "beside", _laid_beside)


def _timed(report: Report, level: str, run: Any, *arguments: Any) -> Report:
    """The report with the findings of one level and the time that it took."""
    begin = time.perf_counter()
    found: Report = run(report, *arguments)
    return replace(found, seconds={**found.seconds, level: time.perf_counter() - begin})


def _inferred(report: Report, tell: Tell) -> Report:
    found = infer_maps(report.source, report.result, tell=tell)
    return replace(report, inferred=found, steps=found.steps)


def _proven(report: Report, tell: Tell) -> Report:
    if report.families_differ:
        return report
    if report.steps is None:
        why = "its record does not begin at this source" if report.result.steps else "no record of how it was made"
        return replace(report, notes=(*report.notes, f"not proven: {why}"))
    if report.inferred:
        return replace(report, proof=report.inferred.proof)
    return replace(report, proof=prove(report.source, report.result, tell=tell))


def _settings(report: Report) -> ConfigComparison:
    """Both configs; by the maps, unless derived ones fail at a tensor: then they explain no setting either."""
    proof = report.proof
    if proof and proof.config and not (report.inferred and any(one.name != CONFIG for one in proof.wrong)):
        return proof.config
    return compare_configs(report.source, report.result)


def _compared(report: Report, tell: Tell, behaviour: bool) -> Report:
    try:
        maps = composed_maps(report.steps or ())
        found = compare_all(
            report.source,
            report.result,
            report.options,
            maps=maps,
            behaviour=behaviour,
            thorough=not report.weights_agree,
            tell=tell,
        )
    except ModelSurgeonError as error:
        if not (report.is_disproven or report.families_differ or report.has_other_settings):
            check(report.result)  # it may name the setting or the tensor where the library names neither
            raise
        return replace(report, notes=(*report.notes, f"logits not compared: {error}"))
    return replace(report, logits=found[0], stored=found[1])


def _laid_beside(report: Report) -> Report:
    return replace(report, beside=compare_beside(report.source, report.result))


def _examined(report: Report, tell: Tell) -> Report:
    if report.steps is None or (report.inferred and (report.unproven or report.inferred.reordered)):
        return replace(report, notes=(*report.notes, "trainable: not examined: no maps say what is a copy of what"))
    try:
        found = examine(report.result, composed_maps(report.steps), report.options, tell)
    except ModelSurgeonError as error:  # the findings before it still count
        return replace(report, notes=(*report.notes, f"trainable: not examined: {error}"))
    return replace(report, trainable=found)
