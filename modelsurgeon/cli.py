"""The command line: parse, call, print.

stdout carries the result only: the path of the output, or one JSON document with --json. Everything else goes to
stderr, progress bars only where that is a terminal. Exit codes: 0 done (verify: the same), 1 different, 2 a bad
request, 3 the machine failed. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsurgeon import __version__
from modelsurgeon.errors import ModelSurgeonError

if TYPE_CHECKING:
    from rich.console import Console

    from modelsurgeon.checkpoint import Checkpoint
    from modelsurgeon.verify import Report

WIDEST = 1000  # columns of a table on stdout that is no terminal: nothing is folded for a program that reads it
DIFFERENT, BAD_REQUEST, MACHINE_FAILED, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="A folder, a Hub id (org/name), demo, or - for a path on stdin.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The folder to write.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
ShardSize = Annotated[str | None, typer.Option(help="Largest shard, as in 500MB or 2GiB [default: 5GB].")]
Device = Annotated[str, typer.Option(help="Where the arithmetic is done: cpu or cuda.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Verify = Annotated[bool, typer.Option("--verify", help="Verify before the output appears; publish only the same.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; read no tensor, write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]


class DifferentError(Exception):  # no error: the answer to --verify
    """The result is not the same function, so it was not published."""


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def modelsurgeon(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Operate on trained Transformer checkpoints without changing what they compute."""


@app.command()
def widen(
    source: Source,
    output: Output = None,
    factor: Annotated[int | None, typer.Option(help="Times as wide: hidden, MLP and attention [default: 2].")] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One size by its config key: hidden_size=1024; repeatable."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="The widths of another config: a config.json, a folder or a Hub id.")
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="The nearest size of the same proportions, as in 350M or 1.5B.")
    ] = None,
    rule: Annotated[str, typer.Option(help="orthogonal, exact or auto.")] = "auto",
    attention: Annotated[str, typer.Option(help="What a factor grows: head-dim, heads or auto.")] = "auto",
    rope: Annotated[str, typer.Option(help="nested (lossless) or repeat (approximate).")] = "nested",
    dtype: Annotated[str | None, typer.Option(help="Store as float32, bfloat16 ... [default: as it is].")] = None,
    revision: Revision = None,
    shard_size: ShardSize = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Grow a checkpoint's widths: the same function in a bigger model."""
    from modelsurgeon.widen import widen

    _check_targets(factor, sizes, like, params, attention)

    def transform(checkpoint: Checkpoint) -> Checkpoint:
        settings, notes = _settings(checkpoint, sizes, like, params, quiet)
        wide = widen(checkpoint, factor, settings, rule=rule, attention=attention, rope=rope, dtype=dtype)
        return replace(wide, notes=(*wide.notes, *notes))

    _run(transform, source, output, revision, shard_size, device, overwrite, verify, dry_run, as_json, quiet)


def _check_targets(
    factor: int | None, sizes: list[str] | None, like: str | None, params: str | None, attention: str
) -> None:
    given = {"--factor": factor, "--like": like, "--params": params}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise typer.BadParameter(f"{' and '.join(named)} each name all widths; ask for one of them")
    if attention != "auto" and factor is None and (named or sizes):
        said = " and ".join([*named, *(["--set"] if sizes else [])])
        raise typer.BadParameter(f"--attention says what --factor grows; {said} names what attention grows to")


def _settings(
    checkpoint: Checkpoint, sizes: list[str] | None, like: str | None, params: str | None, quiet: bool
) -> tuple[dict[str, int], tuple[str, ...]]:
    """(what --set, --like and --params ask for, notes on it); what was found is shown before anything else is done."""
    from modelsurgeon.targets import by_config, by_settings

    settings = by_settings(checkpoint, sizes or ())
    notes: tuple[str, ...] = ()
    if like is not None:
        from modelsurgeon.source import read_config_of

        found, notes = by_config(checkpoint, read_config_of(like))
        settings = found | settings
    if params is not None:
        from modelsurgeon.proportions import by_parameters
        from modelsurgeon.sizes import parse_count

        settings, count = by_parameters(checkpoint, parse_count(params), settings)
        notes = (f"{count:,} parameters are the nearest to {params} in these proportions",)
    if like is not None or params is not None:
        _show_settings(settings, quiet)
    return settings, notes


@app.command("untie-embeddings")
def untie_embeddings(
    source: Source,
    output: Output = None,
    revision: Revision = None,
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give the output head a tensor of its own: the same logits to the last bit."""
    from modelsurgeon.untie import untie_embeddings

    _run(untie_embeddings, source, output, revision, shard_size, "cpu", overwrite, verify, dry_run, as_json, quiet)


@app.command("inspect")
def inspect_command(source: Source, revision: Revision = None, as_json: Json = False) -> None:
    """Show what can be seen of any checkpoint by its headers: sizes, tensors, and what would be refused."""
    from modelsurgeon.inspection import inspect

    found = inspect(_from_stdin(source)[0], revision)
    if as_json:
        _print_json(found.to_json())
    else:
        from modelsurgeon.tables import show_inspection

        show_inspection(found, _stdout())


@app.command("families")
def families_command(
    model_type: Annotated[str | None, typer.Argument(help="One family, in detail.", metavar="[MODEL_TYPE]")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as README.md has it.")] = False,
    as_json: Json = False,
) -> None:
    """Show which widths of which families can grow, and to which sizes."""
    from modelsurgeon import families

    rows = families.family(model_type) if model_type else families.families()
    details = families.details(model_type) if model_type else None
    if as_json:
        _print_json(details or {row.name: row.cells for row in rows})
    elif markdown:
        print(families.as_markdown(rows))
    else:
        from modelsurgeon.tables import show_families, show_family

        show_families(rows, _stdout())
        if details:
            show_family(details, _stdout())


@app.command("verify")
def verify_command(
    source: Source,
    result: Annotated[str, typer.Argument(help="What was made of it: as SOURCE.")],
    text: Annotated[Path | None, typer.Option(help="A file to run both models on [default: a sample].")] = None,
    samples: Annotated[int, typer.Option(help="Windows of the text.", min=1)] = 4,
    length: Annotated[int, typer.Option(help="Tokens of a window.", min=2)] = 128,
    dtype: Annotated[str, typer.Option(help="What the logits are computed in.")] = "float32",
    device: Annotated[str, typer.Option(help="Where the models run: cpu or cuda.")] = "cpu",
    revision: Revision = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell whether RESULT is the same function as SOURCE: exit code 0 if it is, 1 if not."""
    from modelsurgeon.checkpoint import open_checkpoint
    from modelsurgeon.verify import verify

    names = _from_stdin(source, result)
    _check_running(dtype, device)
    opened = open_checkpoint(names[0], revision), open_checkpoint(names[1])
    options: dict[str, Any] = {"samples": samples, "length": length, "dtype": dtype, "device": device}
    report = verify(*opened, text=_read_text(text), **options)
    _print_report(report, _console(quiet))
    if as_json:
        _print_json(report.to_json())
    if not report.same:
        raise typer.Exit(DIFFERENT)


def _run(
    transform: Callable[[Checkpoint], Checkpoint],
    source: str,
    output: Path | None,
    revision: str | None,
    shard_size: str | None,
    device: str,
    overwrite: bool,
    verified: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Open, transform, and either show the plan or save."""
    from modelsurgeon.checkpoint import open_checkpoint
    from modelsurgeon.plan import make_plan
    from modelsurgeon.save import check_output, save
    from modelsurgeon.sizes import parse_size

    if dry_run and verified:
        raise typer.BadParameter("--dry-run writes nothing that --verify could look at; ask for one of them")
    if output is None and not dry_run:
        raise typer.BadParameter("no output; name one with -o, or ask for the plan with --dry-run")
    _check_running("float32", device)
    size = None if shard_size is None else parse_size(shard_size)
    before = open_checkpoint(_from_stdin(source)[0], revision)
    if output is not None:
        check_output(before, output, overwrite or dry_run)
    after = transform(before)
    plan, console = make_plan(before, after), _console(quiet)
    settings = after.steps[-1].arguments.get("settings") if after.steps else None
    document: dict[str, Any] = {**({"settings": settings} if settings else {}), "plan": plan.to_json()}
    if dry_run or output is None:
        _show_plan(plan, console)
    else:
        _show_notes(after, console)
        reports: list[Report] = []
        accept = _acceptance(before, output, reports, console) if verified else lambda folder: None
        try:
            with _progress(plan.bytes[1], quiet) as progress:
                save(
                    after,
                    output,
                    shard_size=size,
                    overwrite=overwrite,
                    device=device,
                    progress=progress,
                    accept=accept,
                )
        except DifferentError:
            if as_json:
                _print_json({"output": None, **document, "verification": reports[0].to_json()})
            raise
        document = {"output": str(output), **document}
        if reports:
            document["verification"] = reports[0].to_json()
    if as_json:
        _print_json(document)
    elif not dry_run:
        print(output)


def _acceptance(
    before: Checkpoint, output: Path, reports: list[Report], console: Console | None
) -> Callable[[Path], None]:
    """What verifies a finished folder before it appears, and raises DifferentError where it must not."""

    def accept(folder: Path) -> None:
        from modelsurgeon.checkpoint import open_checkpoint
        from modelsurgeon.verify import verify

        staged = open_checkpoint(folder)
        named = replace(staged, origin=replace(staged.origin, id=str(output)))
        reports.append(verify(before, named))
        _print_report(reports[0], console)
        if not reports[0].same:
            raise DifferentError("the result is not the same function, so nothing was written")

    return accept


def _from_stdin(*names: str) -> tuple[str, ...]:
    """The names, with the path that came down the pipe in the place of `-`."""
    if names.count("-") > 1:
        raise typer.BadParameter("only one of the arguments can be - (a path on stdin)")
    if "-" not in names:
        return names
    line = sys.stdin.readline().strip()
    if not line:
        raise typer.BadParameter("no path came on stdin; did the command before fail?")
    return tuple(line if name == "-" else name for name in names)


def _check_running(dtype: str, device: str) -> None:
    from modelsurgeon.tensor import DTYPE_NAMES

    if dtype not in DTYPE_NAMES:
        raise typer.BadParameter(f"dtype {dtype!r}, expected one of {', '.join(DTYPE_NAMES)}")
    if device == "cpu":
        return
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise typer.BadParameter(f"device {device!r}, expected cpu, cuda or cuda:0, cuda:1 ...")
    if int(number or 0) >= torch.cuda.device_count():
        raise typer.BadParameter(f"device {device!r}: torch can use {torch.cuda.device_count()} GPUs here")


def _read_text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--text {path}: cannot be read as UTF-8 text ({error})") from None


def _console(quiet: bool) -> Console | None:
    from rich.console import Console

    if quiet:
        return None
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=160)


def _stdout() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDEST)


def _show_settings(settings: dict[str, int], quiet: bool) -> None:
    console = _console(quiet)
    if console:
        from rich.text import Text

        said = " ".join(f"{key}={value}" for key, value in settings.items())
        console.print(Text(f"settings: {said}"), soft_wrap=True)


def _show_plan(plan: Any, console: Console | None) -> None:
    from modelsurgeon.tables import show_plan

    if console:
        show_plan(plan, console)


def _show_notes(after: Checkpoint, console: Console | None) -> None:
    from modelsurgeon.tables import show_notes

    if console:
        show_notes(after.notes, after.lossy, console)


def _print_report(report: Report, console: Console | None) -> None:
    from modelsurgeon.tables import show_report

    if console:
        show_report(report, console)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr that counts bytes, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=total)
        yield lambda count: bar.advance(task, count)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document))


def main() -> None:
    """Run the program; every error is one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    code: Any = 0
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer makes this of Ctrl-C, and says nothing
            _fail("interrupted", INTERRUPTED)
    except DifferentError as error:
        code = _fail(str(error), DIFFERENT)
    except typer.TyperException as error:
        code = _fail(error.format_message() if hasattr(error, "format_message") else str(error), BAD_REQUEST)
    except ModelSurgeonError as error:
        code = _fail(str(error), BAD_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be said, not even at exit
    except Exception as error:
        if os.environ.get("MODELSURGEON_DEBUG"):
            raise
        kind = "" if isinstance(error, OSError | MemoryError) else f"{type(error).__name__}: "
        code = _fail(f"{kind}{error} (MODELSURGEON_DEBUG=1 shows where)", MACHINE_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())  # names from files are in it: nothing there may move the cursor
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"modelsurgeon: {line}", file=sys.stderr)
    return code
