"""A text for training small models: the installed Python source, in tokens learnt from it.

Files are in the order of the hashes of their names: the first twentieth is kept back, models learn from the others.
Each paragraph is used once, so that none that is kept back is also learnt. The same folders give the same tokens.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

KEPT_BACK = 0.05  # of the files
LEARNT = 50 << 20  # characters that the tokens are learnt from
END = "<end>"  # of a file
FILES = 512  # encoded at a time


@dataclass(frozen=True)
class Data:
    """Rows to learn from and rows kept back, [rows, length + 1] int32, on the device; and facts about them."""

    learnt: torch.Tensor
    kept: torch.Tensor
    vocab: int
    says: dict[str, Any]

    def batches(self, count: int, seed: int) -> Iterator[torch.Tensor]:
        """Batches [count, length + 1], endlessly, each pass in another order."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self.learnt), generator=generator).to(self.learnt.device)
            for at in range(0, len(order) - count + 1, count):
                yield self.learnt[order[at : at + count]].long()


def data(options: argparse.Namespace) -> Data:
    """Read, learn the tokens, encode. Raises SystemExit where the text is too short for one batch."""
    started = time.perf_counter()
    kept, learnt = texts(options.corpus, options.megabytes << 20)
    tokenizer = learn(learnt, options.vocab)
    rows = packed(encoded(tokenizer, learnt), options.length)
    kept_rows = spread(packed(encoded(tokenizer, kept), options.length), options.kept_rows)
    if len(rows) < options.batch or not len(kept_rows):
        raise SystemExit(
            f"{', '.join(map(str, options.corpus))}: too little *.py for {options.batch} rows to learn from"
        )
    says = {
        "folders": [folder.resolve().name for folder in options.corpus],
        "files": len(learnt) + len(kept),
        "characters": sum(map(len, learnt)),
        "tokens": rows[:, 1:].numel(),
        "kept": kept_rows[:, 1:].numel(),
        "seconds": time.perf_counter() - started,
    }
    print(f"text: {says}", file=sys.stderr, flush=True)
    return Data(rows.to(options.device), kept_rows.to(options.device), tokenizer.get_vocab_size(), says)


def texts(folders: Sequence[Path], most: int) -> tuple[list[str], list[str]]:
    """(kept back, to learn from), together `most` bytes: files by the hashes of their names, each paragraph once."""
    paths = {path: path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*.py")}
    files = sorted((path for path in paths if path.is_file()), key=lambda path: blake2b(paths[path].encode()).digest())
    cut = math.ceil(len(files) * KEPT_BACK)
    seen: set[str] = set()
    learnt = [
        unseen(path, seen) for path in first(files[cut:], most * (1 - KEPT_BACK), lambda path: path.stat().st_size)
    ]
    kept = [unseen(path, seen) for path in first(files[:cut], most * KEPT_BACK, lambda path: path.stat().st_size)]
    return kept, learnt


def unseen(path: Path, seen: set[str]) -> str:
    """A file's text without paragraphs of earlier files: much is copied from file to file."""
    found = []
    for paragraph in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        if paragraph not in seen:
            seen.add(paragraph)
            found.append(paragraph)
    return "\n\n".join(found)


def first(items: Sequence[Any], most: float, size: Callable[[Any], int]) -> Iterator[Any]:
    """The first items, as long as their sizes add up to at most `most`."""
    for item in items:
        most -= size(item)
        if most < 0:
            return
        yield item


def learn(parts: Sequence[str], vocab: int) -> Tokenizer:
    """A tokenizer of byte pairs (fewer than `vocab` where the text is short)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(first(parts, LEARNT, len), trainer)
    return tokenizer


def encoded(tokenizer: Tokenizer, parts: Sequence[str]) -> torch.Tensor:
    """[tokens] int32 of all files, each followed by the end token."""
    found = []
    for at in range(0, len(parts), FILES):
        batch = tokenizer.encode_batch_fast([part + END for part in parts[at : at + FILES]])
        found += [torch.tensor(part.ids, dtype=torch.int32) for part in batch]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int32)


def packed(ids: torch.Tensor, length: int) -> torch.Tensor:
    """[rows, length + 1]: a row's labels are its ids, one token on."""
    return ids[: len(ids) // (length + 1) * (length + 1)].view(-1, length + 1)


def spread(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of them, evenly spread."""
    count = min(most, len(rows))
    return rows[torch.arange(count) * len(rows) // max(1, count)]
