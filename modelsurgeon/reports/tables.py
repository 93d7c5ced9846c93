"""What people read: tables for the terminal. Every name that comes from a file is shown as it is, never as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelsurgeon.text import show_size
from modelsurgeon.verification import summary

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.inspection import Inspection
    from modelsurgeon.checkpoints.integrity import Integrity
    from modelsurgeon.growth.overview import FamilyRow
    from modelsurgeon.saving.plan import Plan
    from modelsurgeon.verification.verify import Report

ALSO = ("follows", "active")
MOST_SHAPES = 3  # of one template, shown in its row
MOST_NAMES = 10  # of a list
MOODS = {"good": "green", "bad": "red", "warning": "yellow", "plain": ""}  # of verification's rows


def show_plan(plan: Plan, console: Console) -> None:
    """One row a template, then totals, notes, and what is lost."""
    rows = (
        (
            f"{row.template} x{row.count}" if row.count > 1 else row.template,
            row.signature,
            _shape(row.before),
            _shape(row.after),
            row.factors,
            row.precision,
        )
        for row in plan.rows
    )
    console.print(table(("tensor", "signature", "before", "after", "factors", "precision"), rows))
    (old, new), (old_bytes, new_bytes) = plan.parameters, plan.bytes
    say(console, Text(f"parameters {old:,} -> {new:,}; bytes {show_size(old_bytes)} -> {show_size(new_bytes)}"))
    say(console, Text(f"peak memory at most {show_size(plan.peak_memory)}"))
    show_notes(plan.notes, plan.lossy, console)


def plan_text(plan: Plan) -> str:
    """What `show_plan` shows, as text of at most 160 columns."""
    written = StringIO()
    show_plan(plan, Console(file=written, width=160))
    return written.getvalue().rstrip("\n")


def show_notes(notes: Iterable[str], lossy: Iterable[str], console: Console) -> None:
    """What was chosen and why, and why the result is not the same function, if it is not."""
    for note in notes:
        say(console, Text(note, style="dim"))
    for reason in lossy:
        say(console, Text(f"not lossless: {reason}", style="yellow"))


def show_inspection(found: Inspection, console: Console) -> None:
    """What it is, its axes, its tensors by template, totals, and what nothing accounts for."""
    at = f" at {found.revision}" if found.revision else ""
    say(console, Text(f"{found.source}{at}: {found.model or 'no class named'}, model_type {found.model_type}"))
    if found.known:
        axes = found.axes.items()
        rows = ((name, str(axis["size"] or "?"), axis["key"] or "", axis["through"]) for name, axis in axes)
        console.print(table(("axis", "size", "key", "through"), rows))
    else:
        console.print(table(("config", "value"), ((key, str(value)) for key, value in found.numbers.items())))
    groups = (
        (
            f"{group.template} x{group.count}" if group.count > 1 else group.template,
            group.signature,
            " ".join([*map(_shape, group.shapes[:MOST_SHAPES]), *["..."][: len(group.shapes) > MOST_SHAPES]]),
            " ".join(group.dtypes),
            show_size(group.bytes),
        )
        for group in found.groups
    )
    console.print(table(("tensor", "signature", "shape", "dtype", "bytes"), groups))
    tied = {True: "the head is the embedding", False: "no tied head", None: "tied or not: unknown"}[found.tied]
    say(console, Text(f"parameters {found.parameters:,}; bytes {show_size(found.bytes)}; {tied}"))
    for what, names in (("tensors", found.tensors), ("config keys", found.keys)):
        if names:
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            say(console, Text(f"not accounted for: {what} {', '.join(names[:MOST_NAMES])}{more}", style="yellow"))
    refused = Text(f"would be refused: {found.refused}", style="yellow")
    say(console, refused if found.refused else Text("fits its table", style="green"))


def show_families(rows: Iterable[FamilyRow], console: Console) -> None:
    """The table of what is supported."""
    cells = [{"family": row.name, **row.cells} for row in rows]
    console.print(table(cells[0], (row.values() for row in cells)))


def show_family(found: dict[str, Any], console: Console) -> None:
    """One family: axes, signatures, what is refused."""
    axes = (
        (name, str(axis.get("key") or ""), axis["through"], " ".join(f"{k} {v}" for k, v in axis.items() if k in ALSO))
        for name, axis in found["axes"].items()
    )
    console.print(table(("axis", "key", "through", "also"), axes))
    console.print(table(("tensor", "signature"), found["tensors"].items()))
    for form, tensors in found["forms"].items():
        rows = ((name, signature or "none") for name, signature in tensors.items())
        console.print(table((f"tensor ({form})", "signature"), rows))
    for key, accepted in found["requires"].items():
        say(console, Text(f"{key}: only {' or '.join(map(repr, accepted))}"))
    for key, of in found["multiples"].items():
        say(console, Text(f"{key}: a multiple of {of}"))
    for key, why in found["fixed"].items():
        say(console, Text(f"{key}: stays ({why})"))
    if found["untie"]:
        say(console, Text(f"untie-embeddings: refused ({found['untie']})"))


def show_report(report: Report, console: Console) -> None:
    """A row for each level, what is to be heeded, the verdict last."""
    document = report.to_json()
    rows = ((row.level, row.what, Text(row.result, style=MOODS[row.mood])) for row in summary.rows(document))
    console.print(table(("level", "what", "result"), rows))
    for line in summary.notes(document):
        say(console, Text(line, style="dim"))
    for line in summary.warnings(document):
        say(console, Text(line, style=MOODS[summary.WARNING if document["same"] else summary.BAD]))
    function, but = (part for i, part in enumerate(document["verdict"].partition(";")) if i != 1)
    verdict = Text(function, style="bold green" if document["same"] else "bold red")
    never = Text(f";{but}" if but else "", style="bold yellow")
    say(console, Text.assemble(f"{document['source']} -> {document['result']}: ", verdict, never))


def show_integrity(found: Integrity, console: Console) -> None:
    """Every file that is not what was written, then how many are."""
    for name, verdict in found.files.items():
        if verdict != "same":
            say(console, Text(f"{name}: {verdict}", style="red"))
    for name in found.extra:
        say(console, Text(f"{name}: not on record", style="dim"))
    same = sum(verdict == "same" for verdict in found.files.values())
    said = Text("as written", style="bold green") if found.same else Text("different", style="bold red")
    say(console, Text.assemble(f"{found.result}: {same} of {len(found.files)} files are the same: ", said))


def loss_lines(found: Mapping[str, Any]) -> list[str]:
    """What is said of the initial loss before and after an operation (`diagnosis/starting.py`), a line each.

    initial loss before: 136.2 measured (random ids, 508 tokens), 256.0 predicted; guessing has 8.318
    """
    return [
        _loss_line(f"initial loss {name}" if len(found) > 1 else "initial loss", side) for name, side in found.items()
    ]


def _loss_line(name: str, side: Mapping[str, Any]) -> str:
    run = side["run"]
    said = [f"not measured: {run['why']}"]
    if run["loss"] is not None:
        said = [f"{_short(run['loss'])} measured ({run['inputs']}, {run['tokens']} tokens)"]
    if side["expected"] is not None:
        formula = "log(e^(d sigma) + n - 1)" if side["tied"] else "log n + half the logits' variance"
        said.append(f"{_short(side['predicted'])} predicted ({formula})")
        said.append(f"{_short(side['expected'])} were all logits independent; guessing has {_short(side['uniform'])}")
    elif "why" in side:
        said.append(f"no formula tells it ({side['why']}); guessing has {_short(side['uniform'])}")
    return f"{name}: {', '.join(said)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def say(console: Console, text: Text) -> None:
    """One line, however long: whoever reads a pipe does not want it broken."""
    console.print(text, soft_wrap=True)


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Columns without lines between them; what has no room is folded."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def _shape(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape)) if shape is not None else "-"
