"""What every operation is asked on the command line, whatever it does: from where, to where, and how."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modelsurgeon.delivery import Wanted

Source = Annotated[str, typer.Argument(help="A folder, a Hub id (org/name), a URL, demo, or - for a path on stdin.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]

Samples = Annotated[int, typer.Option(help="Windows of the text.", min=1)]
Length = Annotated[int, typer.Option(help="Tokens of a window.", min=2)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the checkpoints bring along.")
]


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
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository that --push-to-hub creates private.")
    ] = False
    create_pr: Annotated[bool, typer.Option("--create-pr", help="--push-to-hub opens a pull request.")] = False
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Run the result for its initial loss.")] = True
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

    def wanted(self) -> Wanted:
        """Where the result goes, and how it is written."""
        from modelsurgeon.delivery import Wanted

        return Wanted(**{one.name: getattr(self, one.name) for one in fields(Wanted)})
