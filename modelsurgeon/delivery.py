"""From a planned checkpoint to where it is wanted: a folder, a URL, a repository of the Hub; verified before if asked.

    save to a staging folder -> verify it there -> publish it by one rename -> tell its initial loss -> upload or push

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
from modelsurgeon.verification.verify import Report, verify

Say = Callable[[str], None]


def nothing(*_: Any) -> None:
    """Do nothing: the callback of whoever wants none."""


@dataclass(frozen=True)
class Wanted:
    """Where a result goes, and how it is written. The same names and defaults are options of every command.

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
    measure      of operations that make new numbers: run the result for its initial loss
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
        """Raise OptionsError for what contradicts itself."""
        if (self.private or self.create_pr) and not self.push_to_hub:
            option = "--private" if self.private else "--create-pr"
            raise OptionsError(f"{option} is for --push-to-hub")
        if self.workers < 1:
            raise OptionsError(f"workers is {self.workers}, expected 1 or more")
        check_place("float32", self.device)
        _ = self.shard_bytes, self.memory_bytes  # what is no size raises OutputError

    @property
    def remote(self) -> str | None:
        """The output, where it is a URL."""
        return self.output if self.output and "://" in self.output and not self.output.startswith("file://") else None

    @property
    def folder(self) -> Path | None:
        """The output, where it is a folder on a disk."""
        if self.output is None or self.remote:
            return None
        return Path(self.output.removeprefix("file://"))

    @property
    def shard_bytes(self) -> int | None:
        return None if self.shard_size is None else parse_size(self.shard_size)

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else parse_size(self.memory, "memory")


@dataclass(frozen=True)
class Planned:
    """A result that is planned: of what, by what, with what beside it, and how it is written.

    command  the command line that makes the same again
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
    """What became of it, as far as it came; it names its folder wherever a path is asked for.

    result        what was asked for: the folder, the URL, or the page of the push
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
    """The metadata of the source's card. Raises OutputError, before anything is done, for what may not be written."""
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
    """What will be done, with the companions that operations bring. Raises PlanError where the memory is too little."""
    memory = wanted.memory_bytes
    found = [(one.name, one.companion(source, result, memory, wanted.folder)) for one in operations]
    bringing = {name: files for name, files in found if files is not None}
    if sum(files is not None for _, files in found) > 1:
        raise OptionsError(f"{' and '.join(bringing)}: further files go with a result once; ask one operation for them")
    companion = next(iter(bringing.values()), None)
    if companion:
        result = replace(result, notes=(*result.notes, *companion.notes))
    plan = make_plan(source, result, memory, wanted.workers)
    if companion:
        plan = replace(plan, peak_memory=max(plan.peak_memory, companion.peak))
    return Planned(source, result, operations, wanted, plan, companion, command)


def deliver(
    job: Planned,
    metadata: dict[str, Any],
    *,
    progress: Progress | None = None,
    say: Say = nothing,
    verified: Callable[[Report], None] = nothing,
    lost: Callable[[dict[str, Any]], None] = nothing,
    tells_loss: bool = True,
    quiet: bool = True,
) -> Saved:
    """Carry it out.

    metadata  of the source's own card (`check_targets`)
    progress  called with the bytes written since the last call
    say       called with a line that a user should read
    verified  called with the verification's report, before anything appears
    lost      called with the initial loss, before and after; not computed where `tells_loss` is off
    Raises DifferentError, with what is known by then, where the result is another function; else what saving raises.
    """
    done = Saved(path=job.wanted.folder)

    def notice(line: str) -> None:
        done.notices.append(line)
        say(line)

    def accept(staged: Path) -> None:
        if job.wanted.verify or job.wanted.push_to_hub:
            done.report = _verified(job, staged, str(job.wanted.output or folder))
            verified(done.report)
            if not done.report.same:
                raise DifferentError("the result is not the same function, so nothing was written", done)

    with _destination(job.wanted) as folder:
        save(
            job.result,
            folder,
            shard_size=job.wanted.shard_bytes,
            overwrite=job.wanted.overwrite,
            device=job.wanted.device,
            workers=job.wanted.workers,
            budget=job.plan.budget,
            progress=progress,
            say=notice,
            companion=job.companion,
            accept=accept,
        )
        if tells_loss and any(operation.tells_loss for operation in job.operations):
            before = job.source if job.source.tensors else None
            done.initial_loss = sides(before, folder, job.wanted.memory_bytes, measure=job.wanted.measure)
            lost(done.initial_loss)
        _publish(job, folder, metadata, quiet, done)
    return done


@contextmanager
def _destination(wanted: Wanted) -> Iterator[Path]:
    """The folder that was asked for, or a temporary one until its content is published."""
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
        done.pushed = push(
            folder,
            wanted.push_to_hub,
            card=card,
            message=message,
            private=wanted.private,
            create_pr=wanted.create_pr,
            quiet=quiet,
        )
        done.result = done.result or done.pushed
