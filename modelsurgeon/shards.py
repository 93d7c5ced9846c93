"""Shards: which tensor goes where, and how one shard is written.

A tensor that did not change is copied inside the kernel (reflink where the file system can, else copy_file_range). All
others are computed in blocks of rows, and rows that stand several times are computed once. One thread computes, one
writes; a block waits between them. What was written leaves the page cache soon (`Behind`): the sync at the end finds
little left, and the source stays cached.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import torch

from modelsurgeon.checkpoint import INDEX, SINGLE, Checkpoint
from modelsurgeon.safetensors_file import layout
from modelsurgeon.tensor import DTYPES, Arena, LazyTensor, Remapped, Stored, converted

BLOCK = 8 << 20  # bytes of one block of a new tensor
PIECE = 256 << 10  # bytes of one write: larger ones are slower on many disks
COPIED = 8 << 20  # bytes of one copy inside the kernel
BEHIND = 256 << 20  # bytes that may wait for the disk; with less, pages are asked back before they are clean

Progress = Callable[[int], None]  # called with the bytes written since the last call


def plan_shards(checkpoint: Checkpoint, shard_size: int | None, default: int) -> dict[str, dict[str, LazyTensor]]:
    """{file name: its tensors}, in order. Where nothing grew, and no size is asked for, shards stay as they are."""
    tensors = checkpoint.tensors
    sharded = checkpoint.origin.folder.holds(INDEX)
    if shard_size is None and sharded and all(tensor.nbytes == stored(tensor).nbytes for tensor in tensors.values()):
        return _numbered(_as_stored(tensors))
    if sum(tensor.nbytes for tensor in tensors.values()) <= (shard_size or default):
        return {SINGLE: dict(tensors)}
    return _numbered(_split(tensors, shard_size or default))


def stored(tensor: LazyTensor) -> Stored:
    """The stored tensor that a lazy one begins with."""
    while isinstance(tensor, Remapped):
        tensor = tensor.base
    return tensor


def _as_stored(tensors: Mapping[str, LazyTensor]) -> list[dict[str, LazyTensor]]:
    """The source's shards, and one more for what stands a second time, under a new name."""
    shards: dict[str, dict[str, LazyTensor]] = {}
    again: dict[str, LazyTensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        shard = again if id(stored(tensor)) in seen else shards.setdefault(stored(tensor).file.name, {})
        shard[name] = tensor
        seen.add(id(stored(tensor)))
    return [*shards.values(), *([again] if again else [])]


def _split(tensors: Mapping[str, LazyTensor], size: int) -> list[dict[str, LazyTensor]]:
    """Fill shards in order up to `size` bytes (huggingface_hub's planner; its torch one imports half of torch more)."""
    from huggingface_hub import split_state_dict_into_shards_factory

    planned = split_state_dict_into_shards_factory(
        dict(tensors), get_storage_size=lambda tensor: tensor.nbytes, filename_pattern="{suffix}", max_shard_size=size
    )
    return [{name: tensors[name] for name in names} for names in planned.filename_to_tensors.values()]


def _numbered(shards: list[dict[str, LazyTensor]]) -> dict[str, dict[str, LazyTensor]]:
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def write_shard(
    path: Path, tensors: Mapping[str, LazyTensor], *, device: str = "cpu", progress: Progress | None = None
) -> None:
    """Write one safetensors file, in blocks; it is on the disk when this returns."""
    prefix, starts = layout(tensors)
    with open(path, "xb", buffering=0) as file:
        end = max((starts[name] + tensor.nbytes for name, tensor in tensors.items()), default=len(prefix))
        if end:
            os.posix_fallocate(file.fileno(), 0, end)
        _write_all(file.fileno(), memoryview(prefix), 0)
        behind = Behind(file.fileno())
        with _cores_left(), Writer(file.fileno(), behind, progress) as writer:
            for name in sorted(tensors, key=starts.__getitem__):
                tensor = tensors[name]
                if isinstance(tensor, Stored):
                    copy_bytes(tensor, file.fileno(), starts[name], behind, progress)
                else:
                    _write_remapped(tensor, starts[name], writer, device)
        os.fdatasync(file.fileno())


@contextmanager
def _cores_left() -> Iterator[None]:
    """Compute on two cores fewer: one writes, one hashes the source; torch's threads wait for the slowest of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_remapped(tensor: Remapped, start: int, writer: Writer, device: str) -> None:
    row = tensor.nbytes // tensor.shape[0] if tensor.shape[0] else 1
    for first, last, repeats in tensor.bands(max(1, BLOCK // max(1, row))):
        arena = writer.arena()
        block = converted(tensor.compute(first, last, device, arena), DTYPES[tensor.dtype], arena).cpu().contiguous()
        writer.put(block, [start + row * at for at in (first, *repeats)])


class Writer:
    """A thread that writes blocks at their offsets while the next one is computed."""

    def __init__(self, descriptor: int, behind: Behind, progress: Progress | None) -> None:
        self._descriptor, self._behind, self._progress = descriptor, behind, progress
        self._blocks: queue.Queue[tuple[torch.Tensor, list[int]] | None] = queue.Queue(maxsize=1)
        self._arenas = cycle([Arena(), Arena(), Arena()])  # of a block computed, one that waits, one that is written
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._blocks.put(None)
        self._thread.join()
        if self._error and kind is None:
            raise self._error

    def arena(self) -> Arena:
        """Memory for the next block that is put."""
        return next(self._arenas).reset()

    def put(self, block: torch.Tensor, offsets: list[int]) -> None:
        """Write a contiguous block at each of the offsets (bytes). Raises what went wrong with an earlier one."""
        if self._error:
            raise self._error
        self._blocks.put((block, offsets))

    def _run(self) -> None:
        while (item := self._blocks.get()) is not None:
            if self._error:
                continue
            try:
                self._write(*item)
            except BaseException as error:
                self._error = error

    def _write(self, block: torch.Tensor, offsets: list[int]) -> None:
        view = block.reshape(-1).view(torch.uint8).numpy().data
        for offset in offsets:
            _write_all(self._descriptor, view, offset)
            self._behind.add(offset, len(view))
            if self._progress:
                self._progress(len(view))


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + PIECE], offset + done)


class Behind:
    """What was written and may still wait for the disk.

    The same advice has the disk begin with pages that are new and drops those that are clean: given at once, and again
    when `BEHIND` bytes more were written. New pages then come from the dropped ones, which is what large files gain by.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, offset: int, length: int) -> None:
        """These bytes were just written."""
        pieces = [(offset, length)]
        with self._lock:
            self._pieces.append((offset, length))
            self._bytes += length
            while self._bytes > BEHIND:
                pieces.append(self._pieces.popleft())
                self._bytes -= pieces[-1][1]
        for piece in pieces:
            os.posix_fadvise(self._descriptor, *piece, os.POSIX_FADV_DONTNEED)


def copy_bytes(tensor: Stored, descriptor: int, offset: int, behind: Behind, progress: Progress | None = None) -> None:
    """Copy a tensor's bytes from its file inside the kernel, where the system can."""
    assert tensor.file.path
    with open(tensor.file.path, "rb", buffering=0) as source:
        done = 0
        while done < tensor.nbytes:
            length = min(COPIED, tensor.nbytes - done)
            try:
                copied = os.copy_file_range(source.fileno(), descriptor, length, tensor.start + done, offset + done)
            except OSError:  # across file systems, or one that cannot
                piece = os.pread(source.fileno(), min(length, PIECE), tensor.start + done)
                _write_all(descriptor, memoryview(piece), offset + done)
                copied = len(piece)
            if not copied:
                raise OSError(f"{tensor.file}: ends inside of a tensor")
            behind.add(offset + done, copied)
            done += copied
            if progress:
                progress(copied)
