"""Which rows of a matrix equal one another, bit by bit, which columns do, and which are zero.

    sketch = Sketch(rows)
    for index, first, block in rows.blocks():
        sketch.add(index, first, block)
    found = sketch.settle()                 # found.rows.first[0] == [0, 1, 0, 3]: row 2 equals row 0

Equal rows agree in any sample of columns, so one hash of few numbers of each row is enough for almost every matrix.
Rows of one hash are then compared with the first of them, number by number. Those that differ are hashed again, whole,
and so on until no two of one hash differ. Nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from modelsurgeon.diagnosis.weights.rows import RowBlocks

SAMPLE = 32  # rows, or columns, that the first hash looks at
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Lines:
    """The rows, or the columns, of a stack of matrices: its lines.

    first  [matrices, n] int64: the first line of the matrix that equals this one, or this one
    zero   [matrices, n] bool: whether the line holds only zeros, of either sign; `first` is then the first such line
    """

    first: np.ndarray
    zero: np.ndarray

    @property
    def repeats(self) -> int:
        """How many lines equal an earlier one, zero ones left out."""
        return int(((self.first != np.arange(self.first.shape[1])) & ~self.zero).sum())

    @property
    def zeros(self) -> int:
        return int(self.zero.sum())


@dataclass(frozen=True, eq=False)
class Equal:
    """Equal rows and columns; `matrices` [1, matrices]: a stack's matrices compared with one another."""

    rows: Lines
    columns: Lines
    matrices: Lines


class Sketch:
    """Hashes of sampled numbers of every row and column, gathered block after block."""

    def __init__(self, rows: RowBlocks) -> None:
        self._rows = rows
        count, height, width = rows.shape
        self._lines, self._line_factors = _sampled(height, 0)
        self._columns, self._column_factors = _sampled(width, 1)
        self._row_hash = torch.zeros(count, height, dtype=torch.int64)
        self._row_zero = torch.ones(count, height, dtype=torch.bool)
        self._column_hash = torch.zeros(count, width, dtype=torch.int64)
        self._column_zero = torch.ones(count, width, dtype=torch.bool)

    def add(self, index: int, first: int, block: torch.Tensor) -> None:
        """Hash a block as `RowBlocks.blocks` gives it; each is to come once."""
        last = first + len(block)
        picked = block.index_select(1, self._columns) if len(self._columns) < block.shape[1] else block
        self._row_hash[index, first:last] = (_bits(picked) * self._column_factors).sum(1)
        self._row_zero[index, first:last] = (picked == 0).all(1)
        some = slice(*torch.searchsorted(self._lines, torch.tensor([first, last])).tolist())
        if some.start < some.stop:
            picked = block.index_select(0, self._lines[some] - first)
            self._column_hash[index] += (_bits(picked) * self._line_factors[some, None]).sum(0)
            self._column_zero[index] &= (picked == 0).all(0)

    def settle(self) -> Equal:
        """Compare the lines whose hashes are equal, which are read again."""
        stack = range(self._rows.shape[0])
        rows = _joined([_settled(_OfRows(self._rows, i), self._row_hash[i], self._row_zero[i]) for i in stack])
        columns = [_settled(_OfColumns(self._rows, i), self._column_hash[i], self._column_zero[i]) for i in stack]
        whole = (self._row_hash * _factors(self._row_hash.shape[1], 2)).sum(1)
        matrices = _settled(_OfMatrices(self._rows), whole, torch.from_numpy(rows.zero.all(1)))
        return Equal(rows, _joined(columns), _joined([matrices]))


def _sampled(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(sampled places, ascending; their factors)."""
    places = np.random.default_rng(seed).choice(size, min(SAMPLE, size), replace=False)
    return torch.from_numpy(np.sort(places)), _factors(len(places), seed)


def _factors(count: int, seed: int) -> torch.Tensor:
    """[count] int64: random odd numbers; a hash is the sum of products with them, modulo 2^64."""
    drawn = np.random.default_rng(abs(seed) * 2 + (seed < 0)).integers(-(1 << 62), 1 << 62, count)
    return torch.from_numpy(2 * drawn + 1)


def _bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(BITS[values.dtype.itemsize]).long()


def _joined(found: list[tuple[np.ndarray, np.ndarray]]) -> Lines:
    return Lines(np.stack([first for first, _ in found]), np.stack([zero for _, zero in found]))


def _settled(
    kind: _OfRows | _OfColumns | _OfMatrices, hashes: torch.Tensor, may_be_zero: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """`Lines.first` and `Lines.zero` of one matrix, by hashes that are equal where the lines are."""
    key, first = hashes.numpy().copy(), np.arange(len(hashes))
    zero = np.zeros(len(key), dtype=bool)
    maybe = np.flatnonzero(may_be_zero.numpy())
    if len(maybe):
        zero[maybe] = kind.zero(maybe)
        first[zero] = np.flatnonzero(zero)[:1].repeat(zero.sum())
    open_, turn = np.flatnonzero(~zero), 0
    while True:
        _, at, inverse = np.unique(key[open_], return_index=True, return_inverse=True)
        leaders = open_[at][inverse]  # the first line of the same hash
        later = leaders != open_
        lines, leaders = open_[later], leaders[later]
        if not len(lines):
            return first, zero
        same = kind.equal(lines, leaders)
        first[lines[same]] = leaders[same]
        open_, turn = lines[~same], turn + 1
        if len(open_):
            key[open_] = kind.hash(open_, turn)


# Each kind of line compares pairs of lines (`equal`), hashes all numbers of a line (`hash`), and says which lines hold
# only zeros (`zero`), for line numbers [k].


@dataclass(frozen=True)
class _OfRows:
    rows: RowBlocks
    index: int

    def equal(self, lines: np.ndarray, others: np.ndarray) -> np.ndarray:
        pairs = zip(self._pieces(lines), self._pieces(others), strict=True)
        return _cat((_bits(a) == _bits(b)).all(1) for a, b in pairs)

    def hash(self, lines: np.ndarray, seed: int) -> np.ndarray:
        factors = _factors(self.rows.shape[2], 2 + seed)
        return _cat((_bits(piece) * factors).sum(1) for piece in self._pieces(lines))

    def zero(self, lines: np.ndarray) -> np.ndarray:
        return _cat((piece == 0).all(1) for piece in self._pieces(lines))

    def _pieces(self, lines: np.ndarray) -> Iterator[torch.Tensor]:
        step = self.rows.step
        return (self.rows.take(self.index, lines[at : at + step]) for at in range(0, len(lines), step))


@dataclass(frozen=True)
class _OfColumns:
    rows: RowBlocks
    index: int

    def equal(self, lines: np.ndarray, others: np.ndarray) -> np.ndarray:
        same, left, right = torch.ones(len(lines), dtype=torch.bool), torch.from_numpy(lines), torch.from_numpy(others)
        for _, _, block in self.rows.blocks(self.index):
            bits = block.view(BITS[block.dtype.itemsize])
            same &= (bits.index_select(1, left) == bits.index_select(1, right)).all(0)
        return same.numpy()

    def hash(self, lines: np.ndarray, seed: int) -> np.ndarray:
        factors, found = _factors(self.rows.shape[1], 2 + seed), torch.zeros(len(lines), dtype=torch.int64)
        for _, first, block in self.rows.blocks(self.index):
            bits = _bits(block.index_select(1, torch.from_numpy(lines)))
            found += (bits * factors[first : first + len(block), None]).sum(0)
        return found.numpy()

    def zero(self, lines: np.ndarray) -> np.ndarray:
        zero = torch.ones(len(lines), dtype=torch.bool)
        for _, _, block in self.rows.blocks(self.index):
            zero &= (block.index_select(1, torch.from_numpy(lines)) == 0).all(0)
        return zero.numpy()


@dataclass(frozen=True)
class _OfMatrices:
    rows: RowBlocks

    def equal(self, lines: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.array([self._are_equal(a, b) for a, b in zip(lines.tolist(), others.tolist(), strict=True)])

    def hash(self, lines: np.ndarray, seed: int) -> np.ndarray:
        heights, widths = _factors(self.rows.shape[1], -seed), _factors(self.rows.shape[2], 2 + seed)
        found = torch.zeros(len(lines), dtype=torch.int64)
        for at, line in enumerate(lines.tolist()):
            for _, first, block in self.rows.blocks(line):
                found[at] += ((_bits(block) * widths).sum(1) * heights[first : first + len(block)]).sum()
        return found.numpy()

    def zero(self, lines: np.ndarray) -> np.ndarray:
        return np.ones(len(lines), dtype=bool)  # asked only of matrices whose rows are all zero

    def _are_equal(self, a: int, b: int) -> bool:
        pairs = zip(self.rows.blocks(a), self.rows.blocks(b), strict=True)
        return all(bool((_bits(left) == _bits(right)).all()) for (_, _, left), (_, _, right) in pairs)


def _cat(parts: Iterator[torch.Tensor]) -> np.ndarray:
    return np.asarray(torch.cat(list(parts)).numpy())
