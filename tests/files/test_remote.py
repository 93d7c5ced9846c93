"""Files behind a network: every byte is the file's, each is asked for once, and what goes wrong is one line."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from modelsurgeon.checkpoints import source as sources
from modelsurgeon.checkpoints.source import DEMO, locate, read_config_of
from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import LocalFile
from modelsurgeon.files.remote import BEGIN, KEPT, PIECE, Pieces, RemoteFile, RemoteFolder, bounds, open_remote
from support.command import contents, run

DATA = random.Random(0).randbytes(3 * PIECE + 12_345)


class Watched(MemoryFileSystem):
    """Files in memory that tell what was asked for, and fail on demand."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.asked, self.failures, self.hold = [], [], threading.Event()
        self.hold.set()

    def cat_file(self, path, start=None, end=None, **settings):
        self.asked.append((start, end))
        self.hold.wait(10)
        if self.failures:
            raise self.failures.pop()
        return super().cat_file(path, start, end, **settings)

    @property
    def bytes(self):
        return sum(end - start for start, end in self.asked)


@pytest.fixture
def files():
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield Watched()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(files):
    files.pipe_file("/home/w.safetensors", DATA)
    return RemoteFolder("memory://home", files, "/home")


@pytest.fixture
def demo(files):
    for path in DEMO.iterdir():
        files.pipe_file(f"/models/demo/{path.name}", path.read_bytes())
    files.pipe_file("/models/demo/onnx/model.safetensors", b"other")
    return "memory://models/demo"


def without_record(found):
    return {name: value for name, value in found.items() if name != "modelsurgeon.json"}


def test_the_pieces_of_a_file_are_all_of_it():
    for size in (1, BEGIN[1], BEGIN[1] + 1, PIECE - 1, PIECE, 5 * PIECE + 3):
        at, starts = 0, []
        while at < size:
            start, stop = bounds(at, size)
            assert start == at < stop <= size and bounds(stop - 1, size) == (start, stop)
            starts.append(start)
            at = stop
        assert starts == [begin for begin in (*BEGIN, *range(PIECE, size, PIECE)) if begin < size]


def test_a_header_costs_little_more_than_itself(files, folder):
    file = folder.file("w.safetensors")
    assert file.read(0, 8) + file.read(8, 90_000) == DATA[:90_008]
    assert files.asked == [(0, BEGIN[1])]
    assert file.read(8, 700_000) == DATA[8:700_008]
    assert sorted(files.asked) == [(0, BEGIN[1]), (BEGIN[1], BEGIN[2]), (BEGIN[2], BEGIN[3])]


def test_any_range_is_what_the_file_holds(folder):
    file, draw = folder.file("w.safetensors"), random.Random(1)
    for _ in range(50):
        start, stop = sorted(draw.randrange(len(DATA) + 1) for _ in range(2))
        assert file.read(start, stop - start) == DATA[start:stop]
    assert file.read() == DATA and file.read(len(DATA), 0) == b""


def test_a_sequential_reader_asks_for_every_byte_once(files, folder):
    file = folder.file("w.safetensors")
    for at in range(0, len(DATA), 300_000):
        assert file.read(at, min(300_000, len(DATA) - at)) == DATA[at : at + 300_000]
    assert files.bytes == len(DATA) and len(files.asked) == len(BEGIN) + 3


def test_readers_on_many_threads_ask_for_every_byte_once(files, folder):
    file = folder.file("w.safetensors")

    def read(at):
        return file.read(at, min(1 << 20, len(DATA) - at))

    with ThreadPoolExecutor(8) as readers:
        assert b"".join(readers.map(read, range(0, len(DATA), 1 << 20))) == DATA
    assert files.bytes == len(DATA)


def test_what_follows_is_fetched_while_a_piece_is_read(files, folder):
    file = folder.file("w.safetensors")
    file.read(PIECE - 1, 1)
    assert len(files.asked) == 1
    file.read(PIECE, 1)
    assert bytes_ahead(folder, 2 * PIECE) == DATA[2 * PIECE : 3 * PIECE]


def bytes_ahead(folder, start):
    return folder.pieces._held["w.safetensors", start].data.result(10)


def test_a_reader_that_jumps_has_nothing_fetched_ahead(files, folder):
    folder.file("w.safetensors").read(2 * PIECE, 100)
    assert files.asked == [(2 * PIECE, 3 * PIECE)]


def test_what_is_kept_is_bounded():
    pieces = Pieces(most=1000)
    for number in range(50):
        assert pieces.get(("f", number), 300, lambda: bytes(300)) == bytes(300)
        assert sum(piece.length for piece in pieces._held.values()) <= 1000
    assert set(pieces._held) == {("f", number) for number in (47, 48, 49)}


def test_what_was_read_to_its_end_goes_first():
    pieces = Pieces(most=1000)
    for number in range(3):
        pieces.get(("f", number), 300, lambda: bytes(300))
    pieces.finish(("f", 1))
    pieces.get(("f", 3), 300, lambda: bytes(300))
    assert set(pieces._held) == {("f", number) for number in (0, 2, 3)}


def test_nothing_is_fetched_ahead_in_place_of_what_a_reader_may_need():
    pieces = Pieces(most=1000)
    for number in range(2):
        pieces.get(("f", number), 300, lambda: bytes(300))
    for number in range(10, 20):
        pieces.ahead(("f", number), 300, lambda: bytes(300))
    assert set(pieces._held) == {("f", number) for number in (0, 1, 10)}
    pieces.finish(("f", 0))
    pieces.ahead(("f", 20), 300, lambda: bytes(300))
    assert set(pieces._held) == {("f", number) for number in (1, 10, 20)}


def test_the_memory_of_all_requests_is_told(folder):
    assert folder.memory > KEPT + 2 * PIECE


def test_a_piece_that_failed_is_asked_for_again(files, folder):
    file = folder.file("w.safetensors")
    files.failures = [TimeoutError("timed out")]
    with pytest.raises(OSError, match=r"^memory://home/w.safetensors: cannot be read \(timed out\)$"):
        file.read(0, 10)
    assert file.read(0, 10) == DATA[:10]


def test_a_read_ahead_that_fails_is_nobodys_error_until_it_is_read(files, folder):
    pieces = folder.pieces

    def fail():
        raise OSError("away")

    pieces.ahead(("f", 0), 10, fail)
    while pieces._held:
        time.sleep(0.001)
    assert pieces.get(("f", 0), 10, lambda: bytes(10)) == bytes(10)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (FileNotFoundError("w"), SourceError, "memory://home/w.safetensors: not there, or not any more"),
        (PermissionError("Access Denied"), SourceError, "memory://home/w.safetensors: no access (Access Denied)"),
        (ConnectionError("reset\nby peer"), OSError, "memory://home/w.safetensors: cannot be read (reset)"),
        (RuntimeError(), OSError, "memory://home/w.safetensors: cannot be read (RuntimeError)"),
    ],
)
def test_what_a_file_system_raises_is_one_line(error, kind, said, files, folder):
    file = folder.file("w.safetensors")
    files.failures = [error]
    with pytest.raises(kind) as raised:
        file.read(0, 10)
    assert str(raised.value) == said


def test_a_file_that_got_shorter_is_refused(files, folder):
    file = folder.file("w.safetensors")
    files.pipe_file("/home/w.safetensors", DATA[:1000])
    with pytest.raises(SourceError, match="1000 bytes from byte 0 on, expected 131072"):
        file.read(0, 10)


def test_a_read_past_the_end_is_refused(folder):
    with pytest.raises(SourceError, match=f"w.safetensors: ends at byte {len(DATA)}, expected {len(DATA) + 1} bytes"):
        folder.file("w.safetensors").read(len(DATA), 1)


@pytest.mark.parametrize("now", [DATA + b"x", DATA[::-1]])
def test_a_file_that_changed_is_told(now, files, folder):
    file = folder.file("w.safetensors")
    file.check_unchanged()
    before = file.stamp
    files.pipe_file("/home/w.safetensors", now)
    with pytest.raises(SourceError, match=r"w.safetensors: changed while it was read"):
        file.check_unchanged()
    assert RemoteFolder("memory://home", files, "/home").file("w.safetensors").stamp != before


def test_a_file_that_came_to_lie_here_is_read_here(files, folder, tmp_path):
    file = folder.file("w.safetensors")
    (tmp_path / "w").write_bytes(DATA[::-1])
    file.lies_at(LocalFile(tmp_path / "w"))
    assert file.path == tmp_path / "w" and file.read(0, 100) == DATA[::-1][:100] and not files.asked
    (tmp_path / "short").write_bytes(b"")
    with pytest.raises(SourceError, match=f"short: 0 bytes, expected {len(DATA)} as in memory://home/w"):
        RemoteFile(folder, "w.safetensors", len(DATA)).lies_at(LocalFile(tmp_path / "short"))


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.json", "memory://home: no none.json"), ("../other/w", "is not a file name"), ("a/b", "is not a file name")],
)
def test_a_name_of_no_file_is_refused(name, said, files, folder):
    files.pipe_file("/home/a/b", b"")
    with pytest.raises(SourceError, match=said):
        folder.file(name)
    assert folder.names() == ["w.safetensors"] and not folder.holds(name)


def test_a_folder_in_a_bucket_is_a_source(demo, tmp_path):
    found = []
    for source in (demo, "demo", f"file://{DEMO}"):
        done = run("widen", source, "-o", tmp_path / "out", "--overwrite")
        assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n"), done.err
        found.append(without_record(contents(tmp_path / "out")))
    assert found[0] == found[1] == found[2]
    assert read_config_of(demo) == read_config_of("demo")


def test_a_plan_of_what_lies_in_a_bucket_takes_the_headers(files, demo):
    folder = RemoteFolder(demo, files, "/models/demo")
    file = folder.file("model.safetensors")
    length = int.from_bytes(file.read(0, 8), "little")
    file.read(8, length)
    assert files.bytes == BEGIN[1] < file.size / 10


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://models/nothing", "memory://models/nothing: not there, or not any more"),
        ("memory://models/demo/config.json", "a file; expected a folder"),
        ("strange://models", "Protocol not known: strange; expected a folder, a Hub id"),
        ("lacking://models", "a package is missing: Install lacking to read it"),
        ("https://huggingface.co/org/name", "a web page; of a repository of the Hub give org/name alone"),
        ("file:///no/such/folder", "/no/such/folder: no such folder"),
    ],
)
def test_a_url_of_no_folder_is_refused_in_one_line(url, said, demo, monkeypatch):
    lacking = {"class": "no_such_package.Files", "err": "Install lacking to read it"}
    monkeypatch.setitem(known_implementations, "lacking", lacking)
    done = run("widen", url, "--dry-run")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done.err


def test_a_model_type_without_a_table_costs_the_config_alone(files, monkeypatch):
    files.pipe_file("/other/config.json", b'{"model_type": "perceiver"}')
    monkeypatch.setattr(sources, "open_remote", lambda url: RemoteFolder(url, files, "/other"))
    done = run("widen", "memory://other", "--dry-run")
    assert done.code == 2 and "unknown model_type 'perceiver'" in done.err
    assert files.asked == [(0, 27)]


def test_a_revision_is_for_hub_ids(demo):
    with pytest.raises(SourceError, match="--revision main is for Hub ids; memory://models/demo is none"):
        locate(demo, "main")


def test_a_folder_behind_a_network_has_no_path(demo):
    folder = open_remote(demo + "/")
    assert (folder.path, str(folder), str(folder.file("config.json"))) == (None, demo, f"{demo}/config.json")
    with pytest.raises(SourceError, match="not on a local disk"):
        _ = locate(demo).path
