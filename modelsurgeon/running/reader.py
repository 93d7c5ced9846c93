"""What inputs a model takes, by its config and class, and batches made of rows of ids.

A batch depends on the model's task. An encoder-decoder reads the first half of a row, gets the second half shifted
right, and predicts it; a masked language model fills in 15% of the positions; any other model predicts the next token.
Only text has labels: nobody predicts random ids.
Pictures and sounds are random numbers. A model of pictures gets nothing else, a model of speech gets the text as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from modelsurgeon.errors import ModelSurgeonError

MASKED = 0.15  # the share of positions to fill in, as in BERT's training
UNLABELLED = -100
UNLIMITED = 2**31  # positions of a model that states no limit

TokenRows = list[list[int]]


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    inputs     the kind of input: "text", "random ids, length 7", "padded batch"
    arguments  of the model's call
    real       [rows, positions] bool: the output's positions that are no padding (none where a model reads no ids)
    read       [rows, positions] bool: the input's, with which an encoder-decoder's output is not aligned
    labels     [rows, positions] int64: what each position should predict, or UNLABELLED
    """

    inputs: str
    arguments: Mapping[str, torch.Tensor]
    real: torch.Tensor
    read: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Reader:
    """What a model takes, by its config and class: no family is named here.

    vocab      the number of token ids; 0: it takes none
    longest    the most positions that it takes
    start      the decoder's first token; None: no encoder-decoder, or one that shifts by itself
    mask       the token in masked positions; None: no masked language model
    prefix     the tokens with which its tokenizer begins every text
    end        the token that must end every row, and be nowhere else; None: there is none
    choices    whether each row is a question with several choices (here: one)
    signal     (argument, the shape of one row) of its pictures or sounds
    first      the position of a row's first token; None: it takes no positions
    generates  whether it writes text
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
        """Rows of ids as one forward pass, with an attention mask where they differ in length.

        labelled  whether the rows are text, so that the batch says what to predict
        left      whether padding comes before the rows, as for generation
        """
        if self.end is not None:
            inner = [[(token + 1) % self.vocab if token == self.end else token for token in row[:-1]] for row in rows]
            rows = [[*row, self.end] for row in inner]
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
        return Batch(inputs, arguments, real_positions(written, left), real_positions(read, left), labels)

    def shifted(self, rows: TokenRows, generator: torch.Generator) -> Batch:
        """Rows of one length at the last positions that the model takes."""
        assert self.first is not None
        start = self.longest - len(rows[0])
        batch = self.batch(f"positions from {start}", rows, generator)
        positions = torch.arange(self.first + start, self.first + self.longest).expand(len(rows), -1)
        return replace(batch, arguments={**batch.arguments, "position_ids": positions})

    def _arguments(self, rows: TokenRows, side: str = "", left: bool = False) -> dict[str, torch.Tensor]:
        if not any(rows):
            return {}
        mask = real_positions(rows, left)
        arguments = {f"{side}input_ids": padded(rows, self.pad, left)}
        if not bool(mask.all()):
            arguments[f"{side}attention_mask"] = mask.long()
        return {name: value.unsqueeze(1) for name, value in arguments.items()} if self.choices else arguments

    def _task(self, rows: TokenRows, generator: torch.Generator) -> tuple[TokenRows, TokenRows]:
        """(rows that a model without a decoder reads, what each position should predict)."""
        if self.mask is None:
            return rows, [[*row[1:], UNLABELLED] for row in rows]
        read, wanted = [], []
        for row in rows:
            hidden = set(torch.randperm(len(row), generator=generator)[: max(1, round(MASKED * len(row)))].tolist())
            read.append([self.mask if i in hidden else token for i, token in enumerate(row)])
            wanted.append([token if i in hidden else UNLABELLED for i, token in enumerate(row)])
        return read, wanted


def read_off(model: Any, tokenizer: Any, generator: torch.Generator) -> Reader:
    """What a model takes. Raises ModelSurgeonError where that is neither text nor pictures nor speech."""
    kind, config, signal = type(model).__name__, model.config, _picture_or_sound(model)
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
    (longest, after_padding), choices = _positions(model), "MultipleChoice" in kind
    first = after_padding if "position_ids" in takes and longest < UNLIMITED and not choices else None
    generates = bool(model.can_generate()) and mask is None and signal is None
    return Reader(vocab, longest, pad, start, mask, prefix, end, choices, signal, first, generates)


def _picture_or_sound(model: Any) -> tuple[str, tuple[int, ...]] | None:
    """(name of the argument, shape of one picture or sound); None where the model reads text alone."""
    config, name = model.config, model.main_input_name
    if name == "pixel_values":
        size = config.image_size
        return name, (config.num_channels, *((size, size) if isinstance(size, int) else size))
    if name == "input_features":  # a convolution of stride 2 halves the frames
        return name, (config.num_mel_bins, 2 * config.max_source_positions)
    if name != "input_ids":
        expected = "input_ids or pixel_values or input_features"
        raise ModelSurgeonError(f"{type(model).__name__} takes {name}; expected {expected}")
    return None


def _positions(model: Any) -> tuple[int, int]:
    """(the most positions that a model takes, the first one): a position table may begin with padding (RoBERTa)."""
    keys = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
    named = [getattr(model.config, key, None) for key in keys]
    limits = [value for value in named if isinstance(value, int) and value > 0]
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    tables = [table for table in tables if getattr(table, "padding_idx", None) is not None]
    limits += [table.num_embeddings - table.padding_idx - 1 for table in tables]
    return min(limits, default=UNLIMITED), max((table.padding_idx + 1 for table in tables), default=0)


def padded(rows: TokenRows, fill: int, left: bool = False) -> torch.Tensor:
    """[rows, the longest row] int64."""
    longest = max(map(len, rows))
    fills = [[fill] * (longest - len(row)) for row in rows]
    full = [[*more, *row] if left else [*row, *more] for row, more in zip(rows, fills, strict=True)]
    return torch.tensor(full, dtype=torch.long)


def real_positions(rows: TokenRows, left: bool = False) -> torch.Tensor:
    """[rows, the longest row] bool: which positions of `padded` are no padding."""
    return padded([[1] * len(row) for row in rows], 0, left).bool()
