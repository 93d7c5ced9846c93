"""What a model takes, read off its config and class, and rows of ids made into what it is called with.

What a batch looks like depends on what the model is for. An encoder-decoder reads the first half of a row and is to
predict the second one, which it is given shifted right; a masked language model fills in 15% of the positions; any
other one predicts the next token. Only text has labels: nobody predicts random ids.
Pictures and sounds are random numbers: all that a model of pictures gets, and what a model of speech hears while it is
given the text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from modelsurgeon.errors import ModelSurgeonError

MASKED = 0.15  # the share of positions to fill in, as in BERT's training
UNLABELLED = -100
UNLIMITED = 2**31  # positions of a model that states no limit

TokenRows = list[list[int]]


def _picture(config: Any) -> tuple[int, ...]:
    size = config.image_size
    return (config.num_channels, *((size, size) if isinstance(size, int) else size))


def _sound(config: Any) -> tuple[int, ...]:
    return (config.num_mel_bins, 2 * config.max_source_positions)  # a convolution of stride 2 halves the frames


# What a model may read that is no text, by the name of its argument: the shape of one row.
SIGNALS: Mapping[str, Callable[[Any], tuple[int, ...]]] = {"pixel_values": _picture, "input_features": _sound}


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
    mask       the token in masked positions; None: no masked language model
    prefix     what its tokenizer begins every text with
    end        the token that must end every row, and be nowhere else; None: there is none
    choices    each row is a question of several choices (here: of one)
    signal     what it reads that is no text: (its argument, the shape of one row)
    first      the position of a row's first token, where the model takes positions; None: it takes none
    generates  it writes text of its own
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
    first: int | None = None
    generates: bool = False

    def batch(
        self, inputs: str, rows: TokenRows, generator: torch.Generator, labelled: bool = False, left: bool = False
    ) -> Batch:
        """Rows of ids as one forward pass; an attention mask comes with rows of different lengths.

        left  padding comes before the rows, as where text is generated
        """
        rows = [self._ended(row) for row in rows]
        if self.start is not None:
            cuts = [0 if self.signal else max(1, len(row) // 2) for row in rows]
            read = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
            wanted = [row[cut:] or row for row, cut in zip(rows, cuts, strict=True)]
            written = [[self.start, *row[:-1]] for row in wanted]
            arguments = {**self._arguments(read), **self._arguments(written, "decoder_")}
        else:
            read, wanted = self._task(rows, generator) if labelled else (rows, rows)
            written, arguments = read, self._arguments(read, left=left)
        if self.signal:
            name, shape = self.signal
            arguments[name] = torch.randn(len(rows), *shape, generator=generator)
        labels = padded(wanted, UNLABELLED, left)
        labels = labels if labelled else torch.full_like(labels, UNLABELLED)
        return Batch(inputs, arguments, _real(written, left), _real(read, left), labels)

    def shifted(self, rows: TokenRows, generator: torch.Generator) -> Batch:
        """Rows of one length at the last positions that the model takes."""
        assert self.first is not None
        start = self.longest - len(rows[0])
        made = self.batch(f"positions from {start}", rows, generator)
        places = torch.arange(self.first + start, self.first + self.longest).expand(len(rows), -1)
        return replace(made, arguments={**made.arguments, "position_ids": places})

    def _ended(self, row: list[int]) -> list[int]:
        if self.end is None:
            return row
        return [*((token + 1) % self.vocab if token == self.end else token for token in row[:-1]), self.end]

    def _arguments(self, rows: TokenRows, side: str = "", left: bool = False) -> dict[str, torch.Tensor]:
        if not any(rows):
            return {}
        ids, real = padded(rows, self.pad, left), _real(rows, left)
        mask = {} if bool(real.all()) else {f"{side}attention_mask": real.long()}
        found = {f"{side}input_ids": ids, **mask}
        return {name: value.unsqueeze(1) for name, value in found.items()} if self.choices else found

    def _task(self, rows: TokenRows, generator: torch.Generator) -> tuple[TokenRows, TokenRows]:
        """(what a model without a decoder reads, what its positions should predict)."""
        if self.mask is None:
            return rows, [[*row[1:], UNLABELLED] for row in rows]
        read, wanted = [], []
        for row in rows:
            hidden = set(torch.randperm(len(row), generator=generator)[: max(1, round(MASKED * len(row)))].tolist())
            read.append([self.mask if i in hidden else token for i, token in enumerate(row)])
            wanted.append([token if i in hidden else UNLABELLED for i, token in enumerate(row)])
        return read, wanted


def read_off(model: Any, tokenizer: Any, generator: torch.Generator) -> Reader:
    """What a model takes. Raises ModelSurgeonError where it is none of text, pictures or speech."""
    kind, config, signal = type(model).__name__, model.config, None
    if model.main_input_name in SIGNALS:
        signal = (model.main_input_name, SIGNALS[model.main_input_name](config))
    elif model.main_input_name != "input_ids":
        raise ModelSurgeonError(f"{kind} takes {model.main_input_name}; expected input_ids or {' or '.join(SIGNALS)}")
    takes = set(inspect.signature(model.forward).parameters)
    if not {"input_ids", "decoder_input_ids"} & takes:
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
    longest, choices = _longest(model), "MultipleChoice" in kind
    placed = "position_ids" in takes and longest < UNLIMITED and not choices
    first = _first_position(model) if placed else None
    generates = bool(model.can_generate()) and mask is None and signal is None
    return Reader(vocab, longest, pad, start, mask, prefix, end, choices, signal, first, generates)


def _first_position(model: Any) -> int:
    """0, or the row after the padding row of a table that has one (RoBERTa)."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    return max(
        (table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None), default=0
    )


def _longest(model: Any) -> int:
    """The most positions that a model takes: by its config, or by a table with first rows for padding (RoBERTa)."""
    keys = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
    named = [getattr(model.config, key, None) for key in keys]
    limits = [value for value in named if isinstance(value, int) and value > 0]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limits, default=UNLIMITED)


def padded(rows: TokenRows, fill: int, left: bool = False) -> torch.Tensor:
    """[rows, the longest row] int64."""
    longest = max(map(len, rows))
    fills = [[fill] * (longest - len(row)) for row in rows]
    both = [(more, row) if left else (row, more) for row, more in zip(rows, fills, strict=True)]
    return torch.tensor([[*before, *after] for before, after in both], dtype=torch.long)


def _real(rows: TokenRows, left: bool = False) -> torch.Tensor:
    return padded([[1] * len(row) for row in rows], 0, left).bool()
