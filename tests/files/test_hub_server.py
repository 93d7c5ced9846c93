"""The Hub of the tests, as `huggingface_hub` itself meets it: what it reads, pushes, refuses and survives."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import HfFileSystem, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http

from support.hub_environment import environment, hub_environment
from support.hub_repos import READER, STRANGER, WRITER
from support.hub_server import HubServer

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [50_000], "data_offsets": [0, 200_000]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(range(250)) * 800
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "onnx/a.onnx": b"onnx"}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, cache):
    with HubServer() as hub, hub_environment(monkeypatch, hub, cache):
        hub.add("org/name", FILES, tag="v1")
        yield hub


@pytest.fixture
def logged_in(monkeypatch, hub, cache):
    """logged_in(token) -> the Hub again, for whoever has this token."""
    return lambda token: hub_environment(monkeypatch, hub, cache, token)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "out" / name).write_bytes(FILES[name])
    return tmp_path / "out"


def test_a_model_says_its_commit_and_its_files(hub):
    info = huggingface_hub.model_info("org/name", files_metadata=True)
    assert (info.sha, info.private, info.gated) == (hub.repos["org/name"].find("main"), False, False)
    assert {file.rfilename: file.size for file in info.siblings} == {path: len(data) for path, data in FILES.items()}
    assert [file.rfilename for file in info.siblings if file.lfs] == ["model.safetensors"]


def test_branches_tags_and_commits_are_revisions(hub):
    older = hub.repos["org/name"].find("main")
    newer = hub.add("org/name", FILES | {"config.json": b"{}"})
    hub.add("org/name", {"config.json": b"[]"}, branch="a/b")
    found = {rev: huggingface_hub.model_info("org/name", revision=rev).sha for rev in ("main", "v1", older, "a/b")}
    assert found == {"main": newer, "v1": older, older: older, "a/b": hub.repos["org/name"].find("a/b")}
    refs = huggingface_hub.list_repo_refs("org/name")
    assert ([one.name for one in refs.branches], [one.name for one in refs.tags]) == (["main", "a/b"], ["v1"])


@pytest.mark.parametrize(
    ("path", "recursive", "listed"),
    [
        ("", False, ["config.json", "model.safetensors", "onnx"]),
        ("", True, ["config.json", "model.safetensors", "onnx", "onnx/a.onnx"]),
        ("onnx", False, ["onnx/a.onnx"]),
    ],
)
def test_a_tree_lists_files_and_folders(hub, path, recursive, listed):
    tree = huggingface_hub.list_repo_tree("org/name", path, recursive=recursive)
    assert [entry.path for entry in tree] == listed


def test_paths_have_sizes(hub):
    found = huggingface_hub.get_paths_info("org/name", ["model.safetensors", "onnx", "nothing"])
    assert [(one.path, getattr(one, "size", None)) for one in found] == [
        ("model.safetensors", len(WEIGHTS)),
        ("onnx", None),
    ]


def test_a_snapshot_holds_what_matches(hub, cache):
    path = snapshot_download("org/name", allow_patterns=["*.json", "*.safetensors"])
    assert path == str(cache / "models--org--name" / "snapshots" / hub.repos["org/name"].find("main"))
    for name in ("config.json", "model.safetensors"):
        with open(f"{path}/{name}", "rb") as file:
            assert file.read() == FILES[name]
    assert not hub.asked("onnx/a.onnx")


def test_a_snapshot_of_a_cached_commit_sends_no_file_again(hub):
    snapshot_download("org/name")
    sent = hub.sent("model.safetensors")
    snapshot_download("org/name")
    assert hub.sent("model.safetensors") == sent


def test_headers_are_read_without_the_weights(hub):
    found = huggingface_hub.get_safetensors_metadata("org/name")
    assert found.files_metadata["model.safetensors"].tensors["w"].shape == [50_000]
    assert len(HEADER) < hub.sent("model.safetensors") < len(WEIGHTS)


def test_a_range_is_all_that_is_sent(hub):
    files = HfFileSystem(block_size=1)
    files.cat_file("org/name/config.json", 1, 3)
    assert files.info("org/name/model.safetensors")["size"] == len(WEIGHTS)
    before = hub.sent("lfs/")
    assert files.cat_file("org/name/model.safetensors", 1000, 1500) == WEIGHTS[1000:1500]
    assert hub.sent("lfs/") - before == hub.asked("lfs/")[-1].sent <= 502
    assert hub.asked("lfs/")[-1].status == 206


def test_a_range_past_the_end_is_refused(hub):
    url = huggingface_hub.hf_hub_url("org/name", "config.json")
    for wanted, status in (("bytes=23-", 416), ("bytes=0-", 206), ("bytes=-5", 206), ("lines=1-2", 200)):
        assert huggingface_hub.get_session().get(url, headers={"Range": wanted}).status_code == status, wanted


def test_whoami_knows_the_token(hub, logged_in):
    with logged_in(READER):
        assert huggingface_hub.whoami()["name"] == "reader"


@pytest.mark.parametrize("token", [None, STRANGER])
def test_what_is_private_does_not_exist_for_others(hub, logged_in, token):
    hub.add("org/secret", FILES, private=True)
    for repo in ("org/secret", "org/nothing"):
        with logged_in(token), pytest.raises(RepositoryNotFoundError) as raised:
            hf_hub_download(repo, "config.json")
        assert raised.value.response.status_code == (404 if token else 401)
    with logged_in(READER):
        assert huggingface_hub.model_info("org/secret").private


@pytest.mark.parametrize(("token", "status"), [(None, 401), (STRANGER, 403)])
def test_what_is_gated_shows_its_list_and_keeps_its_files(hub, logged_in, token, status):
    hub.add("org/gated", FILES, gated="manual")
    with logged_in(token):
        assert huggingface_hub.model_info("org/gated").gated == "manual"
        with pytest.raises(GatedRepoError) as raised:
            hf_hub_download("org/gated", "config.json")
    assert raised.value.response.status_code == status
    with logged_in(READER):
        assert snapshot_download("org/gated")


def test_a_wrong_token_is_refused_even_for_what_is_public(logged_in):
    with logged_in("hf_wrong"), pytest.raises(HfHubHTTPError, match="Invalid credentials") as raised:
        hf_hub_download("org/name", "config.json")
    assert raised.value.response.status_code == 401
    assert not isinstance(raised.value, RepositoryNotFoundError)


def test_what_is_missing_has_its_own_error(hub):
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("org/name", "config.json", revision="nothing")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("org/name", "nothing.json")


def test_a_token_never_reaches_the_other_origin(hub, logged_in, folder):
    hub.add("org/secret", FILES, private=True)
    with logged_in(WRITER):
        snapshot_download("org/secret")
        HfFileSystem().cat_file("org/secret/model.safetensors", 0, 10)
        huggingface_hub.create_repo("org/new")
        huggingface_hub.upload_folder(repo_id="org/new", folder_path=folder)
    elsewhere = [one for one in hub.requests if one.host.startswith("localhost")]
    assert {one.method for one in elsewhere} >= {"GET"}
    assert not any(one.token for one in elsewhere)
    assert all(one.token == WRITER for one in hub.requests if one not in elsewhere)


def test_a_token_that_reaches_it_all_the_same_is_refused(monkeypatch, hub, logged_in):
    with logged_in(READER), monkeypatch.context() as patch:
        patch.setattr(_http, "_HUB_ORIGINS", {_http._url_origin(hub.elsewhere)})
        with pytest.raises(LocalEntryNotFoundError) as raised:
            hf_hub_download("org/name", "model.safetensors")
    assert isinstance(raised.value.__cause__, BadRequestError)


@pytest.mark.parametrize("path", ["resolve", "lfs/"])
def test_a_rate_limit_passes(monkeypatch, hub, cache, path):
    hub.fail(path, 429, times=2, **{"Retry-After": "7"})
    with hub_environment(monkeypatch, hub, cache) as waits:
        hf_hub_download("org/name", "model.safetensors")
    assert 8 in waits


def test_a_rate_limit_that_stays_is_an_error(hub):
    hub.fail("", 429, times=100)
    with pytest.raises(LocalEntryNotFoundError) as raised:
        snapshot_download("org/name")
    assert raised.value.__cause__.response.status_code == 429


@pytest.mark.parametrize(("chunk", "rest"), [(500, "bytes=1000-"), (constants.DOWNLOAD_CHUNK_SIZE, None)])
def test_a_cut_download_goes_on_after_the_last_whole_chunk(monkeypatch, hub, chunk, rest):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    hub.cut("lfs/", after=1000)
    with open(hf_hub_download("org/name", "model.safetensors"), "rb") as file:
        assert file.read() == WEIGHTS
    assert [(one.range, one.sent) for one in hub.asked("lfs/", "GET")] == [
        (None, 1000),
        (rest, len(WEIGHTS) - (1000 if rest else 0)),
    ]


def test_a_download_that_is_cut_for_ever_is_an_error_and_leaves_nothing(hub, cache):
    hub.cut("lfs/", after=0, times=100)
    with pytest.raises(httpx2.RemoteProtocolError):
        hf_hub_download("org/name", "model.safetensors")
    assert not [path for path in cache.rglob("*") if "incomplete" in path.name]


def test_a_stalled_download_waits_for_the_server_to_end(hub):
    hub.stall("lfs/", after=1000)
    download = threading.Thread(target=hf_hub_download, args=("org/name", "model.safetensors"))
    download.start()
    while not hub.sent("lfs/"):
        time.sleep(0.01)
    assert download.is_alive() and hub.sent("lfs/") == 1000
    hub.closing.set()
    download.join(5)
    assert not download.is_alive()


def test_a_dead_hub_is_a_connection_error(hub):
    hub.shutdown()
    hub.socket.close()
    with pytest.raises(LocalEntryNotFoundError) as raised:
        hf_hub_download("org/name", "config.json")
    assert isinstance(raised.value.__cause__, httpx2.ConnectError)


def test_what_is_pushed_is_held(hub, logged_in, folder):
    with logged_in(WRITER):
        huggingface_hub.create_repo("org/new", private=True)
        done = huggingface_hub.upload_folder(repo_id="org/new", folder_path=folder)
    new = hub.repos["org/new"]
    assert new.private and done.oid == new.find("main")
    assert {path: data for path, data in new.files.items() if path != ".gitattributes"} == {
        name: FILES[name] for name in ("config.json", "model.safetensors")
    }


def test_large_files_that_the_hub_holds_are_not_sent_again(hub, logged_in, folder):
    with logged_in(WRITER):
        huggingface_hub.create_repo("org/new")
        huggingface_hub.upload_folder(repo_id="org/new", folder_path=folder)
    assert not hub.asked("lfs/", "PUT")
    assert hub.repos["org/new"].files["model.safetensors"] == WEIGHTS


def test_large_files_are_sent_and_checked(hub, logged_in, folder):
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    with logged_in(WRITER):
        huggingface_hub.create_repo("org/new")
        huggingface_hub.upload_folder(repo_id="org/new", folder_path=folder)
    assert hub.repos["org/new"].files["model.safetensors"] == WEIGHTS[::-1]
    wrong = huggingface_hub.get_session().put(f"{hub.elsewhere}/lfs/{'0' * 64}", content=b"wrong")
    assert wrong.status_code == 400 and "0" * 64 not in hub.objects


def test_a_pull_request_leaves_the_branch_alone(hub, logged_in, folder):
    before = hub.repos["org/name"].find("main")
    (folder / "config.json").write_bytes(b"[]")
    with logged_in(STRANGER):
        done = huggingface_hub.upload_folder(repo_id="org/name", folder_path=folder, create_pr=True)
    assert done.pr_revision == "refs/pr/1"
    assert hub.repos["org/name"].pull_requests == {"refs/pr/1": done.oid}
    assert hub.repos["org/name"].find("main") == before
    assert huggingface_hub.model_info("org/name", revision="refs/pr/1").sha == done.oid


def test_a_push_onto_an_older_commit_is_refused(hub, logged_in, folder):
    older = hub.repos["org/name"].find("main")
    hub.add("org/name", {})
    with logged_in(WRITER), pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        huggingface_hub.upload_folder(repo_id="org/name", folder_path=folder, parent_commit=older)


def test_a_repository_is_made_once(hub, logged_in):
    with logged_in(WRITER):
        assert huggingface_hub.create_repo("org/name", exist_ok=True).repo_id == "org/name"
        with pytest.raises(HfHubHTTPError) as raised:
            huggingface_hub.create_repo("org/name")
    assert raised.value.response.status_code == 409


@pytest.mark.parametrize(("token", "status"), [(None, 401), (READER, 403), (STRANGER, 403), ("hf_wrong", 401)])
def test_who_may_not_write_does_not(hub, logged_in, folder, token, status):
    before = dict(hub.repos["org/name"].refs)
    with logged_in(token), pytest.raises(HfHubHTTPError) as raised:
        huggingface_hub.upload_folder(repo_id="org/name", folder_path=folder)
    assert raised.value.response.status_code == status
    assert hub.repos["org/name"].refs == before


def test_branches_are_made(hub, logged_in, folder):
    with logged_in(WRITER):
        huggingface_hub.create_branch("org/name", branch="wide")
        done = huggingface_hub.upload_folder(
            repo_id="org/name", folder_path=folder, revision="wide", delete_patterns="*"
        )
    assert hub.repos["org/name"].find("wide") == done.oid
    assert set(hub.repos["org/name"].at("wide")) == {"config.json", "model.safetensors"}


def test_a_fault_spares_those_before_it(hub):
    hub.fail("config.json", 503, skip=1, method="HEAD")
    hub.cut("model.safetensors", after=10)
    snapshot_download("org/name")
    assert [one.status for one in hub.asked("config.json")] == [200, 200]
    assert [one.sent for one in hub.asked("model.safetensors", "GET")] == [10, len(WEIGHTS)]
    assert hub.sent("model.safetensors") == 10 + len(WEIGHTS)


def test_a_new_process_meets_this_hub(hub, cache):
    hub.add("org/secret", FILES, private=True)
    line = "from huggingface_hub import snapshot_download; print(snapshot_download('org/secret'))"
    done = subprocess.run(
        [sys.executable, "-c", line],
        env=environment(hub, cache, READER),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().startswith(str(cache))


def test_afterwards_the_library_is_as_before(monkeypatch, cache, tmp_path):
    before = dict(vars(constants))
    with HubServer() as hub, hub_environment(monkeypatch, hub, cache):
        assert hub.endpoint == constants.ENDPOINT
    assert dict(vars(constants)) == before


def test_a_mistake_of_the_server_is_raised(monkeypatch, cache):
    with pytest.raises(TypeError), HubServer() as hub, hub_environment(monkeypatch, hub, cache):
        hub.repos["org/name"] = None
        hub.tokens = None
        huggingface_hub.get_session().get(f"{hub.endpoint}/api/whoami-v2", headers={"Authorization": "Bearer x"})
