"""Whole runs to and from places that are no folder: the Hub, and what fsspec knows; and code that is trusted."""

from __future__ import annotations

import json
import shutil

import fsspec
import huggingface_hub
import pytest

from modelsurgeon.saving import publish
from support import tiny
from support.command import contents, run
from support.hub_environment import hub_environment
from support.hub_repos import WRITER, Access
from support.hub_server import HubServer

SOURCE, RESULT = "org/small", "writer/wide"


@pytest.fixture
def small(source):
    """A folder that is quickly verified."""
    return source(tiny.named("llama-tied"), "bfloat16")


@pytest.fixture
def hub(small, tmp_path, monkeypatch):
    """A Hub that holds it as org/small, and a token that may write."""
    monkeypatch.setattr(publish, "sleep", lambda seconds: None)
    with HubServer() as served:
        served.tokens[WRITER] = Access("writer")
        served.add(SOURCE, small)
        with hub_environment(monkeypatch, served, tmp_path / "cache", WRITER):
            yield served


@pytest.fixture
def expected(small, tmp_path):
    """What the same run makes of it as a folder."""
    assert run("widen", small, "-o", tmp_path / "expected").code == 0
    return weights(tmp_path / "expected")


def weights(folder):
    return {name: digest for name, digest in contents(folder).items() if name != "modelsurgeon.json"}


@pytest.mark.parametrize("stream", [False, True], ids=["downloaded", "streamed"])
def test_a_repository_is_widened_verified_and_pushed_with_its_card(stream, hub, expected, tmp_path):
    options = ["--stream"] if stream else []
    done = run("widen", SOURCE, "--push-to-hub", RESULT, "--private", *options)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{hub.endpoint}/{RESULT}") and "same function" in done.err
    pushed = hub.repos[RESULT]
    assert pushed.private
    (tmp_path / "pushed").mkdir()
    for name, data in pushed.files.items():
        if name not in ("README.md", ".gitattributes"):
            (tmp_path / "pushed" / name).write_bytes(data)
    assert weights(tmp_path / "pushed") == expected
    assert run("verify", "--files", tmp_path / "pushed").code == 0
    card = huggingface_hub.ModelCard(pushed.files["README.md"].decode())
    assert card.data.base_model == SOURCE and card.data.base_model_relation == "finetune"
    assert f"widen {SOURCE} " in card.text and f"--revision {hub.repos[SOURCE].find('main')}" in card.text
    assert list((tmp_path / "cache").rglob("*.safetensors")) == [] or not stream


def test_a_streamed_source_is_verified_by_the_proof_alone(hub, tmp_path):
    done = run("widen", SOURCE, "--stream", "-o", tmp_path / "out", "--verify", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["verification"]
    assert found["same"] and found["proof"]["verdict"] == "exact" and found["logits"] is None
    assert "logits not compared: org/small is read where it is" in done.err


@pytest.mark.parametrize("options", [("--rule", "orthogonal"), ("--rope", "repeat", "--attention", "head-dim")])
def test_a_proof_alone_passes_nothing_that_is_rounded_or_lossy(options, hub, tmp_path):
    done = run("widen", SOURCE, "--stream", "-o", tmp_path / "out", "--verify", *options)
    assert done.code == 1 and "not the same function" in done.err
    assert not (tmp_path / "out").exists()


def test_what_is_not_the_same_is_not_pushed(hub, tmp_path):
    done = run("widen", SOURCE, "--push-to-hub", RESULT, "--rope", "repeat", "--attention", "head-dim")
    assert done.code == 1 and RESULT not in hub.repos


def test_what_may_not_be_pushed_is_refused_before_anything_is_made(hub, tmp_path):
    hub.tokens[WRITER] = Access("writer", writes=False)
    done = run("widen", SOURCE, "--push-to-hub", RESULT)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert RESULT not in hub.repos and not hub.asked(method="PUT")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_an_upload_that_fails_keeps_the_result_and_says_where(hub, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hub.fail("/commit/", 500, times=99)
    done = run("widen", SOURCE, "--push-to-hub", RESULT)
    assert done.code == 3, done.err
    (kept,) = tmp_path.glob("modelsurgeon-*/result")
    assert f"the output stays in {kept}" in done.err
    assert weights(kept) == expected


def test_a_verify_of_two_repositories_downloads_what_it_runs(hub, tmp_path):
    assert run("widen", SOURCE, "--push-to-hub", RESULT).code == 0
    done = run("verify", SOURCE, RESULT, "--samples", 1, "--length", 16)
    assert done.code == 0 and "same function" in done.err


def test_options_that_belong_together(tmp_path):
    for options, said in {
        ("--dry-run", "--push-to-hub", "a/b"): "--dry-run writes nothing for --push-to-hub",
        ("--private", "-o", tmp_path / "out"): "--private is for --push-to-hub",
        ("--create-pr", "-o", tmp_path / "out"): "--create-pr is for --push-to-hub",
        ("--memory", "much", "-o", tmp_path / "out"): "memory 'much': expected a number of bytes",
        ("--memory", "100MB", "-o", tmp_path / "out"): "memory 100.0 MB: this takes",
        ("--workers", "0", "-o", tmp_path / "out"): "--workers",
    }.items():
        done = run("widen", "demo", *options)
        assert done.code == 2 and said in done.err, done.err
        assert contents(tmp_path) == {}


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_urls_that_fsspec_knows_are_read_and_written(bucket, small, expected, tmp_path):
    for path in small.iterdir():
        bucket.pipe(f"/models/small/{path.name}", path.read_bytes())
    done = run("widen", "memory://models/small", "-o", "memory://models/wide")
    assert (done.code, done.out) == (0, "memory://models/wide\n"), done.err
    bucket.get("/models/wide", str(tmp_path / "got"), recursive=True)
    assert weights(tmp_path / "got") == expected
    again = run("widen", "memory://models/small", "-o", "memory://models/wide")
    assert again.code == 2 and "--overwrite" in again.err


def test_a_file_url_is_the_folder(small, expected, tmp_path):
    out = tmp_path / "out"
    assert run("widen", f"file://{small}", "-o", f"file://{out}").code == 0
    assert weights(out) == expected


def test_code_runs_only_where_it_is_trusted(small, tmp_path):
    folder, ran = shutil.copytree(small, tmp_path / "own"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    code = f"from pathlib import Path\nfrom transformers import LlamaForCausalLM\nPath({str(ran)!r}).touch()\n"
    (folder / "modeling_own.py").write_text(f"{code}class OwnForCausalLM(LlamaForCausalLM):\n    pass\n")
    running = ("--samples", 1, "--length", 16)
    assert run("widen", folder, "-o", tmp_path / "out", "--verify").code == 0
    assert run("verify", folder, tmp_path / "out", *running).code == 0
    assert not ran.exists() and not list((tmp_path / "out").glob("*.py"))
    assert run("verify", folder, tmp_path / "out", "--trust-remote-code", *running).code == 0
    assert ran.exists()


def test_code_of_another_repository_is_never_fetched(small, tmp_path):
    folder = shutil.copytree(small, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "org/other--modeling_own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    done = run("verify", folder, small, "--trust-remote-code", "--samples", 1, "--length", 16)
    assert done.code == 0, done.err
