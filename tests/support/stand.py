"""The place where faults are tried, and the laws that hold after a fault and after the same command once more.

After a fault the output is absent or whole, the source is unchanged, and one line of stderr says what happened. The
same command then succeeds: it reuses finished shards, its output equals an undisturbed run's to the last byte, and
nothing lies beside it.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.integrity import check_files
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.saving import staging
from support import disturbed
from support.command import blake3, contents, run
from support.disturbed import CALLS, Ended, at_call, at_read

SOURCE, PLACE, OUT = Path("source"), Path("place"), Path("place/out")
STAGE, REPLACED = Path("place/.out.staging"), Path("place/.out.replaced")

Command = tuple[str, ...]
MADE = ("widen", "demo", "-o", "source", "--set", "intermediate_size=384", "--shard-size", "500KB")  # of several shards
WIDEN = ("widen", "source", "-o", "place/out", "--shard-size", "1MB")
OTHER = (*WIDEN, "--attention", "head-dim")  # shards of the same names and sizes
UNTIE = ("untie-embeddings", "source", "-o", "place/out")  # whole files are copied


@dataclass(frozen=True)
class Scene:
    """A run to disturb.

    command  its command
    old      the command that wrote the output that is there before
    again    the command after the fault; None: `command`
    """

    command: Command
    old: Command = ()
    again: Command = ()

    @property
    def last(self) -> Command:
        return self.again or self.command


SCENES = {
    "widen": Scene(WIDEN),
    "two workers": Scene((*WIDEN, "--workers", "2")),
    "untie": Scene(UNTIE),
    "overwrite": Scene((*WIDEN, "--overwrite"), old=UNTIE),
    "another request": Scene(OTHER, again=WIDEN),
}
COMMANDS = sorted({command for scene in SCENES.values() for command in (scene.command, scene.old, scene.again)} - {()})


def nothing() -> None:
    """Disturb nothing."""


@dataclass(frozen=True)
class Stand:
    """A folder with `source` and `place` in it, which is the working directory.

    outputs  {command: contents of what it writes undisturbed}
    seconds  {command: its duration}
    calls    {command: the number of its calls that change the disk}
    reads    {command: the number of its reads}
    plant    plants a mistake in every run
    """

    folder: Path
    source: Mapping[str, str]
    outputs: Mapping[Command, Mapping[str, str]]
    seconds: Mapping[Command, float]
    calls: Mapping[Command, int]
    reads: Mapping[Command, int]
    plant: Callable[[], object] = nothing

    def made(self, command: Command) -> Path:
        """The folder that an undisturbed run wrote."""
        return self.folder / "made" / str(COMMANDS.index(command))

    def attempt(
        self, command: Command, disturb: Callable[[], object] = nothing, strike: tuple[float, int] | None = None
    ) -> Ended:
        """Run a command, disturbed, and watch its output."""
        return disturbed.attempt(command, lambda: (self.plant(), disturb()), strike, self._look)

    def _look(self) -> str:
        """What is wrong with the file names in the output, at two looks: it may disappear in between.

        They must be those of an undisturbed run, or of a record: a changed source may be another model.
        """
        for _ in range(2):
            try:
                names = set(os.listdir(OUT))
            except FileNotFoundError:
                return ""
            if any(names == set(output) for output in self.outputs.values()) or names == _on_record():
                return ""
        return f"half-written output seen: {sorted(names)}"


def _on_record() -> set[str]:
    with suppress(OSError, ValueError):
        return {RECORD, *json.loads((OUT / RECORD).read_text())["files"]}
    return set()


def build(folder: Path) -> Stand:
    """Make a stand in the folder and enter it; its source is the bundled model in shards, with a record of maps."""
    torch.set_num_threads(1)
    (folder / "made").mkdir()
    _enter(folder / "first")
    for command in (MADE, (*WIDEN, "--dry-run"), (*UNTIE, "--dry-run")):  # imports, too, what a run imports
        assert run(*command).code == 0
    gc.freeze()  # or every child copies what it only looks at
    bare = Stand(folder, contents(SOURCE), {}, {}, {}, {})
    seconds, outputs, calls, reads = {}, {}, {}, {}
    for command in COMMANDS:
        began = time.monotonic()
        plain = tuple(word for word in command if word != "--overwrite")
        ended = disturbed.attempt(plain, lambda: (at_call(0, "", nothing)(), at_read(0, nothing)()))
        assert ended.code == 0, ended
        seconds[command], outputs[command] = time.monotonic() - began, contents(OUT)
        names = CALLS.read_text().split()
        reads[command] = names.count("read")
        calls[command] = len(names) - reads[command]
        OUT.rename(bare.made(command))
    return Stand(folder, bare.source, outputs, seconds, calls, reads)


def enter_copy(stand: Stand) -> None:
    """Enter a copy of the stand, as one of several processes."""
    _enter(stand.folder / str(os.getpid()))
    shutil.copytree(stand.folder / "first" / SOURCE, SOURCE)


def _enter(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    PLACE.mkdir()


# The laws: each function returns those that are broken


def after_fault(stand: Stand, scene: Scene, ended: Ended, codes: set[int]) -> list[str]:
    """The laws that a disturbed run broke, which may end with these codes."""
    wrong, old = list[str](), stand.outputs[scene.old] if scene.old else None
    if OUT.exists():
        if contents(OUT) not in (stand.outputs[scene.command], old):
            wrong.append(f"half-written output: {sorted(os.listdir(OUT))}")
    elif old and (not REPLACED.exists() or contents(REPLACED) != old):
        wrong.append("the old output is gone")
    if ended.code == 2 and os.listdir(PLACE) != [OUT.name] * OUT.exists():
        wrong.append(f"refused, and left {os.listdir(PLACE)}")
    return wrong + of_words(stand, ended, codes)


def of_words(stand: Stand, ended: Ended, codes: set[int]) -> list[str]:
    """The broken laws of a run's messages and of the source."""
    wrong = [ended.seen] if ended.seen else []
    if ended.code not in codes:
        wrong.append(f"exit code {ended.code}: {ended.err}")
    lines = [line for line in ended.err.splitlines() if line.startswith("modelsurgeon: ")]
    if len(lines) > 1 or (not lines and ended.code in (2, 3, 130)) or "Traceback" in ended.err:
        wrong.append(f"said {ended.err}")
    if ended.code > 0 and ended.out and not OUT.exists():
        wrong.append(f"printed {ended.out}, and failed")
    if contents(SOURCE) != stand.source:
        wrong.append("the source is changed")
    return wrong


def after_all(stand: Stand, scene: Scene, kept: Mapping[str, object]) -> tuple[int, list[str]]:
    """Run the same command again: (shards reused, broken laws); `kept` are the shards that it must reuse."""
    command, wrong = scene.last, list[str]()
    if OUT.exists() and "--overwrite" not in command:
        refused = stand.attempt(command)
        if refused.code != 2 or "--overwrite replaces it" not in refused.err:
            wrong.append(f"an output was not left alone: {refused}")
        command, kept = (*command, "--overwrite"), {}
    ended = stand.attempt(command)
    wrong += of_words(stand, ended, {0})
    if not OUT.exists() or contents(OUT) != stand.outputs[scene.last]:
        return 0, [*wrong, f"the output is not that of an undisturbed run: {ended.err}"]
    reused = {name for name, look in kept.items() if _look(OUT / name) == look}
    if reused != (set() if scene.again else set(kept)):
        wrong.append(f"of the finished {sorted(kept)}, reused were {sorted(reused)}")
    return len(reused), wrong + not_whole()


def not_whole() -> list[str]:
    """The broken laws of an output by itself, whatever its source."""
    try:
        found = check_files(open_checkpoint(OUT).origin)
    except ModelSurgeonError as error:
        return [f"the output does not open: {error}"]
    if not found.same or found.extra:
        return [f"half-written output: {found}"]
    return [] if os.listdir(PLACE) == [OUT.name] else [f"left behind: {os.listdir(PLACE)}"]


def finished() -> dict[str, object]:
    """{shard: its inode and time} of those that the staging folder lists, and that have the hash on that list."""
    found: dict[str, object] = {}
    journal = STAGE / staging.JOURNAL
    for line in journal.read_text().splitlines() if journal.exists() else []:
        with suppress(ValueError, FileNotFoundError):
            record = json.loads(line)
            path = STAGE / staging.RESULT / record["shard"]
            if blake3(path) == record["entry"]["blake3"]:
                found[path.name] = _look(path)
    return found


def _look(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
