"""One pass over every tensor of a checkpoint, in bounded memory.

    found = scan(open_checkpoint("demo"), memory=10**9)
    found.gains, found.matrices, found.copies, found.numbers, found.fresh

Blocks are counted and hashed while they are in the caches. Norms, and rows that may be equal, need a second look: at
memory where the whole tensor fits, else at the file again. The document is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.diagnosis.weights.equal_coordinates import Coordinates, Copies, is_stack
from modelsurgeon.diagnosis.weights.equal_rows import Equal, Sketch
from modelsurgeon.diagnosis.weights.gains import Gain, gain, places
from modelsurgeon.diagnosis.weights.matrices import Matrix, is_matrix, matrix
from modelsurgeon.diagnosis.weights.numbers import Census, Moments, Numbers
from modelsurgeon.diagnosis.weights.rows import RowBlocks
from modelsurgeon.diagnosis.weights.spectral_norm import Spectral, spectral
from modelsurgeon.progress import Tell, silent
from modelsurgeon.tensors.dtypes import FLOATS
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.text import printable

BESIDE = 48 << 20  # bytes that a thread takes beside the tensor that it keeps: blocks in wider dtypes
LEAST = 2 << 20  # bytes: a tensor of one block stays in memory whatever the limit


@dataclass(frozen=True)
class Scan:
    """What the weights show.

    tensors  {name: counts} of those with NaN, infinite or subnormal numbers, or with some that a 16-bit dtype loses
    fresh    whether nobody trained the model: every gain of a norm is 1, every bias 0, and there are some
    """

    gains: tuple[Gain, ...]
    matrices: tuple[Matrix, ...]
    copies: tuple[Copies, ...]
    numbers: Numbers
    tensors: dict[str, Numbers]
    fresh: bool

    def to_json(self) -> dict[str, Any]:
        """Its part of the diagnosis' document."""
        found: dict[str, Any] = printable(self)
        tensors = [{"tensor": name, **counts} for name, counts in found.pop("tensors").items()]
        return {**found, "numbers": {**found["numbers"], "tensors": tensors}}


@dataclass(frozen=True, eq=False)
class TensorFindings:
    """What one tensor shows alone."""

    name: str
    numbers: Numbers
    moments: Moments
    equal: Equal | None = None
    spectral: Spectral | None = None


def scan(
    checkpoint: Checkpoint,
    memory: int,
    *,
    device: str = "cpu",
    known: Mapping[str, Spectral] = MappingProxyType({}),
    tell: Tell = silent,
) -> Scan:
    """Read every tensor of floating-point numbers, each once where it fits.

    memory  bytes of tensors and blocks that may stay in memory; every thread takes at least some blocks
    device  where spectral norms are computed
    known   {tensor: spectral norm} of those that need not be computed again
    tell    gets bytes
    Raises ArchitectureError for a tensor that no table accounts for, SourceError for one that cannot be read.
    """
    table, where = checkpoint.architecture, places(checkpoint.architecture, checkpoint.tensors)
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if tensor.dtype in FLOATS}
    coordinates, total, done = Coordinates(checkpoint), sum(tensor.nbytes for tensor in tensors.values()), 0
    gains: list[Gain] = []
    matrices: list[Matrix] = []
    counts: dict[str, Numbers] = {}
    for reading in _readings(table, tensors, memory, device, known):
        name, tensor = reading.name, tensors[reading.name]
        counts[name] = reading.numbers
        if reading.equal:
            coordinates.refine(name, reading.equal)
        if reading.equal and reading.spectral:
            matrices.append(matrix(table, name, tensor, reading.moments, reading.equal, reading.spectral))
        found = gain(table, where, name, reading.numbers.count, reading.moments)
        gains += [found] if found else []
        done += tensor.nbytes
        tell("weights", done, total)
    zero = frozenset(name for name, found in counts.items() if found.zero == found.count)
    unusual = {name: found for name, found in counts.items() if not found.is_usual}
    fresh = bool(gains) and all(one.is_fresh for one in gains)
    copies, numbers = coordinates.copies(zero), sum(counts.values(), Numbers())
    return Scan(tuple(gains), tuple(matrices), copies, numbers, unusual, fresh)


def _readings(
    table: Architecture, tensors: dict[str, LazyTensor], memory: int, device: str, known: Mapping[str, Spectral]
) -> Iterator[TensorFindings]:
    """The findings of every tensor, in order; at most one tensor for each thread is in memory."""
    threads = _threads(table, tensors, memory)
    if device != "cpu":  # torch loads libraries at the first call, which several threads at once cannot
        torch.linalg.qr(torch.ones(1, 1, device=device))
        torch.linalg.eigh(torch.ones(1, 1, device=device))
    capacity = max(LEAST, memory // threads - BESIDE)

    def read(name: str) -> TensorFindings:
        return _read(table, name, tensors[name], capacity, device, known.get(name))

    if threads == 1:
        yield from map(read, tensors)
        return
    torch_threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, "scan") as pool:
        torch.set_num_threads(1)  # of each thread of the pool
        pending: deque[Future[TensorFindings]] = deque()
        try:
            for name in tensors:
                pending.append(pool.submit(read, name))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(torch_threads)


def _threads(table: Architecture, tensors: dict[str, LazyTensor], memory: int) -> int:
    """Torch's number if each thread can hold any tensor of a layer; else two, if there is room."""
    in_layers = [tensor for name, tensor in tensors.items() if (line := table.template(name)) and line.placeholders]
    largest = max((tensor.nbytes for tensor in in_layers), default=0)
    fitting = max(min(2, memory // BESIDE), memory // (BESIDE + largest))
    return max(1, min(torch.get_num_threads(), fitting))


def _read(
    table: Architecture, name: str, tensor: LazyTensor, capacity: int, device: str, known: Spectral | None
) -> TensorFindings:
    census, template = Census(tensor.dtype), table.template(name)
    if not tensor.shape or 0 in tensor.shape:
        if not tensor.shape:
            census.add(tensor.read(0, 1))
        return TensorFindings(name, census.numbers, census.moments)
    rows = RowBlocks(tensor, capacity, template is not None and is_stack(table, template))
    sketch = Sketch(rows) if template else None
    for index, first, block in rows.blocks():
        census.add(block)
        if sketch:
            sketch.add(index, first, block)
    equal = sketch.settle() if sketch else None
    norm = (known or spectral(rows, device)) if template and is_matrix(template) else None
    return TensorFindings(name, census.numbers, census.moments, equal, norm)
