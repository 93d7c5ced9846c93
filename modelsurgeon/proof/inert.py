"""Which keys of a config change nothing that a model computes, and why: `inert_keys.toml`, read.

    [[keys]]
    reason = "the window of layers that slide, and no layer does"
    names = "sliding_window"
    families = "qwen2 qwen3"        # none: every family
    when = "no layer slides"        # a condition of CONDITIONS; it must hold on both sides

A key without an entry counts: where its values differ, the models do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "inert_keys.toml"
FIELDS = frozenset({"reason", "names", "families", "classes", "other_classes", "when"})


@dataclass(frozen=True)
class Side:
    """One of the two configs.

    model_type  the family
    model       the transformers class
    settings    {dotted key: value} as the library reads it
    has_head    whether the model has an output head that can be tied
    """

    model_type: str
    model: str
    settings: Mapping[str, Any]
    has_head: bool


def _no_layer(kind: str) -> Callable[[Side], bool]:
    return lambda side: kind not in (side.settings.get("layer_types") or ())


def _off(key: str) -> Callable[[Side], bool]:
    return lambda side: not side.settings.get(key)


def _on(key: str) -> Callable[[Side], bool]:
    return lambda side: bool(side.settings.get(key))


# What `when` can name: function(one side) -> bool.
CONDITIONS: Mapping[str, Callable[[Side], bool]] = {
    "no head": lambda side: not side.has_head,
    "no layer slides": _no_layer("sliding_attention"),
}


@dataclass(frozen=True)
class Entry:
    """Keys (patterns, `*` for anything) that are inert: in some families, of some classes, on some condition.

    classes        pieces of class names, one of which the model's must have; none: any class
    other_classes  pieces that it must not have
    """

    reason: str
    names: tuple[str, ...]
    families: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    other_classes: tuple[str, ...] = ()
    when: str = ""

    def holds(self, key: str, sides: tuple[Side, Side]) -> bool:
        """Whether this is why the key changes nothing."""
        return any(fnmatchcase(key, name) for name in self.names) and all(map(self._is_of, sides))

    def _is_of(self, side: Side) -> bool:
        return (
            (not self.families or side.model_type in self.families)
            and (not self.classes or any(piece in side.model for piece in self.classes))
            and not any(piece in side.model for piece in self.other_classes)
            and (not self.when or CONDITIONS[self.when](side))
        )


@cache
def entries() -> tuple[Entry, ...]:
    """The table. Raises ValueError for a field or a condition that does not exist."""
    found = []
    for line in tomllib.loads(TABLE.read_text(encoding="utf-8"))["keys"]:
        if line.keys() - FIELDS or line.get("when", "") not in {"", *CONDITIONS}:
            raise ValueError(f"{TABLE.name}: an entry with unknown fields or an unknown condition: {line}")
        split = {name: tuple(text.split()) for name, text in line.items() if name not in ("reason", "when")}
        found.append(Entry(line["reason"], when=line.get("when", ""), **split))
    return tuple(found)


def reason(key: str, sides: tuple[Side, Side]) -> str | None:
    """Why a key changes nothing between two configs; None where it may."""
    return next((entry.reason for entry in entries() if entry.holds(key, sides)), None)
