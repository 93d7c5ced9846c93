"""What both models are run on: windows of a text, random token ids of several lengths, and a padded batch.

To compare behaviour, a model also reads one long row, rows at the last positions that it was trained on and rows padded
on the left, and it continues prompts of several lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.errors import first_line
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import UNLIMITED, Batch, Reader, TokenRows, read_off
from modelsurgeon.running.sampling import LONG, every_row, long_row

SAMPLE = Path(__file__).parent / "sample.txt"
TEXT = "text"
ROWS = 4  # windows of text in one forward pass
NEW = 32  # tokens that a prompt is continued by


@dataclass(frozen=True)
class Inputs:
    """Everything that a model is run on.

    batches  the forward passes
    notes    what could not be made, and why
    row      the index of the batch on whose first row hidden states are compared
    prompts  rows to continue by `new` tokens each; None where the model writes no text
    start    the token that an encoder-decoder's decoder begins with
    pad      the token that fills up shorter prompts
    usual    how many of the batches are run where outputs are told and not judged
    trained  the most positions that the config names; None: it names none
    reach    rows of a position table that some input reads
    vocab    the tokens that were fed, and whose logits are compared; 0: there are none
    """

    batches: tuple[Batch, ...]
    notes: tuple[str, ...] = ()
    row: int = 0
    prompts: TokenRows | None = None
    new: int = 0
    start: int | None = None
    pad: int = 0
    usual: int = 0
    trained: int | None = None
    reach: int = UNLIMITED
    vocab: int = 0


def make_inputs(
    model: Any,
    folder: Path,
    options: RunOptions,
    *,
    behaviour: bool = False,
    thorough: bool = False,
    vocab: int | None = None,
) -> Inputs:
    """Every batch for a model, and notes of what could not be made. The tokenizer is the one in `folder`.

    behaviour  also long and shifted rows, padding on the left, and prompts
    thorough   these without prompts, and what feeds every row that can be looked up (`sampling.py`)
    vocab      so many tokens alone are fed, the first ones; None: all of the model's
    """
    source, notes = _read(model, folder, options, vocab)
    reader = source.reader
    if not reader.vocab:
        signals = _signals(source, options.samples)
        return Inputs(signals, usual=len(signals))
    found, uneven = _usual(source, options, notes)
    if behaviour or thorough:
        found = _further(found, source, model, uneven, thorough)
    if not behaviour:
        return found
    prompts, new = _prompts(source) if reader.generates else (None, 0)
    none = f"no text generated: {type(model).__name__} generates none, or not from text"
    notes = found.notes if prompts else (*found.notes, none)
    return replace(found, notes=notes, prompts=prompts, new=new, start=reader.start, pad=reader.pad)


def _usual(source: _Source, options: RunOptions, notes: tuple[str, ...]) -> tuple[Inputs, TokenRows]:
    """(windows of the text, random ids of several lengths, a padded batch; the rows of that batch)."""
    reader, generator, length = source.reader, source.generator, source.length
    windows = source.windows(options.samples, length)
    batches = source.batches(TEXT, windows, labelled=True)
    for size in sorted({1, min(7, length), length}):
        batches += source.batches(f"random ids, length {size}", [source.random(size)])
    row = 0 if windows else len(batches) - 1
    uneven = [source.random(size) for size in (length, max(1, length * 2 // 3), max(1, length // 4), 1)]
    batches.append(reader.batch("padded batch", uneven, generator))
    trained = reader.longest if reader.longest < UNLIMITED else None
    reach = reader.longest + (reader.first or 0)
    inputs = Inputs(tuple(batches), notes, row, usual=len(batches), trained=trained, reach=reach, vocab=reader.vocab)
    return inputs, uneven


def _further(found: Inputs, source: _Source, model: Any, uneven: TokenRows, thorough: bool) -> Inputs:
    """With padding on the left, shifted rows and a long one; and, if `thorough`, with all that can be looked up."""
    reader, generator, length, batches = source.reader, source.generator, source.length, list(found.batches)
    if reader.generates and reader.start is None:
        batches.append(reader.batch("batch padded on the left", uneven, generator, left=True))
    if reader.first is not None and reader.start is None and reader.longest > 1:
        row = source.row(min(length, reader.longest // 2))
        batches.append(reader.shifted([row], generator))
        batches += [reader.shifted([row], generator, reader.longest)] if thorough and reader.stretched else []
    if not thorough:
        long, left_out = _long(source)
        batches += long
        return replace(found, batches=tuple(batches), notes=(*found.notes, *left_out), usual=len(batches))
    long, left_out = long_row(model, reader, generator)
    short, more = every_row(model, reader, generator)
    notes = (*found.notes, *left_out, *more)
    return replace(found, batches=(*batches, *long, *short), notes=notes, usual=len(batches))


def make_windows(model: Any, folder: Path, options: RunOptions) -> Inputs:
    """The windows of text of `make_inputs` alone; without a text, as many rows of random ids or signals.

    All rows have one length: none is padded.
    """
    source, notes = _read(model, folder, options)
    if not source.reader.vocab:
        return Inputs(_signals(source, options.samples))
    windows = source.windows(options.samples, source.length)
    kind = TEXT if windows else f"random ids, length {source.length}"
    rows = windows or [source.random(source.length) for _ in range(options.samples)]
    return Inputs(tuple(source.batches(kind, rows, labelled=bool(windows))), notes)


@dataclass(frozen=True)
class _Source:
    """Where rows come from: the ids of a text, and random ids.

    ids     none where the tokenizer does not fit the model
    length  tokens of a usual row
    """

    reader: Reader
    ids: Sequence[int]
    length: int
    generator: torch.Generator

    def windows(self, samples: int, length: int) -> TokenRows:
        """At most `samples` rows of `length` ids that do not overlap, spread over the text."""
        prefix = self.reader.prefix
        new = max(1, length - len(prefix))
        count = min(samples, max(1, len(self.ids) // new)) if self.ids else 0
        step = (len(self.ids) - new) // max(1, count - 1) if count > 1 else 0
        return [[*prefix, *self.ids[at * step : at * step + new]] for at in range(count)]

    def random(self, size: int) -> list[int]:
        return [int(token) for token in torch.randint(self.reader.vocab, (size,), generator=self.generator)]

    def row(self, size: int, at: int = 0) -> list[int]:
        """Window `at` of three of the text; random ids where the text is too short."""
        windows = self.windows(3, size)
        return windows[at] if at < len(windows) and len(windows[at]) == size else self.random(size)

    def batches(self, kind: str, rows: TokenRows, labelled: bool = False) -> list[Batch]:
        """ROWS rows in each batch."""
        parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
        return [self.reader.batch(kind, part, self.generator, labelled) for part in parts]


def _read(model: Any, folder: Path, options: RunOptions, vocab: int | None = None) -> tuple[_Source, tuple[str, ...]]:
    generator = torch.Generator().manual_seed(options.seed)
    tokenizer, ids, notes = tokenize(folder, options.text or SAMPLE.read_text(encoding="utf-8"))
    ids = ids if vocab is None else [token for token in ids if token < vocab]
    reader = read_off(model, tokenizer, generator, vocab)
    if reader.vocab and ids and max([*ids, *reader.prefix, reader.mask or 0]) >= reader.vocab:
        ids, notes = [], (f"random ids only: the tokenizer has more tokens than the model's {reader.vocab}",)
    return _Source(reader, ids, max(1, min(options.length, reader.longest)), generator), notes


def _signals(source: _Source, samples: int) -> tuple[Batch, ...]:
    """Random pictures or sounds, for a model that takes no ids."""
    assert source.reader.signal is not None
    return tuple(source.batches(f"random {source.reader.signal[0]}", [[] for _ in range(samples)]))


def tokenize(folder: Path, text: str) -> tuple[Any, list[int], tuple[str, ...]]:
    """(the folder's tokenizer, the text's ids, notes); (None, [], why) where there is none that works."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
        ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    except Exception as error:  # tokenizers come in many makes, and fail in as many ways
        return None, [], (f"random ids only: no tokenizer ({type(error).__name__}: {first_line(error)[:80]})",)
    files = [folder / name for name in getattr(tokenizer, "vocab_files_names", {}).values()]
    if not ids or not any(file.exists() for file in files):  # the library invents one where it finds no vocabulary
        return None, [], ("random ids only: no tokenizer",)
    return tokenizer, ids, ()


def _long(source: _Source) -> tuple[list[Batch], tuple[str, ...]]:
    """(one row as long as the model was trained on, or as LONG; notes of what is left out)."""
    longest = source.reader.longest
    size = min(longest, LONG)
    notes: tuple[str, ...] = ()
    if longest == UNLIMITED:
        notes = (f"long context: {size} tokens; config.json does not say how many the model was trained on",)
    elif size < longest:
        notes = (f"long context: {size} tokens of the {longest} that the model takes",)
    return source.batches(f"long row, length {size}", [source.row(size)]) if size > source.length else [], notes


def _prompts(source: _Source) -> tuple[TokenRows, int]:
    """(prompts of three lengths, the longest first; how many tokens to continue them by, within the limit)."""
    new = max(1, min(NEW, source.reader.longest // 2))
    size = max(1, min(source.length, source.reader.longest - new))
    sizes = (size, max(1, size * 2 // 3), max(1, size // 3))
    return [source.row(size, at)[:shorter] for at, shorter in enumerate(sizes)], new
