"""What both models are run on: windows of a text, random token ids of several lengths, and a padded batch.

Asked for behaviour, a model also reads one long row, rows at the last positions that it was trained on and rows padded
on the left, and it continues prompts of several lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import UNLIMITED, Batch, Reader, TokenRows, read_off

SAMPLE = Path(__file__).parent / "sample.txt"
TEXT = "text"
ROWS = 4  # windows of text in one forward pass
# Positions of the long row: a model of 7e9 parameters reads as many in minutes on a CPU, and its logits take 1 GB.
# What lies beyond is reached by rows that are shifted to the last positions.
LONG = 2048
NEW = 32  # tokens that a prompt is continued by


@dataclass(frozen=True)
class Inputs:
    """Everything that a model is asked.

    batches  to run
    notes    of what cannot be asked
    row      the batch whose first row hidden states are compared on
    prompts  to continue by `new` tokens each, from `start` on where a decoder writes them; padded with `pad`
    """

    batches: tuple[Batch, ...]
    notes: tuple[str, ...] = ()
    row: int = 0
    prompts: TokenRows | None = None
    new: int = 0
    start: int | None = None
    pad: int = 0


def make_inputs(model: Any, folder: Path, options: RunOptions, *, behaviour: bool = False) -> Inputs:
    """Every batch for a model, and notes of what could not be made. The tokenizer is the one in `folder`.

    behaviour  also long and shifted rows, padding on the left, and prompts
    """
    generator = torch.Generator().manual_seed(options.seed)
    reader, ids, notes = _read(model, folder, options, generator)
    if not reader.vocab:
        return Inputs(_signals(reader, options, generator))
    length = max(1, min(options.length, reader.longest))
    windows = _windows(ids, reader.prefix, options.samples, length)
    made = [reader.batch(TEXT, part, generator, labelled=True) for part in _fours(windows)]
    for size in sorted({1, min(7, length), length}):
        made.append(reader.batch(f"random ids, length {size}", [_random(size, reader, generator)], generator))
    row = 0 if windows else len(made) - 1
    sizes = [length, max(1, length * 2 // 3), max(1, length // 4), 1]
    uneven = [_random(size, reader, generator) for size in sizes]
    made.append(reader.batch("padded batch", uneven, generator))
    if not behaviour:
        return Inputs(tuple(made), notes, row)
    if reader.generates and reader.start is None:
        made.append(reader.batch("batch padded on the left", uneven, generator, left=True))
    if reader.first is not None and reader.start is None and reader.longest > 1:
        far = _row(ids, reader, min(length, reader.longest // 2), generator)
        made.append(reader.shifted([far], generator))
    long, why = _long(ids, reader, length, generator)
    prompts, new = _prompts(ids, reader, length, generator) if reader.generates else (None, 0)
    without = () if prompts else (f"no text generated: {type(model).__name__} generates none, or not from text",)
    return Inputs((*made, *long), (*notes, *why, *without), row, prompts, new, reader.start, reader.pad)


def make_windows(model: Any, folder: Path, options: RunOptions) -> Inputs:
    """The same text as `make_inputs`, and nothing else; where there is none to read, as much of random ids or signals.

    All rows are of one length: none is padded.
    """
    generator = torch.Generator().manual_seed(options.seed)
    reader, ids, notes = _read(model, folder, options, generator)
    if not reader.vocab:
        return Inputs(_signals(reader, options, generator))
    length = max(1, min(options.length, reader.longest))
    windows = _windows(ids, reader.prefix, options.samples, length)
    kind = TEXT if windows else f"random ids, length {length}"
    rows = windows or [_random(length, reader, generator) for _ in range(options.samples)]
    made = (reader.batch(kind, part, generator, labelled=bool(windows)) for part in _fours(rows))
    return Inputs(tuple(made), notes)


def _read(
    model: Any, folder: Path, options: RunOptions, generator: torch.Generator
) -> tuple[Reader, list[int], tuple[str, ...]]:
    """(what the model takes, the text's ids, notes); no ids where the tokenizer does not fit the model."""
    tokenizer, ids, notes = tokenize(folder, options.text or SAMPLE.read_text(encoding="utf-8"))
    reader = read_off(model, tokenizer, generator)
    if reader.vocab and ids and max([*ids, *reader.prefix, reader.mask or 0]) >= reader.vocab:
        ids, notes = [], (f"random ids only: the tokenizer has more tokens than the model's {reader.vocab}",)
    return reader, ids, notes


def _signals(reader: Reader, options: RunOptions, generator: torch.Generator) -> tuple[Batch, ...]:
    """Random pictures or sounds, for a model that takes no ids."""
    assert reader.signal is not None
    empty = TokenRows([] for _ in range(options.samples))
    return tuple(reader.batch(f"random {reader.signal[0]}", part, generator) for part in _fours(empty))


def tokenize(folder: Path, text: str) -> tuple[Any, list[int], tuple[str, ...]]:
    """(the folder's tokenizer, the text's ids, notes); (None, [], why) where there is none that works."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
        ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    except Exception as error:  # tokenizers come in many makes, and fail in as many ways
        reason = (str(error).splitlines() or [""])[0]
        return None, [], (f"random ids only: no tokenizer ({type(error).__name__}: {reason[:80]})",)
    files = [folder / name for name in getattr(tokenizer, "vocab_files_names", {}).values()]
    if not ids or not any(file.exists() for file in files):  # the library makes one up where it finds no vocabulary
        return None, [], ("random ids only: no tokenizer",)
    return tokenizer, ids, ()


def _long(
    ids: Sequence[int], reader: Reader, length: int, generator: torch.Generator
) -> tuple[list[Batch], tuple[str, ...]]:
    """(one row as long as the model was trained on, or as LONG; notes of what is left out)."""
    size = min(reader.longest, LONG)
    notes: tuple[str, ...] = ()
    if reader.longest == UNLIMITED:
        notes = (f"long context: {size} tokens; config.json does not say how many the model was trained on",)
    elif size < reader.longest:
        notes = (f"long context: {size} tokens of the {reader.longest} that the model takes",)
    if size <= length:
        return [], notes
    row = _row(ids, reader, size, generator)
    return [reader.batch(f"long row, length {size}", [row], generator)], notes


def _prompts(ids: Sequence[int], reader: Reader, length: int, generator: torch.Generator) -> tuple[TokenRows, int]:
    """(prompts of three lengths, the longest first; by how many tokens to continue them within the limit)."""
    new = max(1, min(NEW, reader.longest // 2))
    size = max(1, min(length, reader.longest - new))
    whole = [_row(ids, reader, size, generator, at) for at in range(3)]
    return [whole[0], whole[1][: max(1, size * 2 // 3)], whole[2][: max(1, size // 3)]], new


def _row(ids: Sequence[int], reader: Reader, size: int, generator: torch.Generator, at: int = 0) -> list[int]:
    """Window `at` of three of the text; random ids where it is too short."""
    windows = _windows(ids, reader.prefix, 3, size)
    return windows[at] if at < len(windows) and len(windows[at]) == size else _random(size, reader, generator)


def _windows(ids: Sequence[int], prefix: tuple[int, ...], samples: int, length: int) -> TokenRows:
    """At most `samples` rows of `length` ids that do not overlap, spread over the text."""
    new = max(1, length - len(prefix))
    count = min(samples, max(1, len(ids) // new)) if ids else 0
    step = (len(ids) - new) // max(1, count - 1) if count > 1 else 0
    return [[*prefix, *ids[at * step : at * step + new]] for at in range(count)]


def _fours(rows: TokenRows) -> list[TokenRows]:
    return [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]


def _random(size: int, reader: Reader, generator: torch.Generator) -> list[int]:
    return [int(token) for token in torch.randint(reader.vocab, (size,), generator=generator)]
