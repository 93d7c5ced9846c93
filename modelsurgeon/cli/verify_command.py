"""`modelsurgeon verify`: parse, call, show, and write the page if one is asked for. Exit code 0: same, 1: different."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import Json, Length, Quiet, Revision, Samples, Source, TrustRemoteCode
from modelsurgeon.reports import listings, verification_report

if TYPE_CHECKING:
    from modelsurgeon.verification.verify import Report


def verify_command(
    source: Source,
    result: Annotated[str | None, typer.Argument(help="What was made of it: as SOURCE.", show_default=False)] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Of one result: are its files still what was written?")
    ] = False,
    infer: Annotated[bool, typer.Option("--infer", help="Without a record: derive the maps from the weights.")] = False,
    trainable: Annotated[
        bool, typer.Option("--trainable", help="Tell whether training will part the copies: one backward pass.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all that was found, with plots, as one page of HTML.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A file to run both models on [default: a sample].")] = None,
    samples: Samples = 4,
    length: Length = 128,
    dtype: Annotated[str, typer.Option(help="What the logits are computed in.")] = "float32",
    device: Annotated[
        str, typer.Option(help="Where the models run: cpu, cuda, or auto: all there is, then the disk.")
    ] = "cpu",
    memory: Annotated[
        str | None, typer.Option(help="Of --device auto: weights in memory before the disk [default: what is free].")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    revision: Revision = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell whether RESULT is the same function as SOURCE: exit code 0 if it is, 1 if not."""
    if files:
        if report:
            raise typer.BadParameter("--report shows a comparison; --files compares nothing")
        return _verify_files(source, result, revision, as_json, quiet)
    if result is None:
        raise typer.BadParameter("no RESULT; name what was made of SOURCE, or ask for --files of one alone")
    if report:
        from modelsurgeon.reports import html

        html.check_target(report)
    names = terminal.from_stdin(source, result)
    from modelsurgeon.model import verify

    if quiet:
        terminal.quieten()
    with terminal.bars(quiet) as progress:
        found = verify(
            *names,
            infer=infer,
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
    _tell(replace(found, command=shlex.join(["modelsurgeon", *sys.argv[1:]])), report, as_json, quiet)
    if not found.same:
        raise typer.Exit(terminal.DIFFERENT)


def _tell(found: Report, page: Path | None, as_json: bool, quiet: bool) -> None:
    """On the page, on the terminal, as JSON: the same document."""
    document = found.to_json()
    if page:
        from modelsurgeon.reports import html

        html.write(page, verification_report.page(document))
    terminal.show(verification_report.brief(document), quiet)
    if as_json:
        terminal.print_json(document)


def _verify_files(source: str, result: str | None, revision: str | None, as_json: bool, quiet: bool) -> None:
    from modelsurgeon.model import check_files

    if result is not None:
        raise typer.BadParameter("--files is asked of one result alone")
    found = check_files(terminal.from_stdin(source)[0], revision)
    terminal.show(listings.of_files(found), quiet)
    if as_json:
        terminal.print_json(found.to_json())
    if not found.same:
        raise typer.Exit(terminal.DIFFERENT)
