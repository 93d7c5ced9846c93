"""The command line: parse, call, print.

stdout has only the result: the path of the output, or one JSON document with --json. Everything else goes to stderr,
progress bars only if that is a terminal. Exit codes: 0 done (verify: the same), 1 different, 2 a bad request, 3 the
machine failed. Large libraries are imported only when a command runs.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer import Argument, Option

from modelsurgeon.cli import terminal
from modelsurgeon.cli.command import command_of
from modelsurgeon.cli.diagnose_command import diagnose_command
from modelsurgeon.cli.request import Json, Revision, Source
from modelsurgeon.cli.terminal import BAD_REQUEST, DIFFERENT, INTERRUPTED, MACHINE_FAILED
from modelsurgeon.cli.verify_command import verify_command
from modelsurgeon.errors import DifferentError, ModelSurgeonError, OptionsError
from modelsurgeon.operations import catalogue
from modelsurgeon.reports import listings
from modelsurgeon.version import __version__

LONGEST = 2000  # characters of a message, which may quote values from files


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def modelsurgeon(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Operate on trained Transformer checkpoints without changing what they compute."""


def inspect_command(source: Source, revision: Revision = None, as_json: Json = False) -> None:
    """Show what the headers of any checkpoint tell: sizes, tensors, and what would be refused."""
    from modelsurgeon.checkpoints.inspection import inspect

    found = inspect(terminal.from_stdin(source)[0], revision)
    if as_json:
        terminal.print_json(found.to_json())
    else:
        terminal.show(listings.of_inspection(found), result=True)


def families_command(
    model_type: Annotated[str | None, Argument(help="A family to show in detail.", metavar="[MODEL_TYPE]")] = None,
    markdown: Annotated[bool, Option("--markdown", help="Print the table of README.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show which widths of which families can grow, and to which sizes."""
    from modelsurgeon.growth import overview

    rows = overview.family(model_type) if model_type else overview.families()
    details = overview.details(model_type) if model_type else None
    if as_json:
        terminal.print_json(details or {row.name: row.cells for row in rows})
    elif markdown:
        print(overview.as_markdown(rows))
    else:
        terminal.show(listings.of_families(rows, details), result=True)


def program() -> typer.Typer:
    """A command for each operation of the catalogue, then those that only show something."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
    app.callback()(modelsurgeon)
    for operation in catalogue.offered():
        app.command(operation.name)(command_of(operation))
    app.command("inspect")(inspect_command)
    app.command("families")(families_command)
    app.command("verify")(verify_command)
    app.command("diagnose")(diagnose_command)
    return app


def main() -> None:
    """Run the program; every error is one line on stderr and an exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, lambda number, frame: sys.exit(128 + number))
    code: Any = 0
    try:
        code = program()(standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # what typer returns after Ctrl-C, without a message
            _fail("interrupted", INTERRUPTED)
    except DifferentError as error:
        code = _fail(str(error), DIFFERENT)
    except typer.TyperException as error:
        code = _fail(error.format_message() if hasattr(error, "format_message") else str(error), BAD_REQUEST)
    except ModelSurgeonError as error:  # bad options in the words of typer's own errors
        code = _fail(f"{'Invalid value: ' * isinstance(error, OptionsError)}{error}", BAD_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else flushing at exit would fail, too
    except Exception as error:
        if os.environ.get("MODELSURGEON_DEBUG"):
            raise
        kind = "" if isinstance(error, OSError | MemoryError) else f"{type(error).__name__}: "
        code = _fail(f"{kind}{error} (MODELSURGEON_DEBUG=1 shows where)", MACHINE_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())  # it may have names from files, which must not move the cursor
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    line = line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}...{line[-LONGEST // 2 :]}"
    print(f"modelsurgeon: {line}", file=sys.stderr)
    return code
