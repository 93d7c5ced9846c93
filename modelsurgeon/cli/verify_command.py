"""`modelsurgeon verify`: parse, call, show, and write the page if one is asked for. Exit code 0: same, 1: different."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from typer import Argument, BadParameter, Exit, Option

from modelsurgeon.cli import request, terminal
from modelsurgeon.reports import listings, verification_report


def verify_command(
    source: request.Source,
    result: Annotated[str | None, Argument(help="The result to compare with SOURCE.", show_default=False)] = None,
    files: Annotated[bool, Option("--files", help="Check that the files of one result are as written.")] = False,
    infer: Annotated[bool, Option(help="Without a record, derive the maps from the weights.")] = True,
    ignore_record: Annotated[bool, Option("--ignore-record", help="Judge RESULT as if it had no record.")] = False,
    require_proof: Annotated[bool, Option("--require-proof", help="Exit with 1 if it is not proven.")] = False,
    strict: Annotated[bool, Option("--strict", help="Exit with 1 if anything beside the function differs.")] = False,
    trainable: Annotated[bool, Option("--trainable", help="Does training separate copies? One backward pass.")] = False,
    report: request.ReportFile = None,
    text: request.Text = None,
    samples: request.Samples = 4,
    length: request.Length = 128,
    dtype: request.Dtype = "float32",
    device: request.Device = "cpu",
    memory: Annotated[str | None, Option(help="Memory limit of --device auto [default: what is free].")] = None,
    trust_remote_code: request.TrustRemoteCode = False,
    revision: request.Revision = None,
    as_json: request.Json = False,
    quiet: request.Quiet = False,
) -> None:
    """Tell whether RESULT is the same function as SOURCE: exit code 0 if it is, 1 if not.

    The last line says whether that is proven for all inputs, or was seen on what was run.
    """
    if files:
        if report:
            raise BadParameter("--report shows a comparison; --files compares nothing")
        if result is not None:
            raise BadParameter("--files checks one checkpoint alone; leave out RESULT")
        return _verify_files(source, revision, as_json, quiet)
    if result is None:
        raise BadParameter("no RESULT; name the checkpoint to compare with SOURCE, or check files with --files")
    terminal.check_page(report)
    names = terminal.from_stdin(source, result)
    from modelsurgeon.model import verify

    if quiet:
        terminal.quieten()
    with terminal.bars(quiet) as progress:
        found = verify(
            *names,
            infer=infer,
            ignore_record=ignore_record,
            trainable=trainable,
            text=text,
            samples=samples,
            length=length,
            dtype=dtype,
            device=device,
            memory=memory,
            trust_remote_code=trust_remote_code,
            revision=revision,
            progress=progress,
        )
    document = replace(found, command=terminal.command()).to_json()
    terminal.show_document(document, verification_report.brief, verification_report.page, report, as_json, quiet)
    if not found.same or (require_proof and not found.proven) or (strict and not found.same_beside):
        raise Exit(terminal.DIFFERENT)


def _verify_files(source: str, revision: str | None, as_json: bool, quiet: bool) -> None:
    from modelsurgeon.model import check_files

    found = check_files(terminal.from_stdin(source)[0], revision)
    terminal.show(listings.of_files(found), quiet)
    if as_json:
        terminal.print_json(found.to_json())
    if not found.same:
        raise Exit(terminal.DIFFERENT)
