"""Counts the peak memory and the threads of a piece of work."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Counted(TorchDispatchMode):
    """The peak of the bytes in torch's tensors inside this context."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for found in out if isinstance(out, tuple | list) else [out]:
            if isinstance(found, torch.Tensor):
                self._add(found.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.held:
            self.held[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.held.pop(key)


def peak(work: Callable[[], Any]) -> int:
    """The peak of the bytes in tensors, Python objects and numpy arrays."""
    with Counted():
        work()  # the first call loads and caches things
    tracemalloc.start()
    with Counted() as counted:
        work()
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return counted.most + python
