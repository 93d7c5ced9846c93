"""modelsurgeon.json: the operations on a checkpoint, so that they can be repeated and proven later.

One step for each operation, oldest first. A step holds its source (Hub id and commit, or the hashes of a folder's
files), the arguments, and the map of every axis that grew. The maps of later steps compose with those of earlier ones,
so a result can be proven against any of its ancestors.

A record is what somebody says of the files beside it: every field is held against its type before it is used
(`FIELDS`), its maps against their law, and later its arguments against their operation (`operations/claims.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.weight_files import CONFIG, weight_files
from modelsurgeon.errors import FieldError, PlanError, SourceError
from modelsurgeon.files.fields import Either, Named, Several, expect, refuse
from modelsurgeon.files.file import File, Folder
from modelsurgeon.files.hashes import ALGORITHM, digest
from modelsurgeon.files.json_file import read_json
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.version import __version__

RECORD = "modelsurgeon.json"
FORMAT = 1
MOST_STEPS = 100  # of one checkpoint: each is an operation on all of it
MOST_COORDINATES = 1 << 26  # of all maps together: they are held in memory
LARGEST_FACTOR = 2.0**16  # by which one map multiplies: 65,536 copies of a coordinate are none that anybody makes
VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){1,3}([.+-]?[a-zA-Z][\w.+-]{0,40})?", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}")

_FILE = {"bytes": int, "blake3?": str, "sha256?": str}
_RUNS = Several((float, int))
_RATES = {"tensors": Several(str), "lr": float, "weight_decay": float, "eps": float, "reason": str}
_MAP = {
    "size": int,
    "new_size": int,
    "gain": float,
    "split": str,
    "source": Several((int, int, int)),
    "scale": _RUNS,
    "share": _RUNS,
}
_STEP = {
    "operation": str,
    "arguments": Named(object),
    "seed": Either(int, None),
    "version": str,
    "source": {"id": str, "revision?": str, "files?": Named(_FILE), "config?": str},
    "lossless": bool,
    "lossy": Several(str),
    "maps": Named(_MAP),
    "learning_rates?": Several(_RATES),
}
FIELDS = {"format": int, "tool": str, "files?": Named(_FILE), "steps": Several(_STEP)}


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint was read from.

    id        what the user called it: a folder, a Hub id, `demo`
    revision  the commit, of a Hub repository
    """

    id: str
    folder: Folder
    revision: str | None = None

    @property
    def path(self) -> Path:
        """The folder's path on a local disk. Raises SourceError where it is not on one."""
        if self.folder.path is None:
            raise SourceError(f"{self.id}: not on a local disk")
        return self.folder.path


@dataclass(frozen=True)
class Step:
    """One operation.

    source          the identity of its source (`identify`)
    lossy           the reasons why the result is not the same function; empty where it is
    maps            {axis: map} for the axes that changed
    learning_rates  multiples that groups of tensors should be trained with (`training/learning_rates.py`)
    """

    operation: str
    arguments: Mapping[str, Any]
    source: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    version: str = __version__
    lossy: tuple[str, ...] = ()
    maps: Mapping[str, AxisMap] = field(default_factory=dict)
    learning_rates: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The step as it is recorded."""
        return {
            "operation": self.operation,
            "arguments": dict(self.arguments),
            "seed": self.seed,
            "version": self.version,
            "source": dict(self.source),
            "lossless": not self.lossy,
            "lossy": list(self.lossy),
            "maps": {axis: axis_map.to_json() for axis, axis_map in self.maps.items()},
            **({"learning_rates": [*map(dict, self.learning_rates)]} if self.learning_rates else {}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str = "step") -> Step:
        """A step on record. Raises FieldError, with the field's place, for what is none."""
        expect(record, _STEP, where)
        if not VERSION.fullmatch(record["version"]):
            refuse(f"{where}.version", "a version, as in 1.2.0", record["version"])
        if record["lossless"] == bool(record["lossy"]):
            said = "false, since it has reasons" if record["lossy"] else "true, since it has no reasons"
            refuse(f"{where}.lossless", said, record["lossless"])
        _check_source(record["source"], f"{where}.source")
        _check_rates(record.get("learning_rates", ()), f"{where}.learning_rates")
        return cls(
            record["operation"],
            dict(record["arguments"]),
            dict(record["source"]),
            record["seed"],
            record["version"],
            tuple(record["lossy"]),
            {axis: _read_map(value, f"{where}.maps.{axis}") for axis, value in record["maps"].items()},
            tuple(map(dict, record.get("learning_rates", ()))),
        )


def identify(origin: Origin) -> dict[str, Any]:
    """Name and commit, or else size and hash of config.json and of its weights; only sizes over a network."""
    folder = origin.folder
    if origin.revision:
        return {"id": origin.id, "revision": origin.revision}
    names = [CONFIG, *weight_files(folder).names] if folder.holds(CONFIG) else []
    files = {name: folder.file(name) for name in names}
    hashes = {name: {ALGORITHM: digest(file)} if file.path else {} for name, file in files.items()}
    return {"id": origin.id, "files": {name: {"bytes": file.size, **hashes[name]} for name, file in files.items()}}


def write_record(path: Path, steps: Iterable[Step], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write modelsurgeon.json; `files` is {name: {"bytes", "blake3"}} of all others beside it."""
    documents = [step.to_json() for step in steps]
    record = {"format": FORMAT, "tool": "modelsurgeon", "files": dict(files), "steps": documents}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(file: File) -> tuple[Step, ...]:
    """The steps on record.

    Raises SourceError for a file that is no record of this format, FieldError for one with a field that cannot be
    right.
    """
    record = read_json(file)
    written = record.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise SourceError(f"{file}: format {written}, expected {FORMAT}; written by a later version?")
    try:
        expect(record, FIELDS, "")
        if written != FORMAT:
            refuse("format", str(FORMAT), written)
        _check_files(record.get("files", {}), "files")
        if record["tool"] != "modelsurgeon":
            refuse("tool", "modelsurgeon", record["tool"])
        if len(record["steps"]) > MOST_STEPS:
            raise FieldError(f"steps: expected {MOST_STEPS} at most, found {len(record['steps'])}")
        sizes = [(m["size"], m["new_size"]) for step in record["steps"] for m in step["maps"].values()]
        if (total := sum(map(sum, sizes))) > MOST_COORDINATES:
            raise FieldError(f"steps: expected maps of {MOST_COORDINATES} coordinates at most, found {total}")
        return tuple(Step.from_json(step, f"steps[{at}]") for at, step in enumerate(record["steps"]))
    except FieldError as error:
        raise FieldError(f"{RECORD}: {error}") from None


def read_hashes(file: File) -> dict[str, dict[str, Any]]:
    """{name: {"bytes", "blake3"}} of the files beside a record. Raises SourceError for a record that cannot be read."""
    files = read_json(file).get("files", {})
    if not isinstance(files, dict) or not all(isinstance(entry, dict) and "bytes" in entry for entry in files.values()):
        raise SourceError(f"{file}: files is no list of sizes and hashes")
    return dict(files)


def _read_map(record: dict[str, Any], where: str) -> AxisMap:
    """A map on record. Raises FieldError where it breaks the law, or says what no growth does."""
    try:
        found = AxisMap.from_json(record)
    except PlanError as error:
        raise FieldError(f"{where}: {error}") from None
    for name, factors in (("scale", found.scale), ("share", found.share)):
        sizes = abs(factors[factors != 0])
        if len(sizes) and not 1 / LARGEST_FACTOR <= sizes.min() <= sizes.max() <= LARGEST_FACTOR:
            extreme = sizes.max() if sizes.max() > LARGEST_FACTOR else sizes.min()
            refuse(f"{where}.{name}", f"factors of 2**-16 to {LARGEST_FACTOR:.0f}", float(extreme))
    if (found.scale * found.share < 0).any():
        raise FieldError(f"{where}.share: expected parts of one sign, found parts that cancel each other")
    return found


def _check_source(source: Mapping[str, Any], where: str) -> None:
    """Raise FieldError unless a source is told by its commit, by its files or, where it is a config, by its hash."""
    given = [name for name in ("revision", "files", "config") if name in source]
    if len(given) != 1:
        raise FieldError(f"{where}: expected one of revision, files, config, found {' and '.join(given) or 'none'}")
    _check_files(source.get("files", {}), f"{where}.files")
    if not HASH.fullmatch(source.get("config", "0" * 64)):
        refuse(f"{where}.config", "a hash of 64 digits", source["config"])


def _check_files(files: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for name, entry in files.items():
        if entry["bytes"] < 0:
            refuse(f"{where}.{name}.bytes", "0 or more", entry["bytes"])
        for algorithm in entry.keys() - {"bytes"}:
            if not HASH.fullmatch(entry[algorithm]):
                refuse(f"{where}.{name}.{algorithm}", "a hash of 64 digits", entry[algorithm])


def _check_rates(groups: Iterable[Mapping[str, Any]], where: str) -> None:
    for at, group in enumerate(groups):
        for name in ("lr", "weight_decay", "eps"):
            if group[name] <= 0:
                refuse(f"{where}[{at}].{name}", "a number above 0", group[name])
