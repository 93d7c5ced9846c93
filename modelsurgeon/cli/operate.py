"""One operation on the command line: the plan is shown, or carried out with a bar, and the result named on stdout."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import Request
from modelsurgeon.delivery import Listener, Planned, Saved, check_targets, deliver, planned
from modelsurgeon.errors import DifferentError
from modelsurgeon.model import check_output_of_config
from modelsurgeon.operations.operation import Operation
from modelsurgeon.operations.transforms.initial import blank
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.reports import listings, verification_report
from modelsurgeon.reports.blocks import Paragraph, Phrase
from modelsurgeon.reports.card import reproducing_command


@dataclass
class Outcome:
    """What --json tells of a run."""

    job: Planned
    done: Saved

    def to_json(self) -> dict[str, Any]:
        steps, done = self.job.result.steps, self.done
        settings = steps[-1].arguments.get("settings") if steps else None
        return {
            **({"settings": settings} if settings else {}),
            "plan": self.job.plan.to_json(),
            **({"initial_loss": done.initial_loss} if done.initial_loss else {}),
            **({"pushed": done.pushed} if done.pushed else {}),
            **({"verification": done.report.to_json()} if done.report else {}),
            **({"notices": done.notices} if done.notices else {}),
        }


def operate(operation: Operation, request: Request) -> None:
    """Carry out a request. Raises what its steps raise."""
    request.check()
    if request.quiet:
        terminal.quieten()
    source, wanted = terminal.from_stdin(request.source)[0], request.wanted()
    wanted.check()
    if operation.reads == "config" and wanted.folder:
        check_output_of_config(source, wanted.folder)
    before = _opened(operation, source, request)
    metadata = check_targets(before, wanted, dry_run=request.dry_run)
    after = applied(operation, before)
    terminal.show(map(Paragraph, operation.choices(after)), request.quiet)
    job = planned(before, after, (operation,), wanted, reproducing_command(sys.argv[1:], before.origin))
    if request.dry_run:
        terminal.show(listings.of_plan(job.plan), request.quiet)
        if request.as_json:
            terminal.print_json(Outcome(job, Saved()).to_json())
        return
    terminal.show(listings.of_notes(job.result.notes, job.result.lossy), request.quiet)
    done = _delivered(job, metadata, request)
    if request.as_json:
        terminal.print_json({"output": done.result, **Outcome(job, done).to_json()})
    else:
        print(done.result)


def _opened(operation: Operation, source: str, request: Request) -> Checkpoint:
    if operation.reads == "config":
        return blank(source)
    return open_checkpoint(source, request.revision, stream=request.stream)


def _delivered(job: Planned, metadata: dict[str, Any], request: Request) -> Saved:
    """Carry it out, telling on stderr what comes up. Raises DifferentError, after what --json tells then."""
    quiet, as_json = request.quiet, request.as_json
    try:
        with terminal.progress(job.plan.bytes[1], quiet) as progress:
            listener = Listener(
                progress,
                say=lambda line: terminal.show([Paragraph(Phrase(line, "warning"))], quiet),
                verified=lambda report: terminal.show(verification_report.brief(report.to_json()), quiet),
                lost=(lambda loss: terminal.show(listings.of_losses(loss), quiet)) if as_json or not quiet else None,
                quiet=quiet,
            )
            done = deliver(job, metadata, listener)
    except DifferentError as error:
        if as_json:
            terminal.print_json({"output": None, **Outcome(job, error.saved).to_json()})
        raise
    if done.pushed:
        terminal.show([Paragraph(f"pushed to {done.pushed}")], quiet)
    return done
