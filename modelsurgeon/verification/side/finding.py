"""One finding beside the function, and files of two folders read softly: what cannot be read becomes a finding.

    by_bytes("spiece.model", pair)  # Beside("spiece.model", "only in source", "")

Nothing in a file is run: JSON is data, code is bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError, first_line
from modelsurgeon.files.file import File
from modelsurgeon.files.json_file import OF_ANY, read_json, shortened
from modelsurgeon.text import shown

SAME, DIFFERENT, NOT_COMPARED = "same", "different", "not compared"
ONLY_IN_SOURCE, ONLY_IN_RESULT = "only in source", "only in result"
FINDINGS = (SAME, DIFFERENT, ONLY_IN_SOURCE, ONLY_IN_RESULT, NOT_COMPARED)
SAME_BYTES, SAME_VALUES = "the same bytes", "the same values; the bytes differ, as another version writes them"
NEITHER = "neither has any"

CHUNK = 1 << 20  # bytes compared at a time
MOST_FAR = 32 << 20  # bytes of a file that are read over a network only to compare them
MOST = 5  # differences that a detail names
SHORT = 40  # characters of a value in a detail
# What files of strangers make our readers raise.
UNREADABLE = (SourceError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class Beside:
    """What was compared, one of FINDINGS, and where they differ or why nothing was compared."""

    what: str
    finding: str
    detail: str = ""

    @property
    def differs(self) -> bool:
        """Whether `--strict` counts it."""
        return self.finding in (DIFFERENT, ONLY_IN_SOURCE, ONLY_IN_RESULT)

    def to_json(self) -> dict[str, str]:
        """The row of the document."""
        return {"what": self.what, "finding": self.finding, "detail": self.detail}


class TooFarError(SourceError):
    """The file is behind a network, and too large to be read for a comparison."""


@dataclass(frozen=True)
class Pair:
    """The two checkpoints, and which files their folders hold."""

    source: Checkpoint
    result: Checkpoint

    @property
    def sides(self) -> tuple[Checkpoint, Checkpoint]:
        return self.source, self.result

    @cached_property
    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of each folder's files."""
        source, result = (frozenset(side.origin.folder.names()) for side in self.sides)
        return source, result

    @property
    def all_names(self) -> list[str]:
        """The names of files that either folder holds."""
        return sorted(self.names[0] | self.names[1])

    def files(self, name: str) -> tuple[File, File]:
        """The file of each side. Raises SourceError where one cannot be opened."""
        source, result = (side.origin.folder.file(name) for side in self.sides)
        return source, result


def soft(what: str, compare: Callable[[], Beside]) -> Beside:
    """The finding; "not compared", with the reason, where files cannot be read."""
    try:
        return compare()
    except UNREADABLE as error:
        far = isinstance(error, TooFarError)
        return Beside(what, NOT_COMPARED, why(error) if far else f"cannot be read: {why(error)}")


def why(error: BaseException, file: File | None = None) -> str:
    """The reason in an error's text; without the file's name, where that is known from elsewhere."""
    reason = first_line(error).removeprefix(f"{file}: " if file else "")
    return shown(reason if isinstance(error, ValueError | SourceError | OSError) else f"malformed ({reason})")


def present(what: str, in_source: object, in_result: object, detail: str = "") -> Beside | None:
    """The finding where a side lacks the thing; None where both have it."""
    if in_source and in_result:
        return None
    if not in_source and not in_result:
        return Beside(what, SAME, NEITHER)
    return Beside(what, ONLY_IN_SOURCE if in_source else ONLY_IN_RESULT, detail)


def verdict(what: str, differences: Iterable[str], same: str = "", more: str = "") -> Beside:
    """Same without differences; else different, with the first of them."""
    found = list(differences)
    return Beside(what, DIFFERENT, listed(found) + more) if found else Beside(what, SAME, same)


def listed(parts: Sequence[str], most: int = MOST) -> str:
    """The first parts, and how many more there are."""
    more = f" and {len(parts) - most:,} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def brief(value: Any) -> str:
    """A value from a file, short and on one line."""
    return "nothing" if value is None else shown(shortened(value, SHORT))


# --- files -----------------------------------------------------------------------------------------------------------


def by_bytes(name: str, pair: Pair, differences: Callable[[File, File], Iterable[str]] | None = None) -> Beside:
    """Compare a file that either side may lack.

    differences  what differs in the files' meaning, where their bytes differ; without it bytes alone count
    """
    what = shown(name)
    if missing := present(what, name in pair.names[0], name in pair.names[1]):
        return missing

    def compare() -> Beside:
        before, after = pair.files(name)
        if equal(before, after):
            return Beside(what, SAME, SAME_BYTES)
        if differences is None:
            return Beside(what, DIFFERENT, _sizes(before, after))
        try:
            return verdict(what, differences(before, after), SAME_VALUES)
        except UNREADABLE:
            return Beside(what, DIFFERENT, _unreadable(pair, name, differences))

    return soft(what, compare)


def equal(before: File, after: File) -> bool:
    """Whether two files have the same bytes. Raises TooFarError where that would take too much of a network."""
    if before.size != after.size:
        return False
    if str(before) == str(after) and before.stamp == after.stamp:
        return True
    far = [file for file in (before, after) if file.path is None and file.size > MOST_FAR]
    if far:
        raise TooFarError(f"{far[0].size:,} bytes over a network; of the same size on both sides")
    at_once = (slice(at, min(at + CHUNK, before.size)) for at in range(0, before.size, CHUNK))
    return all(before.read(s.start, s.stop - s.start) == after.read(s.start, s.stop - s.start) for s in at_once)


def document(file: File) -> dict[str, Any]:
    """The JSON object in a file. Raises SourceError for anything else, TooFarError for a large one behind a network."""
    _check_near(file)
    return read_json(file, OF_ANY)


def text(file: File) -> str:
    """The text of a file. Raises SourceError where it is none or very large, TooFarError as `document`."""
    _check_near(file)
    if file.size > OF_ANY.nbytes:
        raise SourceError(f"{file}: {file.size} bytes of text, expected {OF_ANY.nbytes} at most")
    try:
        return file.read().decode()
    except UnicodeDecodeError:
        raise SourceError(f"{file}: not UTF-8") from None


def _check_near(file: File) -> None:
    if file.path is None and file.size > MOST_FAR:
        raise TooFarError(f"{file}: {file.size:,} bytes over a network")


def _sizes(before: File, after: File) -> str:
    sizes = f"{before.size:,} and {after.size:,} bytes"
    return f"other bytes, of the same size ({before.size:,})" if before.size == after.size else f"other bytes: {sizes}"


def _unreadable(pair: Pair, name: str, differences: Callable[[File, File], Iterable[str]]) -> str:
    """Which side of two files with other bytes cannot be read, and why."""
    reasons = []
    for side, file in zip(("source", "result"), pair.files(name), strict=True):
        try:
            list(differences(file, file))
        except UNREADABLE as error:
            reasons.append(f"that of the {side} cannot be read: {why(error, file)}")
    return "; ".join(["other bytes", *reasons])


# --- values ----------------------------------------------------------------------------------------------------------


def apart(before: Any, after: Any, defaults: dict[str, Any], path: str = "") -> Iterator[str]:
    """Where two JSON values differ, `path (before -> after)` each; absent is as null, false or empty, or a default."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            absent = defaults.get(key)
            one, other = (side.get(key) if side.get(key) is not None else absent for side in (before, after))
            yield from apart(one, other, defaults, f"{path}.{shown(key)}" if path else shown(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from apart(one, other, defaults, f"{path}[{at}]")
    elif not _equal(before, after):
        yield f"{path} ({brief(before)} -> {brief(after)})"


def _equal(before: Any, after: Any) -> bool:
    if _is_absent(before) and _is_absent(after):
        return True
    numbers = isinstance(before, int | float) and isinstance(after, int | float)
    if isinstance(before, bool) != isinstance(after, bool) and numbers:
        return False
    return bool(before == after or (numbers and before != before and after != after))


def _is_absent(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, Collection) and not value)
