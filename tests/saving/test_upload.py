"""Publishing to a URL that fsspec knows, with config.json last; and every way that it can fail."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from modelsurgeon.errors import OutputError
from modelsurgeon.saving.publish import check_url, upload
from support.publications import FILES, OLD, SHARDS, STALE, folder, one_line

__all__ = ["folder"]  # fixtures

# --- to a URL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch):
    """An empty file system, and the names of the files in the order in which they come and go."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    written, put, remove = [], MemoryFileSystem.put_file, MemoryFileSystem.rm_file

    def seen_put(fs, path, to, **options):
        written.append(to.rpartition("/")[2])
        put(fs, path, to, **options)

    def seen_remove(fs, path):
        written.append("-" + path.rpartition("/")[2])
        remove(fs, path)

    monkeypatch.setattr(MemoryFileSystem, "put_file", seen_put)
    monkeypatch.setattr(MemoryFileSystem, "rm_file", seen_remove)
    return written


def held(root="/bucket/out/"):
    return {path.removeprefix(root): file.getvalue() for path, file in MemoryFileSystem.store.items()}


def hold(files, root="memory://bucket/out"):
    fs = fsspec.filesystem("memory")
    for name, data in files.items():
        fs.pipe_file(f"{root}/{name}", data)


@pytest.mark.parametrize("target", ["memory://bucket/out", "memory://bucket/out/"])
def test_an_upload_is_the_folder_weights_first_and_config_last(memory, folder, target):
    check_url(target, overwrite=False)
    assert upload(folder, target) == target
    assert held() == FILES
    last = ["modelsurgeon.json", "tokenizer.json", "model.safetensors.index.json", "config.json"]
    assert memory == [*sorted(SHARDS), *last]


def test_what_is_there_is_replaced_only_on_demand(memory, folder):
    hold(OLD)
    for act in (lambda: check_url("memory://bucket/out", False), lambda: upload(folder, "memory://bucket/out")):
        with pytest.raises(OutputError, match="memory://bucket/out: exists; --overwrite replaces it"):
            act()
    assert held() == OLD


def test_a_replaced_checkpoint_cannot_be_opened_meanwhile_and_loses_its_weights_last(memory, folder):
    hold(OLD | STALE)
    check_url("memory://bucket/out", overwrite=True)
    upload(folder, "memory://bucket/out", overwrite=True)
    assert held() == OLD | FILES
    assert memory[:2] == ["-config.json", "-other.safetensors.index.json"]
    assert sorted(memory[-3:]) == ["-model-00003-of-00003.safetensors", "-model.safetensors", "config.json"]
    assert memory[-3] == "config.json"


def test_what_a_broken_upload_left_can_be_replaced(memory, folder, monkeypatch):
    whole, put = dict(FILES), MemoryFileSystem.put_file

    def broken(fs, path, to, **options):
        if to.endswith("tokenizer.json"):
            raise RuntimeError("connection lost\nsecond line")
        put(fs, path, to, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError) as raised:
        patch.setattr(MemoryFileSystem, "put_file", broken)
        upload(folder, "memory://bucket/out")
    one_line(raised, "memory://bucket/out: cannot be written (connection lost)", f"; the output stays in {folder}")
    assert "config.json" not in held()
    upload(folder, "memory://bucket/out", overwrite=True)
    assert held() == whole


def test_only_checkpoints_are_replaced(memory):
    hold({"thesis.tex": b"text"})
    with pytest.raises(OutputError, match="exists and is no checkpoint; --overwrite replaces only checkpoints"):
        check_url("memory://bucket/out", overwrite=True)
    with pytest.raises(OutputError, match=r"memory://bucket/out/thesis.tex: exists and is no folder"):
        check_url("memory://bucket/out/thesis.tex", overwrite=True)


def test_a_file_that_arrives_short_is_told_before_the_config_stands(memory, folder, monkeypatch):
    info = MemoryFileSystem.info
    short = {"size": 999}
    monkeypatch.setattr(
        MemoryFileSystem, "info", lambda fs, path, **_: info(fs, path) | (short if "of-00002" in path else {})
    )
    with pytest.raises(OSError, match=r"model-00001-of-00002.safetensors has 999 bytes there, expected 1000"):
        upload(folder, "memory://bucket/out")
    assert "config.json" not in held()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nonsense://bucket/out", "nonsense://bucket/out: Protocol not known: nonsense; expected a folder, s3://"),
        ("hf://org/name", "use --push-to-hub org/name"),
        ("https://host/out", "a web page cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(target, said):
    with pytest.raises(OutputError) as raised:
        check_url(target, overwrite=False)
    one_line(raised, said)


def test_a_missing_package_is_named(monkeypatch):
    missing = {"class": "no_such_package.FileSystem", "err": "Install no_such_package to write there"}
    monkeypatch.setitem(known_implementations, "absent", missing)
    with pytest.raises(OutputError) as raised:
        check_url("absent://bucket/out", overwrite=False)
    one_line(raised, "absent://bucket/out: a package is missing: Install no_such_package to write there")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("denied\nmore"), OutputError),
        (ConnectionError("denied\nmore"), OSError),
        (KeyError("x"), OSError),
    ],
)
def test_what_a_file_system_raises_becomes_one_line(memory, monkeypatch, error, kind):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(kind) as raised:
        check_url("memory://bucket/out", overwrite=False)
    one_line(raised, "memory://bucket/out: ")
    assert type(raised.value) is kind


def test_nothing_is_uploaded_beside_an_adapter(memory, folder):
    hold(OLD | {"adapter_config.json": b"{}"})
    before = held()
    for act in (check_url, lambda *to: upload(folder, *to)):
        with pytest.raises(OutputError) as raised:
            act("memory://bucket/out", True)
        one_line(raised, "memory://bucket/out: holds an adapter (adapter_config.json)", "choose another target")
    assert held() == before
