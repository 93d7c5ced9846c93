"""modelsurgeon.json: what was done to a checkpoint, so that it can be done again and proven later.

One step an operation, oldest first. A step holds its source (Hub id and commit, or the hashes of a folder's files), the
arguments, and the map of every axis that grew. The maps of later steps compose with those of earlier ones, so a result
can be proven against any of its ancestors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon import __version__
from modelsurgeon.axis_map import AxisMap
from modelsurgeon.errors import PlanError, SourceError

RECORD = "modelsurgeon.json"
FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint was read from.

    id        what the user named: a folder, a Hub id, `demo`
    path      the folder that holds it
    revision  the commit, of a Hub repository
    """

    id: str
    path: Path
    revision: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Name and identity: the commit, or else every file's size and sha256."""
        if self.revision:
            return {"id": self.id, "revision": self.revision}
        return {"id": self.id, "files": fingerprint(self.path)}


@dataclass(frozen=True)
class Step:
    """One operation.

    source  identity of what it was applied to (`Origin.to_json`)
    lossy   why the result is not the same function, one line a reason; empty where it is
    maps    {axis: map} of the axes that changed
    """

    operation: str
    arguments: Mapping[str, Any]
    source: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    version: str = __version__
    lossy: tuple[str, ...] = ()
    maps: Mapping[str, AxisMap] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "arguments": dict(self.arguments),
            "seed": self.seed,
            "version": self.version,
            "source": dict(self.source),
            "lossless": not self.lossy,
            "lossy": list(self.lossy),
            "maps": {axis: axis_map.to_json() for axis, axis_map in self.maps.items()},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Step:
        return cls(
            str(record["operation"]),
            dict(record["arguments"]),
            dict(record["source"]),
            record["seed"],
            str(record["version"]),
            tuple(map(str, record["lossy"])),
            {str(axis): AxisMap.from_json(value) for axis, value in record["maps"].items()},
        )


def fingerprint(folder: Path) -> dict[str, dict[str, Any]]:
    """{name: {bytes, sha256}} of a folder's config and safetensors."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.suffix == ".safetensors" or path.name == "config.json":
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    return found


def write_record(path: Path, steps: Iterable[Step]) -> None:
    """Write modelsurgeon.json."""
    record = {"format": FORMAT, "tool": "modelsurgeon", "steps": [step.to_json() for step in steps]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> tuple[Step, ...]:
    """The steps on record; none where there is no record. Raises SourceError for a record that cannot be read."""
    if not path.exists():
        return ()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise SourceError(f"{path}: format {record['format']}, expected {FORMAT}; written by a later version?")
        return tuple(Step.from_json(step) for step in record["steps"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read ({error!r})") from None
    except PlanError as error:
        raise SourceError(f"{path}: {error}") from None
