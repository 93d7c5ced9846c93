"""Tries one attack: makes source and result, changes the result, runs `verify`, and says which levels saw it.

with Workshop(folder) as workshop:
    outcome = tried(attack, workshop)
    outcome.wrong(attack)     # "" where all is as the entry says
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon import model
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.saving.save import save
from support import tiny
from support.attacks.attack import DIFFERENT, LEVELS, NOT_DIFFERENT, PROVEN, REFUSED, RUN, Attack, Made

SHORT = {"samples": 1, "length": 12}
KNOWN = inspect.signature(model.verify).parameters


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    verdict  of the report; REFUSED where there is none
    seen     the levels that saw a difference
    said     the whole document, or the error
    """

    verdict: str
    seen: frozenset[str]
    said: str

    def wrong(self, attack: Attack) -> str:
        """What is not as the entry says; empty where nothing is."""
        right = {RUN, PROVEN} if attack.verdict == NOT_DIFFERENT else {attack.verdict}
        found = [f"verdict: {self.verdict}, expected {attack.verdict}"] if self.verdict not in right else []
        missed = sorted(attack.levels - self.seen)
        found += (
            [f"not seen by {', '.join(missed)}; seen by {', '.join(sorted(self.seen)) or 'none'}"] if missed else []
        )
        found += [f"does not name {attack.says!r}"] if attack.says.lower() not in self.said.lower() else []
        return "; ".join(found)


@dataclass
class Workshop:
    """Sources and results, each made once: `folder` holds them."""

    folder: Path
    _made: dict[str, Path] = field(default_factory=dict)

    def pair(self, made: Made) -> tuple[Path, Path]:
        """(folder of the source, folder of the result before the attack)"""
        source = self._once(f"source {made.source_key}", lambda place: _source(made, place))
        return source, self._once(f"result {made!r}", lambda place: _result(made, source, place))

    def _once(self, key: str, make: Any) -> Path:
        if key not in self._made:
            self._made[key] = make(self.folder / str(len(self._made)))
        return self._made[key]


def tried(attack: Attack, workshop: Workshop) -> Outcome:
    """The outcome of an attack; the folder that it was planted in is gone afterwards."""
    source, result = workshop.pair(attack.made)
    with tempfile.TemporaryDirectory(dir=workshop.folder) as place:
        planted = shutil.copytree(result, Path(place) / "result")
        attack.plant(planted)
        options = {key: value for key, value in {**SHORT, "infer": True, **attack.options}.items() if key in KNOWN}
        try:
            report = model.verify(source, planted, **options)
            document = report.to_json()
        except ModelSurgeonError as error:
            return Outcome(REFUSED, _refusing(str(error)), str(error))
        return Outcome(_verdict(report), levels(document), json.dumps(document))


def levels(document: Mapping[str, Any]) -> frozenset[str]:
    """The levels that see a difference, by a document of `verify`."""
    wrong = [one["name"] for one in (document["proof"] or {}).get("tensors", ()) if one["verdict"] == "wrong"]
    beside = [one for one in document.get("beside", ()) if one["finding"] not in ("same", "not compared")]
    types = {(document["checkpoints"][which] or {}).get("model_type") for which in ("source", "result")}
    found = {
        "record": RECORD in wrong or "record" in document.get("wrong", ()),
        "config": "config.json" in wrong or bool((document.get("config") or {}).get("different")),
        "proof": bool(set(wrong) - {"config.json"}) and not document["inferred"],
        "outputs": bool(document["logits"]) and not document["logits"]["same"],
        "stored": bool(document["stored"]) and not document["stored"]["same"],
        "beside": bool(beside),
        "family": len(types) > 1,
    }
    return frozenset(level for level in LEVELS if found.get(level))


def _verdict(report: Any) -> str:
    if not report.same:
        return DIFFERENT
    return PROVEN if report.proven else RUN


def _refusing(error: str) -> frozenset[str]:
    """The levels that refuse: opening a folder, errors do not say which of its other files is to blame."""
    return frozenset({"record"} if RECORD in error else {"files", "config"})


def _source(made: Made, place: Path) -> Path:
    folder = shutil.copytree(DEMO, place) if made.family == "demo" else tiny.save(made.variant, place, made.dtype)
    if made.before:
        made.before(folder)
    return folder


def _result(made: Made, source: Path, place: Path) -> Path:
    if made.other:
        return tiny.save(made.changed(tiny.named(made.other)), place, made.dtype)
    if not made.operations:
        return shutil.copytree(source, place)
    folder = save(made.make(open_checkpoint(source)), place)
    if not made.recorded:
        (folder / RECORD).unlink()
    return folder
