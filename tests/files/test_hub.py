"""Sources of every kind: folders, `demo`, and Hub ids.

Those come out of a cache that is laid out as the Hub's library does it, and from a Hub on loopback: what is asked of
it, what is stored, and what is said where it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import termios

import huggingface_hub
import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint, open_folder
from modelsurgeon.checkpoints.source import DEMO, locate, read_config_of
from modelsurgeon.errors import SourceError
from modelsurgeon.files import remote
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.saving.save import save
from support import tiny
from support.cache import COMMIT, OLDER, cache, cached
from support.command import ROOT, contents, run
from support.grow import widen
from support.hub_server import READER, STRANGER, HubServer, environment, hub_environment

__all__ = ["cache"]  # a fixture


@pytest.fixture
def sharded(tmp_path):
    return save(open_checkpoint("demo"), tmp_path / "sharded", shard_size=500_000)


def widened(source, out, *options):
    done = run("widen", source, "-o", out, *options)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    return contents(out)


def without_record(found):
    return {name: value for name, value in found.items() if name != "modelsurgeon.json"}


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


# --- a Hub on loopback ------------------------------------------------------------------------------------------------


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
    """logged_in(token) -> the Hub again, for whoever has this token."""
    return lambda token: hub_environment(monkeypatch, hub, tmp_path / "cache", token)


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """What widening the demo gives: {name: sha256}."""
    wide = widen(open_checkpoint("demo"), 2, noise=NOISE)
    return without_record(contents(save(wide, tmp_path_factory.mktemp("wide") / "out")))


def streamed(source, out):
    """The same bytes, read by ranges: {name: sha256}."""
    return without_record(contents(save(widen(open_folder(locate(source, stream=True)), 2, noise=NOISE), out)))


def refused(done, code, *said):
    """One line of stderr that says all of this."""
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert all(part in done.err for part in said), done.err


def failed(done, *said):
    """The machine failed; the last line of stderr says all of this."""
    assert (done.code, done.out) == (3, ""), done.err
    assert all(part in done.err.splitlines()[-1] for part in said), done.err


def stored(cache):
    """The files of all snapshots."""
    return sorted(str(path.relative_to(path.parents[1])) for path in cache.glob("models--*/snapshots/*/*"))


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


@pytest.fixture
def offline(hub):
    """offline() -> the library without a network, as HF_HUB_OFFLINE=1 has it."""

    @contextlib.contextmanager
    def without():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            yield

    return without


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


def gone(hub):
    hub.shutdown()
    hub.socket.close()


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
