"""The report as one page of HTML: no script, nothing from a network, light or dark, fit for printing.

    >>> page(json.loads(stored_report)).startswith("<!doctype html>")
    True

It is made of the report's document alone (`verification/schema.json`), so one that was stored with --json can be shown
too. The words are in verification.html, the looks in page.css, the drawings in verification_plots.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from modelsurgeon.reports import page as pages
from modelsurgeon.reports import verification_plots
from modelsurgeon.text import show_size
from modelsurgeon.verification import summary

MOST_GROUPS = 200  # rows of names with their counters left open
MOST_LISTED = 50  # rows of tensors that are not exact, and of ranks
VERDICTS = ("wrong", "rounded", "exact")

Document = Mapping[str, Any]


def page(document: Document) -> str:
    """The whole page of a report's document."""
    proof, trainable = document["proof"], document["trainable"]
    groups = _groups(proof["tensors"]) if proof else []
    listed = sorted((t for t in proof["tensors"] if t["verdict"] != "exact"), key=_badness) if proof else []
    ranks = sorted(trainable["ranks"], key=lambda r: r["rank"] / max(1, r["possible"])) if trainable else []
    mood = summary.BAD if not document["same"] else summary.GOOD
    but = summary.verdict(document).partition("; but ")[2]
    return pages.rendered(
        "verification.html",
        d=document,
        mood=summary.WARNING if but else mood,
        but=but,
        answers=summary.answers(document),
        warnings=summary.warnings(document),
        notes=summary.notes(document),
        rows=summary.rows(document),
        models=_models(document),
        inferred=document["inferred"]["lines"] if document["inferred"] else [],
        groups=groups[:MOST_GROUPS],
        groups_left=max(0, len(groups) - MOST_GROUPS),
        listed=listed[:MOST_LISTED],
        listed_left=max(0, len(listed) - MOST_LISTED),
        axes=[_axis(axis) for axis in trainable["axes"]] if trainable else [],
        ranks=[_rank(rank) for rank in ranks[:MOST_LISTED]],
        ranks_left=max(0, len(ranks) - MOST_LISTED),
        parts=_legend(document),
        plots=_plots(document),
        command=pages.spelled(document["command"]),
        facts=_facts(document),
    )


def write_page(path: Path, document: Document) -> None:
    """Write the page, whole or not at all. Raises OSError where the disk does not take it."""
    pages.write_page(path, page(document))


def _badness(tensor: Document) -> tuple[int, float]:
    return VERDICTS.index(tensor["verdict"]), -summary.largest([tensor["rounding"]])


def _groups(tensors: list[Document]) -> list[dict[str, Any]]:
    """One a template, the worst first, else in the order of the tensors: its name, counts, and largest rounding."""
    members: dict[str, list[Document]] = defaultdict(list)
    for tensor in tensors:
        members[summary.template(tensor["name"])].append(tensor)
    found = []
    for name, group in members.items():
        counted = Counter(tensor["verdict"] for tensor in group)
        worst = {key: summary.largest(tensor[key] for tensor in group) for key in ("rounding", "ulps")}
        counts = {word: counted[word] for word in VERDICTS}
        found.append({"template": name, "count": len(group), **worst, **counts})
    return sorted(found, key=lambda group: not group["wrong"])


def _models(document: Document) -> list[tuple[Any, ...]]:
    """What is known of both, row by row; of the sizes, those that differ first."""
    source, result = (document["checkpoints"][side] for side in ("source", "result"))
    rows: list[tuple[Any, ...]] = [("name", document["source"], document["result"])]
    labels = {"revision": "commit", "model_type": "family", "model": "class", "dtype": "narrowest matrices"}
    rows += [(label, source[key], result[key]) for key, label in labels.items() if source[key] or result[key]]
    rows.append(("parameters", *(f"{side['parameters']:,}" for side in (source, result))))
    rows.append(("bytes", *(show_size(side["bytes"]) for side in (source, result))))
    axes = dict.fromkeys([*source["sizes"], *result["sizes"]])
    sizes = [(axis, source["sizes"].get(axis), result["sizes"].get(axis)) for axis in axes]
    return [*rows, *sorted(sizes, key=lambda size: size[1] == size[2])]


def _axis(axis: Document) -> tuple[Any, ...]:
    grown = f"{axis['size']:,} → {axis['new_size']:,}"
    return axis["axis"], axis["says"], grown, f"{axis['pairs']:,}", f"{axis['stuck']:,}", f"{axis['dead']:,}"


def _rank(rank: Document) -> tuple[Any, ...]:
    shape = "x".join(map(str, rank["shape"]))
    return rank["tensor"], shape, rank["rank"], rank["possible"], rank["copies_allow"], rank["weight_rank"]


def _legend(document: Document) -> list[tuple[str, str]]:
    layers = (document["logits"] or {}).get("layers")
    return [(part, f"k{colour}") for part, colour in verification_plots.parts_of(layers)] if layers else []


def _plots(document: Document) -> dict[str, Markup | None]:
    """Those that there is something to draw of."""
    logits, trainable = document["logits"] or {}, document["trainable"]
    drawn: dict[str, Markup | None] = dict.fromkeys(("layers", "scatter", "losses", "cosines"))
    if (layers := logits.get("layers")) and layers["rows"]:
        drawn["layers"] = verification_plots.by_layer(layers)
    if (points := logits.get("scatter")) and points["before"]:
        drawn["scatter"] = verification_plots.against(points["before"], points["after"], "logit")
    if (losses := logits.get("loss_by_position")) and losses["before"]:
        drawn["losses"] = verification_plots.by_position(losses["before"], losses["after"], "loss")
    if trainable and trainable["axes"]:
        drawn["cosines"] = verification_plots.cosines(trainable["axes"])
    return drawn


def _facts(document: Document) -> list[tuple[str, str]]:
    """Versions, machine, and how long each level took."""
    found = document["environment"]
    versions = [
        (name, found[name]) for name in ("modelsurgeon", "python", "torch", "transformers", "numpy", "platform")
    ]
    hardware = f"{found['device']}: {', '.join(found['hardware'])}; {found['threads']} threads"
    seconds = {level: taken for level, taken in document["seconds"].items() if taken is not None}
    took = ", ".join(f"{level} {taken:.1f} s" for level, taken in seconds.items())
    return [*versions, ("device", hardware), ("time", took)]
