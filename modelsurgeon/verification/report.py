"""What a verification found, and the verdict that follows from it.

    same function, proven for all inputs   the weights prove it, and the outputs agree
    same on what was run, not proven       the outputs agree; nothing shows it for other inputs
    different                              outputs differ, a setting that counts differs, or a record's proof fails

Maps that were derived from the weights and do not fit prove nothing. Copies that training could never change are
reported, and do not change the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.proof.config_keys import ConfigComparison
from modelsurgeon.proof.infer import Inferred
from modelsurgeon.proof.proof import Proof
from modelsurgeon.running.batches import SAMPLE
from modelsurgeon.running.environment import Environment
from modelsurgeon.running.options import RunOptions
from modelsurgeon.text import printable
from modelsurgeon.verification import summary
from modelsurgeon.verification.beside import Beside
from modelsurgeon.verification.logits import LogitReport
from modelsurgeon.verification.trainable import Trainability

FORMAT = 2  # of the document; schema.json describes it


@dataclass(frozen=True)
class Report:
    """The findings of each level; None for a level that was not run, with the reason in `notes`.

    steps           how the source became the result: on record, or derived from the weights (`inferred`)
    config          every key of both config.json files, as the library reads them; None where the families differ
    beside          what else the two folders hold: it has no say in the verdict on the function
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
    config: ConfigComparison | None = None
    logits: LogitReport | None = None
    stored: LogitReport | None = None
    trainable: Trainability | None = None
    beside: tuple[Beside, ...] = ()
    notes: tuple[str, ...] = ()
    by_proof_alone: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    command: str | None = None

    def __repr__(self) -> str:
        return f"Report({self.verdict!r}, same={self.same}, proven={self.proven})"

    @property
    def same(self) -> bool:
        """Whether no level that was run found a difference; at least the outputs, or the proof alone, must be there."""
        if self.is_disproven or self.has_other_settings:
            return False
        if self.by_proof_alone:
            return self.weights_agree and self.proof is not None and self.proof.rounding <= summary.NEGLIGIBLE
        stored = self.stored is None or not self.stored.reasons  # what is far beyond its noise, or not finite
        return self.logits is not None and self.logits.same and stored

    @property
    def proven(self) -> bool:
        """Whether it is the same function for all inputs, by the weights, up to rounding."""
        return self.same and self.weights_agree

    @property
    def same_beside(self) -> bool:
        """Whether nothing that was compared beside the function differs; `--strict` asks."""
        return not any(row.differs for row in self.beside)

    @property
    def is_disproven(self) -> bool:
        """Whether the proof by a record fails."""
        return self.proof is not None and self.proof.summary == "wrong" and self.inferred is None

    @property
    def families_differ(self) -> bool:
        """Whether the checkpoints have other model types."""
        return self.source.config.get("model_type") != self.result.config.get("model_type")

    @property
    def unproven(self) -> tuple[str, ...]:
        """Where the nearest maps fail, and why maps are approximate, one line each; empty where the proof holds."""
        if self.proof is None:
            return ()
        return (*(f"{one.name}: {one.detail}" for one in self.proof.wrong), *self.proof.lossy)

    @property
    def has_other_settings(self) -> bool:
        """Whether a key of the config that has an effect differs, and no growth explains it."""
        return self.config is not None and bool(self.config.different)

    @property
    def weights_agree(self) -> bool:
        """Whether the proof holds, up to rounding."""
        return self.proof is not None and self.proof.summary != "wrong" and not self.proof.lossy

    @property
    def verdict(self) -> str:
        """One of the three verdicts; and what training would never change."""
        return summary.verdict(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The document that schema.json describes: terminal and page show nothing else."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "same": self.same,
            "proven": self.proven,
            "source": self.source.origin.id,
            "result": self.result.origin.id,
            "checkpoints": {"source": self.source.summary(), "result": self.result.summary()},
            "maps": None if self.steps is None else self._maps(),
            "inferred": self.inferred and self.inferred.to_json(),
            "settings": self._settings() if self.logits or self.trainable else None,
            "proof": self.proof and self.proof.to_json(),
            "config": self.config and self.config.to_json(),
            "logits": self.logits and self.logits.to_json(),
            "stored": self.stored and self.stored.to_json(),
            "trainable": self.trainable and self.trainable.to_json(),
            "beside": [row.to_json() for row in self.beside],
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
