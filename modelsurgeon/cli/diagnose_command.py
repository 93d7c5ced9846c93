"""`modelsurgeon diagnose`: parse, call, show; write the page and the plots if they are asked for."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modelsurgeon.cli import terminal
from modelsurgeon.cli.request import Json, Length, Quiet, Revision, Samples, Source, TrustRemoteCode
from modelsurgeon.reports import diagnosis_report, png
from modelsurgeon.reports.diagnosis_charts import DRAWN, charts
from modelsurgeon.running.options import RunOptions
from modelsurgeon.text import parse_size

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
    from modelsurgeon.diagnosis.diagnose import document
    from modelsurgeon.model import diagnose_together, read_text

    options = RunOptions(
        read_text(text),
        samples,
        length,
        dtype,
        device,
        memory=parse_size(memory, "memory"),
        trust_remote_code=trust_remote_code,
    )
    if quiet:
        terminal.quieten()
    with terminal.bars(quiet) as progress:
        found = diagnose_together(given, options, weights, stream, revision, progress)
    command = shlex.join(["modelsurgeon", *sys.argv[1:]])
    _tell(document(found, device, command), report, plots, as_json, quiet)


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
