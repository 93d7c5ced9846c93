"""Verdicts: each number beside its limits, who set them, and what would help.

    judge(model)  ->  (Judgement(theme="bottleneck", verdict="act", value=128, ...), ...)

What is measured is in measures.py, where the limits lie in thresholds.toml.
"""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.measures import MEASURES, Finding
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.operations.widen import Widen

THRESHOLDS = Path(__file__).parent / "thresholds.toml"
WIDE = 1000  # the width below which heads limit the loss: arXiv 2404.07647


@dataclass(frozen=True)
class Judgement:
    """One measure of one model.

    verdict    fine, watch, act; unknown: not measured, or without a meaning for this model
    value      the number; shown: as people read it
    limits     {"watch": from where on, "act": from where on}, those that there are
    reference  what a sound model has
    source     who published the limits
    says       what follows, as a sentence
    command    what would help; None: no command does
    """

    theme: str
    measure: str
    verdict: str
    value: float | None
    shown: str
    limits: Mapping[str, float]
    reference: str
    source: str
    says: str
    command: str | None = None


@cache
def thresholds() -> dict[str, dict[str, Any]]:
    """{measure: its entry}, in the order of the file."""
    return tomllib.loads(THRESHOLDS.read_text(encoding="utf-8"))


def judge(model: Mapping[str, Any], remedies: Mapping[str, str]) -> tuple[Judgement, ...]:
    """Every measure of a model's document.

    remedies  what commands name: {"source": ..., "origin": ..., "widen": a whole command, or ""}
    """
    return tuple(_judge(entry, MEASURES[name](model), remedies) for name, entry in thresholds().items())


def _judge(entry: Mapping[str, Any], found: Finding | None, remedies: Mapping[str, str]) -> Judgement:
    limits = {key: float(entry[key]) for key in ("watch", "act") if key in entry}
    fields = {**remedies, **(found.fields if found else {})}
    measure, reference = (_filled(entry[key], fields) for key in ("measure", "reference"))
    if found is None:
        said = "not measured, or without a meaning here"
        return Judgement(entry["theme"], measure, "unknown", None, "", limits, reference, entry["source"], said)
    reached = [key for key, limit in limits.items() if _is_reached(found.value, limit, entry["worse"])]
    verdict = reached[-1] if reached else "fine"
    command = _filled(entry.get("command", {}).get(verdict, ""), fields)
    return Judgement(
        entry["theme"],
        measure,
        verdict,
        found.value,
        _shown(found.value),
        limits,
        reference,
        entry["source"],
        _filled(entry["says"][verdict], fields),
        command or None,
    )


def _is_reached(value: float, limit: float, worse: str) -> bool:
    """Whether a number is at its limit or beyond; NaN is, too."""
    return math.isnan(value) or (value >= limit if worse == "above" else value < limit)


def _filled(text: str, fields: Mapping[str, Any]) -> str:
    return text.format_map(_Named(fields)) if "{" in text else text


class _Named(dict[str, Any]):
    """Fields by name; the name itself where there is no such field."""

    def __missing__(self, key: str) -> Any:
        return _Absent(key)


class _Absent(str):
    def __format__(self, spec: str) -> str:
        return str(self)


def _shown(value: float) -> str:
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return f"{int(value):,}" if whole else f"{value:.3g}"


def remedies(checkpoint: Checkpoint) -> dict[str, str]:
    """What commands name: the source, what it was grown from, and how to widen it past the bottleneck."""
    source = shlex.quote(checkpoint.origin.id)
    return {"source": source, "origin": _origin(checkpoint) or source, "widen": _widen(checkpoint, source)}


def _origin(checkpoint: Checkpoint) -> str:
    """The source of the first growth on record."""
    grown = [str(step.source.get("id", "")) for step in checkpoint.steps if step.operation == Widen.name]
    return shlex.quote(grown[0]) if grown and grown[0] else ""


def _widen(checkpoint: Checkpoint, source: str) -> str:
    """The command that makes the head WIDE or wider: by that key alone where the family allows it."""
    tie = checkpoint.architecture.tie
    if tie is None:
        return ""
    width = checkpoint.sizes[tie.axis]
    key, factor = checkpoint.architecture.axes[tie.axis].key, max(2, math.ceil(WIDE / width))
    tries = [(None, {key: factor * width}, f"--set {key}={factor * width}")] if key else []
    for times, settings, option in [*tries, (factor, {}, f"--factor {factor}")]:
        try:
            Widen(factor=times, set=settings).apply(checkpoint)
        except ModelSurgeonError:
            continue
        return f"modelsurgeon widen {source} -o OUT {option}"
    return ""
