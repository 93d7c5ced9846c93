"""The reports of commands other than verify and diagnose: plan, inspection, families, files, losses.

console.show(of_plan(plan), console)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelsurgeon.architectures.plain_names import plain
from modelsurgeon.reports.blocks import Block, Listing, Paragraph, Phrase
from modelsurgeon.text import number, show_size

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.inspection import Inspection
    from modelsurgeon.checkpoints.integrity import Integrity
    from modelsurgeon.growth.overview import FamilyRow
    from modelsurgeon.saving.plan import Plan

MOST_SHAPES = 3  # of one template, shown in its row
MOST_NAMES = 10  # of a list


def of_plan(plan: Plan) -> list[Block]:
    """One row for each template, then totals, notes, and the reasons why the result is not lossless."""
    columns = ("tensor", "signature", "before", "after", "factors", "precision")
    rows = []
    for row in plan.rows:
        shapes = _shape(row.before), _shape(row.after)
        rows.append((_counted(row.template, row.count), row.signature, *shapes, row.factors, row.precision))
    (old, new), (old_bytes, new_bytes) = plan.parameters, plan.bytes
    return [
        Listing(columns, rows, long=("tensor",)),
        Paragraph(f"parameters {old:,} -> {new:,}; bytes {show_size(old_bytes)} -> {show_size(new_bytes)}"),
        Paragraph(f"peak memory at most {show_size(plan.peak_memory)}"),
        *of_notes(plan.notes, plan.lossy),
    ]


def of_notes(notes: Iterable[str], lossy: Iterable[str]) -> list[Block]:
    """What was chosen and why, and the reasons why the result is not the same function."""
    words = [Phrase(note, "soft") for note in notes] + [Phrase(f"not lossless: {why}", "warning") for why in lossy]
    return list(map(Paragraph, words))


def of_inspection(found: Inspection) -> list[Block]:
    """The class, the axes, the tensors by template, totals, and what no table accounts for."""
    at = f" at {found.revision}" if found.revision else ""
    sizes = Listing(("config", "value"), [(key, str(value)) for key, value in found.numbers.items()])
    if found.known:
        used = {word for group in found.groups for word in re.findall(r"\w+", group.signature)}
        axes = [(name, axis) for name, axis in found.axes.items() if name in used]
        rows = [(plain(n), str(axis["size"] or "?"), axis["key"] or "", n, axis["through"]) for n, axis in axes]
        sizes = Listing(("", "size", "key", "axis", "through"), rows)
    groups = []
    for group in found.groups:
        shapes = [*map(_shape, group.shapes[:MOST_SHAPES]), *["..."][: len(group.shapes) > MOST_SHAPES]]
        name, dtypes, size = _counted(group.template, group.count), " ".join(group.dtypes), show_size(group.bytes)
        groups.append((name, group.signature, " ".join(shapes), dtypes, size))
    tied = {True: "the head is the embedding", False: "no tied head", None: "tied or not: unknown"}[found.tied]
    warnings = []
    for what, names in (("tensors", found.tensors), ("config keys", found.keys)):
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        warnings += [f"not accounted for: {what} {', '.join(names[:MOST_NAMES])}{more}"] if names else []
    warnings += [f"not read by default: {', '.join(found.unread)}"] if found.unread else []
    warnings += [f"would be refused: {found.refused}"] if found.refused else []
    return [
        Paragraph(f"{found.source}{at}: {found.model or 'no class named'}, model_type {found.model_type}"),
        sizes,
        Listing(("tensor", "signature", "shape", "dtype", "bytes"), groups, long=("tensor",)),
        Paragraph(f"parameters {found.parameters:,}; bytes {show_size(found.bytes)}; {tied}"),
        *(Paragraph(Phrase(line, "warning")) for line in warnings),
        *([] if found.refused else [Paragraph(Phrase("fits its table", "good"))]),
    ]


def of_families(rows: Iterable[FamilyRow], details: Mapping[str, Any] | None = None) -> list[Block]:
    """The table of supported families; of one family in detail, its axes, signatures and restrictions too."""
    cells = [{"family": row.name, **row.cells} for row in rows]
    table = Listing(tuple(cells[0]), [tuple(row.values()) for row in cells], long=tuple(cells[0])[1:])
    return [table, *(_family(details) if details else [])]


def _family(found: Mapping[str, Any]) -> list[Block]:
    axes = []
    for name, axis in found["axes"].items():
        also = " ".join(f"{key} {axis[key]}" for key in axis if key in ("follows", "active"))
        axes.append((plain(name), str(axis.get("key") or ""), name, axis["through"], also))
    forms = [
        Listing((f"tensor ({form})", "signature"), [(name, text or "none") for name, text in tensors.items()])
        for form, tensors in found["forms"].items()
    ]
    lines = [f"{key}: only {' or '.join(map(repr, accepted))}" for key, accepted in found["requires"].items()]
    lines += [f"{key}: a multiple of {of}" for key, of in found["multiples"].items()]
    lines += [f"{key}: stays ({why})" for key, why in found["fixed"].items()]
    lines += [f"untie-embeddings: refused ({found['untie']})"] if found["untie"] else []
    tensors = Listing(("tensor", "signature"), list(found["tensors"].items()))
    return [Listing(("", "key", "axis", "through", "also"), axes), tensors, *forms, *map(Paragraph, lines)]


def of_files(found: Integrity) -> list[Block]:
    """Every file that is not as it was written, then how many are."""
    wrong = [f"{name}: {verdict}" for name, verdict in found.files.items() if verdict != "same"]
    same = len(found.files) - len(wrong)
    verdict = Phrase("as written", "strong good") if found.same else Phrase("different", "strong bad")
    return [
        *(Paragraph(Phrase(line, "bad")) for line in wrong),
        *(Paragraph(Phrase(f"{name}: not on record", "soft")) for name in found.extra),
        Paragraph((f"{found.result}: {same} of {len(found.files)} files are the same: ", verdict)),
    ]


def of_losses(found: Mapping[str, Any]) -> list[Block]:
    """The initial loss before and after an operation (`diagnosis/starting.py`), a line each.

    initial loss before: 136.2 measured (random ids, 508 tokens), 256.0 predicted; guessing has 8.318
    """
    names = {side: f"initial loss {side}" if len(found) > 1 else "initial loss" for side in found}
    return [Paragraph(f"{names[side]}: {', '.join(_losses(loss))}") for side, loss in found.items()]


def _losses(side: Mapping[str, Any]) -> Iterable[str]:
    run, guessing = side["run"], f"guessing has {number(side.get('uniform'), '.4g')}"
    if run["loss"] is None:
        yield f"not measured: {run['why']}"
    else:
        yield f"{number(run['loss'], '.4g')} measured ({run['inputs']}, {run['tokens']} tokens)"
    if side["expected"] is not None:
        formula = "log(e^(d sigma) + n - 1)" if side["tied"] else "log n + half the logits' variance"
        yield f"{number(side['predicted'], '.4g')} predicted ({formula})"
        yield f"{number(side['expected'], '.4g')} were all logits independent; {guessing}"
    elif "why" in side:
        yield f"no formula tells it ({side['why']}); {guessing}"


def _counted(template: str, count: int) -> str:
    return f"{template} x{count}" if count > 1 else template


def _shape(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape)) if shape is not None else "-"
