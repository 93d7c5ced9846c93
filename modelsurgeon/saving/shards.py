"""Shards: which tensor goes where, and how one shard is written.

A file whose tensors all stay as they are is copied whole. In others, unchanged tensors are copied inside the kernel,
and all others are computed piece by piece, in the order of the file; repeated rows are computed once. The bytes of a
shard do not depend on the size of the pieces, nor on threads, workers or device.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.checkpoints.checkpoint import SINGLE, Checkpoint
from modelsurgeon.files.file import File
from modelsurgeon.files.hashes import ALGORITHM
from modelsurgeon.files.safetensors_file import layout
from modelsurgeon.saving.writer import Progress, Writer, unheard
from modelsurgeon.tensors.budget import Budget, plan_memory
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.stored import count_unusual, read_header

MOST_THREADS = 4  # threads that compute for one worker: they are faster than disks, and more of them only wait

Tensors = Mapping[str, LazyTensor]


@dataclass(frozen=True, eq=False)
class Shard:
    """One file: its tensors, by name. What follows from them is computed once."""

    tensors: Tensors

    @cached_property
    def whole(self) -> File | None:
        """The file that holds these tensors, under these names, and nothing else; None where there is none."""
        files = {tensor.verbatim.file if tensor.verbatim else None for tensor in self.tensors.values()}
        file = files.pop() if len(files) == 1 else None
        return file if file and read_header(file) == self.tensors else None

    @cached_property
    def _layout(self) -> tuple[bytes, dict[str, int]]:
        return layout(self.tensors)

    @property
    def header(self) -> bytes:
        """The bytes before the data."""
        return self._layout[0]

    @property
    def starts(self) -> dict[str, int]:
        """{tensor: where its data begins}, in bytes from the file's beginning."""
        return self._layout[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.whole.size if self.whole else len(self.header) + sum(t.nbytes for t in self.tensors.values())


def plan_shards(checkpoint: Checkpoint, shard_size: int | None, default: int) -> dict[str, Shard]:
    """{file name: shard}, each filled in order up to `shard_size` bytes, or up to `default` where it is None.

    Where it is None and nothing grew, the shards of the source stay as they are.
    """
    from huggingface_hub import split_state_dict_into_shards_factory  # its planner for torch imports more of torch

    tensors, size = checkpoint.tensors, shard_size or default
    grown = any(tensor.stored and tensor.nbytes != tensor.stored.nbytes for tensor in tensors.values())
    if shard_size is None and checkpoint.weights and checkpoint.weights.index and not grown:
        return _numbered(_as_stored(tensors))
    if sum(tensor.nbytes for tensor in tensors.values()) <= size:
        return {SINGLE: Shard(dict(tensors))}
    planned = split_state_dict_into_shards_factory(
        dict(tensors), get_storage_size=lambda tensor: tensor.nbytes, filename_pattern="{suffix}", max_shard_size=size
    )
    return _numbered([{name: tensors[name] for name in names} for names in planned.filename_to_tensors.values()])


def _as_stored(tensors: Tensors) -> list[Tensors]:
    """The source's shards, and one more for new tensors and for a second name of a stored one."""
    shards: dict[str, dict[str, LazyTensor]] = {}
    again: dict[str, LazyTensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        stored = tensor.stored
        here = stored is not None and id(stored) not in seen
        shard = shards.setdefault(stored.file.name, {}) if stored and here else again
        shard[name] = tensor
        seen.add(id(stored))
    return [shard for shard in (*shards.values(), again) if shard]


def _numbered(shards: list[Tensors]) -> dict[str, Shard]:
    if len(shards) == 1:
        return {SINGLE: Shard(shards[0])}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": Shard(shard) for i, shard in enumerate(shards, 1)}


@dataclass(frozen=True)
class Writing:
    """How shards are written: the memory, the device that computes, the progress to report to, and what stops it."""

    budget: Budget
    device: str = "cpu"
    progress: Progress = unheard
    stop: threading.Event = field(default_factory=threading.Event)


def write_shard(path: Path, shard: Shard, writing: Writing | None = None) -> dict[str, Any]:
    """Write one safetensors file, replacing what is there; it is on the disk when this returns.

    Returns its size, its hash, and {name: (NaNs, infinities)} of the tensors that hold any.
    """
    writing = writing or Writing(plan_memory(shard.tensors.values()))
    with open(path, "w+b", buffering=0) as file:
        _reserve(file.fileno(), shard.nbytes)
        with Writer(file.fileno(), writing.budget.capacity, writing.progress, writing.stop) as writer:
            if shard.whole:
                stored = [tensor.verbatim for tensor in shard.tensors.values() if tensor.verbatim]
                ordered = sorted(stored, key=lambda tensor: tensor.start)
                writer.copy_file(shard.whole, shard.whole.read(0, ordered[0].start), ordered)
            else:
                _write_tensors(writer, shard, writing.budget.piece, writing.device)
        os.fdatasync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    return {"bytes": size, ALGORITHM: writer.digest, "unusual": unusual(shard.tensors)}


def unusual(tensors: Tensors) -> dict[str, tuple[int, int]]:
    """{name: (NaNs, infinities) of the source} for tensors in which reading found any."""
    sources = {name: tensor.stored for name, tensor in tensors.items() if tensor.stored}
    return {name: count_unusual(source) for name, source in sources.items() if source.unusual}


def _reserve(descriptor: int, size: int) -> None:
    """Allocate the file, so that a full disk fails now, where the file system can."""
    try:
        os.posix_fallocate(descriptor, 0, max(1, size))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    os.ftruncate(descriptor, size)


def _write_tensors(writer: Writer, shard: Shard, most: int, device: str) -> None:
    writer.put_bytes(shard.header)
    for name, start in sorted(shard.starts.items(), key=lambda item: item[1]):
        tensor = shard.tensors[name]
        if tensor.verbatim:
            writer.copy_tensor(tensor.verbatim)
            continue
        row = tensor.nbytes // max(1, tensor.shape[0])
        for piece in tensor.pieces(most):
            if piece.again is None:
                writer.put(tensor.read_piece(piece, device, writer.arena()))
            else:
                writer.repeat(start + row * piece.again, row * (piece.stop - piece.start))


@contextmanager
def cores_left(workers: int) -> Iterator[None]:
    """Leave two cores for writing and hashing, and divide the others among the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(MOST_THREADS, max(1, (threads - 2) // workers)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
