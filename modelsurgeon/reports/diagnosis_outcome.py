"""What a diagnosis comes to, read off its document: the worst verdict, counts, and verdicts of two models in pairs.

>>> tally(model)
'1 to act on, 3 to watch, 15 fine, 2 not measured'
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

Document = Mapping[str, Any]

WORDS = {"act": "to act on", "watch": "to watch", "fine": "fine", "unknown": "not measured"}  # the worst first
MOODS = {"act": "bad", "watch": "warning", "fine": "good", "unknown": "plain"}
HEADINGS = {"act": "Act", "watch": "Watch", "fine": "Fine", "unknown": "Nothing was measured"}


def worst(words: Iterable[str]) -> str:
    """The worst of several verdicts; unknown where there is none."""
    return min(words, key=list(WORDS).index, default="unknown")


def words(models: Sequence[Document]) -> list[str]:
    """Every verdict on any of the models."""
    return [verdict["verdict"] for model in models for verdict in model["verdicts"]]


def tally(model: Document) -> str:
    """How many verdicts there are of each kind."""
    counted = Counter(words([model]))
    return ", ".join(f"{counted[word]} {said}" for word, said in WORDS.items() if counted[word])


def judged(models: Sequence[Document]) -> list[tuple[str, list[Document | None]]]:
    """(the worst verdict, the verdict on each model), the worst measure first; None where a model has none of it.

    Those of two models belong together that are the same one of the same theme: what a measure is called may differ.
    """
    themes = list(dict.fromkeys(verdict["theme"] for model in models for verdict in model["verdicts"]))
    by_theme = [_by_theme(model) for model in models]
    pairs = [list(pair) for theme in themes for pair in zip_longest(*(found[theme] for found in by_theme))]
    told = [(worst(verdict["verdict"] for verdict in pair if verdict), pair) for pair in pairs]
    return sorted(told, key=lambda one: list(WORDS).index(one[0]))


def commands(models: Sequence[Document]) -> list[tuple[str, str]]:
    """(command, themes that it would help), each once, the worst first."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for _, pair in judged(models):
        for verdict in pair:
            if verdict and verdict["command"]:
                found[verdict["command"]][verdict["theme"]] = None
    return [(command, ", ".join(themes)) for command, themes in found.items()]


def _by_theme(model: Document) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = defaultdict(list)
    for verdict in model["verdicts"]:
        found[verdict["theme"]].append(verdict)
    return found
