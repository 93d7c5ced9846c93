"""Verification: is the result the same function as the source?

    1  proof      every tensor folds back to the source's, by the maps on record: all inputs, no forward pass
    2  logits     both models in `transformers`, same inputs, float32
    3  16 bits    the same in the stored dtype, beside the source's own noise there (said, not judged)

The verdict is "same" where the proof finds nothing wrong and the logits agree. Without a record there is no proof, and
the logits decide alone; the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.verification.logits import LogitReport, compare, compare_stored
from modelsurgeon.verification.proof import Proof, composed_maps, prove, steps_between

NEGLIGIBLE = 1e-6  # of a weight: a rounding that logits computed in float32 do not show


@dataclass(frozen=True)
class Report:
    """What was found, level by level; None where a level was not run, with the reason in `notes`.

    by_proof_alone  the models are not on this disk, so nothing was run; the proof covers all inputs
    """

    source: str
    result: str
    proof: Proof | None
    logits: LogitReport | None
    stored: LogitReport | None
    notes: tuple[str, ...] = ()
    by_proof_alone: bool = False

    @property
    def same(self) -> bool:
        if self.by_proof_alone:
            proof = self.proof
            return proof is not None and proof.summary != "wrong" and not proof.lossy and proof.rounding <= NEGLIGIBLE
        proven = self.proof is None or self.proof.summary != "wrong"
        return proven and self.logits is not None and self.logits.same

    def to_json(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "source": self.source,
            "result": self.result,
            "proof": self.proof.to_json() if self.proof else None,
            "logits": self.logits.to_json() if self.logits else None,
            "stored": self.stored.to_json() if self.stored else None,
            "notes": list(self.notes),
        }


def verify(source: Checkpoint, result: Checkpoint, **running: Any) -> Report:
    """Compare two checkpoints. `running` goes to `logits.compare`: text, dtype, device, samples, length, seed."""
    steps = steps_between(source, result)
    proof = prove(source, result)
    maps = composed_maps(steps) if steps else {}
    notes = []
    if proof is None:
        why = "its record does not begin at this source" if result.steps else "no record of how it was made"
        notes.append(f"proof skipped: {why}")
    logits, stored = None, None
    apart = [checkpoint.origin.id for checkpoint in (source, result) if not checkpoint.fetch()]
    if apart:
        notes.append(f"logits not compared: {apart[0]} is read where it is, and not stored on this disk")
        return Report(source.origin.id, result.origin.id, proof, None, None, tuple(notes), by_proof_alone=True)
    try:
        logits = compare(source, result, maps=maps, **running)
        without_dtype = {key: value for key, value in running.items() if key != "dtype"}
        stored = compare_stored(source, result, maps=maps, **without_dtype)
    except ModelSurgeonError as error:
        if proof is None or proof.summary != "wrong":
            raise
        notes.append(f"logits not compared: {error}")
    return Report(source.origin.id, result.origin.id, proof, logits, stored, tuple(notes))
