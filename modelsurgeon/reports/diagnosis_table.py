"""A diagnosis on the terminal: a row a verdict, the worst first, then what would help.

theme       measure                       verdict  demo  reference          says
bottleneck  width of what the head reads  act      128   1000 and more      the head cannot express more than ...
norms       mean gain of the norm ...     watch    3.1   about 1 in the ... model.norm.weight has 2.48 ...
numbers     weights that are NaN ...      fine     0     0                  every weight is a number
bottleneck: modelsurgeon widen demo -o OUT --set hidden_size=1024
demo: 1 to act on, 1 to watch, 19 fine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from modelsurgeon.reports import diagnosis_outcome
from modelsurgeon.reports.diagnosis_charts import names
from modelsurgeon.reports.tables import MOODS, say, table
from modelsurgeon.text import shown

Document = Mapping[str, Any]


def show_diagnosis(document: Document, console: Console) -> None:
    """Verdicts, what was not measured, commands, counts. Names are shown as they are, never as markup."""
    models = document["models"]
    columns = names(models) if models[1:] else ["number"]
    judged = diagnosis_outcome.judged(models)
    headings = ("theme", "measure", "verdict", *map(shown, columns), "reference", "says")
    console.print(table(headings, (_row(word, pair) for word, pair in judged if word != "unknown")))
    if missing := [pair for word, pair in judged if word == "unknown"]:
        measures = (shown(verdict["measure"]) for pair in missing for verdict in pair[:1] if verdict)
        say(console, Text(f"not measured, or without a meaning here: {'; '.join(measures)}", style="dim"))
    for model in models:
        for note in model["notes"]:
            say(console, Text(shown(f"{model['source']}: {note}"), style="dim"))
    for command, themes in diagnosis_outcome.commands(models):
        say(console, Text.assemble(f"{themes}: ", Text(shown(command), style="bold")))
    for model in models:
        word = diagnosis_outcome.worst(diagnosis_outcome.words([model]))
        tally = Text(diagnosis_outcome.tally(model) or "nothing was judged", style=f"bold {_style(word)}".strip())
        say(console, Text.assemble(f"{shown(model['source'])}: ", tally))


def _row(word: str, pair: Sequence[Document | None]) -> list[str | Text]:
    found = [verdict for verdict in pair if verdict]
    numbers = [_number(verdict) for verdict in pair]
    says = " | ".join(dict.fromkeys(shown(verdict["says"]) for verdict in found))
    told = [shown(found[0][key]) for key in ("theme", "measure")]
    return [*told, Text(word, style=_style(word)), *numbers, shown(found[0]["reference"]), says]


def _number(verdict: Document | None) -> Text:
    """What was measured, in the colour of what is said of it."""
    return Text(shown(verdict["shown"]) or "-", style=_style(verdict["verdict"])) if verdict else Text("-")


def _style(word: str) -> str:
    return MOODS[diagnosis_outcome.MOODS[word]]
