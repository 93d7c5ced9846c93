"""What both models are run on: windows of a text, random token ids of several lengths, and a padded batch.

What a batch looks like depends on what the model is for. An encoder-decoder reads the first half of a row and is to
predict the second one, which it is given shifted right; a masked language model fills in 15% of the positions; any
other one predicts the next token. Only text has labels: nobody predicts random ids.
Pictures and sounds are random numbers: all that a model of pictures gets, and what a model of speech hears while it is
given the text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.errors import ModelSurgeonError

SAMPLE = Path(__file__).parent / "sample.txt"
MASKED = 0.15  # the share of positions to fill in, as in BERT's training
ROWS = 4  # windows of text in one forward pass
UNLABELLED = -100

Rows = list[list[int]]


def _picture(config: Any) -> tuple[int, ...]:
    size = config.image_size
    return (config.num_channels, *((size, size) if isinstance(size, int) else size))


def _sound(config: Any) -> tuple[int, ...]:
    return (config.num_mel_bins, 2 * config.max_source_positions)  # a convolution of stride 2 halves the frames


# What a model may read that is no text, by the name of its argument: the shape of one row.
SIGNALS: Mapping[str, Callable[[Any], tuple[int, ...]]] = {"pixel_values": _picture, "input_features": _sound}


@dataclass(frozen=True)
class Sampling:
    """text and how much of it (`samples` windows of `length` tokens), the longest random row, the seed of both."""

    text: str | None
    samples: int
    length: int
    seed: int


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    inputs     the kind of input: "text", "random ids, length 7", "padded batch"
    arguments  what the model is called with
    real       [rows, positions] bool: the output's positions that are no padding (none of a model that reads no ids)
    read       the same of the input, which an encoder-decoder's output is not aligned with
    labels     [rows, positions] int64: what each position should predict, or UNLABELLED
    """

    inputs: str
    arguments: Mapping[str, torch.Tensor]
    real: torch.Tensor
    read: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Reader:
    """What a model takes: read off its config and class, so that no family is named here.

    vocab      how many token ids there are; 0: it takes none
    longest    the most positions that it takes
    start      what an encoder-decoder's decoder begins with; None: no encoder-decoder, or one that shifts by itself
    mask       what stands in masked positions; None: no masked language model
    prefix     what its tokenizer begins every text with
    end        what must stand at the end of every row, and nowhere else; None: nothing must
    choices    each row is a question of several choices (here: of one)
    signal     what it reads that is no text: (its argument, the shape of one row)
    """

    vocab: int
    longest: int
    pad: int
    start: int | None = None
    mask: int | None = None
    prefix: tuple[int, ...] = ()
    end: int | None = None
    choices: bool = False
    signal: tuple[str, tuple[int, ...]] | None = None

    def batch(self, inputs: str, rows: Rows, generator: torch.Generator, labelled: bool = False) -> Batch:
        """Rows of ids as one forward pass; an attention mask comes with rows of different lengths."""
        rows = [self._ended(row) for row in rows]
        if self.start is not None:
            cuts = [0 if self.signal else max(1, len(row) // 2) for row in rows]
            read = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
            wanted = [row[cut:] or row for row, cut in zip(rows, cuts, strict=True)]
            written = [[self.start, *row[:-1]] for row in wanted]
            arguments = {**self._arguments(read), **self._arguments(written, "decoder_")}
        else:
            read, wanted = self._task(rows, generator) if labelled else (rows, rows)
            written, arguments = read, self._arguments(read)
        if self.signal:
            name, shape = self.signal
            arguments[name] = torch.randn(len(rows), *shape, generator=generator)
        labels = _padded(wanted, UNLABELLED)
        labels = labels if labelled else torch.full_like(labels, UNLABELLED)
        return Batch(inputs, arguments, _real(written), _real(read), labels)

    def _ended(self, row: list[int]) -> list[int]:
        if self.end is None:
            return row
        return [*((token + 1) % self.vocab if token == self.end else token for token in row[:-1]), self.end]

    def _arguments(self, rows: Rows, side: str = "") -> dict[str, torch.Tensor]:
        if not any(rows):
            return {}
        ids, real = _padded(rows, self.pad), _real(rows)
        mask = {} if bool(real.all()) else {f"{side}attention_mask": real.long()}
        found = {f"{side}input_ids": ids, **mask}
        return {name: value.unsqueeze(1) for name, value in found.items()} if self.choices else found

    def _task(self, rows: Rows, generator: torch.Generator) -> tuple[Rows, Rows]:
        """(what a model without a decoder reads, what its positions should say)."""
        if self.mask is None:
            return rows, [[*row[1:], UNLABELLED] for row in rows]
        read, wanted = [], []
        for row in rows:
            hidden = set(torch.randperm(len(row), generator=generator)[: max(1, round(MASKED * len(row)))].tolist())
            read.append([self.mask if i in hidden else token for i, token in enumerate(row)])
            wanted.append([token if i in hidden else UNLABELLED for i, token in enumerate(row)])
        return read, wanted


def batches(model: Any, folder: Path, sampling: Sampling) -> tuple[list[Batch], tuple[str, ...]]:
    """Every batch for a model, and notes of what could not be made. The tokenizer is the one in `folder`."""
    generator = torch.Generator().manual_seed(sampling.seed)
    tokenizer, ids, notes = tokenize(folder, sampling.text or SAMPLE.read_text(encoding="utf-8"))
    reader = read_off(model, tokenizer, generator)
    if reader.signal and not reader.vocab:
        kind, empty = f"random {reader.signal[0]}", Rows([] for _ in range(sampling.samples))
        return [reader.batch(kind, empty[at : at + ROWS], generator) for at in range(0, len(empty), ROWS)], ()
    if ids and max([*ids, *reader.prefix, reader.mask or 0]) >= reader.vocab:
        ids, notes = [], (f"random ids only: the tokenizer has more tokens than the model's {reader.vocab}",)
    length = max(1, min(sampling.length, reader.longest))
    windows = _windows(ids, reader.prefix, sampling.samples, length)
    made = [
        reader.batch("text", windows[at : at + ROWS], generator, labelled=True) for at in range(0, len(windows), ROWS)
    ]
    for size in sorted({1, min(7, length), length}):
        made.append(reader.batch(f"random ids, length {size}", [_random(size, reader, generator)], generator))
    sizes = [length, max(1, length * 2 // 3), max(1, length // 4), 1]
    made.append(reader.batch("padded batch", [_random(size, reader, generator) for size in sizes], generator))
    return made, notes


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


def read_off(model: Any, tokenizer: Any, generator: torch.Generator) -> Reader:
    """What a model takes. Raises ModelSurgeonError where it is none of text, pictures or speech."""
    kind, config, signal = type(model).__name__, model.config, None
    if model.main_input_name in SIGNALS:
        signal = (model.main_input_name, SIGNALS[model.main_input_name](config))
    elif model.main_input_name != "input_ids":
        raise ModelSurgeonError(f"{kind} takes {model.main_input_name}; expected input_ids or {' or '.join(SIGNALS)}")
    if not {"input_ids", "decoder_input_ids"} & set(inspect.signature(model.forward).parameters):
        return Reader(vocab=0, longest=0, pad=0, signal=signal)
    vocab, pad = int(config.vocab_size), getattr(config, "pad_token_id", None) or 0
    start = mask = end = None
    if getattr(config, "is_encoder_decoder", False):
        if "SequenceClassification" in kind:
            end = config.eos_token_id  # where it reads its answer
        elif "QuestionAnswering" not in kind:
            named = getattr(config, "decoder_start_token_id", None)
            start = pad if named is None else int(named)
    elif "MaskedLM" in kind or "PreTraining" in kind:
        named = getattr(tokenizer, "mask_token_id", None)
        mask = int(torch.randint(vocab, (), generator=generator)) if named is None else int(named)
    begin = tokenizer("")["input_ids"][:1] if tokenizer else []
    special = {getattr(tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")} - {None}
    prefix = tuple(token for token in begin if token in special)
    return Reader(vocab, _longest(model), pad, start, mask, prefix, end, "MultipleChoice" in kind, signal)


def _longest(model: Any) -> int:
    """The most positions that a model takes: its config's, or a table's whose first rows are for padding (RoBERTa)."""
    keys = ("max_position_embeddings", "n_positions", "max_target_positions")
    named = [getattr(model.config, key, None) for key in keys]
    limits = [value for value in named if isinstance(value, int) and value > 0]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limits, default=2**31)


def _windows(ids: Sequence[int], prefix: tuple[int, ...], samples: int, length: int) -> Rows:
    """At most `samples` rows of `length` ids that do not overlap, spread over the text."""
    new = max(1, length - len(prefix))
    count = min(samples, max(1, len(ids) // new)) if ids else 0
    step = (len(ids) - new) // max(1, count - 1) if count > 1 else 0
    return [[*prefix, *ids[at * step : at * step + new]] for at in range(count)]


def _random(size: int, reader: Reader, generator: torch.Generator) -> list[int]:
    return [int(token) for token in torch.randint(reader.vocab, (size,), generator=generator)]


def _padded(rows: Rows, fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=torch.long)


def _real(rows: Rows) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], dtype=torch.bool)
