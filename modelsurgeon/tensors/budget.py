"""Memory: how much a run may take, and how large its blocks are then.

Resident are the interpreter with its libraries and the plan, measured when the plan is ready, and the arenas of the
blocks in flight. Nothing else grows with a model, a tensor or a shard.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelsurgeon.errors import PlanError
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.text import show_size

LARGEST, SMALLEST = 8 << 20, 1 << 14  # bytes of a piece of a new tensor; larger ones are not faster
SLACK = 64 << 20  # bytes: stacks of threads, code loaded when first called, memory that the allocator does not return
WORKER = 8 << 20  # bytes of a worker beside its arenas: stacks, and blocks read to be hashed
IN_FLIGHT = 3  # blocks: one is computed, one waits, one is written and hashed


@dataclass(frozen=True)
class Budget:
    """The memory of a run.

    piece     bytes of the largest piece of a new tensor
    capacity  bytes of an arena, of which every worker has three
    peak      bytes resident at most
    """

    piece: int
    capacity: int
    peak: int


def plan_memory(tensors: Iterable[LazyTensor], limit: int | None = None, workers: int = 1, other: int = 0) -> Budget:
    """The largest pieces that keep a run below `limit` bytes. Raises PlanError where the smallest do not.

    limit  None: no limit
    other  bytes for something else, such as what is read ahead from a network
    """
    every = tuple(tensors)
    base = resident() + SLACK + other + sum(tensor.held for tensor in every) + workers * WORKER
    piece = LARGEST
    while True:
        capacity = max((tensor.working_set(piece) for tensor in every), default=0)
        peak = base + workers * IN_FLIGHT * capacity
        if limit is None or peak <= limit:
            return Budget(piece, capacity, peak)
        if piece <= SMALLEST:
            more = "; ask for fewer workers" if workers > 1 else ""
            raise PlanError(f"{_too_little(limit, peak, base)} anything is written{more}")
        piece //= 2


def room(limit: int, least: int) -> int:
    """Bytes of `limit` that are not resident yet. Raises PlanError where they are fewer than `least`."""
    base = resident() + SLACK
    if limit < base + least:
        raise PlanError(f"{_too_little(limit, base + least, base)} anything is read")
    return limit - base


def _too_little(limit: int, peak: int, base: int) -> str:
    return f"memory {show_size(limit)}: this takes {show_size(peak)} at least, {show_size(base)} of it before"


def resident() -> int:
    """Resident bytes of this process, mapped libraries included."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no such file system: the peak so far, in kB but on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()
