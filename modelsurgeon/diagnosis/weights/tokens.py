"""The tokens of an embedding's rows, read from the tokenizer's files as JSON; no code of theirs is run.

    read_tokens(checkpoint.side_files)  ->  Tokens({0: "<s>", 1: "</s>", ...}, added={0, 1})

`tokenizer.json` has all of them. Without it, `vocab.json` has the tokens, and `added_tokens.json` and
`tokenizer_config.json` have those that were added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File
from modelsurgeon.files.json_file import read_json


@dataclass(frozen=True)
class Tokens:
    """{number: token as the file spells it}, and the numbers of added tokens: special ones, and those of users."""

    texts: Mapping[int, str]
    added: frozenset[int]


def read_tokens(side_files: Mapping[str, File]) -> Tokens:
    """The tokens of a checkpoint; no texts where no file lists them, or the file is broken."""
    whole = _read(side_files, "tokenizer.json")
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else _read(side_files, "vocab.json")
    texts = dict(_numbered(vocabulary))
    if not texts:
        return Tokens({}, frozenset())
    decoder = _read(side_files, "tokenizer_config.json").get("added_tokens_decoder")
    added = dict(_numbered(_read(side_files, "added_tokens.json")))
    added |= {**dict(_of_decoder(decoder)), **dict(_of_list(whole.get("added_tokens")))}
    return Tokens({**texts, **added}, frozenset(added))


def _read(side_files: Mapping[str, File], name: str) -> Mapping[str, Any]:
    """A file's JSON object; an empty one without the file or where it is broken: tokens are only for display."""
    try:
        return read_json(side_files[name]) if name in side_files else {}
    except SourceError:
        return {}


def _numbered(vocabulary: Any) -> Iterator[tuple[int, str]]:
    """(number, token) of {token: number}, or of a list of [token, score] in order of numbers."""
    if isinstance(vocabulary, Mapping):
        yield from ((number, text) for text, number in vocabulary.items() if _is_number(number))
    elif isinstance(vocabulary, list):
        for number, entry in enumerate(vocabulary):
            if isinstance(entry, list) and entry and isinstance(entry[0], str):
                yield number, entry[0]


def _of_decoder(decoder: Any) -> Iterator[tuple[int, str]]:
    """(number, token) of {"number": {"content": token}}."""
    for number, entry in decoder.items() if isinstance(decoder, Mapping) else ():
        if number.isdecimal() and isinstance(entry, Mapping) and isinstance(entry.get("content"), str):
            yield int(number), entry["content"]


def _of_list(entries: Any) -> Iterator[tuple[int, str]]:
    """(number, token) of [{"id": number, "content": token}]."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and _is_number(entry.get("id")) and isinstance(entry.get("content"), str):
            yield entry["id"], entry["content"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
