"""Staging by several runs at once: one writes an output, and what a dead owner left is taken over."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from modelsurgeon.errors import OutputError
from modelsurgeon.files import durable
from modelsurgeon.saving import ownership
from modelsurgeon.saving.staging import JOURNAL, REQUEST, staged
from support.command import contents
from support.stage_races import caught, elsewhere, end, says
from support.stages import ONE_WRITES, ROUNDS, SHARDS, fail, out, place, save, whole, write

__all__ = ["out", "place"]  # fixtures


def test_a_run_that_lives_is_left_alone(out, place):
    process = elsewhere("stay", out, 1)
    assert says(process) == "ready"
    before = contents(out.parent)
    with pytest.raises(OutputError) as refused:
        save(out)
    assert f"another run writes it (process {process.pid} on {os.uname().nodename})" in str(refused.value)
    assert f"remove {place / 'owner.1'}" in str(refused.value)
    assert contents(out.parent) == before
    end(process)
    assert process.returncode == 0 and whole(out)


def test_a_stopped_run_lives(out):
    process = elsewhere("stay", out, 1)
    assert says(process) == "ready"
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(OutputError, match="another run writes it"):
        save(out)
    process.send_signal(signal.SIGCONT)
    end(process)
    assert whole(out)


def test_one_process_does_not_write_an_output_twice_at_once(out):
    with staged(out, "a", shards=3, needed=0) as stage:
        with pytest.raises(OutputError, match="another run writes it"):
            save(out)
        write(stage)
    assert whole(out)


def leave_an_owner(out: Path, old: bool = True, **changes: object) -> Path:
    """What a run left that died: two shards, and an owner's file that says something else."""
    fail(out, error=KeyboardInterrupt())
    owner = out.parent / ".out.staging" / "owner.1"
    owner.write_text(json.dumps({**ownership._myself(), "token": "0", **changes}))
    if old:
        for path in owner.parent.rglob("*"):
            os.utime(path, (1, 1))
    return owner


GONE = 2**22 + 1  # larger than any process id
OWNERS = {
    "its process is gone": ({"pid": GONE}, True),
    "its number is another's by now": ({"started": 1}, True),
    "the machine was started again": ({"boot": "x"}, True),
    "it lives": ({}, False),
    "it is another user's": ({"pid": 1, "started": None}, False),
    "it is on another machine": ({"host": "x", "machine": "x", "boot": "x", "pid": GONE}, False),
    "it is on a machine of the same image": ({"host": "x", "boot": "x", "pid": GONE}, False),
    "it is on a machine of the same name": ({"machine": "x", "boot": "x", "pid": GONE}, False),
    "machines that do not say who they are": ({"machine": None, "boot": "x", "pid": GONE}, False),
    "it is in another container": ({"namespace": 1, "pid": GONE}, False),
    "a process of no sense": ({"pid": "x"}, False),
    "a process too large": ({"pid": 10**30}, False),
}


@pytest.mark.parametrize(("changes", "dead"), OWNERS.values(), ids=OWNERS)
def test_an_owner_is_taken_over_where_it_is_dead_for_certain(changes, dead, out):
    owner = leave_an_owner(out, **changes)
    before = contents(out.parent)
    if dead:
        assert save(out)[0] == [SHARDS[2]]
    else:
        with pytest.raises(OutputError, match=f"if that one is dead, remove {owner} and run again"):
            save(out)
        assert contents(out.parent) == before
        owner.unlink()
        assert save(out)[0] == [SHARDS[2]]
    assert whole(out)


def test_a_machine_was_not_started_again_where_files_are_younger(out):
    leave_an_owner(out, old=False, boot="x")
    with pytest.raises(OutputError, match="another run writes it"):
        save(out)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_an_owner_that_says_nothing_is_left_alone_until_its_file_is_removed(text, out):
    owner = leave_an_owner(out)
    owner.write_text(text)
    with pytest.raises(OutputError, match=f"remove {owner}"):
        save(out)
    owner.unlink()
    assert save(out)[0] == [SHARDS[2]]


@pytest.mark.parametrize(("changes", "dead"), [({"pid": GONE}, True), ({}, False), ({"pid": GONE, "host": "x"}, False)])
def test_without_proc_a_process_is_told_by_its_number(changes, dead, out, monkeypatch):
    mute = {**ownership._myself(), "machine": None, "boot": None, "namespace": None, "started": None}
    monkeypatch.setattr(ownership, "_myself", lambda: mute)
    monkeypatch.setattr(ownership, "_started", lambda pid: None)
    leave_an_owner(out, **changes)
    if dead:
        assert save(out)[0] == [SHARDS[2]]
    else:
        with pytest.raises(OutputError, match="another run writes it"):
            save(out)


@pytest.mark.parametrize("before", ["nothing", "dead", "kept"])
def test_of_runs_that_begin_at_once_one_writes(before, tmp_path):
    assert end(elsewhere("race", tmp_path, before)).split() == [ONE_WRITES] * ROUNDS


def test_runs_that_end_while_others_begin_leave_one_whole_output(tmp_path):
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    processes = [elsewhere("finish_often", out, 10, tmp_path / "met") for _ in range(3)]
    refused = [int(end(process)) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0] and sum(refused) > 0
    assert whole(out)


def taken_while_looked_at(out: Path, setter: object) -> None:
    """A run finds a dead owner; before it acts, that one was replaced by one that lives, of the same number."""
    owner, create = leave_an_owner(out, pid=GONE), durable.create
    theirs = owner.with_name(REQUEST + durable.TEMPORARY)

    def late(path: Path, text: str) -> bool:
        owner.write_text(json.dumps({**ownership._myself(), "token": "1"}))
        theirs.write_text("{")
        return create(path, text)

    setter(durable, "create", late)  # type: ignore[operator]
    with pytest.raises(OutputError, match="another run writes it"):
        save(out)
    assert owner.exists() and theirs.exists() and not owner.with_name("owner.2").exists()


def test_what_was_seen_before_is_looked_at_again(out, monkeypatch):
    taken_while_looked_at(out, monkeypatch.setattr)


def test_a_folder_that_vanishes_while_it_is_claimed_is_made_again(out, monkeypatch):
    create, left = durable.create, [3]

    def vanishing(path, text):
        if left[0]:
            left[0] -= 1
            path.parent.rmdir()
        return create(path, text)

    monkeypatch.setattr(durable, "create", vanishing)
    assert save(out)[0] == list(SHARDS) and whole(out)


def test_a_run_whose_file_was_removed_publishes_nothing_and_removes_nothing(out, place):
    with pytest.raises(OutputError, match="lost to another run"), staged(out, "a", shards=3, needed=0) as stage:
        write(stage, after=1)
        (place / "owner.1").rename(place / "owner.9")
        (place / "owner.9").write_text("another's")
        write(stage)
    assert not out.exists()
    assert {"owner.9", REQUEST, JOURNAL, "result"} == set(os.listdir(place))


@pytest.mark.parametrize("number", durable.NO_LINKS)
def test_where_files_cannot_be_linked_they_are_created_alone(number, out, place, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with staged(out, "a", shards=3, needed=0) as stage:
        assert json.loads((place / "owner.1").read_text())["pid"] == os.getpid()
        assert not durable.create(place / "owner.1", "again")
        write(stage)
    assert whole(out)


def test_a_link_that_was_made_though_the_answer_was_lost_counts(out, monkeypatch):
    link = os.link

    def lost(old, new):
        link(old, new)
        raise FileExistsError(errno.EEXIST, "exists")

    monkeypatch.setattr(os, "link", lost)
    assert save(out)[0] == list(SHARDS) and whole(out)


# What is there


def test_ownership_by_look_and_create_loses_the_race(tmp_path):
    ends = end(elsewhere("race", tmp_path, "nothing", "ownership by look and create")).split()
    assert ends and ends[-1] != ONE_WRITES


def test_without_a_second_look_two_write(out, monkeypatch):
    caught("no second look", taken_while_looked_at, monkeypatch, out, monkeypatch.setattr)


def test_an_owner_believed_dead_is_seen(out, place, monkeypatch):
    caught("everyone is dead", test_one_process_does_not_write_an_output_twice_at_once, monkeypatch, out)
