"""Faults: what may happen to a run from outside. The same command runs again after each; `stand.py` checks its laws.

A fault is drawn from its kind and its number: `fault_campaign.py --only kill:17` repeats one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from modelsurgeon.checkpoints.checkpoint import INDEX
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.saving import staging
from support.command import contents
from support.disturbed import Ended, SmallDisk, at_call, at_read, no_reserve
from support.stand import (
    OUT,
    PLACE,
    SCENES,
    SOURCE,
    STAGE,
    Scene,
    Stand,
    after_all,
    after_fault,
    build,
    enter_copy,
    finished,
    not_whole,
    nothing,
    of_words,
)

PAGE = 4096
ENOUGH = 256 << 20  # bytes of a disk on which every run ends well

BEFORE, KEPT, STOOD, REFUSED, HARMLESS = (
    "before a shard was finished",
    "with shards finished: reused",
    "after the output stood",
    "refused",
    "harmless",
)

_stand: Stand  # of this process, one of a campaign's


@dataclass(frozen=True)
class Struck:
    """The outcome of a fault.

    what    the fault, in words
    where   where it struck: BEFORE, KEPT, STOOD, REFUSED or HARMLESS
    reused  finished shards that the second run took over
    wrong   the laws that were broken
    """

    kind: str
    number: int
    what: str
    where: str
    reused: int
    wrong: tuple[str, ...]


def campaign(counts: Mapping[str, Sequence[int]], jobs: int = 1) -> Iterator[Struck]:
    """Try the faults of these numbers, {kind: numbers}, in so many processes at once."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stand = build(Path(folder))
        with ProcessPoolExecutor(jobs, get_context("fork"), _begin, (stand,)) as pool:
            pairs = [(kind, number) for kind, numbers in counts.items() for number in numbers]
            yield from pool.map(_tried, *zip(*pairs, strict=True))
        os.chdir("/")


def _begin(stand: Stand) -> None:
    global _stand
    _stand = stand
    enter_copy(stand)


def _tried(kind: str, number: int) -> Struck:
    return KINDS[kind](_stand, number)


@contextmanager
def _place(stand: Stand, scene: Scene, size: int | None = None) -> Iterator[None]:
    """Yield an empty place with the scene's old output, if any; on a disk of this size where one is given."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    if size is not None:
        _mount(f"size={size}", "-t", "tmpfs", "tmpfs")
    try:
        if scene.old:
            shutil.copytree(stand.made(scene.old), OUT)
        yield
    finally:
        if size is not None:
            subprocess.run(["umount", "-l", PLACE], check=True)


# Signals


def kill(stand: Stand, number: int) -> Struck:
    """SIGKILL at a moment; sometimes a byte of a finished shard then changes, as if the disk had lost it."""
    return _signalled(stand, "kill", number, {-signal.SIGKILL, 0})


def interrupt(stand: Stand, number: int) -> Struck:
    """SIGINT or SIGTERM at a moment."""
    codes = {0, 130, 143, -signal.SIGTERM}  # killed by the signal: it came before the program handled it
    return _signalled(stand, "signal", number, codes)


SIGNALS = {"kill": [signal.SIGKILL], "signal": [signal.SIGINT, signal.SIGTERM]}


def moment_of(kind: str, draw: random.Random) -> tuple[str, int, float, bool]:
    """Draw (scene, signal, part of the run, whether that is a part of its time or of its calls).

    Half of the moments are times, half are calls that change the disk; some are near the end.
    """
    name, sent = draw.choice(sorted(SCENES)), draw.choice(SIGNALS[kind])
    part = draw.choice([draw.random(), draw.random(), 0.85 + 0.15 * draw.random()])
    return name, sent, part, draw.random() < 0.5


def _signalled(stand: Stand, kind: str, number: int, codes: set[int]) -> Struck:
    draw = random.Random(f"{kind} {number}")
    name, sent, part, timed = moment_of(kind, draw)
    scene, disturb, strike = SCENES[name], nothing, None
    if timed:
        strike = (part * stand.seconds[scene.command], sent)
        what = f"{name}, signal {sent} after {strike[0]:.3f} s"
    else:
        call, when = 1 + int(part * stand.calls[scene.command]), draw.choice(["before", "amid", "after"])
        what, disturb = f"{name}, signal {sent} {when} call {call}", at_call(call, when, lambda: _send(sent))
    with _place(stand, scene):
        ended = stand.attempt(scene.command, disturb, strike)
        damage = draw if sent == signal.SIGKILL and draw.random() < 0.3 else None
        return Struck(kind, number, what, *_told(stand, scene, ended, codes, damage))


def _send(sent: int) -> None:
    os.kill(os.getpid(), sent)


def _told(
    stand: Stand, scene: Scene, ended: Ended, codes: set[int], damage: random.Random | None = None
) -> tuple[str, int, tuple[str, ...]]:
    """(where it struck, shards reused, broken laws) of a fault that leaves finished shards."""
    wrong, kept = after_fault(stand, scene, ended, codes), finished()
    stood = OUT.exists() and contents(OUT) == stand.outputs[scene.command]
    where = HARMLESS if ended.code == 0 else STOOD if stood else KEPT if kept else BEFORE
    if damage and kept:
        changed = damage.choice(sorted(kept))
        _flip_bits(STAGE / staging.RESULT / changed, [damage.randrange(8 * 1000)])
        del kept[changed]
    reused, more = after_all(stand, scene, kept)
    return where, reused, tuple(wrong + more)


# A full disk


def full(stand: Stand, number: int) -> Struck:
    """A full disk: a small one where one can be mounted; else, and every fourth time, one that counts bytes.

    One in eight keeps the check of free space before the run. Half cannot reserve a shard's room.
    """
    draw = random.Random(f"full {number}")
    name = draw.choice(["widen", "two workers", "untie", "overwrite"])
    scene, looks, reserves = SCENES[name], number % 8 == 0, draw.random() < 0.5
    pages = _pages(stand.made(scene.command)) + 3  # owner, request, list of finished shards
    held = draw.choice([draw.randrange(1, 6), draw.randrange(1, pages), pages - draw.randrange(1, 72)])
    size = PAGE * (held * 9 // 10 + 1 if looks else held)  # begins, anything, what is behind the shards
    counted = number % 4 == 3 or not can_mount()

    def disturb() -> None:
        if not looks:
            staging._check_space = lambda *rest: None
        if counted:
            SmallDisk(size).set_up()
        if not reserves:
            os.posix_fallocate = no_reserve

    old = PAGE * (_pages(stand.made(scene.old)) if scene.old else 0)
    with _place(stand, scene, None if counted else size + old):
        ended = stand.attempt(scene.command, disturb)
        wrong = _not_told_of_space(ended, looks)
        if not counted:
            _mount(f"remount,size={ENOUGH}")
        where, reused, more = _told(stand, scene, ended, {0, 3})
    what = f"{name}, {size} bytes{', counted' * counted}{', not reserved' * (not reserves)}{', looked at' * looks}"
    return Struck("full", number, what, REFUSED if looks else where, reused, (*wrong, *more))


def _not_told_of_space(ended: Ended, looks: bool) -> list[str]:
    """What is wrong with a run's message about a full disk, before or during the write."""
    if looks and not ("needs" in ended.err and "free in" in ended.err and os.listdir(PLACE) in ([], [OUT.name])):
        return [f"it was not told before: {ended.err}, {os.listdir(PLACE)}"]
    return [] if ended.code == 0 or "No space left on device" in ended.err else [f"said {ended.err}"]


def can_mount() -> bool:
    """Whether this machine can mount a small disk."""
    PLACE.mkdir(exist_ok=True)
    try:
        _mount(f"size={PAGE}", "-t", "tmpfs", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        return False
    return not subprocess.run(["umount", "-l", PLACE]).returncode


def _mount(options: str, *more: str) -> None:
    subprocess.run(["mount", "-o", options, *more, PLACE], check=True, capture_output=True)


def _pages(folder: Path) -> int:
    return sum(-(-path.stat().st_size // PAGE) for path in folder.iterdir())


# A source that is broken


def cut(stand: Stand, number: int) -> Struck:
    """A file of the source ends early: before the run, or from one of its reads on."""
    draw = random.Random(f"cut {number}")
    name = draw.choice(["widen", "two workers", "untie"])
    scene, meanwhile = SCENES[name], number % 3 == 0
    path = SOURCE / draw.choice([*_shards() * 3, INDEX, "config.json"])
    path = SOURCE / draw.choice(_shards()) if meanwhile else path
    at = draw.choice(_offsets(path, draw))
    read = 1 + draw.randrange(stand.reads[scene.command])
    what = f"{name}, {path} cut to {at} bytes" + (f" at read {read}" if meanwhile else "")
    with _place(stand, scene):
        with _restored(path):
            if not meanwhile:
                os.truncate(path, at)
            disturb = at_read(read, lambda: os.truncate(path, at)) if meanwhile else nothing
            ended = stand.attempt(scene.command, disturb)
        wrong = after_fault(stand, scene, ended, {0, 2} if meanwhile else {2})
        reused, more = after_all(stand, scene, {})
    return Struck("cut", number, what, REFUSED if ended.code else HARMLESS, reused, tuple(wrong + more))


def _offsets(path: Path, draw: random.Random) -> list[int]:
    """Where a file is cut: in the header's length, in the header, where a tensor begins, inside of one, at the end."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return [0, draw.randrange(size - 2), size - 3]
    header = _header(path)
    entries = json.loads(path.read_bytes()[8:header])
    begins = [header + entry["data_offsets"][0] for key, entry in entries.items() if key != "__metadata__"]
    inside = draw.randrange(header, size)
    return [draw.randrange(8), draw.randrange(8, header), header, draw.choice(begins), inside, size - 1]


def flip(stand: Stand, number: int) -> Struck:
    """Some bits change in what describes the source: a shard's header, the index, the config, the record."""
    draw = random.Random(f"flip {number}")
    name = draw.choice(["widen", "untie"])
    scene, path = SCENES[name], SOURCE / draw.choice([draw.choice(_shards()), INDEX, "config.json", RECORD])
    size = 8 * (_header(path) if path.suffix == ".safetensors" else path.stat().st_size)
    bits = [draw.randrange(size) for _ in range(draw.choice([1, 1, 1, 2, 3, 8]))]
    with _place(stand, scene):
        with _restored(path):
            _flip_bits(path, bits)
            ended = stand.attempt(scene.command)
        if ended.code == 0:
            wrong = not_whole() + of_words(stand, ended, {0})
            shutil.rmtree(OUT)
        else:
            wrong = after_fault(stand, scene, ended, {2})
        reused, more = after_all(stand, scene, {})
    what = f"{name}, bits {bits} of {path}"
    return Struck("flip", number, what, REFUSED if ended.code else HARMLESS, reused, tuple(wrong + more))


def _flip_bits(path: Path, bits: Sequence[int]) -> None:
    data = bytearray(path.read_bytes())
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _shards() -> list[str]:
    return sorted(path.name for path in SOURCE.glob("*.safetensors"))


def _header(path: Path) -> int:
    """The offset of the data."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@contextmanager
def _restored(path: Path) -> Iterator[None]:
    """Restore the file afterwards, with its time."""
    data, found = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.write_bytes(data)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


KINDS: dict[str, Callable[[Stand, int], Struck]] = {
    "kill": kill,
    "signal": interrupt,
    "full": full,
    "cut": cut,
    "flip": flip,
}
