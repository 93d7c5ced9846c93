"""One file, written front to back: blocks, bytes of other files, and bytes that it has already.

Three threads share the work: the caller computes a block, one thread writes it, one hashes it. A block's memory comes
from an arena; there are as many as blocks in flight, and each is reused once both threads are done with it. Bytes of
another file are copied inside the kernel (reflink where the file system can, else copy_file_range) and read only to be
hashed. The hash is of the bytes that were to be written: reading the file again shows whether they were.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

import torch
from blake3 import blake3

from modelsurgeon.files.file import File
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.budget import IN_FLIGHT
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.stored import Stored

PIECE = 256 << 10  # bytes of one write: larger ones are slower on many disks
COPIED = 64 << 20  # bytes of one copy inside the kernel: a multiple of every file system's block, so extents are shared
READ = 1 << 20  # bytes read at a time to be hashed, or to be written again
BEHIND = 256 << 20  # bytes that may wait for the disk; with fewer, pages are dropped before they are clean
CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY}
MOST_COPIES = 64  # copies that may wait: they need no memory, but their errors should be raised soon

Progress = Callable[[int], None]  # called with the bytes written since the last call


def unheard(nbytes: int) -> None:
    """Ignore the progress."""


class StoppedError(Exception):
    """Another part of the run failed, or it was interrupted; that error is reported, not this one."""


class Writer:
    """Writes an open file from its beginning; leaving `with` waits until all is written.

    capacity  bytes that the blocks of one arena take
    stop      once it is set, nothing more is written
    """

    def __init__(self, descriptor: int, capacity: int, progress: Progress, stop: threading.Event) -> None:
        self._descriptor, self._progress, self._stop = descriptor, progress, stop
        self._behind, self._part = Behind(descriptor), max(capacity, READ)
        self._hash: Any = blake3()
        self._at, self._written = 0, 0
        self._writes, self._hashes = ThreadPoolExecutor(1, "write"), ThreadPoolExecutor(1, "hash")
        self._arenas = cycle([(Arena(capacity), deque[Future[Any]]()) for _ in range(IN_FLIGHT)])
        self._pending, self._copies = deque[Future[Any]](), deque[Future[Any]]()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind:
            self._stop.set()
        for thread in (self._writes, self._hashes):
            thread.shutdown(cancel_futures=kind is not None)
        if not kind:
            _wait(self._copies)
            for _ in range(IN_FLIGHT):
                self.arena()

    @property
    def digest(self) -> str:
        """The hash of all bytes, once they are written."""
        return str(self._hash.hexdigest())

    def arena(self) -> Arena:
        """Memory for the next block. Raises the error of the block that used it before."""
        arena, self._pending = next(self._arenas)
        _wait(self._pending)
        return arena.reset()

    def put(self, block: torch.Tensor) -> None:
        """Append a contiguous block, in memory of the last `arena`."""
        view = block.reshape(-1).view(torch.uint8).numpy().data
        self._pending.append(self._writes.submit(self._write, view, self._at))
        self._pending.append(self._hashes.submit(self._hash.update, view))
        self._at += len(view)

    def repeat(self, at: int, length: int) -> None:
        """Append bytes that the file has already at this position."""
        if self._written < at + length:
            self._writes.submit(lambda: None).result()  # runs after all that wait
        for start in range(at, at + length, self._part):
            block = self.arena()((min(self._part, at + length - start),), torch.uint8)
            _read_all(self._descriptor, block.numpy().data, start)
            self.put(block)

    def put_bytes(self, data: bytes) -> None:
        """Append bytes."""
        self._keep(self._writes.submit(self._write, memoryview(data), self._at))
        self._keep(self._hashes.submit(self._hash.update, data))
        self._at += len(data)

    def copy_tensor(self, tensor: Stored) -> None:
        """Append the bytes of a stored tensor."""
        self._keep(self._writes.submit(self._copy, tensor.file, tensor.start, tensor.nbytes, self._at))
        self._keep(self._hashes.submit(self._hash_tensor, tensor))
        self._at += tensor.nbytes

    def copy_file(self, file: File, prefix: bytes, tensors: list[Stored]) -> None:
        """Append a whole file: its header and, in their order, its tensors."""
        self._keep(self._writes.submit(self._copy, file, 0, file.size, self._at))
        self._keep(self._hashes.submit(self._hash.update, prefix))
        for tensor in tensors:
            self._keep(self._hashes.submit(self._hash_tensor, tensor))
        self._at += file.size

    def _keep(self, future: Future[Any]) -> None:
        self._copies.append(future)
        if len(self._copies) > MOST_COPIES:
            self._copies.popleft().result()

    def _hash_tensor(self, tensor: Stored) -> None:
        item = DTYPES[tensor.dtype].itemsize
        flat = Stored(tensor.file, tensor.dtype, (tensor.nbytes // item,), tensor.start)
        step, arena = READ // item, Arena(READ)
        for at in range(0, flat.shape[0], step):
            self._check_stop()
            block = flat.read(at, min(at + step, flat.shape[0]), arena.reset())
            self._hash.update(block.view(torch.uint8).numpy().data)

    def _write(self, view: memoryview, at: int) -> None:
        done = 0
        while done < len(view):
            self._check_stop()
            done += self._wrote(at + done, os.pwrite(self._descriptor, view[done : done + PIECE], at + done))

    def _copy(self, file: File, start: int, length: int, at: int) -> None:
        done = 0
        while done < length:
            self._check_stop()
            copied = copy_in_kernel(file, self._descriptor, start + done, at + done, min(COPIED, length - done))
            if not copied:
                piece = file.read(start + done, min(PIECE, length - done))
                copied = os.pwrite(self._descriptor, piece, at + done)
            done += self._wrote(at + done, copied)

    def _wrote(self, at: int, length: int) -> int:
        self._behind.add(at, length)
        self._written = at + length
        self._progress(length)
        return length

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError


class Behind:
    """Bytes that were written and may still wait for the disk.

    One advice to the kernel starts writing new pages and drops clean ones. Each byte is advised at once, and again
    after `BEHIND` further bytes. New pages then reuse the dropped ones, which makes large files faster.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def add(self, offset: int, length: int) -> None:
        """Note bytes that were just written."""
        pieces = [(offset, length)]
        self._pieces.append((offset, length))
        self._bytes += length
        while self._bytes > BEHIND:
            pieces.append(self._pieces.popleft())
            self._bytes -= pieces[-1][1]
        for piece in pieces:
            os.posix_fadvise(self._descriptor, *piece, os.POSIX_FADV_DONTNEED)


def copy_in_kernel(file: File, descriptor: int, start: int, at: int, length: int) -> int:
    """How many bytes the kernel copied from file to file; 0 where it cannot, so that they must be read and written."""
    if file.path is None:
        return 0
    with open(file.path, "rb", buffering=0) as source:
        try:
            return os.copy_file_range(source.fileno(), descriptor, length, start, at)
        except OSError as error:
            if error.errno in CANNOT:
                return 0
            raise


def _read_all(descriptor: int, view: memoryview, at: int) -> None:
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:]], at + done)
        if not got:
            raise OSError(f"ends at byte {at + done}, though more was written")
        done += got


def _wait(pending: deque[Future[Any]]) -> None:
    while pending:
        pending.popleft().result()
