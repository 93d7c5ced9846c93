"""Sources on a Hub that refuses, is busy, cuts connections or is gone: what is said, and what a second run finds."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios

import huggingface_hub
import pytest
from huggingface_hub import constants

from modelsurgeon.checkpoints.checkpoint import open_folder
from modelsurgeon.checkpoints.source import locate
from modelsurgeon.saving.save import save
from support.command import ROOT, run
from support.grow import widen
from support.hub_environment import environment
from support.hub_repos import READER, STRANGER
from support.hub_sources import (
    FILES,
    WEIGHTS,
    failed,
    gone,
    hub,
    logged_in,
    refused,
    sharded,
    streamed,
    wide,
    widened,
    without_record,
)

__all__ = ["hub", "logged_in", "sharded", "wide"]  # fixtures


def test_the_token_reaches_the_hub_and_nobody_else(hub, logged_in, tmp_path, wide):
    hub.add("org/secret", FILES, private=True)
    with logged_in(READER):
        assert streamed("org/secret", tmp_path / "streamed") == wide
        assert without_record(widened("org/secret", tmp_path / "out")) == wide
    elsewhere = [one for one in hub.requests if one.host.startswith("localhost")]
    assert len(elsewhere) > 4 and not any(one.token for one in elsewhere)
    assert all(one.token == READER for one in hub.requests if one not in elsewhere)


@pytest.mark.parametrize(
    ("repo", "token", "said"),
    [
        ("org/nothing", None, "no such folder, and no such repository on the Hub; for a private one set HF_TOKEN"),
        ("org/nothing", READER, "no such folder, and no such repository on the Hub, or none that this token may see"),
        ("org/secret", None, "no such folder, and no such repository on the Hub; for a private one set HF_TOKEN"),
        ("org/secret", STRANGER, "no such folder, and no such repository on the Hub, or none that this token may see"),
        ("org/gated", None, "gated; accept its terms at http://127.0.0.1"),
        ("org/gated", STRANGER, "gated, and the account of this token has no access; ask for it at http://127.0.0.1"),
        ("org/name", "hf_wrong", "the token is not accepted; set HF_TOKEN to one of http://127.0.0.1"),
        ("org/name@v9", None, "no revision 'v9'; expected a branch, a tag or a commit"),
    ],
)
def test_what_may_not_be_read_is_refused_with_a_way_out(repo, token, said, hub, logged_in, tmp_path):
    hub.add("org/secret", FILES, private=True)
    hub.add("org/gated", FILES, gated="manual")
    with logged_in(token):
        refused(run("widen", repo, "-o", tmp_path / "out"), 2, f"modelsurgeon: {repo.split('@')[0]}: {said}")
    assert not hub.sent("lfs/")


def test_a_hub_that_is_none_is_told(hub):
    hub.fail("api/models", 200)
    refused(run("widen", "org/name", "--dry-run"), 2, "does not answer as a Hub; is HF_ENDPOINT right?")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["api/models/org/name?", "resolve", "tree/", "lfs/"])
def test_a_busy_hub_is_asked_again(status, path, hub, tmp_path, wide):
    hub.fail(path, status, times=2, **({"Retry-After": "7"} if status == 429 else {}))
    assert without_record(widened("org/name", tmp_path / "out")) == wide
    assert hub.waits and (status != 429 or 8 in hub.waits)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (
            "api/models/org/name?",
            429,
            "the Hub limits how often it may be asked (429); wait a few minutes; with a token",
        ),
        ("api/models/org/name?", 503, "the Hub fails (503), also when asked again; wait, or use its cache: HF_HUB_OFF"),
        ("config.json", 429, "the Hub limits"),
        ("config.json", 500, "the Hub fails (500)"),
        ("tree/", 503, "the Hub fails, config.json was not downloaded; wait, and run again"),
        ("lfs/", 429, "the Hub limits"),
        ("lfs/", 503, "the Hub fails (503)"),
    ],
)
def test_a_hub_that_stays_busy_is_told(path, status, said, hub, tmp_path):
    huggingface_hub.hf_hub_download("org/name", "README.md")
    hub.fail(path, status, times=100, skip=path == "lfs/")
    failed(run("widen", "org/name", "-o", tmp_path / "out"), f"modelsurgeon: org/name: {said}")
    assert not (tmp_path / "out").exists()


def test_a_cache_that_may_be_outdated_does_not_stand_in_for_a_busy_hub(hub, tmp_path):
    widened("org/name", tmp_path / "out")
    hub.fail("api/models", 503, times=100)
    failed(run("widen", "org/name", "--dry-run"), "modelsurgeon: org/name: the Hub fails (503)")


@pytest.mark.parametrize("path", ["api/models/org/name?", "config.json", "lfs/"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_is_cut_is_made_again(path, stream, hub, tmp_path, wide):
    hub.cut(path, after=100)
    found = streamed("org/name", tmp_path / "out") if stream else without_record(widened("org/name", tmp_path / "out"))
    assert found == wide


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_is_cut_for_ever_is_told(stream, hub, tmp_path):
    hub.cut("lfs/", after=1000, times=100, skip=1)
    with pytest.raises(OSError, match=r"^org/name: the connection to the Hub breaks, also when") as raised:
        save(widen(open_folder(locate("org/name", stream=stream)), 2), tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_without_a_network_what_was_never_there_is_told_at_once(hub):
    gone(hub)
    failed(run("widen", "org/name", "--dry-run"), "org/name: no such folder, and the Hub cannot be reached at http")
    assert not hub.waits


def test_a_killed_download_goes_on_with_the_files_that_are_left(hub, sharded, tmp_path, monkeypatch):
    hub.add("org/shards", sharded)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    last = hub.repos["org/shards"].commits[hub.repos["org/shards"].find("main")]["model-00005-of-00005.safetensors"]
    hub.cut(f"lfs/{last.sha256}", after=0, times=100, skip=1)
    failed(run("widen", "org/shards", "-o", tmp_path / "out"), "org/shards: the connection to the Hub breaks")
    hub.faults.clear()
    hub.cut(f"lfs/{last.sha256}", after=1000, skip=1)
    before = len(hub.requests)
    widened("org/shards", tmp_path / "out")
    again = [one for one in hub.requests[before:] if "lfs/" in one.path]
    assert {one.path.split("/")[-1].split("?")[0] for one in again} == {last.sha256}
    assert [one.range for one in again[-2:]] == [None, "bytes=1000-"]


def test_a_download_that_ends_early_is_no_source(hub, tmp_path, monkeypatch):
    planned = widen(open_folder(locate("org/name")), 2)
    monkeypatch.setattr("modelsurgeon.files.hub.snapshot_download", lambda *_, **__: None)
    with pytest.raises(OSError, match=r"org/name: the Hub fails, config.json was not downloaded; wait"):
        save(planned, tmp_path / "out")


def test_a_cached_file_of_another_size_is_refused(hub, tmp_path):
    widened("org/name", tmp_path / "out")
    blob = next(tmp_path.glob("cache/models--*/snapshots/*/model.safetensors")).resolve()
    blob.write_bytes(WEIGHTS[:-1])
    refused(run("widen", "org/name", "--dry-run"), 2, f"{len(WEIGHTS) - 1} bytes, expected {len(WEIGHTS)}", "remove it")


def test_a_blob_that_repositories_share_is_read(hub, tmp_path):
    first = widened("org/name", tmp_path / "out")
    blob = next(tmp_path.glob("cache/models--*/snapshots/*/model.safetensors")).resolve()
    shared = tmp_path / "cache" / "blobs" / "ab" / blob.name
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    sent = hub.sent("lfs/")
    assert widened("org/name", tmp_path / "again") == first and hub.sent("lfs/") == sent


def on_terminal(code, variables):
    """(stdout, what its terminal shows) of a new process whose stderr is one."""
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=other, env={**os.environ, **variables}, text=True
    ) as process:
        os.close(other)
        out, shown = process.communicate()[0], b""
    with open(main, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # nobody holds it any more
        while piece := terminal.read(1 << 16):
            shown += piece
    return out, shown.decode()


def test_a_download_shows_its_progress_on_a_terminal_only(hub, tmp_path, capfd):
    locate("org/name").folder.fetch(["model.safetensors"])
    assert capfd.readouterr() == ("", "")
    code = (
        "from modelsurgeon.files.hub import open_repository; open_repository('org/name').fetch(['model.safetensors'])"
    )
    out, shown = on_terminal(code, environment(hub, tmp_path / "other") | {"PYTHONPATH": str(ROOT)})
    assert out == "" and "Fetching 1 files" in shown
