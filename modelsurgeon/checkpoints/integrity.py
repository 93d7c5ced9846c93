"""Are the files of a result still those that were written? Compares sizes and hashes with `modelsurgeon.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelsurgeon.checkpoints.record import RECORD, Origin, read_hashes
from modelsurgeon.checkpoints.weight_files import is_part, weight_files
from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import Folder
from modelsurgeon.files.hashes import ALGORITHM, digest

SAME = "same"


@dataclass(frozen=True)
class Integrity:
    """Which files of one result are as they were written.

    files  {name: "same", or what is wrong with it}
    extra  files that are not on record, and that change nothing of what is loaded
    """

    result: str
    files: dict[str, str]
    extra: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every file is what was written."""
        return all(verdict == SAME for verdict in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """The document of `check-files`."""
        return {"same": self.same, "result": self.result, "files": self.files, "extra": list(self.extra)}


def check_files(origin: Origin) -> Integrity:
    """Read and compare every file of a result.

    Raises SourceError where it has no record of hashes, AmbiguousError where the files on record are two models.
    """
    folder = origin.folder
    if not folder.holds(RECORD):
        raise SourceError(f"{origin.id}: no {RECORD}, which holds the hashes; was it written by modelsurgeon?")
    hashes = read_hashes(folder.file(RECORD))
    if not hashes:
        raise SourceError(f"{origin.id}: its {RECORD} holds no hashes: version 0.1.0 wrote none")
    names = folder.names()
    verdicts = {name: _verdict(folder, name, entry) if name in names else "missing" for name, entry in hashes.items()}
    others = [name for name in names if name not in hashes and name != RECORD]
    verdicts |= {name: "not on record" for name in others if is_part(name)}
    found = Integrity(origin.id, verdicts, tuple(name for name in others if not is_part(name)))
    if found.same:
        weight_files(folder)  # a record can list two models, too
    return found


def _verdict(folder: Folder, name: str, entry: dict[str, Any]) -> str:
    file = folder.file(name)
    if file.size != entry["bytes"]:
        return f"{file.size} bytes, expected {entry['bytes']}"
    found, expected = digest(file), str(entry.get(ALGORITHM))
    return SAME if found == expected else f"{ALGORITHM} {found[:16]}..., expected {expected[:16]}..."
