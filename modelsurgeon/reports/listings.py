"""What the commands besides verify and diagnose show of their results: plan, inspection, families, files, losses.

console.show(of_plan(plan), console)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelsurgeon.reports.blocks import Block, Listing, Paragraph, Phrase
from modelsurgeon.text import show_size

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.inspection import Inspection
    from modelsurgeon.checkpoints.integrity import Integrity
    from modelsurgeon.growth.overview import FamilyRow
    from modelsurgeon.saving.plan import Plan

ALSO = ("follows", "active")
MOST_SHAPES = 3  # of one template, shown in its row
MOST_NAMES = 10  # of a list


def of_plan(plan: Plan) -> list[Block]:
    """One row a template, then totals, notes, and what is lost."""
    rows = [
        (
            _counted(row.template, row.count),
            row.signature,
            *map(_shape, (row.before, row.after)),
            row.factors,
            row.precision,
        )
        for row in plan.rows
    ]
    (old, new), (old_bytes, new_bytes) = plan.parameters, plan.bytes
    totals = f"parameters {old:,} -> {new:,}; bytes {show_size(old_bytes)} -> {show_size(new_bytes)}"
    return [
        Listing(("tensor", "signature", "before", "after", "factors", "precision"), rows, long=("tensor",)),
        Paragraph(totals),
        Paragraph(f"peak memory at most {show_size(plan.peak_memory)}"),
        *of_notes(plan.notes, plan.lossy),
    ]


def of_notes(notes: Iterable[str], lossy: Iterable[str]) -> list[Block]:
    """What was chosen and why, and why the result is not the same function, if it is not."""
    reasons = [Phrase(f"not lossless: {reason}", "warning") for reason in lossy]
    return [Paragraph(words) for words in (*(Phrase(note, "soft") for note in notes), *reasons)]


def of_inspection(found: Inspection) -> list[Block]:
    """What it is, its axes, its tensors by template, totals, and what nothing accounts for."""
    at = f" at {found.revision}" if found.revision else ""
    rows: list[tuple[str, ...]] = [(key, str(value)) for key, value in found.numbers.items()]
    sizes = Listing(("config", "value"), rows)
    if found.known:
        axes = found.axes.items()
        rows = [(name, str(axis["size"] or "?"), axis["key"] or "", axis["through"]) for name, axis in axes]
        sizes = Listing(("axis", "size", "key", "through"), rows)
    groups = [
        (
            _counted(group.template, group.count),
            group.signature,
            " ".join([*map(_shape, group.shapes[:MOST_SHAPES]), *["..."][: len(group.shapes) > MOST_SHAPES]]),
            " ".join(group.dtypes),
            show_size(group.bytes),
        )
        for group in found.groups
    ]
    tied = {True: "the head is the embedding", False: "no tied head", None: "tied or not: unknown"}[found.tied]
    blocks: list[Block] = [
        Paragraph(f"{found.source}{at}: {found.model or 'no class named'}, model_type {found.model_type}"),
        sizes,
        Listing(("tensor", "signature", "shape", "dtype", "bytes"), groups, long=("tensor",)),
        Paragraph(f"parameters {found.parameters:,}; bytes {show_size(found.bytes)}; {tied}"),
    ]
    for what, names in (("tensors", found.tensors), ("config keys", found.keys)):
        if names:
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            listed = f"not accounted for: {what} {', '.join(names[:MOST_NAMES])}{more}"
            blocks.append(Paragraph(Phrase(listed, "warning")))
    fits = (
        Phrase(f"would be refused: {found.refused}", "warning") if found.refused else Phrase("fits its table", "good")
    )
    return [*blocks, Paragraph(fits)]


def of_families(rows: Iterable[FamilyRow], details: Mapping[str, Any] | None = None) -> list[Block]:
    """The table of what is supported; of one family in detail its axes, its signatures, what is refused."""
    cells = [{"family": row.name, **row.cells} for row in rows]
    table = Listing(tuple(cells[0]), [tuple(row.values()) for row in cells], long=tuple(cells[0])[1:])
    return [table, *(_family(details) if details else [])]


def _family(found: Mapping[str, Any]) -> list[Block]:
    axes = [
        (name, str(axis.get("key") or ""), axis["through"], " ".join(f"{k} {v}" for k, v in axis.items() if k in ALSO))
        for name, axis in found["axes"].items()
    ]
    forms = [
        Listing((f"tensor ({form})", "signature"), [(name, text or "none") for name, text in tensors.items()])
        for form, tensors in found["forms"].items()
    ]
    lines = [f"{key}: only {' or '.join(map(repr, accepted))}" for key, accepted in found["requires"].items()]
    lines += [f"{key}: a multiple of {of}" for key, of in found["multiples"].items()]
    lines += [f"{key}: stays ({why})" for key, why in found["fixed"].items()]
    lines += [f"untie-embeddings: refused ({found['untie']})"] if found["untie"] else []
    tensors = Listing(("tensor", "signature"), list(found["tensors"].items()))
    return [Listing(("axis", "key", "through", "also"), axes), tensors, *forms, *map(Paragraph, lines)]


def of_files(found: Integrity) -> list[Block]:
    """Every file that is not what was written, then how many are."""
    wrong = [f"{name}: {verdict}" for name, verdict in found.files.items() if verdict != "same"]
    same = len(found.files) - len(wrong)
    verdict = Phrase("as written", "strong good") if found.same else Phrase("different", "strong bad")
    return [
        *(Paragraph(Phrase(line, "bad")) for line in wrong),
        *(Paragraph(Phrase(f"{name}: not on record", "soft")) for name in found.extra),
        Paragraph((f"{found.result}: {same} of {len(found.files)} files are the same: ", verdict)),
    ]


def of_losses(found: Mapping[str, Any]) -> list[Block]:
    """What is known of the initial loss before and after an operation (`diagnosis/starting.py`), a line each.

    initial loss before: 136.2 measured (random ids, 508 tokens), 256.0 predicted; guessing has 8.318
    """
    names = {side: f"initial loss {side}" if len(found) > 1 else "initial loss" for side in found}
    return [Paragraph(f"{names[side]}: {', '.join(_losses(loss))}") for side, loss in found.items()]


def _losses(side: Mapping[str, Any]) -> Iterable[str]:
    run = side["run"]
    if run["loss"] is None:
        yield f"not measured: {run['why']}"
    else:
        yield f"{_short(run['loss'])} measured ({run['inputs']}, {run['tokens']} tokens)"
    if side["expected"] is not None:
        formula = "log(e^(d sigma) + n - 1)" if side["tied"] else "log n + half the logits' variance"
        yield f"{_short(side['predicted'])} predicted ({formula})"
        yield f"{_short(side['expected'])} were all logits independent; guessing has {_short(side['uniform'])}"
    elif "why" in side:
        yield f"no formula tells it ({side['why']}); guessing has {_short(side['uniform'])}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _counted(template: str, count: int) -> str:
    return f"{template} x{count}" if count > 1 else template


def _shape(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape)) if shape is not None else "-"
