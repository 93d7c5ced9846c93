"""Sources of every kind: folders, `demo`, and Hub ids out of a cache that is laid out as the Hub's library does it."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.errors import SourceError
from support import tiny
from support.cache import COMMIT, OLDER, cache, cached
from support.command import contents, run
from support.hub_sources import sharded, widened, without_record

__all__ = ["cache", "sharded"]  # fixtures


def test_a_folder_shards_the_demo_and_a_hub_id_give_the_same_output(cache, sharded, tmp_path):
    cached(cache, DEMO, COMMIT)
    cached(cache, sharded, COMMIT, repo="org/shards")
    sources = {"folder": DEMO, "name": "demo", "shards": sharded, "single": "org/name", "several": "org/shards"}
    found = {kind: without_record(widened(source, tmp_path / kind)) for kind, source in sources.items()}
    assert all(files == found["folder"] for files in found.values())


def test_the_commit_of_a_hub_id_is_on_record(cache, tmp_path):
    cached(cache, DEMO, COMMIT)
    widened("org/name", tmp_path / "out")
    steps = json.loads((tmp_path / "out" / "modelsurgeon.json").read_text())["steps"]
    assert steps[0]["source"] == {"id": "org/name", "revision": COMMIT}


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT, OLDER])
def test_a_branch_a_tag_and_a_commit_are_found(revision, cache, tmp_path):
    cached(cache, DEMO, OLDER, ref="v1.0")
    cached(cache, DEMO, COMMIT)
    origin = open_checkpoint("org/name", revision).origin
    assert origin.revision == (COMMIT if revision in ("main", COMMIT) else OLDER)


def test_verify_takes_hub_ids(cache, source, tmp_path):
    cached(cache, source(tiny.named("llama-tied")), COMMIT)
    widened("org/name", tmp_path / "out")
    done = run("verify", "org/name", tmp_path / "out", "--samples", 1, "--length", 8, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["source"] == "org/name"


def test_the_cache_is_only_read(cache, tmp_path):
    home = cached(cache, DEMO, COMMIT)
    before = contents(home)
    widened("org/name", tmp_path / "out")
    assert contents(home) == before


@pytest.mark.parametrize(
    ("repo", "revision", "said"),
    [
        ("org/nothing", None, "org/nothing: no such folder, not in the Hub's cache, and the Hub cannot be reached"),
        ("org/name", "v9", "org/name: no such folder, not in the Hub's cache at revision 'v9', and the Hub cannot"),
        ("org/name", "e" * 40, f"not in the Hub's cache at revision '{'e' * 40}'"),
        ("org/..", None, "org/..: "),
        ("org/na--me", None, "org/na--me: "),
    ],
)
def test_what_the_cache_does_not_hold_is_refused_in_one_line(repo, revision, said, cache, tmp_path):
    cached(cache, DEMO, COMMIT)
    options = ["--revision", revision] if revision else []
    done = run("widen", repo, *options, "-o", tmp_path / "out")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_model_type_without_a_table_is_refused_before_the_weights_are_asked_for(cache, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "perceiver"}')
    cached(cache, tmp_path / "other", COMMIT)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    done = run("widen", "org/name", "--dry-run")
    assert done.code == 2 and "unknown model_type 'perceiver'; known: albert, bart, " in done.err


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"model_type": []}', "[" * 100_000])
def test_a_config_that_is_none_is_refused(text, cache, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(text)
    cached(cache, tmp_path / "other", COMMIT)
    done = run("widen", "org/name", "--dry-run")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_cached_file_that_leads_out_of_the_cache_is_refused(cache, tmp_path):
    home = cached(cache, DEMO, COMMIT)
    link = home / "snapshots" / COMMIT / "model.safetensors"
    link.unlink()
    link.symlink_to(DEMO / "model.safetensors")
    with pytest.raises(SourceError, match="a link out of its folder"):
        open_checkpoint("org/name")


def test_a_revision_is_for_hub_ids_only(tmp_path):
    for source in (DEMO, "demo"):
        done = run("widen", source, "--revision", "main", "--dry-run")
        assert done.code == 2 and "--revision main is for Hub ids" in done.err, source


def test_a_folder_of_that_name_comes_before_the_hub(cache, tmp_path, monkeypatch):
    cached(cache, DEMO, COMMIT)
    shutil.copytree(DEMO, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("org/name").origin.revision is None
