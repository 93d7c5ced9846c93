"""Staging: an output is whole or absent, one run writes it, and what a dead run finished is taken up again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelsurgeon.errors import OutputError, PlanError
from modelsurgeon.files import durable
from modelsurgeon.saving import ownership
from modelsurgeon.saving.staging import JOURNAL, REQUEST, Stage, staged
from support.command import blake3, contents

SHARDS = ("model-1.safetensors", "model-2.safetensors", "model-3.safetensors")
ROUNDS, ONE_WRITES = 20, "+---"


def data(name: str, request: object = "a") -> bytes:
    return f"{name} of {request}".encode() * 100


def write(stage: Stage, request: object = "a", *, after: int = 3, error: BaseException | None = None) -> list[str]:
    """Write the shards that are not there, and one more half, then raise; the names of those written."""
    written = []
    for name in SHARDS[:after]:
        if not stage.reusable(name):
            (stage.folder / name).write_bytes(data(name, request))
            digest = blake3(stage.folder / name)
            stage.finish(name, {"bytes": (stage.folder / name).stat().st_size, "blake3": digest, "tensors": ["w"]})
            written.append(name)
    if error:
        (stage.folder / "half").write_bytes(b"half")
        raise error
    (stage.folder / "config.json").write_text("{}")
    return written


def save(out: Path, request: object = "a", **options: object) -> tuple[list[str], list[str]]:
    """(names of the shards written, lines said) of a run that ends well."""
    said: list[str] = []
    with staged(out, request, shards=3, needed=0, say=said.append, overwrite=bool(options.get("overwrite"))) as stage:
        written = write(stage, request)
    return written, said


def fail(out: Path, request: object = "a", *, error: BaseException, after: int = 2) -> list[str]:
    """The lines said by a run that fails."""
    said: list[str] = []
    with pytest.raises(type(error)), staged(out, request, shards=3, needed=0, say=said.append) as stage:
        write(stage, request, after=after, error=error)
    return said


def whole(out: Path, request: object = "a") -> bool:
    """Whether the output is what `save` writes, and nothing lies beside it."""
    expected = {**{name: data(name, request) for name in SHARDS}, "config.json": b"{}"}
    return {path.name: path.read_bytes() for path in out.iterdir()} == expected and os.listdir(out.parent) == [out.name]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def place(tmp_path):
    return tmp_path / ".out.staging"


# Processes of their own: `python -c "test_staging.NAME(...)"`


def elsewhere(function: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that calls a function of this module."""
    code = f"import sys, test_staging; test_staging.{function}(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> str:
    """Let it go on, and wait until it is done; what it said."""
    return process.communicate("\n", timeout=60)[0].strip()


def stay(out: str, shards: str) -> None:
    """Finish some shards, say so, and stay until told to go on."""
    with staged(out, "a", shards=3, needed=0) as stage:
        write(stage, after=int(shards))
        print("ready", flush=True)
        sys.stdin.readline()
        write(stage)


def die_between_renames(out: str) -> None:
    rename = os.rename

    def kill(old: Path, new: Path) -> None:
        if Path(old).name == "result":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(old, new)

    os.rename = kill  # type: ignore[assignment]
    save(Path(out), "new", overwrite=True)


def race(folder: str, before: str, mutant: str = "") -> None:
    """Rounds of four runs that begin at once; prints what became of them, of a mutant until it is seen."""
    if mutant:
        MUTANTS[mutant](setattr)
    for number in range(ROUNDS):
        place = Path(folder, str(number))
        place.mkdir()
        prepare(place / "out", before)
        print(found := contend(place / "out", 4), flush=True)
        if mutant and found != ONE_WRITES:
            return


def prepare(out: Path, before: str) -> None:
    """What the runs find: nothing, a dead owner, or what a run kept that failed."""
    if before != "nothing":
        if (child := os.fork()) == 0:
            with staged(out, "a", shards=3, needed=0) as stage:
                write(stage, after=1)
                os._exit(0)
        os.waitpid(child, 0)
    if before == "kept":
        next(out.parent.glob("*/owner.1")).unlink()


def contend(out: Path, count: int) -> str:
    """What becomes of processes that begin at once: + has the stage until all have tried, - is refused, ! fails."""
    begin, answers, leave = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            os.close(begin[1]), os.close(leave[1])
            os.read(begin[0], 1)
            try:
                with staged(out, "a", shards=3, needed=0):
                    os.write(answers[1], b"+")
                    os.read(leave[0], 1)
            except OutputError:
                os.write(answers[1], b"-")
            except Exception:
                os.write(answers[1], b"!")
            finally:
                os._exit(0)
        children.append(child)
    os.close(begin[1])
    found = b"".join(os.read(answers[0], 1) for _ in range(count))
    os.close(leave[1])
    for child in children:
        os.waitpid(child, 0)
    for descriptor in (begin[0], *answers, leave[0]):
        os.close(descriptor)
    return "".join(sorted(found.decode()))


def finish_often(out: str, times: str, met: str) -> None:
    """Save again and again, until runs have met, which the file `met` says; prints how often that was refused."""
    done = refused = 0
    while done < int(times) or not Path(met).exists():
        try:
            save(Path(out), overwrite=True)
            done += 1
        except OutputError as error:
            assert "another run writes it" in str(error) or "other runs write it" in str(error), error
            refused += 1
            Path(met).touch()
    print(refused)


# Whole or absent


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


def test_an_output_that_exists_is_refused_and_what_is_kept_stays(out):
    fail(out, error=KeyboardInterrupt())
    out.mkdir()
    before = contents(out.parent)
    with pytest.raises(OutputError, match="exists; --overwrite replaces it"):
        save(out)
    assert contents(out.parent) == before
    assert save(out, overwrite=True)[0] == [SHARDS[2]] and whole(out)


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_output_that_appears_in_the_meantime_is_not_replaced(when, out, monkeypatch):
    rename = os.rename

    def appear():
        out.mkdir()
        (out / "file").write_text("theirs")

    def late(old, new):
        if Path(new) == out:
            appear()
        rename(old, new)

    with pytest.raises(OutputError, match="appeared in the meantime"), staged(out, "a", shards=3, needed=0) as stage:
        write(stage)
        appear() if when == "before" else monkeypatch.setattr(os, "rename", late)
    assert list(contents(out.parent)) == ["out/", "out/file"]


def test_a_run_killed_while_it_replaces_loses_neither_the_old_nor_the_new(out):
    save(out, "old")
    for _ in range(2):
        process = elsewhere("die_between_renames", out)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert sorted(os.listdir(out.parent)) == [".out.replaced", ".out.staging"]
    with pytest.raises(OutputError, match="exists; --overwrite replaces it"):
        save(out, "new")
    assert sorted(os.listdir(out)) == ["config.json", *SHARDS]
    assert (out / SHARDS[0]).read_bytes() == data(SHARDS[0], "old")
    assert save(out, "new", overwrite=True)[0] == []
    assert whole(out, "new")


def test_an_old_output_that_was_replaced_is_cleared_away(out):
    save(out, "old")
    out.with_name(".out.replaced").mkdir()
    (out.with_name(".out.replaced") / "file").write_text("older")
    save(out, overwrite=True)
    assert whole(out)


def test_where_the_last_rename_fails_the_old_output_is_back_and_shards_are_kept(out, place, monkeypatch):
    save(out, "old")
    rename = os.rename

    def failing(old, new):
        if Path(old).name == "result":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output error"):
        patched.setattr(os, "rename", failing)
        save(out, overwrite=True)
    assert (out / SHARDS[0]).read_bytes() == data(SHARDS[0], "old")
    assert sorted(os.listdir(out.parent)) == [".out.staging", "out"]
    assert save(out, overwrite=True)[0] == [] and whole(out)


def test_a_folder_of_unknown_origin_is_left_alone(out, place):
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"half")
    with pytest.raises(OutputError, match=f"{place}: exists, and nothing in it tells who writes it; .* remove it"):
        save(out)
    assert list(contents(out.parent)) == [f"{place.name}/", f"{place.name}/model.safetensors"]


def test_a_folder_that_a_run_had_just_made_when_it_was_killed_is_no_obstacle(out, place):
    place.mkdir()
    (place / f"0{durable.TEMPORARY}").write_text("{")
    assert save(out)[0] == list(SHARDS) and whole(out)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_staging_folder_that_is_none_is_refused(kind, out, place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    place.write_text("") if kind == "file" else place.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="is no folder; remove it"):
        save(out)
    assert os.listdir(elsewhere) == []


def test_an_output_by_way_of_a_link_lies_where_the_link_leads(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    save(tmp_path / "link" / "out")
    assert whole(tmp_path / "real" / "out")


PARENTS = {"/proc/nothing/out": FileNotFoundError, "/sys/out": PermissionError, "/etc/hostname/out": NotADirectoryError}


@pytest.mark.parametrize(("out", "error"), PARENTS.items(), ids=PARENTS)
def test_a_parent_that_cannot_be_written_is_named(out, error):
    with pytest.raises(error, match=str(Path(out).parent)):
        save(Path(out))


# Space


def disk(monkeypatch, free, block=1000, blocks=1000):
    found = SimpleNamespace(f_bavail=free, f_frsize=block, f_blocks=blocks)
    monkeypatch.setattr(os, "statvfs", lambda path: found if Path(path).exists() else None)


def test_a_disk_too_small_is_told_before_anything_is_created(tmp_path, monkeypatch):
    disk(monkeypatch, 1200)
    out = tmp_path / "a" / "out"
    with pytest.raises(OSError, match=r"out needs 5\.6 MB, 1\.2 MB are free in") as failed:
        staged(out, "a", shards=3, needed=5_600_000).__enter__()
    assert failed.value.errno == errno.ENOSPC
    assert contents(tmp_path) == {}


def test_what_is_finished_needs_no_space_again_and_stays_where_the_rest_has_none(out, place, monkeypatch):
    fail(out, error=KeyboardInterrupt())
    before, held = contents(out.parent), sum(p.stat().st_blocks * 512 for p in place.rglob("*") if p.is_file())
    disk(monkeypatch, 10, block=1)
    with pytest.raises(OSError, match="needs 11 B, 10 B are free"):
        staged(out, "a", shards=3, needed=held + 11).__enter__()
    assert contents(out.parent) == before
    with staged(out, "a", shards=3, needed=held + 10) as stage:
        assert write(stage) == [SHARDS[2]]


def test_a_file_system_that_does_not_tell_its_size_is_believed(out, monkeypatch):
    disk(monkeypatch, 0, blocks=0)
    with staged(out, "a", shards=3, needed=10**15) as stage:
        write(stage)
    assert whole(out)


# Planted mistakes


def look_then_create(path: Path, text: str) -> bool:
    if path.exists():
        return False
    time.sleep(0.02)
    path.write_text(text)
    return True


MUTANTS = {
    "ownership by look and create": lambda setter: setter(durable, "create", look_then_create),
    "no second look": lambda setter: setter(ownership.Owner, "_stand_alone", lambda self, mine: None),
    "sizes for hashes": lambda setter: setter(Stage, "_holds", lambda self, name, entry: True),
    "any request": lambda setter: setter(Stage, "begin", begin_with_any(Stage.begin)),
    "nothing synced": lambda setter: setter(Stage, "complete", lambda self: None),
    "everyone is dead": lambda setter: setter(ownership, "_is_dead", lambda record, path: True),
}


def begin_with_any(begin):
    def mistaken(self, request):
        if (self._place / REQUEST).exists():
            (self._place / REQUEST).write_text(request)
        begin(self, request)

    return mistaken


def caught(mutant, check, monkeypatch, *arguments):
    MUTANTS[mutant](monkeypatch.setattr)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*arguments)


def test_ownership_by_look_and_create_loses_the_race(tmp_path):
    ends = end(elsewhere("race", tmp_path, "nothing", "ownership by look and create")).split()
    assert ends and ends[-1] != ONE_WRITES


def test_without_a_second_look_two_write(out, monkeypatch):
    caught("no second look", taken_while_looked_at, monkeypatch, out, monkeypatch.setattr)


def test_sizes_for_hashes_are_seen(out, place, monkeypatch):
    change = CHANGES["one byte"]
    caught("sizes for hashes", test_a_finished_shard_that_changed_is_written_anew, monkeypatch, change, out, place)


def test_shards_of_any_request_are_seen(out, place, monkeypatch):
    caught("any request", test_shards_of_another_request_are_never_used, monkeypatch, "b", out, place)


def test_files_that_are_not_synced_are_seen(out, monkeypatch):
    check = test_all_files_are_on_the_disk_before_the_rename_and_the_rename_is_before_it_ends
    caught("nothing synced", check, monkeypatch, out, monkeypatch)


def test_an_owner_believed_dead_is_seen(out, place, monkeypatch):
    caught("everyone is dead", test_one_process_does_not_write_an_output_twice_at_once, monkeypatch, out)
