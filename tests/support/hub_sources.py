"""A Hub that holds the demo, and the result of widening it: for tests of sources."""

from __future__ import annotations

import contextlib

import pytest
from huggingface_hub import constants

from modelsurgeon.checkpoints.checkpoint import open_checkpoint, open_folder
from modelsurgeon.checkpoints.source import DEMO, locate
from modelsurgeon.files import remote
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.saving.save import save
from support.command import contents, run
from support.grow import widen
from support.hub_environment import hub_environment
from support.hub_server import HubServer


@pytest.fixture
def sharded(tmp_path):
    return save(open_checkpoint("demo"), tmp_path / "sharded", shard_size=500_000)


def widened(source, out, *options):
    done = run("widen", source, "-o", out, *options)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    return contents(out)


def without_record(found):
    return {name: value for name, value in found.items() if name != "modelsurgeon.json"}


FILES = {path.name: path.read_bytes() for path in DEMO.iterdir()}
WEIGHTS = FILES["model.safetensors"]
HEADER = remote.BEGIN[1]  # bytes: the first piece of a file
NOT_NEEDED = {
    "README.md": b"card",
    "pytorch_model.bin": b"pickle",
    "model.h5": b"tensorflow",
    "modeling.py": b"code",
    "onnx/model.safetensors": b"other",
    "original/config.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that holds demo as org/name, with other formats beside it; and an empty cache."""
    with HubServer() as hub, hub_environment(monkeypatch, hub, tmp_path / "cache") as waits:
        hub.waits = waits
        hub.add("org/name", NOT_NEEDED | FILES, tag="v1")
        yield hub


@pytest.fixture
def logged_in(monkeypatch, hub, tmp_path):
    """logged_in(token) -> the Hub, for a user with this token."""
    return lambda token: hub_environment(monkeypatch, hub, tmp_path / "cache", token)


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """The files of the widened demo: {name: sha256}."""
    wide = widen(open_checkpoint("demo"), 2, noise=NOISE)
    return without_record(contents(save(wide, tmp_path_factory.mktemp("wide") / "out")))


def streamed(source, out):
    """The files of the demo widened by range requests: {name: sha256}."""
    return without_record(contents(save(widen(open_folder(locate(source, stream=True)), 2, noise=NOISE), out)))


def refused(done, code, *said):
    """The command was refused, and one line of stderr contains all these words."""
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert all(part in done.err for part in said), done.err


def failed(done, *said):
    """The machine failed, and the last line of stderr contains all these words."""
    assert (done.code, done.out) == (3, ""), done.err
    assert all(part in done.err.splitlines()[-1] for part in said), done.err


def stored(cache):
    """The files of all snapshots."""
    return sorted(str(path.relative_to(path.parents[1])) for path in cache.glob("models--*/snapshots/*/*"))


@pytest.fixture
def offline(hub):
    """offline() -> the library without a network, as HF_HUB_OFFLINE=1 has it."""

    @contextlib.contextmanager
    def without():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            yield

    return without


def gone(hub):
    hub.shutdown()
    hub.socket.close()
