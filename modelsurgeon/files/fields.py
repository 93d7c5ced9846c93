"""Fields of a JSON document that a stranger wrote, held against the types that they must have.

    >>> expect({"bytes": 3}, {"bytes": int, "blake3?": str}, "files.a")
    >>> expect({"bytes": "3"}, {"bytes": int}, "files.a")
    modelsurgeon.errors.FieldError: files.a.bytes: expected a whole number, found '3'

A type is one of `TYPES`, a list of equal ones (`Several`), an object of equal ones under any names (`Named`), one of
two (`Either`), a dict of an object's fields, whose names end in ? where they may be absent, or a tuple, for a list of
that length. True is no number, NaN and infinities are none, and no field may be there that the type does not name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from modelsurgeon.errors import FieldError
from modelsurgeon.files.json_file import shortened

TYPES: Mapping[Any, tuple[str, str]] = {  # in words: one, several
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "true or false"),
    None: ("null", "null"),
    object: ("anything", "anything"),
}
LARGEST = 2**63  # of numbers


@dataclass(frozen=True)
class Several:
    """A list whose members are all of one type."""

    of: Any


@dataclass(frozen=True)
class Named:
    """An object of any names whose members are all of one type."""

    of: Any


@dataclass(frozen=True)
class Either:
    """One of two types."""

    one: Any
    other: Any


def expect(value: Any, wanted: Any, where: str) -> None:
    """Raise FieldError, with the place of the first member that does not fit, unless a value is of a type."""
    match wanted:
        case dict():
            _expect_fields(value, wanted, where)
        case Either():
            _expect_either(value, wanted, where)
        case tuple() if isinstance(value, list) and len(value) == len(wanted):
            for at, (member, of) in enumerate(zip(value, wanted, strict=True)):
                expect(member, of, f"{where}[{at}]")
        case Several() if isinstance(value, list):
            for at, member in enumerate(value):
                expect(member, wanted.of, f"{where}[{at}]")
        case Named() if isinstance(value, Mapping):
            for name, member in value.items():
                expect(member, wanted.of, _inside(where, name))
        case _:
            if not _is_a(value, wanted):
                refuse(where, words(wanted), value)


def refuse(where: str, expected: str, found: Any) -> NoReturn:
    """Raise FieldError for a field."""
    raise FieldError(f"{where}: expected {expected}, found {shortened(found)}")


def words(wanted: Any, several: bool = False) -> str:
    """A type in plain words."""
    match wanted:
        case dict():
            return "objects" if several else "an object"
        case tuple():
            return f"{'lists' if several else 'a list'} of {len(wanted)}"
        case Several():
            return f"{'lists' if several else 'a list'} of {words(wanted.of, True)}"
        case Named():
            return f"{'objects' if several else 'an object'} of {words(wanted.of, True)}"
        case Either():
            return f"{words(wanted.one, several)} or {words(wanted.other, several)}"
        case _:
            return TYPES[wanted][several]


def _inside(where: str, name: str) -> str:
    return ".".join(filter(None, [where, name if name.isprintable() else ascii(name)]))


def _expect_fields(value: Any, wanted: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, Mapping):
        refuse(where, words(wanted), value)
    known = {name.removesuffix("?"): of for name, of in wanted.items()}
    for name in wanted:
        if name not in value and not name.endswith("?"):
            raise FieldError(f"{_inside(where, name)}: expected {words(known[name])}, found nothing")
    for name, member in value.items():
        if name not in known:
            refuse(_inside(where, name), "no such field", member)
        expect(member, known[name], _inside(where, name))


def _expect_either(value: Any, wanted: Either, where: str) -> None:
    """Where the value is of the right make for one of both, that one's error tells which member is wrong."""
    errors: Sequence[str] = []
    for one in (wanted.one, wanted.other):
        try:
            return expect(value, one, where)
        except FieldError as error:
            errors = [*errors, str(error)]
    inside = [error for error in errors if not error.startswith(f"{where}: ")]
    if len(inside) == 1:
        raise FieldError(inside[0])
    refuse(where, words(wanted), value)


def _is_a(value: Any, wanted: Any) -> bool:
    if wanted is None or wanted is object:
        return wanted is object or value is None
    if wanted in (int, float):
        of = int if wanted is int else (int, float)
        return isinstance(value, of) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < LARGEST
    return isinstance(wanted, type) and isinstance(value, wanted)
