"""The options that commands share: where a checkpoint is read from, how models run, where a result goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

Source = Annotated[str, Argument(help="A folder, a Hub id (org/name), a URL, demo, or - for a path on stdin.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of a Hub id.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print only errors on stderr.")]

Text = Annotated[Path | None, Option(metavar="FILE", help="The text that models run on [default: a sample].")]
Samples = Annotated[int, Option(help="Number of windows of the text.", min=1)]
Length = Annotated[int, Option(help="Tokens of a window.", min=2)]
Dtype = Annotated[str, Option(help="The dtype that models compute in.")]
Device = Annotated[str, Option(help="Where models run: cpu, cuda, or auto: GPUs, then memory, then the disk.")]
TrustRemoteCode = Annotated[bool, Option("--trust-remote-code", help="Run code that comes with the checkpoints.")]
ReportFile = Annotated[Path | None, Option(metavar="FILE", help="Write all findings, with plots, as one page of HTML.")]


@dataclass(frozen=True)
class Request:
    """One run of an operation; each field is an argument or an option of every operation."""

    source: Source
    output: Annotated[str | None, Option("--output", "-o", help="The folder to write, or a URL (s3://...).")] = None
    revision: Revision = None
    stream: Annotated[bool, Option("--stream", help="Read a Hub id piece by piece; store none of it.")] = False
    shard_size: Annotated[str | None, Option(help="Largest shard, as in 500MB or 2GiB [default: 5GB].")] = None
    device: Annotated[str, Option(help="Where the arithmetic is done: cpu or cuda.")] = "cpu"
    workers: Annotated[int, Option(help="Number of shards that are written at once.", min=1)] = 1
    memory: Annotated[str, Option(help="Most memory to use; --verify runs both models beside it.")] = "1GB"
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an output that exists.")] = False
    verify: Annotated[bool, Option("--verify", help="Verify first; publish only the same function.")] = False
    push_to_hub: Annotated[str | None, Option(metavar="ORG/NAME", help="Verify, then upload with a card.")] = None
    private: Annotated[bool, Option("--private", help="Let --push-to-hub create a private repository.")] = False
    create_pr: Annotated[bool, Option("--create-pr", help="Let --push-to-hub open a pull request.")] = False
    measure: Annotated[bool, Option("--measure/--no-measure", help="Run the result for its initial loss.")] = True
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan; read no tensor, write nothing.")] = False
    as_json: Json = False
    quiet: Quiet = False

    def check(self) -> None:
        """Raise BadParameter for options that contradict each other."""
        if self.dry_run and (self.verify or self.push_to_hub):
            option = "--verify" if self.verify else "--push-to-hub"
            raise BadParameter(f"--dry-run writes nothing for {option}; ask for one of them")
        if self.output is None and not self.dry_run and not self.push_to_hub:
            raise BadParameter("no output; name one with -o, or ask for the plan with --dry-run")
