"""`modelsurgeon init` and the fresh heads of `untie-embeddings`: parse, call, tell the initial loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsurgeon.cli.request import Request, of_request
from modelsurgeon.errors import OutputError
from modelsurgeon.units import parse_size

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint
    from modelsurgeon.cli.operate import Conclude

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A config.json, or a folder or a Hub id that has one.")]
Measure = Annotated[bool, typer.Option("--measure/--no-measure", help="Run the model afterwards for its initial loss.")]
# Of a request: what reads weights, or compares with them.
NEEDS_WEIGHTS = ("revision", "stream", "device", "verify", "push_to_hub", "private", "create_pr")
SEEDED = ("orthogonal", "normal")


def untie(request: Request, head: str | None, std: float | None, seed: int | None, measure: bool) -> None:
    """Carry out `untie-embeddings`. Raises BadParameter for options that say nothing of this head.

    head  None: a copy, and no word of the initial loss, which it leaves as it is
    """
    from modelsurgeon.cli.operate import operate
    from modelsurgeon.operations.transforms.fresh_heads import with_fresh_head
    from modelsurgeon.operations.transforms.untying import untie_embeddings

    kind = head or "copy"
    if std is not None and kind != "normal":
        raise typer.BadParameter(f"--std is for --head normal, and the head is {kind}")
    if seed is not None and kind not in SEEDED:
        raise typer.BadParameter(f"--seed is for --head {' and '.join(SEEDED)}, and the head is {kind}")

    def transform(checkpoint: Checkpoint) -> Checkpoint:
        return untie_embeddings(checkpoint) if kind == "copy" else with_fresh_head(checkpoint, kind, std, seed or 0)

    operate(transform, request, conclude=_conclude(request, measure) if head else None)


def init(
    request: Request,
    std: Annotated[
        str | None, typer.Option(metavar="STD", help="Of all that is random: 0.02; log-n-over-d: of a tied embedding.")
    ] = None,
    distribution: Annotated[str | None, typer.Option(help="normal, or truncated at two deviations.")] = None,
    residual: Annotated[str | None, typer.Option(help="Of what writes to the stream: none, gpt2 or wang.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Store as float32, bfloat16 ... [default: the config's].")] = None,
    seed: Annotated[int, typer.Option(help="Of the numbers.")] = 0,
    measure: Measure = True,
) -> None:
    """Make a new checkpoint of a config, to train from; what is not asked for is as transformers has it."""
    from modelsurgeon.cli.operate import operate
    from modelsurgeon.operations.transforms.initial import Choices, begin, blank

    _check_output(request)
    choices = Choices(std, distribution, residual, dtype, seed)
    conclude = _conclude(request, measure, made=True)
    operate(lambda checkpoint: begin(checkpoint, choices), request, opened=blank, conclude=conclude)


init_command = of_request(init, source=Config, without=NEEDS_WEIGHTS)


def _check_output(request: Request) -> None:
    """Raise OutputError for an output in whose place the config lies."""
    source = Path(request.source)
    home = source.parent if source.is_file() else source
    if request.folder and home.exists() and request.folder.resolve() == home.resolve():
        raise OutputError(f"{request.folder}: holds the config {request.source}, which is never replaced")


def _conclude(request: Request, measure: bool, made: bool = False) -> Conclude:
    """What tells of the initial loss.

    made  the result was made of nothing: there is no loss before
    """

    def conclude(before: Checkpoint, folder: Path) -> tuple[dict[str, Any], list[str]]:
        from modelsurgeon.reports.initial_loss import lines, sides

        memory = parse_size(request.memory, "memory")
        found = sides(None if made else before, folder, memory, measure=measure)
        return {"initial_loss": found}, lines(found)

    return conclude
