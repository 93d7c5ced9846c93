"""`modelsurgeon diagnose`: parse, call, show; write the page and the plots if they are asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import Json, Length, Quiet, Revision, Samples, Source, TrustRemoteCode
from modelsurgeon.reports import diagnosis_report, png
from modelsurgeon.reports.diagnosis_charts import DRAWN, charts
from modelsurgeon.text import parse_size, printable

if TYPE_CHECKING:
    from modelsurgeon.diagnosis.diagnose import Diagnosis

FORMAT = 1  # of the document; schema.json describes it
RUNNING = ("text", "samples", "length", "dtype", "trust_remote_code")  # options that only running the model has


def diagnose_command(
    context: typer.Context,
    source: Source,
    other: Annotated[str | None, typer.Argument(help="Another one, to show beside it.", show_default=False)] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Only what the weights tell: nothing is run.")] = False,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file to run the model on [default: a sample].")
    ] = None,
    samples: Samples = 16,
    length: Length = 128,
    dtype: Annotated[str, typer.Option(help="What the model computes in.")] = "float32",
    device: Annotated[
        str, typer.Option(help="Where it is done: cpu, cuda, or auto: what runs goes where there is room.")
    ] = "cpu",
    memory: Annotated[
        str, typer.Option(help="What may be resident for the weights; of --device auto, of the model that runs, too.")
    ] = "1GB",
    stream: Annotated[
        bool, typer.Option("--stream", help="With --weights: read a Hub id piece by piece; store none of it.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    revision: Revision = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all that was found, with plots, as one page of HTML.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the plots as PNG files; needs modelsurgeon[plots].")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what a checkpoint needs: bottlenecks, outliers, copies, saturation, and the command that would help."""
    _check(context, weights, stream)
    _check_targets(report, plots)
    given = terminal.from_stdin(*([source] if other is None else [source, other]))
    from modelsurgeon.model import read_text

    asked: dict[str, Any] = {"text": read_text(text), "samples": samples, "length": length, "dtype": dtype}
    asked |= {"device": device, "trust_remote_code": trust_remote_code, "weights_only": weights}
    found = _diagnosed(given, revision, stream, memory, quiet, asked)
    _tell(_document(found, device), report, plots, as_json, quiet)


def _check(context: typer.Context, weights: bool, stream: bool) -> None:
    """Raise BadParameter for options that say nothing of what is asked for."""
    if stream and not weights:
        raise typer.BadParameter("--stream stores nothing, and what is not stored cannot be run; ask for --weights too")
    sources = {name: context.get_parameter_source(name) for name in RUNNING}
    set_by_hand = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    if weights and set_by_hand:
        option = f"--{set_by_hand[0].replace('_', '-')}"
        raise typer.BadParameter(f"{option} is of running the model, and --weights runs nothing; leave out one of them")


def _check_targets(report: Path | None, plots: Path | None) -> None:
    """Raise OutputError for what cannot be written, before anything is measured."""
    if report:
        from modelsurgeon.reports import html

        html.check_target(report)
    if plots:
        png.check_folder(plots, DRAWN)


def _diagnosed(
    names: Sequence[str], revision: str | None, stream: bool, memory: str, quiet: bool, asked: dict[str, Any]
) -> list[Diagnosis]:
    """What is found of each, with bars on the way."""
    from modelsurgeon.checkpoints.checkpoint import open_checkpoint
    from modelsurgeon.diagnosis.diagnose import diagnose_all
    from modelsurgeon.running.environment import check_place

    check_place(asked["dtype"], asked["device"], auto=True)
    size = parse_size(memory, "memory")
    if quiet:
        terminal.quieten()
    revisions = [revision, *[None] * len(names)]
    opened = [open_checkpoint(name, of, stream=stream) for name, of in zip(names, revisions, strict=False)]
    with terminal.bars(quiet) as tell:
        return diagnose_all(opened, memory=size, tell=tell, **asked)


def _document(found: Sequence[Diagnosis], device: str) -> dict[str, Any]:
    """The document that schema.json describes: all that terminal, page and plots show is read off it."""
    from modelsurgeon.running.environment import environment

    models = [diagnosis.to_json() for diagnosis in found]
    command = printable(shlex.join(["modelsurgeon", *sys.argv[1:]]))
    return {"format": FORMAT, "models": models, "command": command, "environment": environment(device).to_json()}


def _tell(document: dict[str, Any], page: Path | None, plots: Path | None, as_json: bool, quiet: bool) -> None:
    """On the page, in plots, on the terminal, as JSON: the same document."""
    if page:
        from modelsurgeon.reports import html

        html.write(page, diagnosis_report.page(document))
    if plots:
        png.write_charts(plots, charts(document), DRAWN)
    terminal.show(diagnosis_report.brief(document), quiet)
    if as_json:
        terminal.print_json(document)
