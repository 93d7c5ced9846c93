"""One operation, from the request to the result: open, transform, then show the plan, or save, verify and publish."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import typer

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import DifferentError, Request
from modelsurgeon.saving.plan import Plan, make_plan
from modelsurgeon.saving.save import Companion, check_output, save
from modelsurgeon.tensors.dtypes import DTYPE_NAMES
from modelsurgeon.units import parse_size

if TYPE_CHECKING:
    from modelsurgeon.verification.verify import Report

Transform = Callable[[Checkpoint], Checkpoint]
Open = Callable[[str], Checkpoint]  # what was named -> what is operated on
Conclude = Callable[[Checkpoint, Path], tuple[dict[str, Any], list[str]]]  # (before, folder) -> (for --json, lines)
Accompany = Callable[[Checkpoint, Checkpoint, int], Companion]  # (before, after, bytes of memory) -> what goes with it


@dataclass
class Outcome:
    """What is told of a run, as it comes to be known."""

    document: dict[str, Any]
    report: Report | None = None
    notices: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        found = {**self.document}
        if self.report:
            found["verification"] = self.report.to_json()
        return {**found, "notices": self.notices} if self.notices else found


def operate(
    transform: Transform,
    request: Request,
    accompany: Accompany | None = None,
    *,
    opened: Open | None = None,
    conclude: Conclude | None = None,
) -> None:
    """Carry out a request. Raises what its steps raise.

    opened    opens the source; None: as a checkpoint
    conclude  what is told of a result that is written
    """
    request.check()
    check_running("float32", request.device)
    if request.quiet:
        terminal.quieten()
    source = terminal.from_stdin(request.source)[0]
    size = None if request.shard_size is None else parse_size(request.shard_size)
    memory = parse_size(request.memory, "memory")
    before = opened(source) if opened else open_checkpoint(source, request.revision, stream=request.stream)
    metadata = _check_targets(before, request)
    after = transform(before)
    companion = accompany(before, after, memory) if accompany else None
    if companion:
        after = replace(after, notes=(*after.notes, *companion.notes))
    plan, console = make_plan(before, after, memory, request.workers), terminal.console(request.quiet)
    if companion:
        plan = replace(plan, peak_memory=max(plan.peak_memory, companion.peak))
    settings = after.steps[-1].arguments.get("settings") if after.steps else None
    outcome = Outcome({**({"settings": settings} if settings else {}), "plan": plan.to_json()})
    if request.dry_run:
        if console:
            from modelsurgeon.reports.tables import show_plan

            show_plan(plan, console)
        if request.as_json:
            terminal.print_json(outcome.to_json())
        return
    if console:
        from modelsurgeon.reports.tables import show_notes

        show_notes(after.notes, after.lossy, console)
    with _destination(request) as folder:
        how: dict[str, Any] = {"shard_size": size, "memory": memory, "workers": request.workers}
        how |= {"device": request.device, "companion": companion}
        _write(before, after, folder, plan, request, outcome, how)
        if conclude and (console or request.as_json):
            told, lines = conclude(before, folder)
            outcome.document.update(told)
            for line in lines:
                terminal.line(line, console)
        result = _publish(before, folder, metadata, request, outcome)
    if request.as_json:
        terminal.print_json({"output": result, **outcome.to_json()})
    else:
        print(result)


def _check_targets(before: Checkpoint, request: Request) -> dict[str, Any]:
    """Raise OutputError, before anything is done, for what may not be written; what the source's card tells of it."""
    if request.folder:
        check_output(before, request.folder, request.overwrite or request.dry_run)
    if request.remote and not request.dry_run:
        from modelsurgeon.saving.publish import check_target

        check_target(request.remote, request.overwrite)
    if request.push_to_hub:
        from modelsurgeon.saving.publish import check_push

        check_push(request.push_to_hub, private=request.private, create_pr=request.create_pr)
        from modelsurgeon.reports.card import metadata_of

        return metadata_of(before.origin.folder)
    return {}


@contextmanager
def _destination(request: Request) -> Iterator[Path]:
    """The folder to write: the one asked for, or one for the time until it is published."""
    if request.folder:
        yield request.folder
        return
    parent = Path(mkdtemp(prefix="modelsurgeon-"))
    try:
        yield parent / "result"
    except BaseException:
        if not (parent / "result").exists():  # else it stays: only publishing failed, and its error says where it is
            shutil.rmtree(parent)
        raise
    shutil.rmtree(parent)


def _write(
    before: Checkpoint,
    after: Checkpoint,
    folder: Path,
    plan: Plan,
    request: Request,
    outcome: Outcome,
    how: dict[str, Any],
) -> None:
    """Save, verifying before the folder appears if that is wanted."""
    console = terminal.console(request.quiet)

    def say(line: str) -> None:
        outcome.notices.append(line)
        terminal.line(line, console, "yellow")

    def accept(staged: Path) -> None:
        if request.verify or request.push_to_hub:
            outcome.report = _verify(before, staged, str(request.output or folder), request)
            if not outcome.report.same:
                raise DifferentError("the result is not the same function, so nothing was written")

    try:
        with terminal.progress(plan.bytes[1], request.quiet) as progress:
            save(after, folder, overwrite=request.overwrite, progress=progress, say=say, accept=accept, **how)
    except DifferentError:
        if request.as_json:
            terminal.print_json({"output": None, **outcome.to_json()})
        raise


def _verify(before: Checkpoint, staged: Path, name: str, request: Request) -> Report:
    """What verification finds in a folder that has not appeared yet."""
    from modelsurgeon.verification.verify import verify

    opened = open_checkpoint(staged)
    report = verify(before, replace(opened, origin=replace(opened.origin, id=name)))
    console = terminal.console(request.quiet)
    if console:
        from modelsurgeon.reports.tables import show_report

        show_report(report, console)
    return report


def _publish(before: Checkpoint, folder: Path, metadata: dict[str, Any], request: Request, outcome: Outcome) -> str:
    """Bring the folder to where it was asked for; what stdout says of it."""
    result = str(folder) if request.folder else ""
    if request.remote:
        from modelsurgeon.saving.publish import upload

        result = upload(folder, request.remote, overwrite=request.overwrite)
    if request.push_to_hub:
        from modelsurgeon.reports.card import model_card, reproducing_command
        from modelsurgeon.saving.publish import push

        assert outcome.report
        command = reproducing_command(sys.argv[1:], before.origin)
        card = model_card(open_checkpoint(folder), outcome.report, command=command, source_card=metadata)
        how = {"private": request.private, "create_pr": request.create_pr, "quiet": request.quiet}
        url = push(folder, request.push_to_hub, card=card, message=f"modelsurgeon {sys.argv[1]}", **how)
        outcome.document["pushed"] = url
        terminal.line(f"pushed to {url}", terminal.console(request.quiet))
        result = result or url
    return result


def check_running(dtype: str, device: str, *, auto: bool = False) -> None:
    """Raise BadParameter for a dtype that nobody knows, and a device that is not there.

    auto  whether the device may be "auto", too: all that there are
    """
    if dtype not in DTYPE_NAMES:
        raise typer.BadParameter(f"dtype {dtype!r}, expected one of {', '.join(DTYPE_NAMES)}")
    if device == "cpu" or (auto and device == "auto"):
        return
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise typer.BadParameter(f"device {device!r}, expected cpu, {'auto, ' * auto}cuda or cuda:0, cuda:1 ...")
    if int(number or 0) >= torch.cuda.device_count():
        raise typer.BadParameter(f"device {device!r}: torch can use {torch.cuda.device_count()} GPUs here")
