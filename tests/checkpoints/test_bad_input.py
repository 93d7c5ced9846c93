"""Bad input: whatever is on the list is refused in the same way.

One line on stderr that says what is wrong, in letters that any terminal shows; nothing on stdout, nothing written, the
source as it was. `bad_inputs.py` is the list.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import SINGLE, open_checkpoint
from modelsurgeon.saving.save import save
from modelsurgeon.text import parse_size
from support import tiny
from support.bad_inputs import BAD, QUIET
from support.command import run, sha256
from support.spoiling import MACHINE_FAILED, Bad, added, bad, config


@pytest.fixture
def sound(source, tmp_path):
    """sound(name) -> a folder that a test may spoil: a copy of a tiny model, or of a Llama in several files."""

    def folder(name: str) -> Path:
        if name == "sharded":
            whole = open_checkpoint(source(tiny.named("llama-tied")))
            return save(whole, tmp_path / "around" / "folder", shard_size=20000)
        return Path(shutil.copytree(source(tiny.named(name)), tmp_path / "around" / "folder"))

    return folder


def lying(folder: Path) -> dict[str, tuple[int, str]]:
    """{path under the folder: kind, and contents or where a link leads} of all there is; FIFOs are not opened."""
    found = {}
    for path in folder.rglob("*"):
        kind = stat.S_IFMT(path.lstat().st_mode)
        held = {stat.S_IFLNK: os.readlink, stat.S_IFREG: sha256}.get(kind, lambda path: "")
        found[str(path.relative_to(folder))] = (kind, held(path))
    return found


def refused(case: Bad, place: object, parent: Path) -> None:
    """Assert that each command refuses what lies there, as all are refused."""
    before = lying(parent)
    for command in case.commands:
        done = run(command, place, "-o", parent / case.output, *case.options)
        assert (done.code, done.out) == (case.code, ""), done.err
        assert done.err.startswith("modelsurgeon: ") and done.err.count("\n") == 1 and done.err.endswith("\n")
        assert done.err.isascii() and done.err[:-1].isprintable(), "what would move the cursor"
        assert "Traceback" not in done.err and len(done.err) < 5000
        for word in case.words:
            assert word in done.err, done.err
    assert lying(parent) == before


@pytest.mark.parametrize("case", BAD.values(), ids=[ascii(name)[1:-1] for name in BAD])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(case, sound):
    folder = sound(case.of)
    instead = case.spoil(folder)
    place = folder if instead is None or isinstance(instead, int) else instead
    refused(case, place, folder.parent)


# Files that the system keeps: simulated, because nothing is kept from root

DENIED = {
    "config.json": bad(lambda folder: None, "config.json: cannot be read (Permission denied)"),
    SINGLE: bad(lambda folder: None, "model.safetensors: cannot be read (Permission denied)"),
}


@pytest.mark.parametrize(("name", "case"), DENIED.items(), ids=DENIED)
def test_a_file_that_may_not_be_read_is_named(name, case, sound, monkeypatch):
    folder = sound(case.of)
    really = os.preadv

    def preadv(descriptor: int, *rest: Any) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(folder / name):
            raise PermissionError(13, "Permission denied")
        return really(descriptor, *rest)

    monkeypatch.setattr(os, "preadv", preadv)
    refused(case, folder, folder.parent)


def test_a_folder_that_may_not_be_written_is_named(sound, monkeypatch):
    folder = sound("llama-tied")
    really = os.mkdir

    def mkdir(path: Any, *rest: Any, **more: Any) -> None:
        if str(path).startswith(str(folder.parent)):
            raise PermissionError(13, "Permission denied", str(path))
        really(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    case = bad(lambda folder: None, "Permission denied", code=MACHINE_FAILED, options=QUIET)
    refused(case, folder, folder.parent)


# What looks bad and is not


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=file:///etc/passwd]x[/link]", ":boom:"])
def test_markup_in_names_is_shown_as_it_is(name, sound):
    folder = sound("llama-tied")
    config(**{name: name})(folder)
    done = run("widen", folder, "-o", folder.parent / "out")
    assert done.code == 0 and f"unknown to llama: {name}\n" in done.err
    shutil.rmtree(folder.parent / "out")
    added(name)(folder)
    refused(bad(added(name), f"tensor '{name}'"), folder, folder.parent)


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "back\rwards", "\u202eright to left", "bell\x07"])
def test_control_characters_in_names_are_escaped(name, sound):
    folder = sound("llama-tied")
    config(**{name: name}, my_note=name)(folder)
    (folder / name).write_text("left behind")
    done = run("widen", folder, "-o", folder.parent / "out")
    assert done.code == 0 and ascii(name) in done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    assert json.loads((folder.parent / "out" / "config.json").read_text())[name] == name
    shutil.rmtree(folder.parent / "out")
    renamed = folder.rename(folder.parent / name)
    added(f"{name}rotary_emb.inv_freq")(renamed)
    refused(bad(added(name), "has control characters in its name"), renamed, renamed.parent)


def test_an_unknown_harmless_key_is_kept_and_mentioned(sound):
    folder = sound("llama-tied")
    config(my_note="x")(folder)
    done = run("widen", folder, "-o", folder.parent / "out")
    assert done.code == 0 and "kept as they are, unknown to llama: my_note" in done.err
    assert json.loads((folder.parent / "out" / "config.json").read_text())["my_note"] == "x"


def test_links_that_stay_in_the_folder_are_followed(sound):
    folder = sound("llama-tied")
    (folder / SINGLE).rename(folder / "weights.safetensors")
    (folder / SINGLE).symlink_to("weights.safetensors")
    assert run("widen", folder, "-o", folder.parent / "out").code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(sound):
    folder = sound("llama-tied")
    for command in (["widen", folder, "-o", folder.parent / "out"], ["verify", folder, folder]):
        done = run(*command, "--device", "cuda")
        assert done.code == 2 and "torch can use 0 GPUs here" in done.err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("5GiB", 5 * 2**30),
        ("500000", 500_000),
        ("500MB", 5 * 10**8),
        ("1.5kB", 1500),
        ("5g", 5 * 10**9),
    ],
)
def test_sizes_as_people_write_them(text, size, sound):
    assert parse_size(text) == size
    assert run("widen", sound("llama-tied"), "--shard-size", text, "--dry-run").code == 0
