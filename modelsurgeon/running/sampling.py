"""Inputs that feed every row that a model can look up, and reach beyond its windows, as far as a budget goes.

Without a proof, an error is seen only where something runs into it: one embedding row of 32,000 that is wrong shows
where its token is read. So all token ids are read, in short rows, where one of them weighs much. The rows are laid
over all positions that a table holds, with token types mixed. One long row reaches beyond the widest window of
attention, and to the end of a position table that cannot be read in parts.

Of the logits of these many rows COLUMNS are compared; the usual inputs compare all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from modelsurgeon.running.reader import UNLIMITED, Batch, Reader, TokenRows
from modelsurgeon.running.reference import home, is_offloaded

# FLOPs of the short rows, and of the long one, for each model. A forward pass takes 2 a parameter and position. Two
# cores of a CPU do 1e13 in two to five minutes, and then most other numbers of `verify` wait for it, too. That is
# 50,000 positions of a model of 1e8 parameters, and 700 of one of 7e9.
BUDGET = 1e13
ON_GPU = 50  # times as many on a GPU, which takes less time for them
# Bytes of the attention scores of one layer for the long row, or as many as the weights have, if that is more: eager
# attention holds about three times as many at once.
SCORES = 2**30
# Positions of the long row: a model of 7e9 parameters reads as many in minutes on a CPU, and its logits take 1 GB.
# What lies beyond is reached by rows that are shifted to the last positions.
LONG = 2048
ROW = 16  # tokens of a short row
AT_ONCE = 4096  # positions of short rows in a forward pass; fewer where their logits would exceed
LOGITS = 2**26  # numbers, 256 MB
COLUMNS = 256  # of a large vocabulary's logits, that are compared: a wrong row that is read moves all of them


@dataclass(frozen=True)
class Budget:
    """What one model may be run on.

    positions  of the short rows together, and of the long row
    longest    positions of a row whose attention scores fit in memory
    passes     forward passes over short rows; one where weights are read from the disk each time
    """

    positions: int
    longest: int
    passes: float = math.inf


def budget_of(model: Any) -> Budget:
    """By the model's size, heads and device."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flops = BUDGET * (1 if home(model).type == "cpu" else ON_GPU)
    heads, float32 = getattr(model.config, "num_attention_heads", None), 4  # bytes
    scores = max(SCORES, float32 * parameters) / float32 / (heads if isinstance(heads, int) and heads > 0 else 16)
    return Budget(
        int(flops / (2 * max(1, parameters))), math.isqrt(int(scores)), 1 if is_offloaded(model) else math.inf
    )


def every_row(model: Any, reader: Reader, generator: torch.Generator) -> tuple[list[Batch], tuple[str, ...]]:
    """(all token ids, at all positions of a table, with all token types; notes of what the budget leaves out)."""
    budget, spare = budget_of(model), _spare(model, reader)
    length = max(
        1, min(reader.longest - spare, reader.vocab if reader.signal else ROW)
    )  # a sound for each row: few rows
    rows, positions = -(-reader.vocab // length), _positions(reader)
    wanted = max(rows, -(-positions // length))
    at_once = max(1, min(AT_ONCE, LOGITS // reader.vocab) // length)
    allowed = min(budget.positions // _cost(model, reader, length), budget.passes * at_once)
    count = int(max(1, min(wanted, allowed)))
    batches = [
        _short(reader, generator, range(at, min(count, at + at_once)), (length, spare), (read, written))
        for read, written in [[torch.randperm(reader.vocab, generator=generator) for _ in range(2)]]
        for at in range(0, count, at_once)
    ]
    left_out = [f"{count * length:,} of {reader.vocab:,} token ids"] if count < rows else []
    left_out += [f"{count * length:,} of {positions:,} position rows"] if count * length < positions else []
    reason = f"more would exceed {BUDGET:.0e} floating-point operations"
    return batches, (f"fed: {', '.join(left_out)}; {reason}",) * bool(left_out)


def long_row(model: Any, reader: Reader, generator: torch.Generator) -> tuple[list[Batch], tuple[str, ...]]:
    """(a row beyond the window, or to the end of a table that is read from its beginning; notes of what is left out).

    An encoder-decoder gets so many positions on both sides.
    """
    budget, usual = budget_of(model), min(reader.longest, LONG // (1 if reader.start is None else 2))
    beyond = reader.window + max(64, reader.window // 16) if reader.window else 0
    whole = reader.longest if reader.tabled and reader.first is None else 0
    wanted = max(usual, min(reader.longest, max(beyond, whole)))
    size = max(usual, min(wanted, budget.positions, budget.longest))
    rows = [torch.randint(reader.vocab, (1, size), generator=generator).tolist() for _ in range(2)]
    notes = []
    if reader.window >= size and reader.window < reader.longest:
        notes.append(f"attention's window of {reader.window:,} is not reached: the longest row has {size:,} tokens")
    elif reader.longest == UNLIMITED:
        notes.append(f"long context: {size:,} tokens; config.json does not say how many the model was trained on")
    elif size < reader.longest:
        notes.append(f"long context: {size:,} tokens of the {reader.longest:,} that the model takes")
    return [_batch(reader, generator, f"long row, length {size}", (rows[0], rows[1]))], tuple(notes)


def _positions(reader: Reader) -> int:
    """Rows of a position table that can be read in any order, those before the first token's among them; else 0."""
    return reader.first + reader.longest if reader.tabled and reader.first is not None else 0


def _spare(model: Any, reader: Reader) -> int:
    """Tokens at the end of a row that are read by one side alone, where a model makes its decoder's row itself."""
    return int(bool(getattr(model.config, "is_encoder_decoder", False)) and reader.start is None)


def _cost(model: Any, reader: Reader, length: int) -> int:
    """Positions that are computed for a row of tokens: of both sides, and of what a model hears."""
    heard = getattr(model.config, "max_source_positions", 0) if reader.signal else length * (reader.start is not None)
    return length + int(heard or 0)


def _short(
    reader: Reader,
    generator: torch.Generator,
    numbers: range,
    lengths: tuple[int, int],
    orders: tuple[torch.Tensor, torch.Tensor],
) -> Batch:
    """The short rows of these numbers: each goes on in the order of tokens where the one before it ends.

    lengths  tokens of a row, and of what comes after them in vain
    """
    length, spare = lengths
    places = torch.tensor(numbers).unsqueeze(1) * length + torch.arange(length)
    read, written = ([[*row, *row[:spare]] for row in order[places % reader.vocab].tolist()] for order in orders)
    batch = _batch(reader, generator, f"token ids in rows of {length}", (read, written))
    more = dict(_types(reader, generator, batch))
    if positions := _positions(reader):
        blocks = -(-positions // length)
        starts = torch.tensor([min(number % blocks * length, positions - length) for number in numbers])
        more["position_ids"] = starts.unsqueeze(1) + torch.arange(length)
    columns = None
    if reader.vocab > COLUMNS:
        columns = torch.arange(COLUMNS) * reader.vocab // COLUMNS
    return replace(batch, arguments={**batch.arguments, **more}, columns=columns)


def _batch(reader: Reader, generator: torch.Generator, inputs: str, rows: tuple[TokenRows, TokenRows]) -> Batch:
    """Rows of one length; an encoder-decoder reads the first ones whole, and writes the others."""
    if reader.start is None:
        return reader.batch(inputs, rows[0], generator)
    return reader.sides(inputs, [[] for _ in rows[0]] if reader.signal else rows[0], rows[1], generator)


def _types(reader: Reader, generator: torch.Generator, batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    """(argument, random types), each type at least once."""
    for name, count in reader.types.items():
        if reader.choices and name != "token_type_ids":  # the library does not flatten others along with the choices
            continue
        shape = batch.arguments["input_ids"].shape
        types = torch.randint(count, (math.prod(shape),), generator=generator)
        types[:count] = torch.arange(count)[: len(types)]
        yield name, types.reshape(shape)
