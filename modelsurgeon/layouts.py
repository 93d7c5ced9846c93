"""The layouts that a table describes: its usual one, and those that its forms make of it.

A form only says when it holds: a function of a config and of tensor names. Which settings make it hold, or not, is
found by asking it: whatever it looks up is tried at a few values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from modelsurgeon.architecture import Architecture, Form

ABSENT, PRESENT = object(), object()  # PRESENT: of a tensor
MOST_ASKED = 3  # keys and names that one form looks up


class Record(dict[str, Any]):
    """A nested object of a config that holds a number under every key."""

    def get(self, key: str, default: Any = None) -> Any:
        return 1


VALUES = (ABSENT, True, False, None, Record())


class Asked(dict[str, Any]):
    """A config that remembers what it was asked for; a key that is not there, and has to be, is 1."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: dict[str, tuple[Any, ...]] = {}

    def __getitem__(self, key: str) -> Any:
        self.asked[key] = VALUES
        return super().get(key, 1)

    def __contains__(self, key: object) -> bool:
        self.asked[str(key)] = VALUES
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked[key] = VALUES
        return super().get(key, default)


class Names(frozenset[str]):
    """Tensor names that remember which of them they were asked for."""

    asked: dict[str, tuple[Any, ...]]

    def __new__(cls, names: Iterable[str]) -> Names:
        made = super().__new__(cls, names)
        made.asked = {}
        return made

    def __contains__(self, name: object) -> bool:
        self.asked[str(name)] = (ABSENT, PRESENT)
        return super().__contains__(name)


@dataclass(frozen=True)
class Layout:
    """One layout.

    settings  {config key: value, tensor name: PRESENT}: how it differs from the usual one
    table     its table
    """

    settings: Mapping[str, Any]
    table: Architecture
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The settings, for people: empty for the usual layout."""
        counted = {axis.key for axis in self.table.axes.values()} | {axis.groups for axis in self.table.axes.values()}
        equal = [key for key, value in self.settings.items() if value is True]
        if len(equal) == 2 and counted & set(equal):
            return " = ".join(equal)
        return ", ".join(self._setting(key, value, key in counted) for key, value in self.settings.items())

    def _setting(self, key: str, value: Any, counted: bool) -> str:
        if value is PRESENT:
            return f"with {key.removesuffix('.weight').rpartition('.')[2]}"
        if isinstance(value, Record):
            return f"{key} with factors"
        if counted and value is True:
            return f"own {key}"
        return f"{key} = {'null' if value is None else str(value).lower()}"


def layouts(table: Architecture, most: int = 2) -> Iterator[Layout]:
    """The usual layout, those that one form more or less makes, those of two ... up to `most`."""
    usual = frozenset(template.name for template in table.templates if not template.optional)
    toggles = [toggle for form in table.forms if (toggle := _toggle(form, usual))]
    for count in range(most + 1):
        for chosen in combinations(toggles, count):
            settings = {key: value for toggle in chosen for key, value in toggle.items()}
            config, names = _parted(settings, usual)
            fitted = table
            for form in table.forms:
                fitted = form.of(fitted) if _holds(form, config, names) else fitted
            if all(config[key] in accepted for key, accepted in fitted.requires.items() if key in config):
                yield Layout(settings, fitted, dict(config))


def asked(function: Callable[[Any], Any]) -> tuple[str, ...]:
    """The config keys that a function of a config looks up."""
    config = Asked({})
    function(config)
    return tuple(config.asked)


def _toggle(form: Form, usual: frozenset[str]) -> dict[str, Any] | None:
    """The fewest settings that turn a form on, or off where it holds of itself; None where none were found.

    usual  the names of the tensors that are always there
    """
    held = _holds(form, *_parted({}, usual))
    known: dict[str, tuple[Any, ...]] = {}
    while len(known) <= MOST_ASKED:
        found = dict(known)
        tries = [dict(zip(known, values, strict=True)) for values in product(*known.values())]
        for settings in sorted(({k: v for k, v in t.items() if v is not ABSENT} for t in tries), key=len):
            config, names = _parted(settings, usual)
            if _holds(form, config, names) != held:
                return settings
            found |= config.asked | names.asked
        if len(found) == len(known):
            return None
        known = found
    return None


def _parted(settings: Mapping[str, Any], usual: frozenset[str]) -> tuple[Asked, Names]:
    """(config, tensor names) of these settings."""
    config = {key: value for key, value in settings.items() if value is not PRESENT}
    return Asked(config), Names(usual.union(key for key, value in settings.items() if value is PRESENT))


def _holds(form: Form, config: Asked, names: Names) -> bool:
    try:
        return bool(form.when(config, names))
    except (TypeError, AttributeError):  # a value of another type than it expects
        return False
