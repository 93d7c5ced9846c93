"""Publishing to the Hub, in one commit; and every way that it can fail."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

from modelsurgeon.errors import OutputError
from modelsurgeon.saving import publish
from modelsurgeon.saving.publish import check_push, push
from support.hub_environment import hub_environment
from support.hub_repos import READER, STRANGER, WRITER, Access
from support.hub_server import HubServer
from support.publications import CARD, FILES, OLD, SHARDS, STALE, folder, one_line, waits

__all__ = ["folder", "waits"]  # fixtures


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """A Hub that knows org/old, and the token of somebody whose name is org."""
    with HubServer() as hub, hub_environment(monkeypatch, hub, tmp_path / "cache", WRITER):
        hub.tokens[WRITER] = Access("org")
        hub.add("org/old", OLD | STALE)
        yield hub


@pytest.fixture
def patch(hub):
    """Patches of the library that end before the Hub does: what `hub` patched is put back last."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def as_token(patch):
    return lambda token: patch.setenv("HF_TOKEN", token)


def pushed(folder, repo="org/new", private=False, create_pr=False, **options):
    return push(folder, repo, private=private, create_pr=create_pr, card=CARD, message="widen", **options)


def checked(repo="org/new", private=False, create_pr=False):
    check_push(repo, private=private, create_pr=create_pr)


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


def test_offline_mode_is_refused_with_a_token_or_without(patch, as_token):
    as_token("")
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
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


def test_nothing_is_pushed_beside_an_adapter(hub, folder):
    hub.add("org/adapter", OLD | {"adapter_config.json": b"{}"})
    for act in (lambda: checked("org/adapter"), lambda: pushed(folder, "org/adapter")):
        with pytest.raises(OutputError) as raised:
            act()
        one_line(raised, "org/adapter: holds an adapter (adapter_config.json)", "choose another target")
    assert not changes(hub)
