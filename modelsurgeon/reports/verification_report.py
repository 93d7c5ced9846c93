"""A verification's report, declared once: the page, and what of it a terminal shows.

    html.write(path, page(document))        # all findings
    console.show(brief(document), console)  # a row for each level, warnings, the verdict last

Both read only the report's document (`verification/schema.json`): one that was stored with --json can be shown too.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelsurgeon.architectures.plain_names import plain, plain_sizes
from modelsurgeon.reports.blocks import (
    Block,
    Bullets,
    Cards,
    Figure,
    Listing,
    Page,
    Paragraph,
    Phrase,
    Section,
    Verbatim,
    Words,
    cut,
    explained,
    facts,
    filled,
    listing,
)
from modelsurgeon.reports.verification_charts import against, by_layer, by_position, cosines
from modelsurgeon.text import number
from modelsurgeon.verification import summary

MOST_GROUPS = 200  # rows of templates
MOST_LISTED = 50  # rows of tensors that are not exact, and of ranks
VERDICTS = ("wrong", "rounded", "exact")
VERSIONS = ("modelsurgeon", "python", "torch", "transformers", "numpy", "platform")
DECLARED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
TEXT, ROWS = DECLARED["text"], DECLARED["rows"]
LEFT_OUT = "{} more are left out here; `--json` lists all."

Document = Mapping[str, Any]


def page(document: Document) -> Page:
    """The whole page of a report's document."""
    verdict, _, but = summary.verdict(document).partition("; but ")
    colour = {summary.PROVEN: summary.GOOD, summary.NOT_PROVEN: summary.WARNING}.get(verdict, summary.BAD)
    levels = {"proof": _proof, "config": _config, "logits": _logits, "stored": _stored, "trainable": _trainable}
    answers = [(a.mood, a.question, (Phrase(a.answer, f"large {a.mood}"), a.why)) for a in summary.answers(document)]
    warnings, notes = summary.warnings(document), summary.notes(document)
    mood = "warning" if warnings and colour == summary.GOOD else colour
    command = [Verbatim(document["command"])] if document["command"] else []
    took = ", ".join(f"{level} {taken:.1f} s" for level, taken in document["seconds"].items() if taken is not None)
    return Page(
        title=f"{document['source']} to {document['result']}: {verdict}",
        command="modelsurgeon verify",
        names=(document["source"], document["result"]),
        joint=("→", "to"),
        mood=summary.WARNING if but else colour,
        verdict=(
            Phrase(verdict.capitalize(), f"strong {colour}"),
            Phrase(f", but {but}" * bool(but), "strong warning"),
        ),
        lines=(),
        blocks=[
            Cards(answers),
            *([Bullets([*warnings, *notes], mood=mood)] if warnings or notes else []),
            Section("Summary", [_levels(document)]),
            _compared(document),
            *(section(document[level]) for level, section in levels.items() if document[level]),
            *([_beside(document["beside"])] if document["beside"] else []),
            Section("How it was measured", [*command, environment(document["environment"], ("time", took))]),
        ],
    )


def brief(document: Document) -> list[Block]:
    """The report on a terminal."""
    function, _, but = document["verdict"].partition(";")
    mood = {summary.PROVEN: "good", summary.NOT_PROVEN: "warning"}.get(function, "bad")
    warning = "warning" if document["same"] else "bad"
    verdict = (Phrase(function, f"strong {mood}"), Phrase(f";{but}" * bool(but), "strong warning"))
    return [
        _levels(document),
        *(Paragraph(Phrase(line, "soft")) for line in summary.notes(document)),
        *(Paragraph(Phrase(line, warning)) for line in summary.warnings(document)),
        *(Paragraph(Phrase(line, "warning")) for line in summary.beside(document)),
        Paragraph((f"{document['source']} -> {document['result']}: ", *verdict)),
    ]


def environment(found: Document, *more: tuple[str, str]) -> Listing:
    """Versions and machine, and further rows below them."""
    hardware = f"{found['device']}: {', '.join(found['hardware'])}; {found['threads']} threads"
    return Listing((), [*((name, found[name]) for name in VERSIONS), ("device", hardware), *more], named=True)


def _levels(document: Document) -> Listing:
    moods = {summary.PLAIN: ""}
    levels = summary.levels(document)
    rows = [(one.name, one.what, Phrase(one.result, moods.get(one.mood, one.mood))) for one in levels]
    return Listing(("level", "what", "result"), rows, named=True)


# --- what was compared -----------------------------------------------------------------------------------------------


def _compared(document: Document) -> Section:
    """The facts of both checkpoints, row by row (of the sizes, those that differ first), and how they were compared."""
    sides = {side: {"name": document[side], **document["checkpoints"][side]} for side in ("source", "result")}
    named = [plain_sizes(side["sizes"], side["model"]) for side in sides.values()]
    words = dict.fromkeys(word for side in named for word in side)
    sizes = [(word, *(str(side.get(word, "")) for side in named)) for word in words]
    (known,) = facts(DECLARED["models"], sides)
    rows = [*known.rows, *sorted(sizes, key=lambda size: size[1] == size[2])]
    blocks: list[Block] = [replace(known, rows=rows)]
    if maps := document["maps"]:
        by_record = "What was done to the source, by the record"
        title = by_record if maps["from"] == "record" else "How the result was made, derived from its weights"
        blocks.append(Section(title, [Bullets([_step(step) for step in maps["steps"]], numbered=True)]))
    if document["inferred"]:
        blocks.append(Bullets(document["inferred"]["lines"]))
    if settings := document["settings"]:
        blocks.append(Section("What they were run on", [explained(TEXT["settings"], settings)]))
    return Section("What was compared", blocks)


def _step(step: Document) -> Words:
    arguments = "; ".join(f"{key} {value}" for key, value in step.get("arguments", {}).items() if value is not None)
    lossy = f" not lossless: {'; '.join(step['lossy'])}" if step.get("lossy") else ""
    return Phrase(step["operation"], "code"), f": {arguments}" * bool(arguments), Phrase(lossy, "warning")


# --- the levels ------------------------------------------------------------------------------------------------------


def _proof(proof: Document) -> Section:
    inexact = [tensor for tensor in proof["tensors"] if tensor["verdict"] != "exact"]
    inexact.sort(key=lambda tensor: (VERDICTS.index(tensor["verdict"]), -summary.largest([tensor["rounding"]])))
    blocks: list[Block] = [explained(TEXT["proof"])]
    blocks += cut(_groups(proof["tensors"]), MOST_GROUPS, "{} more names, all of them no worse, are left out here.")
    if inexact:
        columns = ("tensor", "verdict", "rounding", "in last places", "where, expected, found")
        verdicts = [Phrase(tensor["verdict"], "bad" * (tensor["verdict"] == "wrong")) for tensor in inexact]
        tensors = zip(inexact, verdicts, strict=True)
        rows = [(Phrase(t["name"], "code"), verdict, *_rounding(t), t["detail"]) for t, verdict in tensors]
        worst = Listing(columns, rows, ("rounding", "in last places"))
        blocks.append(Section("Not exact, the worst first", cut(worst, MOST_LISTED, LEFT_OUT)))
    return Section("Proof on the weights", blocks)


def _config(found: Document) -> Section:
    """The keys that are not equal, those that count first."""
    keys = [(key, "different", "") for key in found["different"]]
    keys += [(key, "no effect", key["reason"]) for key in found["inert"]]
    moods = {"different": "bad"}
    rows = [
        (Phrase(key["key"], "code"), Phrase(word, moods.get(word, "")), str(key["source"]), str(key["result"]), why)
        for key, word, why in keys
    ]
    blocks: list[Block] = [explained(TEXT["config"], {**found, "mapped": ", ".join(found["mapped"])})]
    if found["undecided"]:
        blocks.append(Paragraph(f"Undecided without maps: {', '.join(found['undecided'])}."))
    blocks += cut(Listing(("key", "finding", "source", "result", "why"), rows), MOST_LISTED, LEFT_OUT) if rows else []
    return Section("Config", blocks)


def _rounding(found: Document) -> tuple[str, str]:
    return number(found["rounding"] or None), number(found["ulps"] or None, ".2g")


def _groups(tensors: Sequence[Document]) -> Listing:
    """A row for each template, those with a wrong tensor first, else in the order of the tensors."""
    members: dict[str, list[Document]] = defaultdict(list)
    for tensor in tensors:
        members[summary.template(tensor["name"])].append(tensor)
    rows = list[Sequence[str | Phrase]]()
    for name, group in members.items():
        counts = Counter(tensor["verdict"] for tensor in group)
        worst = {key: summary.largest(tensor[key] for tensor in group) for key in ("rounding", "ulps")}
        rounded, wrong = (f"{counts[word]:,}" if counts[word] else "" for word in ("rounded", "wrong"))
        counted = f"{len(group):,}", f"{counts['exact']:,}", rounded, Phrase(wrong, "bad")
        rows.append((Phrase(name, "code"), *counted, *_rounding(worst)))
    columns = ("tensors", "count", "exact", "rounded", "wrong", "largest rounding", "in last places")
    return Listing(columns, sorted(rows, key=lambda row: row[4] == Phrase("", "bad")), columns[1:])


def _logits(report: Document) -> Section:
    blocks: list[Block] = [explained(TEXT["logits"], report), comparisons(report)]
    if found := report["coverage"]:
        blocks.append(Section("What was run", [explained(TEXT["coverage"]), *facts(DECLARED["coverage"], {"": found})]))
    if (points := report.get("scatter")) and points["before"]:
        blocks.append(Figure(against(points), "Sampled logits: equal ones lie on the line."))
    if (losses := report.get("loss_by_position")) and losses["before"]:
        caption = "cross entropy of the text, by position, mean over windows; one line where they are equal."
        blocks.append(Figure(by_position(losses), caption))
    if (layers := report.get("layers")) and layers["rows"]:
        figure = Figure(by_layer(layers), filled(TEXT["layers"], layers))
        blocks.append(Section("Layer by layer", [figure]))
    if generation := report.get("generation"):
        blocks.append(Section("Generation", [explained(TEXT["generation"], generation)]))
    return Section("Outputs in transformers", blocks)


def comparisons(report: Document) -> Listing:
    """How outputs differ, a row for each kind of input."""
    if not report["noise"]:
        return listing(ROWS["compared"], report["comparisons"], 8)
    pairs = zip(report["comparisons"], report["noise"], strict=True)
    parts = [{**compared, "noise": noise["max_rel"]} for compared, noise in pairs]
    return listing(ROWS["compared"] + ROWS["noise"], parts, 9)


def _stored(report: Document) -> Section:
    return Section("In 16 bits", [explained(TEXT["stored"], report), comparisons(report)])


def _trainable(found: Document) -> Section:
    blocks: list[Block] = [explained(TEXT["trainable"])]
    if found["axes"]:
        blocks.append(Figure(cosines(found["axes"]), "from least to largest, the dot is the mean."))
    axes = [{**axis, "axis": plain(axis["axis"])} for axis in found["axes"]]
    blocks.append(listing(ROWS["axes"], axes, 4))
    if found["ranks"]:
        lowest = sorted(found["ranks"], key=lambda rank: rank["rank"] / max(1, rank["possible"]))
        ranks = cut(listing(ROWS["ranks"], lowest, 4), MOST_LISTED, LEFT_OUT)
        blocks.append(Section("Ranks of gradients", [explained(TEXT["ranks"]), *ranks]))
    return Section("Will it learn?", blocks)


def _beside(rows: Sequence[Document]) -> Section:
    """All rows, those that differ first."""
    order = sorted(rows, key=lambda row: row["finding"] not in summary.COUNTED)
    moods = dict.fromkeys(summary.COUNTED, "warning")
    cells = [(row["what"], Phrase(row["finding"], moods.get(row["finding"], "")), row["detail"]) for row in order]
    listed = Listing(("", "finding", "in detail"), cells, named=True)
    return Section("Beside the function", [explained(TEXT["beside"]), listed])
