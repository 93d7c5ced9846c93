"""What every operation is asked on the command line, whatever it does: from where, to where, and how."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

Source = Annotated[str, typer.Argument(help="A folder, a Hub id (org/name), a URL, demo, or - for a path on stdin.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]

Samples = Annotated[int, typer.Option(help="Windows of the text.", min=1)]
Length = Annotated[int, typer.Option(help="Tokens of a window.", min=2)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the checkpoints bring along.")
]


class DifferentError(Exception):  # no error: the answer to --verify
    """The result is not the same function, so it was not published."""


@dataclass(frozen=True)
class Request:
    """One run; each field is an argument or an option of every operation."""

    source: Source
    output: Annotated[str | None, typer.Option("--output", "-o", help="The folder to write, or a URL (s3://...).")] = (
        None
    )
    revision: Revision = None
    stream: Annotated[bool, typer.Option("--stream", help="Read a Hub id piece by piece; store none of it.")] = False
    shard_size: Annotated[str | None, typer.Option(help="Largest shard, as in 500MB or 2GiB [default: 5GB].")] = None
    device: Annotated[str, typer.Option(help="Where the arithmetic is done: cpu or cuda.")] = "cpu"
    workers: Annotated[int, typer.Option(help="Shards written at once.", min=1)] = 1
    memory: Annotated[str, typer.Option(help="What may be resident; --verify runs both models beside it.")] = "1GB"
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False
    verify: Annotated[bool, typer.Option("--verify", help="Verify first; publish only what is the same.")] = False
    push_to_hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Verify, then upload with a card.")] = None
    private: Annotated[bool, typer.Option("--private", help="Of a repository that --push-to-hub makes.")] = False
    create_pr: Annotated[bool, typer.Option("--create-pr", help="--push-to-hub opens a pull request.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; read no tensor, write nothing.")] = False
    as_json: Json = False
    quiet: Quiet = False

    def check(self) -> None:
        """Raise BadParameter for what contradicts itself."""
        if self.dry_run and (self.verify or self.push_to_hub):
            option = "--verify" if self.verify else "--push-to-hub"
            raise typer.BadParameter(f"--dry-run writes nothing for {option}; ask for one of them")
        if self.output is None and not self.dry_run and not self.push_to_hub:
            raise typer.BadParameter("no output; name one with -o, or ask for the plan with --dry-run")
        if (self.private or self.create_pr) and not self.push_to_hub:
            option = "--private" if self.private else "--create-pr"
            raise typer.BadParameter(f"{option} is for --push-to-hub")

    @property
    def remote(self) -> str | None:
        """The output, where it is a URL."""
        return self.output if self.output and "://" in self.output and not self.output.startswith("file://") else None

    @property
    def folder(self) -> Path | None:
        """The output, where it is a folder on a disk."""
        if self.output is None or self.remote:
            return None
        return Path(self.output.removeprefix("file://"))


def read_text(path: Path | None) -> str | None:
    """What --text names, where it does. Raises BadParameter for what is no text."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--text {path}: cannot be read as UTF-8 text ({error})") from None


def of_request(command: Callable[..., None], source: Any = None, without: Collection[str] = ()) -> Callable[..., None]:
    """A command whose first parameter is a request, with the fields of one in its place.

    source   the annotation of what it is given; None: of a checkpoint
    without  fields that make no sense for it, and stay as they are
    """
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    hints = get_type_hints(Request, include_extras=True)
    hints["source"] = source or hints["source"]
    names = [field.name for field in fields(Request) if field.name not in without]
    kind = inspect.Parameter.KEYWORD_ONLY
    asked = [
        inspect.Parameter(
            field.name, kind, annotation=hints[field.name], default=field.default if number else inspect.Parameter.empty
        )
        for number, field in enumerate(fields(Request))
        if field.name in names
    ]
    parameters = [*asked[:2], *(parameter.replace(kind=kind) for parameter in own), *asked[2:]]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        request = Request(**{name: given.pop(name) for name in names})
        command(request, **given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call
