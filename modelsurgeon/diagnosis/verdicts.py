"""Verdicts: each number beside its limits, who set them, and what would help.

    judge(model, remedies(checkpoint))  ->  (Judgement(theme="bottleneck", verdict="act", value=128, ...), ...)

measures.py reads the numbers, thresholds.toml holds their limits.
"""

from __future__ import annotations

import math
import re
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

WIDE = 1000  # the width below which heads limit the loss: arXiv 2404.07647


@dataclass(frozen=True)
class Judgement:
    """One measure of one model; schema.json describes the fields."""

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
    return tomllib.loads((Path(__file__).parent / "thresholds.toml").read_text(encoding="utf-8"))


def judge(model: Mapping[str, Any], remedies: Mapping[str, str]) -> tuple[Judgement, ...]:
    """Judge every measure of a model's document; `remedies`: what sentences and commands name, by `remedies()`."""
    return tuple(_judge(entry, MEASURES[name](model), remedies) for name, entry in thresholds().items())


def _judge(entry: Mapping[str, Any], found: Finding | None, remedies: Mapping[str, str]) -> Judgement:
    limits = {key: float(entry[key]) for key in ("watch", "act") if key in entry}
    theme, source, texts = entry["theme"], entry["source"], (entry["measure"], entry["reference"])
    if found is None:  # a field has no value, and reads as its name
        measure, reference = (re.sub(r"\{(\w+)[^}]*\}", r"\1", text) for text in texts)
        sentence = "not measured, or without a meaning here"
        return Judgement(theme, measure, "unknown", None, "", limits, reference, source, sentence)
    fields = {**remedies, **found.fields}
    measure, reference = (text.format_map(fields) for text in texts)
    value, above = found.value, entry["worse"] == "above"
    reached = [key for key, limit in limits.items() if math.isnan(value) or (value >= limit) == above]
    verdict = reached[-1] if reached else "fine"
    sentence = entry["says"][verdict].format_map(fields)
    command = entry.get("command", {}).get(verdict, "").format_map(fields) or None
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    shown = f"{int(value):,}" if whole else f"{value:.3g}"
    return Judgement(theme, measure, verdict, value, shown, limits, reference, source, sentence, command)


def remedies(checkpoint: Checkpoint) -> dict[str, str]:
    """What sentences and commands name: the source, the source of its first growth, and how to widen the bottleneck."""
    source = shlex.quote(checkpoint.origin.id)
    grown = [str(step.source.get("id", "")) for step in checkpoint.steps if step.operation == Widen.name]
    origin = shlex.quote(grown[0]) if grown and grown[0] else source
    return {"source": source, "origin": origin, "widen": _widen(checkpoint, source)}


def _widen(checkpoint: Checkpoint, source: str) -> str:
    """The command that makes the head WIDE or wider: by that key alone where the family allows it."""
    tie = checkpoint.architecture.tie
    if tie is None:
        return ""
    width = checkpoint.sizes[tie.axis]
    key, factor = checkpoint.architecture.axes[tie.axis].key, max(2, math.ceil(WIDE / width))
    tries = [(Widen(set={key: factor * width}), f"--set {key}={factor * width}")] if key else []
    for widen, option in [*tries, (Widen(factor=factor), f"--factor {factor}")]:
        try:
            widen.apply(checkpoint)
        except ModelSurgeonError:
            continue
        return f"modelsurgeon widen {source} -o OUT {option}"
    return ""
