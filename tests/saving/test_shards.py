"""One shard, from lazy tensors to bytes: as the safetensors library would write it, whatever the size of the blocks."""

from __future__ import annotations

import errno
import itertools
import math
import os
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps.axis_map import GAP, MEAN
from modelsurgeon.maps.dimension import along, concatenation, product, ungrown
from modelsurgeon.maps.orders import copies, gathered, power_of_two_shares
from modelsurgeon.saving import writer
from modelsurgeon.saving.shards import Shard, Writing, cores_left, write_shard
from modelsurgeon.tensors import arithmetic, budget, means
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.arithmetic import holds_tiny
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import read_header

ROWS, COLUMNS = 12, 10
FORMAT = {"format": "pt"}
TOO_SMALL = 1  # bytes of a block: less than a row
A_FEW_ROWS = 7 * COLUMNS * 4  # bytes of a block: does not divide the tile
AMPLE = 8 << 20


@pytest.fixture(params=[TOO_SMALL, A_FEW_ROWS, AMPLE], ids=["blocks-of-a-row", "blocks-of-some-rows", "one-block"])
def block_size(request, monkeypatch):
    monkeypatch.setattr(budget, "LARGEST", request.param)


def stored(folder, tensors):
    """{name: Stored} of these tensors, saved by the library."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "source.safetensors", FORMAT)
    return read_header(LocalFile(folder / "source.safetensors"))


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def tiny_numbers():
    """[ROWS, COLUMNS] fp16: the smallest subnormals of both signs and zero, with normal numbers between them."""
    numbers = torch.arange(ROWS * COLUMNS, dtype=torch.int16).view(torch.float16)
    numbers[::7] = random(len(numbers[::7]), dtype=torch.float16)
    numbers[::2] *= -1
    return numbers.view(ROWS, COLUMNS)


def tiled(base, count, axes=(0, 1), side="readers", dtype=None):
    """The tensor with dimensions of `axes` tiled `count` times, shared exactly ("readers") or repeated ("writers")."""
    dimensions = tuple(
        along(copies(size, count, 1.0, power_of_two_shares(count)), side) if axis in axes else ungrown(size)
        for axis, size in enumerate(base.shape)
    )
    return Remapped(base, dimensions, dtype or base.dtype)


def written(folder, tensors):
    write_shard(folder / "new.safetensors", Shard(tensors))
    return load_file(folder / "new.safetensors")


def folded(new, count, axis):
    """The sum of the copies, in float64."""
    return torch.stack(new.double().chunk(count, axis)).sum(0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_shard_holds_what_its_tensors_read(tmp_path, block_size, dtype):
    source = stored(tmp_path, {"matrix": random(ROWS, COLUMNS, dtype=dtype), "vector": random(ROWS, dtype=dtype)})
    tensors = {
        "tiled": tiled(source["matrix"], 2),
        "unchanged": source["matrix"],
        "vector": tiled(source["vector"], 3),
        "twice tiled": tiled(tiled(source["matrix"], 2), 3, axes=(0,), side="writers"),
        "rounded": Remapped(source["matrix"], (ungrown(ROWS), ungrown(COLUMNS)), "BF16", constant=0.3),
    }
    found = written(tmp_path, tensors)
    assert sorted(found) == sorted(tensors)
    for name, lazy in tensors.items():
        assert torch.equal(found[name], lazy.read(0, lazy.shape[0])), name


def test_a_shard_is_laid_out_byte_for_byte_as_the_library_does(tmp_path):
    tensors = {
        "z": random(3, 5),
        "ä": random(4, dtype=torch.bfloat16),
        "half": random(3, dtype=torch.float16),
        "a float of 4 bytes": random(3),
        "an integer of 4 bytes": torch.arange(5, dtype=torch.int32),
        "integers": torch.arange(3),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "double": random(1, dtype=torch.float64),
        "mask": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        'quoted "name"': random(2),
    }
    write_shard(tmp_path / "new.safetensors", Shard(stored(tmp_path, tensors)))
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "source.safetensors").read_bytes()


def test_a_shard_of_grown_tensors_is_what_the_library_saves_of_them(tmp_path, block_size):
    source = stored(tmp_path, {"b": random(ROWS, COLUMNS, dtype=torch.bfloat16), "a": random(COLUMNS)})
    tensors = {name: tiled(base, 2) for name, base in source.items()}
    write_shard(tmp_path / "new.safetensors", Shard(tensors))
    save_file({n: t.read(0, t.shape[0]) for n, t in tensors.items()}, tmp_path / "expected.safetensors", FORMAT)
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def tailed(size, count, what):
    """Whole tiles, and behind them three means or gaps."""
    source = np.r_[np.tile(np.arange(size), count), np.full(3, what)]
    return gathered(size, source, np.ones(len(source)), np.full(len(source), 1 / count), 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=["rows", "columns", "both"])
def test_means_are_written_whatever_the_size_of_the_blocks(tmp_path, block_size, monkeypatch, axes, dtype):
    monkeypatch.setattr(means, "MEAN_BLOCK", 3 * COLUMNS)
    old = random(ROWS, COLUMNS, dtype=dtype)
    dimensions = tuple(
        along(tailed(size, 2, MEAN), "writers") if axis in axes else ungrown(size)
        for axis, size in enumerate(old.shape)
    )
    base = stored(tmp_path, {"a": old})["a"]
    found = written(tmp_path, {"a": Remapped(base, dimensions, base.dtype)})["a"].double()
    wanted = old.double()
    for axis in axes:
        tail = wanted.mean(axis, keepdim=True).repeat_interleave(3, axis)
        wanted = torch.cat([wanted, wanted, tail], axis)
    # a sum of twelve numbers in a wider dtype (float64 has none), rounded once; a mean of means twice
    torch.testing.assert_close(found, wanted, rtol=torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)
    assert torch.equal(found[:ROWS, :COLUMNS], old.double())


@pytest.mark.parametrize("fill", [0.0, 7.0])
def test_gaps_inside_of_a_fused_matrix_are_written(tmp_path, block_size, fill):
    old = random(3 * ROWS, COLUMNS)
    part = along(tailed(ROWS, 1, GAP), "writers")
    base = stored(tmp_path, {"a": old})["a"]
    fused = Remapped(base, (concatenation([part] * 3), ungrown(COLUMNS)), "F32", fill=fill)
    gaps = torch.full((3, COLUMNS), fill)
    assert torch.equal(
        written(tmp_path, {"a": fused})["a"], torch.cat([piece for rows in old.chunk(3) for piece in (rows, gaps)])
    )


def test_interleaved_columns_are_written(tmp_path, block_size):
    old = random(ROWS, 2 * COLUMNS)
    pairs = product([along(copies(COLUMNS, 2, 1.0, (0.5, 0.5)), "writers"), ungrown(2)])
    base = stored(tmp_path, {"a": old})["a"]
    assert torch.equal(written(tmp_path, {"a": Remapped(base, (ungrown(ROWS), pairs), "F32")})["a"], old.repeat(1, 2))


def test_rows_that_stand_several_times_are_written_each_time(tmp_path, block_size):
    old = random(ROWS, COLUMNS)
    source = stored(tmp_path, {"a": old})["a"]
    found = written(tmp_path, {"a": tiled(source, 3, axes=(0,), side="writers")})["a"]
    assert torch.equal(found, old.repeat(3, 1))


def test_rows_that_stand_several_times_are_computed_once(tmp_path, monkeypatch):
    computed = []
    compute = Remapped.compute_piece
    monkeypatch.setattr(
        Remapped, "compute_piece", lambda self, *a: computed.append(a[0].stop - a[0].start) or compute(self, *a)
    )
    source = stored(tmp_path, {"a": random(ROWS, COLUMNS)})["a"]
    written(tmp_path, {"a": tiled(source, 3, axes=(0,), side="writers")})
    assert sum(computed) == ROWS


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_copies_of_the_smallest_numbers_sum_to_the_old_ones(tmp_path, block_size, count, axis):
    old = tiny_numbers()
    source = stored(tmp_path, {"a": old})["a"]
    found = written(tmp_path, {"a": tiled(source, count, axes=(axis,))})["a"]
    assert found.dtype == torch.float16
    assert torch.equal(folded(found, count, axis), old.double())


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_without_the_rest_given_to_the_lead_the_smallest_numbers_would_not_sum(tmp_path, monkeypatch, axis):
    monkeypatch.setattr(arithmetic, "holds_tiny", lambda *_: False)
    source = stored(tmp_path, {"a": tiny_numbers()})["a"]
    found = written(tmp_path, {"a": tiled(source, 3, axes=(axis,))})["a"]
    assert not torch.equal(folded(found, 3, axis), tiny_numbers().double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [0.5, 0.25, 0.125])
def test_a_number_is_tiny_exactly_where_its_part_is_below_the_normal_ones(dtype, factor):
    every = torch.arange(-(1 << 15), 1 << 15, 13).to(torch.int16).view(dtype)
    limit = torch.finfo(dtype).smallest_normal
    expected = ((every.double() * factor).abs() < limit) & (every != 0)
    found = torch.tensor([holds_tiny(number, factor) for number in every.view(-1, 1)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("number", "tiny"), [(0.0, False), (-0.0, False), (1.0, False), (2.0, False), (1.5, True)])
def test_one_tiny_number_among_others_is_found(dtype, number, tiny):
    smallest = torch.finfo(dtype).smallest_normal
    block = random(30, 7, dtype=dtype).clamp(min=0.01)
    for sign in (1, -1):
        block[17, 3] = sign * number * (smallest if tiny or number == 2.0 else 1)
        assert holds_tiny(block, 0.5) == tiny


@pytest.mark.parametrize("kernel_copies", [True, False], ids=["inside-the-kernel", "where-the-kernel-cannot"])
def test_an_unchanged_tensor_is_copied_byte_for_byte(tmp_path, monkeypatch, kernel_copies):
    def refuse(*_):
        raise OSError(errno.EXDEV, "across file systems")

    if not kernel_copies:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(writer, "COPIED", 1000)
    every = torch.from_numpy(np.arange(1 << 16).astype(np.uint16).view(np.int16)).view(torch.bfloat16)  # every NaN too
    found = written(tmp_path, stored(tmp_path, {"a": every}))["a"]
    assert torch.equal(found.view(torch.int16), every.view(torch.int16))


def slow_disk(monkeypatch):
    """Nothing is written before the next block has been computed, where there is one that need not wait for it."""
    computed, changed = [0], threading.Condition()

    def telling(method):
        def call(self, *arguments):
            with changed:
                computed[0] = max(computed[0], self._at + (method is leave))  # behind all that waits to be written
                changed.notify_all()
            return method(self, *arguments)

        return call

    def slow(self, view, at):
        with changed:
            if not changed.wait_for(lambda: computed[0] > at, timeout=10):
                computed[0] = math.inf  # the next block waits for this one: so may the test, but once
        write(self, view, at)

    write, leave = writer.Writer._write, writer.Writer.__exit__
    monkeypatch.setattr(writer.Writer, "_write", slow)
    for name in ("put", "repeat", "__exit__"):
        monkeypatch.setattr(writer.Writer, name, telling(getattr(writer.Writer, name)))


def test_a_block_is_not_overwritten_before_a_slow_disk_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "LARGEST", TOO_SMALL)
    slow_disk(monkeypatch)
    old = random(ROWS, COLUMNS)
    found = written(tmp_path, {"a": tiled(stored(tmp_path, {"a": old})["a"], 2, side="writers")})["a"]
    assert torch.equal(found, old.repeat(2, 2))


def test_with_memory_for_one_block_a_slow_disk_would_get_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "LARGEST", TOO_SMALL)
    monkeypatch.setattr(writer, "_wait", lambda pending: None)
    monkeypatch.setattr(writer, "cycle", lambda arenas: itertools.cycle(arenas[:1]))
    slow_disk(monkeypatch)
    old = random(ROWS, COLUMNS)
    found = written(tmp_path, {"a": tiled(stored(tmp_path, {"a": old})["a"], 2, side="writers")})["a"]
    assert not torch.equal(found, old.repeat(2, 2))


def test_an_arena_gives_the_same_bytes_after_each_reset():
    arena = Arena(1000)
    first, second = arena((4, 3), torch.float32), arena((2,), torch.bfloat16)
    assert first.shape == (4, 3) and second.dtype == torch.bfloat16
    assert second.data_ptr() - first.data_ptr() == 64  # aligned, and apart
    assert arena.reset()((5,), torch.int64).data_ptr() == first.data_ptr()


def test_what_an_arena_does_not_hold_is_memory_of_its_own():
    arena = Arena(1000)
    first, second = arena((200,), torch.float32), arena((200,), torch.float32)
    first.fill_(1), second.fill_(2)
    assert first.sum() == 200 and second.sum() == 400


@pytest.mark.parametrize("rows_until_full", [0, 1, 5])
def test_a_full_disk_is_raised_from_the_thread_that_writes(tmp_path, monkeypatch, rows_until_full):
    pwrite, blocks = os.pwrite, itertools.count()

    def full(descriptor, piece, offset):
        if offset and next(blocks) >= rows_until_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, piece, offset)

    source = stored(tmp_path, {"a": random(ROWS, COLUMNS)})["a"]
    monkeypatch.setattr(budget, "LARGEST", TOO_SMALL)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_shard(tmp_path / "new.safetensors", Shard({"a": tiled(source, 2)}))
    assert raised.value.errno == errno.ENOSPC


def test_what_goes_wrong_in_computing_is_raised_and_the_thread_ends(tmp_path):
    source = stored(tmp_path, {"a": random(ROWS, COLUMNS)})["a"]
    os.truncate(source.file.path, source.start + 4 * COLUMNS)
    with pytest.raises(Exception, match="ends at byte"):
        write_shard(tmp_path / "new.safetensors", Shard({"a": tiled(source, 2)}))


def test_progress_adds_up_to_the_bytes_of_the_file(tmp_path, block_size):
    source = stored(tmp_path, {"a": random(ROWS, COLUMNS), "b": random(COLUMNS)})
    tensors = {"a": tiled(source["a"], 3), "b": source["b"]}
    done = []
    write_shard(
        tmp_path / "new.safetensors",
        Shard(tensors),
        Writing(budget.plan_memory(tensors.values()), progress=done.append),
    )
    assert sum(done) == (tmp_path / "new.safetensors").stat().st_size


def test_torch_computes_on_as_many_threads_after_the_shards_as_before():
    before = torch.get_num_threads()
    try:
        for threads, left in ((1, 1), (10, 2)):  # two of them write and hash, the rest are four workers'
            torch.set_num_threads(threads)
            with cores_left(4):
                assert torch.get_num_threads() == left
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_what_was_written_is_sent_to_the_disk_at_once_and_leaves_the_cache_later(tmp_path, monkeypatch):
    advised = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda descriptor, offset, length, advice: advised.append((offset, length))
    )
    monkeypatch.setattr(writer, "BEHIND", 100)
    behind = writer.Behind(0)
    for piece in [(0, 60), (60, 40), (100, 70), (170, 10)]:
        behind.add(*piece)
    assert advised == [(0, 60), (60, 40), (100, 70), (0, 60), (60, 40), (170, 10)]


def test_rows_that_stand_again_are_written_again_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "LARGEST", 1 << 12)
    monkeypatch.setattr(writer, "READ", 8)
    parts, read = [], writer._read_all
    monkeypatch.setattr(writer, "_read_all", lambda fd, view, at: parts.append(len(view)) or read(fd, view, at))
    old = random(2, 1 << 18)  # a row is a megabyte
    source = stored(tmp_path, {"a": old})["a"]
    lazy = tiled(source, 2, axes=(0,), side="writers")
    found = written(tmp_path, {"a": lazy})["a"]
    assert torch.equal(found, old.repeat(2, 1))
    assert max(parts) < 1 << 19 and sum(parts) == old.nbytes
