"""A diagnosis' report of one model, or of two beside each other, declared once: the page, and what a terminal shows.

    html.write(path, page(document))        # what needs action first, then all measurements
    console.show(brief(document), console)  # a row a verdict, the worst first, then what would help

Both read only the document (`diagnosis/schema.json`). Sections are in diagnosis_sections.toml, charts in
diagnosis_charts.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from modelsurgeon.reports.blocks import (
    Block,
    Bullets,
    Cards,
    Listing,
    Page,
    Paragraph,
    Phrase,
    Section,
    Verbatim,
    Words,
    cited,
)
from modelsurgeon.reports.diagnosis_charts import charts, names
from modelsurgeon.reports.diagnosis_sections import Subject, model_facts, sections
from modelsurgeon.reports.verification_report import environment

WORDS = {"act": "to act on", "watch": "to watch", "fine": "fine", "unknown": "not measured"}  # the worst first
MOODS = {"act": "bad", "watch": "warning", "fine": "good", "unknown": "plain"}
VERDICTS = {"act": "Act", "watch": "Watch", "fine": "Fine", "unknown": "Nothing was measured"}
URGENT = ("act", "watch")  # verdicts that ask for something to be done

Document = Mapping[str, Any]
Pair = Sequence[Document | None]  # the verdicts on all models; None: the document of a model has none of it
Judged = list[tuple[str, Pair]]


def page(document: Document) -> Page:
    """The whole page of a diagnosis' document."""
    models, called, judgements = document["models"], names(document["models"]), judged(document["models"])
    subject = Subject(models, called, {chart.name: chart for chart in charts(document)})
    word = worst(word for word, _ in judgements)
    urgent = [_card(word, pair, called) for word, pair in judgements if word in URGENT]
    calm = [pair for word, pair in judgements if word not in URGENT]
    tallies = list(map(tally, models))
    return Page(
        title=f"{' beside '.join(called)}: {word}",
        command="modelsurgeon diagnose",
        names=[model["source"] for model in models],
        joint=("|", "beside"),
        mood=MOODS[word],
        verdict=Phrase(VERDICTS[word], f"strong {MOODS[word]}"),
        lines=[f"{name}: {counts}" for name, counts in zip(called, tallies, strict=True)] if models[1:] else tallies,
        blocks=[
            *([Cards(urgent)] if urgent else []),
            *([Section("Nothing to do", [_calm(calm, called)])] if calm else []),
            *sections(subject),
            Section("How it was measured", _measured(document, subject)),
        ],
    )


def brief(document: Document) -> list[Block]:
    """The report on a terminal: verdicts, what was not measured, commands, counts."""
    models, judgements = document["models"], judged(document["models"])
    columns = ("theme", "measure", "verdict", *(names(models) if models[1:] else ["number"]), "reference", "says")
    known = [(word, pair, _any(pair)) for word, pair in judgements if word != "unknown"]
    rows = [
        (one["theme"], one["measure"], Phrase(word, MOODS[word]), *map(_number, pair), one["reference"], _says(pair))
        for word, pair, one in known
    ]
    missing = [_any(pair)["measure"] for word, pair in judgements if word == "unknown"]
    notes = [f"not measured, or without a meaning here: {'; '.join(missing)}"] if missing else []
    notes += [f"{model['source']}: {note}" for model in models for note in model["notes"]]
    blocks: list[Block] = [Listing(columns, rows, long=("reference", "says"))]
    blocks += [Paragraph(Phrase(note, "soft")) for note in notes]
    blocks += [Paragraph((f"{themes}: ", Phrase(command, "code"))) for command, themes in commands(models)]
    for model in models:
        style = f"strong {MOODS[worst(verdict['verdict'] for verdict in model['verdicts'])]}"
        blocks.append(Paragraph((f"{model['source']}: ", Phrase(tally(model), style))))
    return blocks


def worst(words: Iterable[str]) -> str:
    """The worst of several verdicts; unknown where there is none."""
    return min(words, key=list(WORDS).index, default="unknown")


def tally(model: Document) -> str:
    """How many verdicts there are of each kind: 1 to act on, 3 to watch, 15 fine, 2 not measured."""
    counts = Counter(verdict["verdict"] for verdict in model["verdicts"])
    counted = (f"{counts[word]} {meaning}" for word, meaning in WORDS.items() if counts[word])
    return ", ".join(counted) or "nothing was judged"


def judged(models: Sequence[Document]) -> Judged:
    """(the worst verdict, the verdict on each model), the worst measure first.

    The first verdicts of a theme on two models are a pair, and so are the second ones: measures may have other names.
    """
    themes = list(dict.fromkeys(verdict["theme"] for model in models for verdict in model["verdicts"]))
    by_theme = [[[v for v in model["verdicts"] if v["theme"] == theme] for model in models] for theme in themes]
    pairs = [pair for verdicts in by_theme for pair in zip_longest(*verdicts)]
    judgements = [(worst(verdict["verdict"] for verdict in pair if verdict), pair) for pair in pairs]
    return sorted(judgements, key=lambda judgement: list(WORDS).index(judgement[0]))


def commands(models: Sequence[Document]) -> list[tuple[str, str]]:
    """(command, the themes that it would help), each command once, that of the worst verdict first."""
    themes: dict[str, dict[str, None]] = defaultdict(dict)
    for verdict in (verdict for _, pair in judged(models) for verdict in pair if verdict and verdict["command"]):
        themes[verdict["command"]][verdict["theme"]] = None
    return [(command, ", ".join(helped)) for command, helped in themes.items()]


# --- verdicts --------------------------------------------------------------------------------------------------------


def _any(pair: Pair) -> Document:
    return next(verdict for verdict in pair if verdict)


def _number(verdict: Document | None) -> Phrase:
    return Phrase(verdict["shown"] or "-", MOODS[verdict["verdict"]]) if verdict else Phrase("-")


def _says(pair: Pair) -> str:
    return " | ".join(dict.fromkeys(verdict["says"] for verdict in pair if verdict))


def _card(word: str, pair: Pair, called: Sequence[str]) -> tuple[str, str, list[Words]]:
    one, lines = _any(pair), list[Words]()
    for name, verdict in zip(called, pair, strict=True):
        if verdict:
            kind = Phrase(verdict["verdict"], f"word {MOODS[verdict['verdict']]}")
            of = Phrase(f" {name}" if called[1:] else "", "soft")
            lines += [(Phrase(verdict["shown"] or "unknown", "large"), " ", kind, of), verdict["says"]]
            lines += [Phrase(verdict["command"], "code")] if verdict["command"] else []
    reference = Phrase(f"reference: {one['reference']}", "soft")
    return MOODS[word], one["theme"], [one["measure"], *lines, reference, cited(one["source"], "soft")]


def _calm(pairs: Sequence[Pair], called: Sequence[str]) -> Listing:
    numbers, rows = called if called[1:] else ["number"], []
    for pair, one in zip(pairs, map(_any, pairs), strict=True):
        reference = (one["reference"], Phrase(" (", "soft"), *cited(one["source"], "soft"), Phrase(")", "soft"))
        rows.append((one["theme"], one["measure"], *map(_number, pair), _says(pair), reference))
    return Listing(("theme", "measure", *numbers, "says", "reference"), rows, numbers, named=True)


def _measured(document: Document, subject: Subject) -> list[Block]:
    blocks: list[Block] = []
    for model in (model for model in subject.models if model["notes"]):
        blocks += [Paragraph(Phrase(model["source"], "strong"))] if subject.models[1:] else []
        blocks.append(Bullets(model["notes"]))
    blocks += [Verbatim(document["command"])] if document["command"] else []
    return [*blocks, *model_facts("took", subject), environment(document["environment"])]
