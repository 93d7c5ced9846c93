"""Staging where something is in the way: old outputs, folders of unknown origin, a disk too small."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelsurgeon.errors import OutputError
from modelsurgeon.files import durable
from modelsurgeon.saving.staging import staged
from support.command import contents
from support.stage_races import elsewhere
from support.stages import SHARDS, data, fail, out, place, save, whole, write

__all__ = ["out", "place"]  # fixtures


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
