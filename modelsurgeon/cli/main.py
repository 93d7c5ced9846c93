"""The command line: parse, call, print.

stdout carries the result only: the path of the output, or one JSON document with --json. Everything else goes to
stderr, progress bars only where that is a terminal. Exit codes: 0 done (verify: the same), 1 different, 2 a bad
request, 3 the machine failed. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsurgeon import __version__
from modelsurgeon.cli import terminal
from modelsurgeon.cli.diagnose import diagnose_command
from modelsurgeon.cli.initial import Measure, init_command
from modelsurgeon.cli.request import DifferentError, Json, Request, Revision, Source, of_request
from modelsurgeon.cli.terminal import BAD_REQUEST, DIFFERENT, INTERRUPTED, MACHINE_FAILED
from modelsurgeon.cli.verify import verify_command
from modelsurgeon.errors import ModelSurgeonError

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.saving.save import Companion
NOISE = 0.5  # evenly up to half of a part: 0.29 of it in the mean square, about HyperCloning's 10 dB
LONGEST = 2000  # characters of a message: values from files are in it

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


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
@of_request
def widen(
    request: Request,
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
    noise: Annotated[float, typer.Option(help="How differently copies are read, so that they part; 0: alike.")] = NOISE,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    optimizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A Trainer checkpoint of SOURCE: its AdamW state grows along.")
    ] = None,
) -> None:
    """Grow a checkpoint's widths: the same function in a bigger model."""
    from modelsurgeon.cli.operate import operate
    from modelsurgeon.operations.transforms.widening import widen
    from modelsurgeon.training.learning_rates import recommended

    _check_targets(factor, sizes, like, params, attention)

    def transform(checkpoint: Checkpoint) -> Checkpoint:
        settings, notes = _settings(checkpoint, sizes, like, params, request.quiet)
        how: dict[str, Any] = {"rule": rule, "attention": attention, "rope": rope, "dtype": dtype}
        wide = widen(checkpoint, factor, settings, **how, noise=noise, seed=seed)
        return recommended(checkpoint, replace(wide, notes=(*wide.notes, *notes)))

    def accompany(before: Checkpoint, after: Checkpoint, memory: int) -> Companion:
        from modelsurgeon.training.trainer import training_state

        assert optimizer
        return training_state(before, after, optimizer, memory, output=request.folder)

    operate(transform, request, accompany if optimizer else None)


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
    from modelsurgeon.growth.targets import by_config, by_settings

    settings = by_settings(checkpoint, sizes or ())
    notes: tuple[str, ...] = ()
    if like is not None:
        from modelsurgeon.checkpoints.source import read_config_of

        found, notes = by_config(checkpoint, read_config_of(like))
        settings = found | settings
    if params is not None:
        from modelsurgeon.operations.transforms.proportions import by_parameters
        from modelsurgeon.units import parse_count

        settings, count = by_parameters(checkpoint, parse_count(params), settings)
        notes = (f"{count:,} parameters are the nearest to {params} in these proportions",)
    if like is not None or params is not None:
        _show_settings(settings, quiet)
    return settings, notes


@app.command("untie-embeddings")
@of_request
def untie_embeddings(
    request: Request,
    head: Annotated[
        str | None, typer.Option(help="copy (lossless) [default], half-swap, shuffle, orthogonal or normal.")
    ] = None,
    std: Annotated[float | None, typer.Option(help="Of --head normal [default: initializer_range].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of --head orthogonal and normal [default: 0].")] = None,
    measure: Measure = True,
) -> None:
    """Give the output head a tensor of its own: the same logits to the last bit, or a fresh head to train from."""
    from modelsurgeon.cli.initial import untie

    untie(request, head, std, seed, measure)


@app.command("inspect")
def inspect_command(source: Source, revision: Revision = None, as_json: Json = False) -> None:
    """Show what can be seen of any checkpoint by its headers: sizes, tensors, and what would be refused."""
    from modelsurgeon.checkpoints.inspection import inspect

    found = inspect(terminal.from_stdin(source)[0], revision)
    if as_json:
        terminal.print_json(found.to_json())
    else:
        from modelsurgeon.reports.tables import show_inspection

        show_inspection(found, terminal.stdout())


@app.command("families")
def families_command(
    model_type: Annotated[str | None, typer.Argument(help="One family, in detail.", metavar="[MODEL_TYPE]")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as README.md has it.")] = False,
    as_json: Json = False,
) -> None:
    """Show which widths of which families can grow, and to which sizes."""
    from modelsurgeon.families import overview

    rows = overview.family(model_type) if model_type else overview.families()
    details = overview.details(model_type) if model_type else None
    if as_json:
        terminal.print_json(details or {row.name: row.cells for row in rows})
    elif markdown:
        print(overview.as_markdown(rows))
    else:
        from modelsurgeon.reports.tables import show_families, show_family

        show_families(rows, terminal.stdout())
        if details:
            show_family(details, terminal.stdout())


app.command("verify")(verify_command)
app.command("diagnose")(diagnose_command)
app.command("init")(init_command)


def _show_settings(settings: dict[str, int], quiet: bool) -> None:
    said = " ".join(f"{key}={value}" for key, value in settings.items())
    terminal.line(f"settings: {said}", terminal.console(quiet))


def main() -> None:
    """Run the program; every error is one line on stderr and an exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, lambda number, frame: sys.exit(128 + number))
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
    line = line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}...{line[-LONGEST // 2 :]}"
    print(f"modelsurgeon: {line}", file=sys.stderr)
    return code
