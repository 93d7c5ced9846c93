"""Blocks of a report as Markdown that the Hub shows. A text becomes one line without markup.

>>> rendered([Section("Sizes", [Paragraph("a_b parameters")])])
'## Sizes\\n\\na\\\\_b parameters'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import singledispatch
from textwrap import indent

from modelsurgeon.reports.blocks import Block, Bullets, Listing, Paragraph, Phrase, Section, Verbatim, Words, phrases
from modelsurgeon.text import shown

MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$@:])")
NUMBER = re.compile(r"\d[\d.,]*(e[+-]\d+)?")
SIGNS = {"strong": "**", "em": "*"}


def rendered(blocks: Iterable[Block], level: int = 2) -> str:
    """All blocks, an empty line between them. level: of the headings of sections."""
    return "\n\n".join(_block(block, level) for block in blocks)


def escaped(text: str) -> str:
    """Text from a file as Markdown shows it: one line, no markup."""
    return MARKUP.sub(r"\\\1", shown(text))


def _words(words: Words) -> str:
    return "".join(map(_phrase, phrases(words)))


def _phrase(phrase: Phrase) -> str:
    if phrase.style == "code":
        return f"`{shown(phrase.text).replace('`', '')}`"
    text = phrase.text if phrase.ours or NUMBER.fullmatch(phrase.text) else escaped(phrase.text)
    sign = SIGNS.get(phrase.style, "")
    return f"{sign}[{text}]({phrase.link}){sign}" if phrase.link else f"{sign}{text}{sign}"


@singledispatch
def _block(block: Block, level: int) -> str:
    raise TypeError(f"no block for Markdown: {block!r}")


@_block.register
def _(block: Section, level: int) -> str:
    return f"{'#' * level} {escaped(block.title)}\n\n{rendered(block.blocks, level + 1)}"


@_block.register
def _(block: Paragraph, level: int) -> str:
    return _words(block.words)


@_block.register
def _(block: Bullets, level: int) -> str:
    return "\n".join(f"{f'{at}.' if block.numbered else '-'} {_words(line)}" for at, line in enumerate(block.lines, 1))


@_block.register
def _(block: Verbatim, level: int) -> str:
    """A line break in an argument of a command stays one, and does not end the block."""
    return indent("\n".join(map(shown, block.text.split("\n"))), "    ")


@_block.register
def _(block: Listing, level: int) -> str:
    rows = [block.columns, *block.rows]
    lines = [f"| {' | '.join(map(_words, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(block.columns), *lines[1:]])
