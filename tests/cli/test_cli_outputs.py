"""Outputs of commands: what is replaced, what is left alone, and what a machine that fails leaves behind."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.saving.writer import StoppedError
from support.cli_sources import COMMANDS, small, wide
from support.command import contents, run

__all__ = ["small", "wide"]  # fixtures

# Outputs


def test_an_output_that_exists_is_refused_unless_overwriting_is_asked_for(small, wide):
    before = contents(wide)
    done = run("widen", small, "-o", wide, "--factor", 3)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"modelsurgeon: {wide}: exists; --overwrite replaces it\n"
    assert contents(wide) == before
    assert run("widen", small, "-o", wide, "--factor", 3, "--overwrite").code == 0
    assert open_checkpoint(wide).config["hidden_size"] == 96


def test_overwriting_leaves_no_shard_of_the_old_output(small, tmp_path):
    out = tmp_path / "out"
    assert run("widen", small, "-o", out, "--shard-size", "20KB").code == 0
    assert len(list(out.glob("model-*.safetensors"))) > 2
    (out / "README.md").write_text("of the old output")
    assert run("widen", small, "-o", out, "--overwrite").code == 0
    assert sorted(os.listdir(out)) == sorted(
        ["config.json", "generation_config.json", "model.safetensors", "modelsurgeon.json"]
    )
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_folder_that_is_no_checkpoint_is_not_replaced(small, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    before = contents(tmp_path)
    done = run("widen", small, "-o", tmp_path / "photos", "--overwrite")
    assert done.code == 2 and "is no checkpoint" in done.err
    assert contents(tmp_path) == before


def test_a_file_and_a_link_are_not_replaced(small, wide, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(wide)
    before = contents(tmp_path)
    for name in ("file", "link"):
        done = run("widen", small, "-o", tmp_path / name, "--overwrite")
        assert done.code == 2 and "exists and is no folder" in done.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("output", ["source", "source/inside", "source/a/b", "link/inside", "."])
def test_an_output_that_is_the_source_or_lies_in_it_or_holds_it_is_refused(output, small, tmp_path):
    shutil.copytree(small, tmp_path / "holder" / "source")
    shutil.copy(small / "config.json", tmp_path / "holder")  # so that the holder itself looks like a checkpoint
    (tmp_path / "holder" / "link").symlink_to("source")
    before = contents(tmp_path)
    for command in COMMANDS[:2]:
        done = run(command, tmp_path / "holder" / "source", "-o", tmp_path / "holder" / output, "--overwrite")
        assert done.code == 2 and "which is never modified" in done.err
    assert contents(tmp_path) == before


def test_parents_of_the_output_are_created(small, tmp_path):
    assert run("widen", small, "-o", tmp_path / "a" / "b" / "out").code == 0
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["out"]


def test_what_something_else_is_writing_is_left_alone(small, tmp_path):
    (tmp_path / ".out.staging").mkdir()
    (tmp_path / ".out.staging" / "model.safetensors").write_text("half of a shard")
    before = contents(tmp_path)
    done = run("widen", small, "-o", tmp_path / "out")
    assert done.code == 2 and ".out.staging" in done.err and "remove it" in done.err
    assert contents(tmp_path) == before


# Machines that fail


def fail(error):
    def write(path, _, writing):
        path.write_bytes(b"half of a shard")
        if isinstance(error, signal.Signals):
            os.kill(os.getpid(), error)
            assert writing.stop.wait(10)
            raise StoppedError
        raise error

    return write


FAILURES = {
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 3, "No space left"),
    "no memory": (MemoryError("2 GB"), 3, "2 GB"),
    "a defect": (RuntimeError("out of\nluck"), 3, "RuntimeError: out of luck"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
    "SIGINT": (signal.SIGINT, 130, "interrupted"),
    "SIGTERM": (signal.SIGTERM, 143, ""),
}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(("error", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_a_write_that_fails_leaves_nothing_behind(error, code, said, existing, small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if existing:
        assert run("untie-embeddings", small, "-o", out).code == 0
    before = contents(tmp_path)
    monkeypatch.setattr("modelsurgeon.saving.save.write_shard", fail(error))
    done = run("widen", small, "-o", out, "--overwrite", "-q")
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == bool(said) and said in done.err and "Traceback" not in done.err
    assert contents(tmp_path) == before


def test_a_rename_that_fails_puts_the_old_output_back(small, wide, tmp_path, monkeypatch):
    before, rename = contents(wide), os.rename

    def fails_for_staged(old, new):
        if str(old).endswith(".staging/result"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fails_for_staged)
        done = run("untie-embeddings", small, "-o", wide, "--overwrite")
    assert done.code == 3 and "1 of 1 shards are kept" in done.err
    assert contents(wide) == before
    assert run("untie-embeddings", small, "-o", wide, "--overwrite").code == 0
    assert sorted(os.listdir(tmp_path)) == ["wide"]


def test_what_a_killed_overwriting_left_behind_is_cleared_away(small, wide, tmp_path):
    (tmp_path / ".wide.replaced").mkdir()
    (tmp_path / ".wide.replaced" / "config.json").write_text("{}")
    assert run("untie-embeddings", small, "-o", wide, "--overwrite").code == 0
    assert sorted(os.listdir(tmp_path)) == ["wide"]


def test_a_traceback_is_shown_only_where_it_is_asked_for(small, tmp_path, monkeypatch):
    monkeypatch.setattr("modelsurgeon.saving.save.write_shard", fail(OSError(errno.ENOSPC, "full")))
    assert "MODELSURGEON_DEBUG=1" in run("widen", small, "-o", tmp_path / "out").err
    monkeypatch.setenv("MODELSURGEON_DEBUG", "1")
    with pytest.raises(OSError, match="full"):
        run("widen", small, "-o", tmp_path / "out")
    assert contents(tmp_path) == {}
