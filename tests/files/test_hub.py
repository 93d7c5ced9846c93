"""Sources on a Hub on loopback: what is asked of it, what is stored, and which revision is taken."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_folder
from modelsurgeon.checkpoints.source import DEMO, locate, read_config_of
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.saving.save import save
from support import tiny
from support.cache import COMMIT, cache, cached
from support.command import contents, run
from support.grow import widen
from support.hub_sources import (
    FILES,
    HEADER,
    NOT_NEEDED,
    WEIGHTS,
    gone,
    hub,
    offline,
    refused,
    stored,
    streamed,
    wide,
    widened,
    without_record,
)

__all__ = ["cache", "hub", "offline", "wide"]  # fixtures


def test_a_plan_takes_the_headers_and_stores_nothing(hub, tmp_path):
    local, plan = (run("widen", source, "--dry-run", "--json") for source in ("demo", "org/name"))
    assert plan.code == 0 and json.loads(plan.out)["plan"]["rows"] == json.loads(local.out)["plan"]["rows"], plan.err
    assert [(one.method, one.path.split("?")[0].split("/")[-1], one.range) for one in hub.asked()[:3]] == [
        ("GET", "name", None),
        ("GET", "config.json", f"bytes=0-{len(FILES['config.json']) - 1}"),
        ("GET", "model.safetensors", f"bytes=0-{HEADER - 1}"),
    ]
    assert len(hub.requests) == 4 and hub.sent("lfs/") == HEADER < len(WEIGHTS) / 10
    assert not (tmp_path / "cache").exists()


def test_inspection_takes_config_and_headers(hub, tmp_path):
    done = run("inspect", "org/name", "--json")
    assert done.code == 0 and json.loads(done.out)["refused"] == ""
    assert hub.sent("lfs/") == HEADER and not (tmp_path / "cache").exists()


def test_only_what_is_needed_is_downloaded(hub, tmp_path, wide):
    assert without_record(widened("org/name", tmp_path / "out")) == wide
    commit = hub.repos["org/name"].find("main")
    assert stored(tmp_path / "cache") == [f"{commit}/{name}" for name in sorted(FILES) if name != "README.md"]
    assert not any(hub.asked(f"resolve/{commit}/{name}") for name in NOT_NEEDED)
    assert hub.sent("lfs/") == HEADER + len(WEIGHTS)


def test_a_second_run_asks_for_the_commit_alone(hub, tmp_path):
    first = widened("org/name", tmp_path / "first")
    before = len(hub.requests)
    assert widened("org/name", tmp_path / "second") == first
    assert [one.path for one in hub.requests[before:]] == ["/api/models/org/name?blobs=true"]


def test_without_a_network_the_second_run_takes_the_cache(hub, offline, tmp_path, caplog):
    first = widened("org/name", tmp_path / "first")
    before = len(hub.requests)
    with offline():
        assert widened("org/name", tmp_path / "offline") == first
    assert len(hub.requests) == before and not caplog.records
    gone(hub)
    assert widened("org/name", tmp_path / "gone") == first
    commit = hub.repos["org/name"].find("main")
    assert f"org/name: the Hub cannot be reached; taken from its cache, commit {commit}" in caplog.text


def test_a_file_that_the_cache_lacks_is_missed_without_a_network(hub, offline, tmp_path):
    widened("org/name", tmp_path / "out")
    next(tmp_path.glob("cache/models--*/snapshots/*/tokenizer.json")).unlink()
    with offline():
        refused(run("widen", "org/name", "--dry-run"), 2, "org/name: tokenizer.json not in the Hub's cache")


def test_a_cache_without_weights_is_told_as_such(cache, tmp_path):
    shutil.copytree(DEMO, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors"))
    cached(cache, tmp_path / "tokenizer", COMMIT)
    refused(run("widen", "org/name", "--dry-run"), 2, "org/name (as far as it is in the Hub's cache): no model.safe")


def test_a_streamed_source_is_never_stored(hub, tmp_path, wide):
    assert streamed("org/name", tmp_path / "out") == wide
    assert not (tmp_path / "cache").exists()
    assert not hub.asked(method="HEAD")
    assert hub.sent("lfs/") == len(WEIGHTS)
    assert all(one.range for one in hub.asked("resolve"))


def test_what_the_cache_holds_is_not_streamed(hub, tmp_path, wide):
    widened("org/name", tmp_path / "out")
    before = len(hub.requests)
    assert streamed("org/name", tmp_path / "streamed") == wide
    assert len(hub.requests) == before + 1


def with_config(**changes):
    return FILES | {"config.json": json.dumps(json.loads(FILES["config.json"]) | changes).encode()}


def with_tensor(folder):
    """The demo with a tensor that no table knows."""
    save_file(
        load_file(DEMO / "model.safetensors") | {"model.strange.weight": tiny.torch.zeros(2)}, folder / "s.safetensors"
    )
    return FILES | {"model.safetensors": (folder / "s.safetensors").read_bytes()}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda folder: with_config(model_type="perceiver"), "unknown model_type 'perceiver'"),
        (lambda folder: with_config(quantization_config={"bits": 4}), "quantised"),
        (lambda folder: with_config(hidden_size=96), "96"),
        (with_tensor, "model.strange.weight"),
        (lambda folder: {"config.json": FILES["config.json"], "pytorch_model.bin": b"x"}, "org/odd: no safetensors"),
        (lambda folder: {"README.md": b"x"}, "org/odd: no config.json"),
    ],
)
def test_every_refusal_comes_before_the_weights(made, said, hub, tmp_path):
    hub.add("org/odd", made(tmp_path))
    refused(run("widen", "org/odd", "-o", tmp_path / "out"), 2, said)
    assert hub.sent("lfs/") <= HEADER * ("perceiver" not in said)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_an_output_that_exists_is_refused_before_the_weights(hub, tmp_path):
    (tmp_path / "out").mkdir()
    refused(run("widen", "org/name", "-o", tmp_path / "out"), 2, "exists")
    assert hub.sent("lfs/") <= HEADER


@pytest.mark.parametrize("named", ["a/b", "v1", "refs/pr/1", "commit"])
def test_a_revision_is_found_by_every_name(named, hub):
    older = hub.repos["org/name"].find("main")
    hub.add("org/name", FILES)
    newest = hub.add("org/name", FILES, branch="a/b")
    hub.repos["org/name"].refs["refs/pr/1"] = newest
    wanted = older if named in ("v1", "commit") else newest
    revision = older if named == "commit" else named
    assert locate("org/name", revision).revision == locate(f"org/name@{revision}").revision == wanted


def test_two_revisions_are_refused(hub):
    refused(run("widen", "org/name@v1", "--revision", "main", "--dry-run"), 2, "two revisions; give one")
    assert not hub.requests


@pytest.mark.parametrize("stream", [False, True])
def test_a_branch_that_moves_meanwhile_changes_nothing(stream, hub, tmp_path, wide):
    commit = hub.repos["org/name"].find("main")
    planned = widen(open_folder(locate("org/name", stream=stream)), 2, noise=NOISE)
    hub.add("org/name", FILES | {"model.safetensors": WEIGHTS[:-4] + bytes(4), "config.json": b"{}"})
    assert without_record(contents(save(planned, tmp_path / "out"))) == wide
    steps = json.loads((tmp_path / "out" / "modelsurgeon.json").read_text())["steps"]
    assert steps[0]["source"] == {"id": "org/name", "revision": commit}


def test_the_sizes_of_another_repository_take_its_config_alone(hub):
    hub.add("org/wider", with_config(hidden_size=128), tag="v2")
    hub.add("org/wider", {"config.json": b"{}"})
    assert read_config_of("org/wider@v2")["hidden_size"] == 128
    assert [one.path.split("?")[0].split("/")[-1] for one in hub.requests] == ["v2", "config.json"]
