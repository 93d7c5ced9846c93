"""What lies beside the function is compared: every difference has its row, the same written otherwise is the same."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import jsonschema
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from transformers import AutoTokenizer

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.verification.beside import Beside, compare_beside
from modelsurgeon.verification.side import finding
from support import draws
from support.beside_files import CHANGES, DIFFERENCES, HARMLESS, TOKENS, Change, copied, old_files, write
from support.hub_environment import hub_environment
from support.hub_server import HubServer

MIRRORED = {"only in source": "only in result", "only in result": "only in source"}
SOME = list(CHANGES) if draws.EXHAUSTIVE else draws.chance("changes beside").sample(list(CHANGES), 12)
ROWS = [
    *("tokenizer.json", "generation_config.json", "tokenizer_config.json", "preprocessors", "chat templates"),
    *("special token ids", "label names", "dropout", "dtype of the weights", "dtype in config"),
    *("remote code", "adapters"),
]  # fmt: skip


def compared(source: Path | str, result: Path | str) -> dict[str, Beside]:
    """{what: row}; no name repeats."""
    rows = compare_beside(open_checkpoint(source), open_checkpoint(result))
    assert len({row.what for row in rows}) == len(rows)
    return {row.what: row for row in rows}


def changed(change: Change, folder: Path) -> tuple[Path, Path]:
    source, result = copied(folder / "source"), copied(folder / "result")
    for side in (source, result) if change.on_both else ():
        change.on_both(side)
    change.do(result)
    return source, result


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_in_its_row_and_in_no_other(name: str, tmp_path: Path) -> None:
    change = CHANGES[name]
    rows = compared(*changed(change, tmp_path))
    assert (rows[change.what].finding, change.says in rows[change.what].detail) == (change.finding, True), rows
    others = {row.what for row in rows.values() if row.differs} - {change.what}
    together = {"dtype of the weights", "dtype in config"}  # one change, two rows
    assert others <= (together if change.what in together else set())
    assert "malformed" not in str(rows)


@pytest.mark.parametrize("name", SOME)
def test_a_row_reads_the_same_from_the_other_side(name: str, tmp_path: Path) -> None:
    source, result = changed(CHANGES[name], tmp_path)
    there, back = compared(source, result), compared(result, source)
    assert {what: row.finding for what, row in back.items()} == {
        what: MIRRORED.get(row.finding, row.finding) for what, row in there.items()
    }


@pytest.mark.parametrize("name", SOME)
def test_nothing_differs_from_itself_however_broken_it_is(name: str, tmp_path: Path) -> None:
    result = changed(CHANGES[name], tmp_path)[1]
    assert not [row for row in compared(result, result).values() if row.differs]


def test_only_what_differs_counts(tmp_path: Path) -> None:
    assert {name for name in CHANGES if Beside("", CHANGES[name].finding).differs} == set(DIFFERENCES)
    assert not set(HARMLESS) & set(DIFFERENCES)


def test_every_row_is_there_where_all_is_the_same(tmp_path: Path) -> None:
    rows = compared("demo", copied(tmp_path / "copy"))
    assert [*rows] == [*ROWS, "licence and README"]
    assert {row.finding for what, row in rows.items() if what in ROWS} == {"same"}
    assert rows["licence and README"] == Beside("licence and README", "not compared", "README.md (source)")
    schema = json.loads((Path(finding.__file__).parents[1] / "schema.json").read_text())
    validator = jsonschema.Draft202012Validator({"$ref": "#/$defs/beside", "$defs": schema["$defs"]})
    validator.validate([row.to_json() for row in rows.values()])


def test_a_tokenizer_that_the_library_saved_again_is_the_same(tmp_path: Path) -> None:
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    for path in result.glob("tokenizer*"):
        path.unlink()
    AutoTokenizer.from_pretrained(source).save_pretrained(result)
    assert not [row for row in compared(source, result).values() if row.differs]


def test_older_files_of_the_same_tokens_are_told_to_have_the_same_ids(tmp_path: Path) -> None:
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    old_files(source)
    rows = compared(source, result)
    assert (rows["vocab.json"].finding, rows[TOKENS].finding) == ("only in source", "only in result")
    assert rows["tokens"].finding == "same" and "in vocab.json and in tokenizer.json" in rows["tokens"].detail
    vocab = json.loads((source / "vocab.json").read_text())
    (source / "vocab.json").write_text(json.dumps(vocab | {"the": 4095}))
    assert compared(source, result)["tokens"].finding == "different"


def test_a_mismatch_that_both_sides_have_is_said_and_does_not_count(tmp_path: Path) -> None:
    change = CHANGES["weights cast alone"]
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    for side in (source, result):
        change.do(side)
        CHANGES["a token outside"].do(side)
    rows = compared(source, result)
    assert rows["dtype in config"].finding == "same"
    assert "on both sides config says bfloat16, weights are float32" in rows["dtype in config"].detail
    assert rows["special token ids"].finding == "same"
    assert "on both sides pad_token_id 4096 outside the vocabulary" in rows["special token ids"].detail


def test_names_and_values_of_strangers_cannot_move_a_cursor(tmp_path: Path) -> None:
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    write("tokenizer_config.json", json.dumps({"\x1b[2J": "\x1b[2J\n"}))(result)
    for name in ("a\x1b[2J.txt", "a\n.bin", "b\x1b.py", "c\n.py"):
        (result / name).write_text("x")
    (result / "d\x1b").mkdir()
    rows = compared(source, result).values()
    assert all(part.isprintable() for row in rows for part in (row.what, row.finding, row.detail))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "tools.jinja").write_text("secret")
    (result / "additional_chat_templates").symlink_to(tmp_path / "secret")
    for side in (source, result):
        (side / "notes.txt").symlink_to(tmp_path / "secret" / "tools.jinja")
    rows = compared(source, result)
    for what in ("chat templates", "notes.txt"):
        assert rows[what].finding == "not compared" and "a link out of its folder" in rows[what].detail


@pytest.mark.parametrize("trial", range(draws.examples(4)))
def test_spoilt_files_are_findings_and_never_errors(trial: int, tmp_path: Path) -> None:
    chance = draws.chance(f"spoilt beside {trial}")
    source, result = copied(tmp_path / "source"), copied(tmp_path / "result")
    for name in (TOKENS, "tokenizer_config.json", "generation_config.json"):
        found = json.loads((result / name).read_text())
        for _ in range(3):
            _spoil(found, chance)
        (result / name).write_text(json.dumps(found))
    assert all(row.finding in finding.FINDINGS for row in compared(source, result).values())


def _spoil(value: object, chance: random.Random) -> None:
    """Put something else in the place of a random value inside."""
    while isinstance(value, dict | list) and value:
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        inner = value[key]  # type: ignore[index]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.4:
            value[key] = chance.choice([None, [], {}, "x", -1, 1.5, [["a"]], {"a": 1}, float("nan")])  # type: ignore[index]
            return
        value = inner


# --- behind a network ------------------------------------------------------------------------------------------------


def test_a_folder_behind_a_network_is_compared_as_one_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(tmp_path / "source")
    write("onnx/x.txt", "x")(source)
    files = MemoryFileSystem()
    files.put(str(source), "/beside", recursive=True)
    try:
        rows = compared(source, "memory://beside")
        assert not [row for row in rows.values() if row.differs]
        assert rows["sub-folders"].detail == "onnx/ (both)"
        assert rows[TOKENS] == Beside(TOKENS, "same", "the same bytes")
        monkeypatch.setattr(finding, "MOST_FAR", 1000)
        row = compared(source, "memory://beside")[TOKENS]
        assert row.finding == "not compared" and "over a network; of the same size" in row.detail
        (source / TOKENS).write_text("{}")
        assert compared(source, "memory://beside")[TOKENS].finding == "different"
    finally:
        files.rm("/beside", recursive=True)


def test_a_repository_is_compared_and_its_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = copied(tmp_path / "source")
    held = {path.name: path.read_bytes() for path in source.iterdir()}
    more = {"additional_chat_templates/tools.jinja": b"x", "onnx/a.onnx": b"x", "1_Pooling/config.json": b"{}"}
    with HubServer() as hub, hub_environment(monkeypatch, hub, tmp_path / "cache"):
        hub.add("org/name", held | more | {TOKENS: b"{}"})
        rows = compared(source, "org/name")
    assert rows["sub-folders"] == Beside("sub-folders", "not compared", "1_Pooling/ (result), onnx/ (result)")
    assert rows["chat templates"].finding == "not compared" and "not on this disk" in rows["chat templates"].detail
    assert {row.what for row in rows.values() if row.differs} == {TOKENS}


def test_a_copy_in_the_cache_of_the_hub_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = copied(tmp_path / "source")
    shutil.copytree(source, tmp_path / "snapshots" / "0123")
    assert not [row for row in compared(source, tmp_path / "snapshots" / "0123").values() if row.differs]
