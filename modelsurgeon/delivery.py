"""From a planned checkpoint to where it is wanted: a folder, a URL, a repository of the Hub; verified before if asked.

    save to a staging folder -> verify it there -> publish it by one rename -> find its initial loss -> upload or push

Nothing appears that is not whole; where the result is not the same function, nothing appears at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.diagnosis.starting import sides
from modelsurgeon.errors import DifferentError, OptionsError
from modelsurgeon.operations.operation import Companion, Operation
from modelsurgeon.reports.card import metadata_of, model_card
from modelsurgeon.running.environment import check_place
from modelsurgeon.saving.plan import Plan, make_plan
from modelsurgeon.saving.publish import check_push, check_url, push, upload
from modelsurgeon.saving.save import check_output, save
from modelsurgeon.saving.writer import Progress
from modelsurgeon.text import parse_size
from modelsurgeon.verification.report import Report
from modelsurgeon.verification.verify import verify

Say = Callable[[str], None]


def nothing(*_: Any) -> None:
    """Do nothing: the callback of whoever wants none."""


@dataclass(frozen=True)
class Listener:
    """What is called while a job is carried out.

    progress  with the bytes written since the last call
    say       with a line that a user should read
    verified  with the verification's report, before anything appears
    lost      with the initial loss, before and after; None: it is not computed
    quiet     whether the upload shows no progress of its own
    """

    progress: Progress = nothing
    say: Say = nothing
    verified: Callable[[Report], None] = nothing
    lost: Callable[[dict[str, Any]], None] | None = nothing
    quiet: bool = True


@dataclass(frozen=True)
class Wanted:
    """Where a result goes, and how it is written. Every command has options of these names and defaults.

    output       a folder or a URL (s3://...); None: only to the Hub
    shard_size   the largest shard, "500MB" or bytes; None: shards stay as they are where they can, else 5 GB
    device       where the arithmetic is done: cpu or cuda
    workers      shards written at once
    memory       what may be resident, "1GB" or bytes; None: no bound but that of the pieces
    overwrite    replace an output that exists
    verify       verify first; publish only what is the same function
    push_to_hub  "org/name": verify, then upload with a card
    private      make the repository that `push_to_hub` creates private
    create_pr    `push_to_hub` opens a pull request
    measure      run the result for its initial loss, where the operation makes new numbers
    """

    output: str | None = None
    shard_size: str | int | None = None
    device: str = "cpu"
    workers: int = 1
    memory: str | int | None = "1GB"
    overwrite: bool = False
    verify: bool = False
    push_to_hub: str | None = None
    private: bool = False
    create_pr: bool = False
    measure: bool = True

    def check(self) -> None:
        """Raise OptionsError for options that contradict each other, OutputError for a size that is none."""
        if (self.private or self.create_pr) and not self.push_to_hub:
            option = "--private" if self.private else "--create-pr"
            raise OptionsError(f"{option} is for --push-to-hub")
        if self.workers < 1:
            raise OptionsError(f"workers is {self.workers}, expected 1 or more")
        check_place("float32", self.device)
        _ = self.shard_bytes, self.memory_bytes

    @property
    def remote(self) -> str | None:
        """The output, where it is a URL."""
        return self.output if self.output and "://" in self.output and not self.output.startswith("file://") else None

    @property
    def folder(self) -> Path | None:
        """The output, where it is a folder on a disk."""
        return None if self.output is None or self.remote else Path(self.output.removeprefix("file://"))

    @property
    def shard_bytes(self) -> int | None:
        return None if self.shard_size is None else parse_size(self.shard_size)

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else parse_size(self.memory, "memory")


@dataclass(frozen=True)
class Planned:
    """A planned result.

    wanted     where it goes, and how it is written
    companion  the further files that an operation brings
    command    the command line that makes the same again
    """

    source: Checkpoint
    result: Checkpoint
    operations: Sequence[Operation]
    wanted: Wanted
    plan: Plan
    companion: Companion | None = None
    command: str = ""


@dataclass
class Saved:
    """What a job has done so far; as a path, it is `result`.

    result        where the result is: the folder, the URL, or the page of the push
    path          the folder; None where the result went to a URL or to the Hub alone
    report        of the verification, where one was asked for
    notices       lines that a user should read: what was taken over from an earlier run, NaN in the source ...
    initial_loss  before and after, of operations that make new numbers
    pushed        the URL of the commit or of the pull request
    """

    result: str = ""
    path: Path | None = None
    report: Report | None = None
    notices: list[str] = field(default_factory=list)
    initial_loss: dict[str, Any] | None = field(default=None, repr=False)
    pushed: str | None = None

    def __fspath__(self) -> str:
        return self.result


def check_targets(source: Checkpoint, wanted: Wanted, *, dry_run: bool = False) -> dict[str, Any]:
    """Check, before anything is done, that the outputs may be written; returns the metadata of the source's card.

    Raises OutputError where one may not.
    """
    if wanted.folder:
        check_output(source, wanted.folder, wanted.overwrite or dry_run)
    if wanted.remote and not dry_run:
        check_url(wanted.remote, wanted.overwrite)
    if wanted.push_to_hub:
        check_push(wanted.push_to_hub, private=wanted.private, create_pr=wanted.create_pr)
        return metadata_of(source.origin.folder)
    return {}


def planned(
    source: Checkpoint, result: Checkpoint, operations: Sequence[Operation], wanted: Wanted, command: str = ""
) -> Planned:
    """What will be done, with the companion that an operation brings.

    Raises PlanError where the memory is too little, OptionsError where several operations bring companions.
    """
    memory = wanted.memory_bytes
    companions = [(one.name, one.companion(source, result, memory, wanted.folder)) for one in operations]
    brought = [(name, files) for name, files in companions if files is not None]
    if len(brought) > 1:
        names = " and ".join(dict(brought))
        raise OptionsError(f"{names}: further files go with a result once; ask one operation for them")
    companion = brought[0][1] if brought else None
    if companion:
        result = replace(result, notes=(*result.notes, *companion.notes))
    plan = make_plan(source, result, memory, wanted.workers)
    if companion:
        plan = replace(plan, peak_memory=max(plan.peak_memory, companion.peak))
    return Planned(source, result, operations, wanted, plan, companion, command)


def deliver(job: Planned, metadata: dict[str, Any], listener: Listener) -> Saved:
    """Carry it out.

    metadata  of the source's own card (`check_targets`)
    Raises DifferentError, with what is known by then, where the result is another function; else what saving raises.
    """
    wanted, done = job.wanted, Saved(path=job.wanted.folder)

    def notice(line: str) -> None:
        done.notices.append(line)
        listener.say(line)

    def accept(staged: Path) -> None:
        if wanted.verify or wanted.push_to_hub:
            done.report = _verified(job, staged, str(wanted.output or folder))
            listener.verified(done.report)
            if not done.report.same:
                raise DifferentError("the result is not the same function, so nothing was written", done)

    with _destination(wanted) as folder:
        save(
            job.result,
            folder,
            shard_size=wanted.shard_bytes,
            overwrite=wanted.overwrite,
            device=wanted.device,
            workers=wanted.workers,
            budget=job.plan.budget,
            progress=listener.progress,
            say=notice,
            companion=job.companion,
            accept=accept,
        )
        if listener.lost and any(operation.tells_loss for operation in job.operations):
            before = job.source if job.source.tensors else None
            done.initial_loss = sides(before, folder, wanted.memory_bytes, measure=wanted.measure)
            listener.lost(done.initial_loss)
        _publish(job, folder, metadata, listener.quiet, done)
    return done


@contextmanager
def _destination(wanted: Wanted) -> Iterator[Path]:
    """The folder that the user named, or else a temporary one, until its content is published."""
    if wanted.folder:
        yield wanted.folder
        return
    parent = Path(mkdtemp(prefix="modelsurgeon-"))
    try:
        yield parent / "result"
    except BaseException:
        if not (parent / "result").exists():  # else it stays: only publishing failed, and its error says where it is
            shutil.rmtree(parent)
        raise
    shutil.rmtree(parent)


def _verified(job: Planned, staged: Path, name: str) -> Report:
    """Verify a folder that is not published yet, under the name that it will have."""
    opened = open_checkpoint(staged)
    return verify(job.source, replace(opened, origin=replace(opened.origin, id=name)))


def _publish(job: Planned, folder: Path, metadata: dict[str, Any], quiet: bool, done: Saved) -> None:
    wanted = job.wanted
    done.result = str(folder) if wanted.folder else ""
    if wanted.remote:
        done.result = upload(folder, wanted.remote, overwrite=wanted.overwrite)
    if wanted.push_to_hub:
        assert done.report
        card = model_card(open_checkpoint(folder), done.report, command=job.command, source_card=metadata)
        message = f"modelsurgeon {' '.join(operation.name for operation in job.operations)}"
        private, create_pr = wanted.private, wanted.create_pr
        done.pushed = push(
            folder, wanted.push_to_hub, card=card, message=message, private=private, create_pr=create_pr, quiet=quiet
        )
        done.result = done.result or done.pushed
