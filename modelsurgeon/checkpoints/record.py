"""modelsurgeon.json: the operations on a checkpoint, so that they can be repeated and proven later.

One step for each operation, oldest first. A step holds its source (Hub id and commit, or the hashes of a folder's
files), the arguments, and the map of every axis that grew. The maps of later steps compose with those of earlier ones,
so a result can be proven against any of its ancestors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.weight_files import CONFIG, weight_files
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.files.file import File, Folder
from modelsurgeon.files.hashes import ALGORITHM, digest
from modelsurgeon.files.json_file import read_json
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.version import __version__

RECORD = "modelsurgeon.json"
FORMAT = 1


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
    def from_json(cls, record: Mapping[str, Any]) -> Step:
        """A step on record. Raises KeyError, TypeError, ValueError or PlanError for what is none."""
        return cls(
            str(record["operation"]),
            dict(record["arguments"]),
            dict(record["source"]),
            record["seed"],
            str(record["version"]),
            tuple(map(str, record["lossy"])),
            {str(axis): AxisMap.from_json(value) for axis, value in record["maps"].items()},
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
    """The steps on record. Raises SourceError for a record that cannot be read."""
    try:
        record = read_json(file)
        if record["format"] != FORMAT:
            raise SourceError(f"{file}: format {record['format']}, expected {FORMAT}; written by a later version?")
        return tuple(Step.from_json(step) for step in record["steps"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{file}: cannot be read ({error!r})") from None
    except PlanError as error:
        raise SourceError(f"{file}: {error}") from None


def read_hashes(file: File) -> dict[str, dict[str, Any]]:
    """{name: {"bytes", "blake3"}} of the files beside a record. Raises SourceError for a record that cannot be read."""
    files = read_json(file).get("files", {})
    if not isinstance(files, dict) or not all(isinstance(entry, dict) and "bytes" in entry for entry in files.values()):
        raise SourceError(f"{file}: files is no list of sizes and hashes")
    return dict(files)
