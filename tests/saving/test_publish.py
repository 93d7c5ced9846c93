"""Publishing: to the Hub in one commit, to what fsspec knows with config.json last; and every way that it can fail."""

from __future__ import annotations

import json

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

from modelsurgeon.errors import OutputError
from modelsurgeon.saving import publish
from modelsurgeon.saving.publish import check_push, check_url, push, upload
from support.hub_server import READER, STRANGER, WRITER, Access, HubServer, hub_environment

CARD = "---\nlibrary_name: transformers\n---\n\n# wide\n"
SHARDS = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 1000 for i in (1, 2)}
FILES = {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {}}', "modelsurgeon.json": b"{ }"}
FILES |= {"tokenizer.json": b"[]", **SHARDS}
OLD = {"config.json": b"{1}", "README.md": b"# old", "notes.txt": b"mine", "adapter_model.safetensors": b"adapter"}
OLD |= {"onnx/model.safetensors": b"onnx", "model-00002-of-00002.safetensors": b"old"}
STALE = {"model.safetensors": b"old", "model-00003-of-00003.safetensors": b"old", "other.safetensors.index.json": b"{}"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "the out"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited, all spared."""
    found = []
    monkeypatch.setattr(publish, "sleep", found.append)
    return found


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """A Hub that knows org/old, and the token of somebody whose name is org."""
    with HubServer() as hub, hub_environment(monkeypatch, hub, tmp_path / "cache", WRITER):
        hub.tokens[WRITER] = Access("org")
        hub.add("org/old", OLD | STALE)
        yield hub


@pytest.fixture
def as_token(monkeypatch):
    return lambda token: monkeypatch.setenv("HF_TOKEN", token)


def pushed(folder, repo="org/new", private=False, create_pr=False, **options):
    return push(folder, repo, private=private, create_pr=create_pr, card=CARD, message="widen", **options)


def checked(repo="org/new", private=False, create_pr=False):
    check_push(repo, private=private, create_pr=create_pr)


def one_line(raised, *said):
    text = str(raised.value)
    assert "\n" not in text and all(words in text for words in said), text


def changes(hub):
    """Requests that could change something on the Hub."""
    harmless = ("/preupload/", "/validate-yaml", "/objects/batch")
    return [one for one in hub.asked() if one.method in ("POST", "PUT") and not any(h in one.path for h in harmless)]


# --- to the Hub ------------------------------------------------------------------------------------------------------


def test_what_is_pushed_is_the_folder_with_the_card_in_one_commit(hub, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checked()
    url = pushed(folder)
    new = hub.repos["org/new"]
    held = {name: data for name, data in new.files.items() if name != ".gitattributes"}
    assert held == FILES | {"README.md": CARD.encode()}
    assert url == f"{hub.endpoint}/org/new/commit/{new.find('main')}"
    assert (len(new.commits), new.private) == (2, False)
    assert new.messages[new.find("main")] == "widen"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_card_that_lies_in_the_folder_gives_way(hub, folder):
    (folder / "README.md").write_text("# another")
    pushed(folder)
    assert hub.repos["org/new"].files["README.md"] == CARD.encode()
    assert hub.asked("/commit/")[0].body.count(b"README.md") == 1


def test_a_new_repository_is_private_on_demand(hub, folder):
    checked(private=True)
    pushed(folder, private=True)
    assert hub.repos["org/new"].private
    checked(private=True)
    pushed(folder, private=True)


def test_a_public_repository_is_not_taken_for_a_private_one(hub):
    with pytest.raises(OutputError) as raised:
        checked("org/old", private=True)
    one_line(raised, "org/old: exists and is public; --private is for a new repository")


def test_a_second_push_replaces_the_card_deletes_stale_weights_and_nothing_else(hub, folder):
    checked("org/old")
    pushed(folder, "org/old")
    old = hub.repos["org/old"]
    assert old.files == {**OLD, **FILES, "README.md": CARD.encode()}
    assert len(old.commits) == 2


def test_the_same_push_again_changes_nothing(hub, folder):
    first = pushed(folder)
    head = hub.repos["org/new"].find("main")
    assert pushed(folder) == first == pushed(folder, create_pr=True)
    assert hub.repos["org/new"].find("main") == head and not hub.repos["org/new"].pull_requests


@pytest.mark.parametrize("token", [WRITER, STRANGER])
def test_a_pull_request_leaves_the_branch_alone(hub, folder, as_token, token):
    as_token(token)
    old = hub.repos["org/old"]
    head = old.find("main")
    checked("org/old", create_pr=True)
    url = pushed(folder, "org/old", create_pr=True)
    assert url == f"{hub.endpoint}/org/old/discussions/1"
    assert old.find("main") == head and old.files == OLD | STALE
    assert old.at("refs/pr/1") == {**OLD, **FILES, "README.md": CARD.encode()}


def test_large_files_that_the_hub_holds_are_not_sent_again(hub, folder):
    pushed(folder)
    sent = len(hub.asked("/lfs/", "PUT"))
    (folder / "tokenizer.json").write_bytes(b"[1]")
    pushed(folder)
    assert sent == len(SHARDS) == len(hub.asked("/lfs/", "PUT"))


def test_a_check_changes_nothing(hub, as_token):
    checked()
    checked("org/old")
    checked("org/old", create_pr=True)
    assert not changes(hub) and "org/new" not in hub.repos


# --- what the Hub refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repo", ["name", "a/b/c", "org/na me", "org/..", "org/na--me", "", "org/", "hf://org/name", "-"]
)
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub, repo):
    with pytest.raises(OutputError) as raised:
        checked(repo)
    one_line(raised, f"{repo}: ")
    assert not hub.asked()


def test_offline_mode_is_refused_with_a_token_or_without(hub, monkeypatch, as_token):
    as_token("")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError) as raised:
        checked()
    one_line(raised, "org/new: offline mode pushes nothing; unset HF_HUB_OFFLINE")


@pytest.mark.parametrize(
    ("token", "repo", "create_pr", "said"),
    [
        ("", "org/new", False, "org/new: no token to push with; set HF_TOKEN"),
        ("", "org/old", True, "org/old: no token to push with; set HF_TOKEN"),
        ("hf_wrong", "org/old", False, "org/old: the token is not accepted; set HF_TOKEN to one of http"),
        (READER, "org/old", False, "org/old: the token of reader may only read; make one that writes at http"),
        (READER, "org/new", False, "org/new: the token of reader may only read"),
        (READER, "org/old", True, "org/old: the token of reader may only read"),
        (STRANGER, "org/old", False, "this token may not write here (Authorization error.); --create-pr asks those"),
        (STRANGER, "org/new", False, "org/new: no such repository, and stranger cannot make one: no member of org"),
        (WRITER, "else/new", False, "else/new: no such repository, and org cannot make one: no member of else"),
        (WRITER, "org/new", True, "org/new: no such repository to open a pull request in; without --create-pr it is"),
    ],
)
def test_who_may_not_push_is_told_before_anything_is_done(hub, as_token, token, repo, create_pr, said):
    as_token(token)
    with pytest.raises(OutputError) as raised:
        checked(repo, create_pr=create_pr)
    one_line(raised, said)
    assert not changes(hub)


def test_members_of_an_organisation_may_make_its_repositories(hub, monkeypatch):
    who = {"name": "me", "orgs": [{"name": "Org"}], "auth": {"accessToken": {"role": "write"}}}
    monkeypatch.setattr(publish.HfApi, "whoami", lambda api: who)
    checked("org/new")
    monkeypatch.setattr(publish.HfApi, "whoami", lambda api: who | {"orgs": []})
    with pytest.raises(OutputError, match="no member of org"):
        checked("org/new")


def test_tokens_of_other_kinds_are_left_to_the_hub(hub, monkeypatch):
    for who in ({"name": "ci"}, {"name": "me", "auth": {"accessToken": {"role": "fineGrained"}}}):
        monkeypatch.setattr(publish.HfApi, "whoami", lambda api, who=who: who)
        checked("org/new")


@pytest.mark.parametrize(
    ("token", "repo", "said"),
    [
        ("", "org/new", "the token is not accepted"),
        ("hf_wrong", "org/old", "the token is not accepted"),
        (READER, "org/new", "this token may not write here (You don't have the rights"),
        (READER, "org/old", "this token may not write here (Authorization error.)"),
        (STRANGER, "org/old", "this token may not write here (Authorization error.)"),
    ],
)
def test_a_push_that_is_refused_leaves_the_hub_alone_and_says_how_to_go_on(hub, folder, as_token, token, repo, said):
    as_token(token)
    refs = dict(hub.repos["org/old"].refs)
    with pytest.raises(OutputError) as raised:
        pushed(folder, repo)
    one_line(raised, f"{repo}: ", said, f"; the output stays in {folder}: hf upload {repo} '{folder}'")
    assert hub.repos["org/old"].refs == refs and not hub.asked("/lfs/", "PUT")


def test_the_way_out_keeps_the_options(hub, folder, as_token):
    as_token("hf_wrong")
    with pytest.raises(OutputError) as raised:
        pushed(folder, private=True, create_pr=True)
    assert str(raised.value).endswith(f"hf upload org/new '{folder}' --private --create-pr")


def test_a_repository_that_changes_meanwhile_is_not_written_over(hub, folder, monkeypatch):
    find = publish._find

    def and_then_changes(api, repo):
        found = find(api, repo)
        hub.add(repo, OLD)
        return found

    monkeypatch.setattr(publish, "_find", and_then_changes)
    with pytest.raises(OutputError) as raised:
        pushed(folder, "org/old")
    one_line(raised, "org/old: has changed since the upload began", "hf upload org/old")
    assert hub.repos["org/old"].files == OLD


def test_metadata_that_the_hub_does_not_accept_is_told(hub, folder, monkeypatch):
    def refuse(*_, **__):
        raise ValueError('Invalid metadata in README.md.\n- "license" must be one of [mit]')

    monkeypatch.setattr(publish.HfApi, "_validate_yaml", refuse)
    with pytest.raises(OutputError) as raised:
        pushed(folder)
    one_line(raised, 'org/new: Invalid metadata in README.md. - "license" must be one of [mit]; the output stays in')


# --- a Hub that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("part", ["whoami", "api/models/org", "preupload"])
def test_a_check_asks_again_where_the_hub_is_busy(hub, waits, part, status):
    hub.fail(part, status, times=2)
    checked("org/old")
    assert len([one for one in hub.asked(part) if one.status == status]) == 2


@pytest.mark.parametrize(
    "part", ["api/repos/create", "validate-yaml", "preupload", "/lfs/", "/commit/", "api/models/org"]
)
def test_a_push_goes_on_where_the_hub_was_busy(hub, folder, part):
    hub.fail(part, 503, times=2)
    pushed(folder)
    assert hub.repos["org/new"].files.items() >= FILES.items()
    assert len(hub.repos["org/new"].commits) == 2


def test_the_hub_says_how_long_to_wait(hub, folder, waits):
    hub.fail("/commit/", 429, **{"Retry-After": "7"})
    hub.fail("/commit/", 429, **{"Retry-After": "99999"})
    pushed(folder)
    assert waits == [7.0, publish.LONGEST_WAIT]


@pytest.mark.parametrize(
    ("method", "part"),
    [("GET", "api/models/org"), ("POST", "api/repos/create"), ("POST", "/commit/"), ("PUT", "/lfs/")],
)
def test_a_hub_that_keeps_failing_is_a_failure_of_the_machine(hub, folder, waits, method, part):
    hub.fail(part, 503, times=100, method=method)
    with pytest.raises(OSError) as raised:
        pushed(folder)
    one_line(
        raised, "org/new: the Hub fails (503), also when asked again", "; the output stays in", "hf upload org/new"
    )
    assert waits == ([] if method == "PUT" else list(publish.WAITS))  # these the library repeats itself


@pytest.mark.parametrize("act", [checked, pushed], ids=["check", "push"])
def test_no_network_is_a_failure_of_the_machine(hub, folder, waits, act):
    hub.shutdown()
    hub.socket.close()
    with pytest.raises(OSError) as raised:
        act(*[folder][: act is pushed])
    one_line(raised, f"org/new: the Hub cannot be reached at {hub.endpoint} (")
    assert ("hf upload" in str(raised.value)) == (act is pushed) and not waits


def test_a_page_that_is_no_hub_is_told(hub, folder, monkeypatch):
    def no_json(*_, **__):
        return json.loads("<html>")

    monkeypatch.setattr(publish.HfApi, "model_info", no_json)
    with pytest.raises(OSError, match=r"org/new: http://.* does not answer as a Hub; is HF_ENDPOINT right\?"):
        checked()


def test_the_library_is_silent_and_afterwards_as_before(hub, folder, capfd):
    before = logging.get_verbosity()
    enable_progress_bars()
    try:
        hub.add("org/new", {})
        hub.fail("preupload", 503, times=2, skip=1)  # of which the library warns
        checked()
        checked()
        with publish._silenced(quiet=True):
            assert are_progress_bars_disabled() and logging.get_verbosity() > before
        pushed(folder, quiet=True)
        pushed(folder)
        assert not are_progress_bars_disabled()
    finally:
        disable_progress_bars()
    assert capfd.readouterr() == ("", "") and logging.get_verbosity() == before


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
