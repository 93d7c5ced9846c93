"""Staging: an output is whole or absent, and what a dead run finished is taken up again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modelsurgeon.errors import OutputError, PlanError
from modelsurgeon.files import durable
from modelsurgeon.saving.staging import JOURNAL, REQUEST, staged
from support.command import blake3, contents
from support.stage_races import caught, elsewhere, says
from support.stages import SHARDS, fail, out, place, save, whole, write

__all__ = ["out", "place"]  # fixtures


def test_an_output_appears_at_the_end_and_nothing_lies_beside_it(out):
    with staged(out, "a", shards=3, needed=0) as stage:
        write(stage)
        assert not out.exists() and stage.folder.is_relative_to(out.parent / ".out.staging")
    assert whole(out)


def test_all_files_are_on_the_disk_before_the_rename_and_the_rename_is_before_it_ends(out, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append(Path(new).name), rename(old, new))[1])
    with staged(out, "a", shards=3, needed=0) as stage:
        write(stage)
        (stage.folder / "deeper").mkdir()
        (stage.folder / "deeper" / "file").write_text("x")
        before = {str(stage.folder), *(str(path) for path in stage.folder.rglob("*"))}
    at = done.index("out")
    assert before <= set(done[:at])
    assert str(out.parent) in done[at:]


MACHINE = {
    "a full disk": OSError(errno.ENOSPC, "full"),
    "no memory": MemoryError(),
    "Ctrl-C": KeyboardInterrupt(),
    "SIGTERM": SystemExit(143),
}
REQUESTED = {"a refusal": PlanError("no"), "another answer": Exception("different"), "a defect": RuntimeError("luck")}
each_failure = pytest.mark.parametrize("error", MACHINE.values(), ids=MACHINE)


@each_failure
def test_a_machine_that_fails_keeps_what_is_finished_and_the_same_command_goes_on(error, out, place):
    said = fail(out, error=error)
    assert said == [f"2 of 3 shards are kept in {place}: the same command goes on from there"]
    assert sorted(os.listdir(place / "result")) == list(SHARDS[:2])
    assert save(out) == ([SHARDS[2]], [])
    assert whole(out)


@each_failure
def test_a_machine_that_fails_before_a_shard_is_finished_leaves_nothing(error, out):
    assert fail(out, error=error, after=0) == []
    assert contents(out.parent) == {}


@pytest.mark.parametrize("error", REQUESTED.values(), ids=REQUESTED)
def test_what_is_refused_leaves_nothing_not_even_of_an_earlier_run(error, out):
    fail(out, error=KeyboardInterrupt())
    assert fail(out, error=error) == []
    assert contents(out.parent) == {}


def test_a_second_interrupt_while_the_first_is_dealt_with_loses_no_shard(out, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), staged(out, "a", shards=3, needed=0) as stage:
        write(stage, after=2)
        (stage.folder / "half").write_bytes(b"half")
        monkeypatch.setattr(durable, "remove", interrupted)
        raise KeyboardInterrupt
    monkeypatch.undo()
    assert save(out)[0] == [SHARDS[2]] and whole(out)


def test_parents_are_created_and_go_again_where_nothing_is_kept(tmp_path):
    out = tmp_path / "a" / "b" / "out"
    fail(out, error=PlanError("no"))
    assert contents(tmp_path) == {}
    fail(out, error=KeyboardInterrupt())
    assert save(out)[0] == [SHARDS[2]] and whole(out)


# Going on


def test_entries_come_back_as_they_were_given(out):
    fail(out, error=KeyboardInterrupt())
    with staged(out, "a", shards=3, needed=0) as stage:
        assert list(stage.finished) == list(SHARDS[:2])
        entry = stage.reusable(SHARDS[0])
        assert entry == {"bytes": 2400, "blake3": blake3(stage.folder / SHARDS[0]), "tensors": ["w"]}
        assert stage.reusable(SHARDS[2]) is None
        write(stage)


def test_shards_that_were_not_asked_for_yet_are_kept_once_more(out):
    fail(out, error=KeyboardInterrupt())
    fail(out, error=KeyboardInterrupt(), after=1)
    assert save(out)[0] == [SHARDS[2]] and whole(out)


def test_a_finished_shard_that_nobody_asks_for_is_no_part_of_the_output(out):
    fail(out, error=KeyboardInterrupt())
    with staged(out, "a", shards=1, needed=0) as stage:
        write(stage, after=1)
    assert sorted(os.listdir(out)) == ["config.json", SHARDS[0]]


@pytest.mark.parametrize("request_then", ["b", {"plan": [1, 2]}, None])
def test_shards_of_another_request_are_never_used(request_then, out, place):
    fail(out, request_then, error=KeyboardInterrupt())
    written, said = save(out)
    assert written == list(SHARDS) and whole(out)
    assert said == [f"{place}: 2 finished shards of another request were dropped"]


@pytest.mark.parametrize("text", [None, "", '"a', "\udcff"])
def test_shards_whose_request_cannot_be_told_are_never_used(text, out, place):
    fail(out, error=KeyboardInterrupt())
    (place / REQUEST).unlink()
    if text is not None:
        (place / REQUEST).write_bytes(text.encode(errors="surrogateescape"))
        assert save(out)[0] == list(SHARDS) and whole(out)
    else:
        with pytest.raises(OutputError, match="nothing in it tells who writes it"):
            save(out)


def test_a_request_is_equal_whatever_the_order_of_its_keys(out):
    fail(out, {"source": 1, "steps": (2,)}, error=KeyboardInterrupt())
    with staged(out, {"steps": [2], "source": 1}, shards=3, needed=0) as stage:
        assert len(stage.finished) == 2


CHANGES = {
    "one byte": lambda path: path.write_bytes(b"#" + path.read_bytes()[1:]),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_finished_shard_that_changed_is_written_anew(change, out, place):
    fail(out, error=KeyboardInterrupt())
    change(place / "result" / SHARDS[1])
    assert save(out)[0] == list(SHARDS[1:])
    assert whole(out)


TORN = {
    "half a line": lambda lines: lines[0] + lines[1][:40],
    "no end of line": lambda lines: lines[0] + lines[1][:-2],
    "no JSON": lambda lines: lines[0] + "\0\0\0\0\n",
    "other JSON": lambda lines: lines[0] + '[]\n{"shard": 1}\n{"shard": "x", "entry": 2}\nnull\n',
    "a path": lambda lines: lines[0] + lines[1].replace(SHARDS[1], f"../result/{SHARDS[1]}"),
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_torn_line_costs_its_shard_only_and_later_lines_are_read(tear, out, place):
    fail(out, error=KeyboardInterrupt())
    (place / JOURNAL).write_text(tear((place / JOURNAL).read_text().splitlines(keepends=True)))
    fail(out, error=KeyboardInterrupt())
    assert save(out)[0] == [SHARDS[2]] and whole(out)


def test_a_run_that_was_killed_is_taken_over_at_once(out):
    process = elsewhere("stay", out, 2)
    assert says(process) == "ready"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and its number still taken: a zombie
    (out.parent / ".out.staging" / "result" / "half").write_bytes(b"half")
    assert save(out)[0] == [SHARDS[2]] and whole(out)
    process.communicate()


def test_a_run_that_was_killed_twice_is_taken_over_again(out):
    for shards in (1, 2):
        process = elsewhere("stay", out, shards)
        assert says(process) == "ready"
        process.kill()
        process.communicate()
    assert save(out)[0] == [SHARDS[2]] and whole(out)


# Two runs


def test_sizes_for_hashes_are_seen(out, place, monkeypatch):
    change = CHANGES["one byte"]
    caught("sizes for hashes", test_a_finished_shard_that_changed_is_written_anew, monkeypatch, change, out, place)


def test_shards_of_any_request_are_seen(out, place, monkeypatch):
    caught("any request", test_shards_of_another_request_are_never_used, monkeypatch, "b", out, place)


def test_files_that_are_not_synced_are_seen(out, monkeypatch):
    check = test_all_files_are_on_the_disk_before_the_rename_and_the_rename_is_before_it_ends
    caught("nothing synced", check, monkeypatch, out, monkeypatch)
