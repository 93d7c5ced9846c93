"""Tokenizer files: which token has which id, and what is done to a text before and after.

    tokenizer.json        tokens, merges or scores, and the steps around them (normalizer, pre_tokenizer ...)
    vocab.json, vocab.txt, merges.txt, added_tokens.json   the same in older files
    *.model, *.tiktoken   by their bytes alone: reading them takes a library

Files with other bytes can mean the same: versions of the library write merges as pairs or as one text, and write out
defaults or leave them out. A token with another id is a difference whatever the rest says, and is named first.

Source: https://github.com/huggingface/tokenizers, the files that `Tokenizer.save` wrote since version 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File
from modelsurgeon.verification.side.finding import (
    NEITHER,
    SAME,
    UNREADABLE,
    Beside,
    Pair,
    apart,
    brief,
    by_bytes,
    document,
    soft,
    text,
    verdict,
)

WHOLE = "tokenizer.json"
ENDS, STARTS = (".model", ".tiktoken", ".spm", ".codes"), ("vocab", "tokenizer.model", "tekken")  # of their names
STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")
FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")
# What absence means in a tokenizer.json, where it is not null or false.
DEFAULTS: dict[str, Any] = {"use_regex": True, "trim_offsets": True, "split": True, "prepend_scheme": "always"}


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's files say.

    ids     {token: id}
    added   {token: its flags} of tokens that were added to the vocabulary
    merges  in order, each a pair
    scores  {token: score} of a unigram model
    model   further settings of the model: its type, its unknown token ...
    steps   what surrounds it, by name
    """

    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    merges: tuple[tuple[str, ...], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)


def compare_tokenizers(pair: Pair) -> Iterator[Beside]:
    """A row for each tokenizer file of either side; one for the tokens, where the sides have other kinds of files."""
    names = list(filter(is_tokenizer_file, pair.all_names))
    if not names:
        yield Beside("tokenizer", SAME, NEITHER)
    for name in names:
        yield by_bytes(name, pair, MEANINGS.get(name))
    kinds = [{WHOLE} if WHOLE in names else names & {"vocab.json", "vocab.txt"} for names in pair.names]
    if all(kinds) and kinds[0] != kinds[1]:
        yield soft("tokens", lambda: _across(pair, [min(kind) for kind in kinds]))


def is_tokenizer_file(name: str) -> bool:
    """Whether a file holds tokens, merges or a model of them."""
    return name in MEANINGS or name.endswith(ENDS) or name.startswith(STARTS)


def _across(pair: Pair, names: list[str]) -> Beside:
    """The tokens of files of other kinds: tokenizer.json beside vocab.json."""
    sides = zip(pair.sides, names, strict=True)
    before, after = (_read(side.origin.folder.file(name)) for side, name in sides)
    only = set() if WHOLE not in names else {*before.added, *after.added}  # older files list these elsewhere
    found = (_without(one.ids, only) for one in (before, after))
    same = f"the same {len(before.ids):,} tokens with the same ids, in {names[0]} and in {names[1]}"
    return verdict("tokens", _ids(*found), same)


def _without(ids: Mapping[str, int], left_out: set[str]) -> dict[str, int]:
    return {token: at for token, at in ids.items() if token not in left_out}


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(file: File) -> Vocabulary:
    """What a file says. Raises SourceError where it is no vocabulary."""
    if file.name == "vocab.txt":
        return Vocabulary({line.rstrip("\r"): at for at, line in enumerate(text(file).rstrip("\n").split("\n"))})
    found = document(file)
    try:
        return _parsed(found) if file.name == WHOLE else Vocabulary(_checked(found))
    except UNREADABLE as error:
        raise SourceError(f"{file}: no vocabulary ({error})") from None


def _parsed(found: Mapping[str, Any]) -> Vocabulary:
    """A tokenizer.json. Raises what malformed ones make Python raise."""
    model = dict(found["model"])
    vocab, merges = model.pop("vocab"), model.pop("merges", None) or []
    scores = {} if isinstance(vocab, dict) else {str(token): float(score) for token, score in vocab}
    ids = _checked(vocab if isinstance(vocab, dict) else {token: at for at, (token, _) in enumerate(vocab)})
    added = {str(one["content"]): dict(one) for one in found.get("added_tokens") or []}
    return Vocabulary(
        {**ids, **_checked({token: one["id"] for token, one in added.items()})},
        {token: {flag: bool(one.get(flag)) for flag in FLAGS} for token, one in added.items()},
        tuple(tuple(one.split(" ") if isinstance(one, str) else map(str, one)) for one in merges),
        scores,
        model,
        {step: found.get(step) for step in STEPS},
    )


def _checked(ids: Mapping[Any, Any]) -> dict[str, int]:
    wrong = [token for token, at in ids.items() if not isinstance(at, int) or isinstance(at, bool)]
    if wrong:
        raise ValueError(f"the id of {brief(wrong[0])} is {brief(ids[wrong[0]])}, expected a whole number")
    return dict(ids)


# --- comparing -------------------------------------------------------------------------------------------------------


def _documents(before: File, after: File) -> Iterator[str]:
    return _differences(_read(before), _read(after))


def _vocabularies(before: File, after: File) -> Iterator[str]:
    return _ids(_read(before).ids, _read(after).ids)


def _merge_files(before: File, after: File) -> Iterator[str]:
    return _merges(*map(_merge_lines, (before, after)))


def _merge_lines(file: File) -> list[tuple[str, ...]]:
    lines = (line.rstrip("\r") for line in text(file).split("\n"))
    return [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]


def _differences(before: Vocabulary, after: Vocabulary) -> Iterator[str]:
    """What differs, in the order of what it does: ids, how a text is cut, flags, what surrounds it."""
    yield from _ids(before.ids, after.ids)
    yield from _merges(before.merges, after.merges)
    scored = [token for token, score in before.scores.items() if after.scores.get(token, score) != score]
    if scored:
        first = scored[0]
        scores = f"{before.scores[first]} -> {after.scores[first]}"
        yield f"{len(scored):,} scores of tokens, first of {brief(first)} ({scores})"
    yield from apart(dict(before.model), dict(after.model), DEFAULTS, "model")
    for token in before.added.keys() & after.added.keys():
        yield from apart(dict(before.added[token]), dict(after.added[token]), {}, f"added token {brief(token)}")
    for step in STEPS:
        yield from apart(before.steps.get(step), after.steps.get(step), DEFAULTS, step)


def _ids(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    """The first token that has another id or is missing, and how many more there are."""
    moved = [token for token, at in before.items() if after.get(token, at) != at]
    if moved:
        first = min(moved, key=before.__getitem__)
        more = f" and {len(moved) - 1:,} more tokens with other ids" if len(moved) > 1 else ""
        yield f"token {brief(first)} has id {before[first]} in source, {after[first]} in result{more}"
    for side, ids, others in (("source", before, after), ("result", after, before)):
        if alone := ids.keys() - others.keys():
            first = min(alone, key=ids.__getitem__)
            more = f" and {len(alone) - 1:,} more tokens" if len(alone) > 1 else ""
            yield f"token {brief(first)} (id {ids[first]}){more} only in {side}"


def _merges(before: Any, after: Any) -> Iterator[str]:
    if len(before) == len(after) and list(before) == list(after):
        return
    pairs = enumerate(zip_longest(before, after, fillvalue=()))
    at, (one, other) = next((at, both) for at, both in pairs if both[0] != both[1])
    said = [brief(" ".join(pair)) if pair else "none" for pair in (one, other)]
    yield f"merges, first number {at} ({said[0]} -> {said[1]})"


# {name: what differs in the meaning of two files}; others are compared by their bytes.
MEANINGS: Mapping[str, Callable[[File, File], Iterator[str]]] = {
    WHOLE: _documents,
    "vocab.json": _vocabularies,
    "vocab.txt": _vocabularies,
    "added_tokens.json": _vocabularies,
    "merges.txt": _merge_files,
}
