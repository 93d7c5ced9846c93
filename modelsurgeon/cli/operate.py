"""One operation on the command line: show the plan, or carry it out with a bar and print the result's name."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import Request
from modelsurgeon.delivery import Listener, Planned, Saved, Wanted, check_targets, deliver, planned
from modelsurgeon.errors import DifferentError
from modelsurgeon.model import check_output_of_config, counted
from modelsurgeon.operations.operation import Operation
from modelsurgeon.operations.transforms.initial import blank
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.reports import listings, verification_report
from modelsurgeon.reports.blocks import Paragraph, Phrase
from modelsurgeon.reports.card import reproducing_command


def _document(job: Planned, done: Saved) -> dict[str, Any]:
    """What --json prints of a run."""
    steps = job.result.steps
    parts = {
        "settings": steps[-1].arguments.get("settings") if steps else None,
        "plan": job.plan.to_json(),
        "initial_loss": done.initial_loss,
        "pushed": done.pushed,
        "verification": done.report and done.report.to_json(),
        "notices": done.notices,
    }
    return {name: part for name, part in parts.items() if part}


def operate(operation: Operation, request: Request) -> None:
    """Carry out a request. Raises what its steps raise."""
    request.check()
    if request.quiet:
        terminal.quieten()
    source = terminal.from_stdin(request.source)[0]
    wanted = Wanted(**{one.name: getattr(request, one.name) for one in fields(Wanted)})
    wanted.check()
    reads_config = operation.reads == "config"
    if reads_config and wanted.folder:
        check_output_of_config(source, wanted.folder)
    before = blank(source) if reads_config else open_checkpoint(source, request.revision, stream=request.stream)
    metadata = check_targets(before, wanted, dry_run=request.dry_run)
    after = applied(operation, before)
    terminal.show(map(Paragraph, operation.choices(after)), request.quiet)
    job = planned(before, after, (operation,), wanted, reproducing_command(sys.argv[1:], before.origin))
    if request.dry_run:
        terminal.show(listings.of_plan(job.plan), request.quiet)
        if request.as_json:
            terminal.print_json(_document(job, Saved()))
        return
    terminal.show(listings.of_notes(job.result.notes, job.result.lossy), request.quiet)
    done = _delivered(job, metadata, request)
    if request.as_json:
        terminal.print_json({"output": done.result, **_document(job, done)})
    else:
        print(done.result)


def _delivered(job: Planned, metadata: dict[str, Any], request: Request) -> Saved:
    """Write the result, and report on stderr. Raises DifferentError, after printing the JSON document of that case."""
    quiet, as_json = request.quiet, request.as_json
    try:
        with terminal.bars(quiet, in_bytes=True) as progress:
            listener = Listener(
                counted(progress, job.plan.bytes[1]),
                say=lambda line: terminal.show([Paragraph(Phrase(line, "warning"))], quiet),
                verified=lambda report: terminal.show(verification_report.brief(report.to_json()), quiet),
                lost=(lambda loss: terminal.show(listings.of_losses(loss), quiet)) if as_json or not quiet else None,
                quiet=quiet,
            )
            done = deliver(job, metadata, listener)
    except DifferentError as error:
        if as_json:
            terminal.print_json({"output": None, **_document(job, error.saved)})
        raise
    if done.pushed:
        terminal.show([Paragraph(f"pushed to {done.pushed}")], quiet)
    return done
