"""`modelsurgeon diagnose`: parse, call, show; write the page and the plots if they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Context, Option

from modelsurgeon.cli import request, terminal
from modelsurgeon.reports import diagnosis_report, png
from modelsurgeon.reports.diagnosis_charts import DRAWN, charts
from modelsurgeon.running.options import RunOptions
from modelsurgeon.text import parse_size

RUNNING = ("text", "samples", "length", "dtype", "trust_remote_code")  # options that only running the model has


def diagnose_command(
    context: Context,
    source: request.Source,
    other: Annotated[str | None, Argument(help="A second one, to show beside it.", show_default=False)] = None,
    weights: Annotated[bool, Option("--weights", help="Measure only the weights; run nothing.")] = False,
    text: request.Text = None,
    samples: request.Samples = 16,
    length: request.Length = 128,
    dtype: request.Dtype = "float32",
    device: request.Device = "cpu",
    memory: Annotated[str, Option(help="Memory limit for the weights, and for models of --device auto.")] = "1GB",
    stream: Annotated[bool, Option("--stream", help="With --weights: read a Hub id piecewise; store nothing.")] = False,
    trust_remote_code: request.TrustRemoteCode = False,
    revision: request.Revision = None,
    report: request.ReportFile = None,
    plots: Annotated[Path | None, Option(metavar="DIR", help="Write PNG plots; needs modelsurgeon[plots].")] = None,
    as_json: request.Json = False,
    quiet: request.Quiet = False,
) -> None:
    """Tell what a checkpoint needs: bottlenecks, outliers, copies, saturation, and the command that would help."""
    _check(context, weights, stream)
    terminal.check_page(report)
    if plots:
        png.check_folder(plots, DRAWN)
    names = terminal.from_stdin(*([source] if other is None else [source, other]))
    from modelsurgeon.diagnosis.diagnose import document
    from modelsurgeon.model import diagnose_together, read_text

    size, given = parse_size(memory, "memory"), read_text(text)
    options = RunOptions(given, samples, length, dtype, device, trust_remote_code=trust_remote_code, memory=size)
    if quiet:
        terminal.quieten()
    with terminal.bars(quiet) as progress:
        found = diagnose_together(names, options, weights, stream, revision, progress)
    measured = document(found, device, terminal.command())
    if plots:
        png.write_charts(plots, charts(measured), DRAWN)
    terminal.show_document(measured, diagnosis_report.brief, diagnosis_report.page, report, as_json, quiet)


def _check(context: Context, weights: bool, stream: bool) -> None:
    """Raise BadParameter for options that do not apply."""
    if stream and not weights:
        raise BadParameter("--stream stores nothing, and what is not stored cannot be run; ask for --weights too")
    sources = {name: context.get_parameter_source(name) for name in RUNNING}
    given = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    if weights and given:
        option = f"--{given[0].replace('_', '-')}"
        raise BadParameter(f"{option} is for running the model, but --weights runs nothing; leave out one of them")
