"""The golden record: the files that the program writes, byte by byte, and its documents, number by number.

    python tests/support/golden.py CHECKPOINTS_FOLDER                               put all of it on record again
    python tests/support/golden.py CHECKPOINTS_FOLDER --only 'llama/*'   a part

If you move code, it shows that nothing else changed. If you change a result on purpose, make the record again: its diff
lists the files and checkpoints that changed. All commands run in this process. Each part of the record is a file of
golden_data:

    llama/inputs.json            BLAKE3 of the checkpoint's own files: is it the one that was put on record?
    llama/files.json             BLAKE3 of every file that each case of `writing` writes; or code and line of a refusal
    llama/verify.json ...        each case of `telling`: a document, as `golden_numbers.kept` leaves it
    families/llama.json ...      what needs no checkpoint

Commands run in empty folders and use relative paths, so that any folder gives the same record.
"""

import argparse
import contextlib
import fnmatch
import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import blake3 as b3

import modelsurgeon
from support import command
from support.golden_cases import CHECKPOINTS, DEMO, FAMILIES, QUIET, Telling, telling, writing
from support.golden_numbers import differences, kept, layout, packed, unpacked

DATA = Path(__file__).with_name("golden_data")
RECORD = "modelsurgeon.json"
SHOWN = 20  # differences that an error lists


class ChangedError(AssertionError):
    """A result differs from the record."""


class OtherInputError(AssertionError):
    """A checkpoint is not the one on record, so its results cannot be compared."""


@dataclass(frozen=True)
class Place:
    """A folder with nothing in it but a checkpoint, where commands are run.

    name  of the checkpoint; "": there is none
    """

    folder: Path
    name: str = ""

    def run(self, line: str) -> command.Finished:
        with contextlib.chdir(self.folder):
            return command.run(*self.words(line))

    def words(self, line: str) -> list[str]:
        """The arguments of a command for this checkpoint."""
        return (line.format(source=self.name, **vars(CHECKPOINTS[self.name])) if self.name else line).split()

    def written(self, line: str) -> dict[str, Any]:
        """The record of a command that writes to `out`: hashes, or code and line of its refusal."""
        done = self.run(line + QUIET)
        found = {"command": " ".join(self.words(line))}
        if done.code:
            return {**found, "code": done.code, "error": done.err.rstrip("\n")}
        return {**found, "files": hashes(self.folder / "out")}

    def told(self, asked: Telling) -> dict[str, Any]:
        """The document that a command prints, without values that change from run to run."""
        if asked.before:
            made = self.run(asked.before)
            assert not made.code, made.err
        if asked.forget:
            (self.folder / "wide" / RECORD).unlink()
        done = self.run(asked.line)
        assert done.out, done.err
        line = " ".join(self.words(asked.line))
        return {"command": line, "code": done.code, "document": kept(json.loads(done.out))}


def home(name: str, checkpoints: Path | None) -> Path:
    """The folder of a checkpoint."""
    if name == DEMO:
        return Path(modelsurgeon.__file__).with_name("demo")
    assert checkpoints, f"{name} lies in no folder that was named"
    return checkpoints.resolve() / name


def settle(folder: Path, name: str, checkpoints: Path | None) -> Place:
    """An empty folder as a place: a checkpoint that is not the package's own is linked to by its name."""
    if name != DEMO:
        (folder / name).symlink_to(home(name, checkpoints), target_is_directory=True)
    return Place(folder, name)


def hashes(folder: Path) -> dict[str, str]:
    """{file: BLAKE3}; modelsurgeon.json counts without the program's version, which changes with each release."""
    return {path.relative_to(folder).as_posix(): _hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _hash(path: Path) -> str:
    if path.name != RECORD:
        return command.blake3(path)
    version = f'"version": "{modelsurgeon.__version__}"'.encode()
    return b3.blake3(path.read_bytes().replace(version, b'"version": "any"')).hexdigest()


def inputs(name: str, checkpoints: Path | None) -> dict[str, str]:
    """{file: BLAKE3} of a checkpoint, without its model card."""
    return {file: digest for file, digest in hashes(home(name, checkpoints)).items() if not file.endswith(".md")}


@functools.cache
def check_inputs(name: str, checkpoints: Path | None) -> None:
    """Raise OtherInputError for another checkpoint of the same name."""
    found = [*differences(recorded(f"{name}/inputs.json"), inputs(name, checkpoints))]
    if found:
        raise OtherInputError(f"the checkpoint {name} is not the one on record:\n" + "\n".join(found))


def recorded(part: str, case: str = "") -> Any:
    """A part of the record, or one case of it. Raises ChangedError where there is none."""
    path = DATA / part
    value = unpacked(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    if not path.exists() or (case and case not in value):
        raise ChangedError(
            f"{part} {case}: not on record; make it: python tests/support/golden.py CHECKPOINTS --only {part}"
        )
    return value[case] if case else value


def hold(part: str, found: Any, case: str = "") -> None:
    """Raise ChangedError where a part, or one case of it, differs from the record."""
    lines = [*differences(recorded(part, case), found)]
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise ChangedError("\n".join([f"{part}{case and ', '}{case}:", *lines[:SHOWN], *more]))


def parts(checkpoints: Path | None, names: Iterable[str] = CHECKPOINTS) -> dict[str, Callable[[], Any]]:
    """{file of the record: the function that makes its content}, of all checkpoints."""

    def cases(name: str, lines: dict[str, str]) -> dict[str, Any]:
        return {what: _somewhere(name, checkpoints, lambda at: at.written(line)) for what, line in lines.items()}  # noqa: B023

    def document(name: str, asked: Telling) -> Any:
        return _somewhere(name, checkpoints, lambda at: at.told(asked))

    made: dict[str, Callable[[], Any]] = {}
    for name in names:
        made[f"{name}/inputs.json"] = functools.partial(inputs, name, checkpoints)
        made[f"{name}/files.json"] = functools.partial(cases, name, writing(name))
        for what, asked in telling(name).items():
            made[f"{name}/{what}.json"] = functools.partial(document, name, asked)
    for what, line in FAMILIES.items():
        made[f"families/{what}.json"] = functools.partial(Place(Path()).told, Telling(line))
    return made


def _somewhere(name: str, checkpoints: Path | None, ask: Callable[[Place], Any]) -> Any:
    with TemporaryDirectory() as folder:
        return ask(settle(Path(folder), name, checkpoints))


def main() -> None:
    """Put parts of the record on record again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoints", type=Path, help="the folder that has all checkpoints, by name")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="parts, as llama/*")
    asked = parser.parse_args()
    for part, make in parts(asked.checkpoints).items():
        if fnmatch.fnmatch(part, asked.only):
            print(part, flush=True)
            (DATA / part).parent.mkdir(parents=True, exist_ok=True)
            (DATA / part).write_text(layout(packed(make())) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import conftest  # noqa: F401 (offline, with one thread, quiet: as the tests run)

    main()
