"""What inputs a model takes, by its config and class, and batches made of rows of ids.

A batch depends on the model's task. An encoder-decoder reads the first half of a row, gets the second half shifted
right, and predicts it; a masked language model fills in 15% of the positions; any other model predicts the next token.
Only text has labels: nobody predicts random ids.
Pictures and sounds are random numbers. A model of pictures gets nothing else, a model of speech gets the text as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch

from modelsurgeon.errors import ModelSurgeonError

MASKED = 0.15  # the share of positions to fill in, as in BERT's training
UNLABELLED = -100
UNLIMITED = 2**31  # positions of a model that states no limit
WINDOWS = ("sliding_window", "window_size", "local_attention")  # config keys: how far back attention looks
TYPES = {"token_type_ids": "type_vocab_size", "task_type_ids": "task_type_vocab_size"}  # {argument: key of its ids}

TokenRows = list[list[int]]


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    inputs     the kind of input: "text", "random ids, length 7", "padded batch"
    arguments  of the model's call
    real       [rows, positions] bool: the output's positions that are no padding (none where a model reads no ids)
    read       [rows, positions] bool: the input's, with which an encoder-decoder's output is not aligned
    labels     [rows, positions] int64: what each position should predict, or UNLABELLED
    columns    [columns] int64: the tokens whose logits are compared; None: all
    """

    inputs: str
    arguments: Mapping[str, torch.Tensor]
    real: torch.Tensor
    read: torch.Tensor
    labels: torch.Tensor
    columns: torch.Tensor | None = None


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
    types      {argument: how many ids it takes} of token types and their like
    window     positions: the widest window of its attention; 0: it has none
    tabled     whether positions are rows of a table, so that each of them can differ from all others
    stretched  whether rotary positions are scaled, maybe beyond those that it was trained on alone
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
    types: Mapping[str, int] = field(default_factory=dict)
    window: int = 0
    tabled: bool = False
    stretched: bool = False

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
        arguments |= self._signals(len(rows), generator)
        labels = padded(wanted, UNLABELLED, left)
        labels = labels if labelled else torch.full_like(labels, UNLABELLED)
        return Batch(inputs, arguments, real_positions(written, left), real_positions(read, left), labels)

    def sides(self, inputs: str, read: TokenRows, written: TokenRows, generator: torch.Generator) -> Batch:
        """What an encoder-decoder reads and what it has written, each side's rows of one length."""
        arguments = {**self._arguments(read), **self._arguments(written, "decoder_")}
        arguments |= self._signals(len(written), generator)
        real = real_positions(written)
        return Batch(inputs, arguments, real, real_positions(read), torch.full(real.shape, UNLABELLED))

    def shifted(self, rows: TokenRows, generator: torch.Generator, start: int | None = None) -> Batch:
        """Rows of one length at positions from `start` on; None: at the last ones that the model takes."""
        assert self.first is not None
        start = self.longest - len(rows[0]) if start is None else start
        batch = self.batch(f"positions from {start}", rows, generator)
        positions = self.first + start + torch.arange(len(rows[0])).expand(len(rows), -1)
        return replace(batch, arguments={**batch.arguments, "position_ids": positions})

    def _signals(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Random pictures or sounds, if the model takes any."""
        if self.signal is None:
            return {}
        name, shape = self.signal
        return {name: torch.randn(rows, *shape, generator=generator)}

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


def read_off(model: Any, tokenizer: Any, generator: torch.Generator, vocab: int | None = None) -> Reader:
    """What a model takes. Raises ModelSurgeonError where that is neither text nor pictures nor speech.

    vocab  so many tokens alone are fed, the first ones; None: all of the model's
    """
    kind, config, signal = type(model).__name__, model.config, _picture_or_sound(model)
    takes = set(inspect.signature(model.forward).parameters)
    if not {"input_ids", "decoder_input_ids"} & takes:
        return Reader(vocab=0, longest=0, pad=0, signal=signal)
    vocab = int(config.vocab_size) if vocab is None else vocab
    settle(model, vocab)
    pad = getattr(config, "pad_token_id", None) or 0
    start = mask = end = None
    if getattr(config, "is_encoder_decoder", False):
        if "SequenceClassification" in kind:
            end = config.eos_token_id  # where it reads its answer
        elif "QuestionAnswering" not in kind:
            named = getattr(config, "decoder_start_token_id", None)
            start = pad if named is None else int(named)
    elif "MaskedLM" in kind or "PreTraining" in kind:
        named = getattr(tokenizer, "mask_token_id", None)
        mask = named if is_token(named, vocab) else int(torch.randint(vocab, (), generator=generator))
    begin = tokenizer("")["input_ids"][:1] if tokenizer else []
    special = {getattr(tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")} - {None}
    prefix = tuple(token for token in begin if token in special and is_token(token, vocab))
    (longest, after_padding), choices = positions_of(model), "MultipleChoice" in kind
    first = after_padding if "position_ids" in takes and longest < UNLIMITED and not choices else None
    generates = bool(model.can_generate()) and mask is None and signal is None
    read = Reader(vocab, longest, pad, start, mask, prefix, end, choices, signal, first, generates)
    types = {name: int(getattr(config, key, None) or 0) for name, key in TYPES.items() if name in takes}
    rope, windows = getattr(config, "rope_parameters", None) or {}, [getattr(config, key, None) for key in WINDOWS]
    return replace(
        read,
        types={name: count for name, count in types.items() if count},
        window=max([value for value in windows if isinstance(value, int) and value > 0], default=0),
        tabled=longest < UNLIMITED and not rope,
        stretched=any(one.get("rope_type", "default") != "default" for one in (rope, *_nested(rope))),
    )


def is_token(token: Any, vocab: int) -> TypeGuard[int]:
    """Whether it is the id of one of so many tokens."""
    return isinstance(token, int) and 0 <= token < vocab


def settle(model: Any, vocab: int) -> tuple[str, ...]:
    """Give a model tokens to pad, begin and end with that are among the first `vocab`: notes of those that were not.

    What it has none of it pads by 0. A config may name tokens that the vocabulary does not have (-1 in old ones).
    """
    config, notes = model.config, []
    pad = getattr(config, "pad_token_id", None)
    if pad is None or not is_token(pad, vocab):
        config.pad_token_id = 0  # as batches are padded: classifiers find the last token by it
        notes += [] if pad is None else [f"pad_token_id {pad}"]
    ends = {"decoder_start_token_id": config.pad_token_id, "eos_token_id": (config.pad_token_id + 1) % max(1, vocab)}
    for key, instead in ends.items():
        named = getattr(config, key, None)
        if isinstance(named, int) and not is_token(named, vocab):
            setattr(config, key, instead)
            notes.append(f"{key} {named}")
    return (f"{', '.join(notes)}: outside of the {vocab:,} tokens that are fed, another one stands in",) * bool(notes)


def _nested(rope: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings of each type of layer, where types differ."""
    return [one for one in rope.values() if isinstance(one, Mapping)]


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


def positions_of(model: Any) -> tuple[int, int]:
    """(the most positions that a model takes, the first one): a position table may begin with padding (RoBERTa)."""
    keys = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
    named = [getattr(model.config, key, None) for key in keys]
    limits = [value for value in named if isinstance(value, int) and value > 0]
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    tables = [table for table in tables if getattr(table, "padding_idx", None) is not None]
    paddings = [_padding(table) for table in tables]
    limits += [table.num_embeddings - padding - 1 for table, padding in zip(tables, paddings, strict=True)]
    return min(limits, default=UNLIMITED), max((padding + 1 for padding in paddings), default=0)


def _padding(table: Any) -> int:
    """The row of a position table that is padding's; -1 where a config names -1, which torch reads as the last row."""
    padding = int(table.padding_idx)
    return -1 if padding == table.num_embeddings - 1 else padding


def padded(rows: TokenRows, fill: int, left: bool = False) -> torch.Tensor:
    """[rows, the longest row] int64."""
    longest = max(map(len, rows))
    fills = [[fill] * (longest - len(row)) for row in rows]
    full = [[*more, *row] if left else [*row, *more] for row, more in zip(rows, fills, strict=True)]
    return torch.tensor(full, dtype=torch.long)


def real_positions(rows: TokenRows, left: bool = False) -> torch.Tensor:
    """[rows, the longest row] bool: which positions of `padded` are no padding."""
    return padded([[1] * len(row) for row in rows], 0, left).bool()
