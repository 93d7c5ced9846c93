"""`verify --files`: the files of a result are those that were written, or each that is not is named."""

from __future__ import annotations

import json
import shutil

import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.saving.save import save
from support.command import blake3, contents, run
from support.grow import widen


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return save(widen(open_checkpoint("demo"), 2), tmp_path_factory.mktemp("made") / "out", shard_size=2_000_000)


@pytest.fixture
def result(made, tmp_path):
    """A result of several shards that a test may spoil."""
    return shutil.copytree(made, tmp_path / "out")


def test_the_record_holds_size_and_hash_of_every_other_file(result):
    record = json.loads((result / "modelsurgeon.json").read_text())
    others = [path for path in sorted(result.iterdir()) if path.name != "modelsurgeon.json"]
    assert len(others) > 5
    assert record["files"] == {path.name: {"bytes": path.stat().st_size, "blake3": blake3(path)} for path in others}


def test_what_was_written_is_the_same_and_nothing_is_touched(result):
    before = contents(result)
    done = run("verify", "--files", result)
    count = len(before) - 1
    assert (done.code, done.out) == (0, "") and f"{count} of {count} files are the same: as written" in done.err
    assert contents(result) == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


SHARD, SIDE = "model-00002-of-00005.safetensors", "tokenizer.json"
SPOILT = {
    "a bit of a shard": (lambda out: flip(out / SHARD), SHARD, "expected"),
    "a bit of a side file": (lambda out: flip(out / SIDE), SIDE, "expected"),
    "the config": (lambda out: (out / "config.json").write_text("{}"), "config.json", "2 bytes, expected"),
    "a shard that is gone": (lambda out: (out / SHARD).unlink(), SHARD, "missing"),
    "a shard that is new": (
        lambda out: shutil.copy(out / SHARD, out / "more.safetensors"),
        "more.safetensors",
        "record",
    ),
    "a pickle that is new": (lambda out: (out / "pytorch_model.bin").touch(), "pytorch_model.bin", "not on record"),
}


@pytest.mark.parametrize(("spoil", "name", "said"), SPOILT.values(), ids=SPOILT)
def test_what_differs_is_named(spoil, name, said, result):
    spoil(result)
    done = run("verify", "--files", result, "--json")
    found = json.loads(done.out)
    assert done.code == 1 and not found["same"]
    assert {file for file, verdict in found["files"].items() if verdict != "same"} == {name}
    assert said in found["files"][name] and f"{name}: " in done.err


def test_files_that_no_loader_reads_may_come_along(result):
    (result / "README.md").write_text("# Mine\n")
    done = run("verify", "--files", result)
    assert done.code == 0 and "README.md: not on record" in done.err


def test_the_path_may_come_down_a_pipe(result):
    assert run("verify", "--files", "-", stdin=f"{result}\n").code == 0


def test_what_holds_no_hashes_is_refused(result):
    done = run("verify", "--files", DEMO)
    assert done.code == 2 and "no modelsurgeon.json, which holds the hashes" in done.err
    record = json.loads((result / "modelsurgeon.json").read_text())
    (result / "modelsurgeon.json").write_text(json.dumps({**record, "files": {}}))
    assert run("verify", "--files", result).code == 2
    (result / "modelsurgeon.json").write_text(json.dumps({**record, "files": [1]}))
    assert run("verify", "--files", result).code == 2


def test_one_result_is_asked_for(result):
    done = run("verify", "--files", "demo", result)
    assert done.code == 2 and "--files checks one checkpoint alone" in done.err
    done = run("verify", result)
    assert done.code == 2 and "no RESULT" in done.err


@pytest.mark.parametrize("how", [{"blake3": 7}, {}, {"blake3": None, "bytes": "x"}])
def test_a_record_whose_hashes_are_none_says_no_file_is_the_same(how, result):
    path = result / "modelsurgeon.json"
    record = json.loads(path.read_text())
    record["files"][SHARD] = {"bytes": record["files"][SHARD]["bytes"], **how}
    path.write_text(json.dumps(record))
    done = run("verify", "--files", result)
    assert done.code == 1 and SHARD in done.err
