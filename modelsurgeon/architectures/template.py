"""Lines of a table: names of tensors, with placeholders, and their signatures.

{layer}             counts
{experts}           an axis by its name: its coordinates are spread over tensor names
{gate,up}_proj      tensors of one signature, one for each piece
.{weight,bias}      two tensors; the bias has the written half of the signature
?                   may be absent
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsurgeon.maps.signature import Signature, parse

NUMBER = re.compile(r"\d+|\{\w+\}")
PIECES = re.compile(r"\{(?!weight,bias)([^{}]+,[^{}]+)\}")


@dataclass(frozen=True)
class Template:
    """One line of the table: tensors of one name pattern."""

    name: str
    signature: Signature
    optional: bool
    pattern: re.Pattern[str] = field(compare=False)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The counters and axes that its name is spread over."""
        return tuple(re.findall(r"\{(\w+)\}", self.name))


def one_name_a_line(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The lines of a table, written out: `{gate,up}_proj` is two of them."""
    lines = {}
    for name, text in tensors.items():
        pieces = PIECES.search(name)
        for piece in pieces[1].split(",") if pieces else ("",):
            lines[PIECES.sub(piece, name)] = text
    return lines


def expand(name: str, text: str) -> list[Template]:
    """The templates of one line: one, or a weight and its bias."""
    signature = parse(text)
    both = re.fullmatch(r"(.*)\.\{weight,bias(\??)\}(\??)", name)
    if not both:
        return [_template(name.removesuffix("?"), signature, name.endswith("?"))]
    stem, bias, every = both.groups()
    return [
        _template(f"{stem}.weight", signature, bool(every)),
        _template(f"{stem}.bias", signature.bias, bool(bias or every)),
    ]


def _template(name: str, signature: Signature, optional: bool) -> Template:
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(name))
    return Template(name, signature, optional, re.compile(pattern))
