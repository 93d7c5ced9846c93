"""Nothing that the program writes or tells is another than it was: the golden record of `golden.py`, held.

The demo checkpoint always runs. The trained ones are looked for in the folder that MODELSURGEON_CHECKPOINTS names;
their documents that need a model run are slow ones (pytest -m slow).
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import golden, golden_numbers
from support.golden import ChangedError, OtherInputError, Place, hold, recorded
from support.golden_cases import CHECKPOINTS, DEMO, FAMILIES, TELLING, WRITING, Telling, telling, writing

VARIABLE = "MODELSURGEON_CHECKPOINTS"
NAMED = os.environ.get(VARIABLE)
FOLDER = Path(NAMED) if NAMED else None


@pytest.fixture
def place(name: str, tmp_path: Path) -> Place:
    """A folder with the checkpoint on record, or the reason why there is none."""
    if name != DEMO and FOLDER is None:
        pytest.skip(f"{VARIABLE} names no folder with {name}")
    golden.check_inputs(name, FOLDER)
    return golden.settle(tmp_path, name, FOLDER)


def _cases(asked: Callable[[str], dict[str, Any]]) -> list[Any]:
    """All (checkpoint, case); slow is what runs a model that is not the demo."""
    pairs = [(name, case, what) for name in CHECKPOINTS for case, what in asked(name).items()]
    slow = [isinstance(what, Telling) and what.runs and name != DEMO for name, _, what in pairs]
    return [
        pytest.param(name, case, id=f"{name}-{case}", marks=pytest.mark.slow if run else ())
        for (name, case, _), run in zip(pairs, slow, strict=True)
    ]


@pytest.mark.parametrize(("name", "case"), _cases(writing))
def test_each_file_is_written_as_it_was_byte_by_byte(name: str, case: str, place: Place) -> None:
    hold(f"{name}/files.json", place.written(WRITING[case]), case)


@pytest.mark.parametrize(("name", "case"), _cases(telling))
def test_each_document_tells_what_it_told(name: str, case: str, place: Place) -> None:
    hold(f"{name}/{case}.json", place.told(TELLING[case]))


@pytest.mark.parametrize("case", FAMILIES)
def test_families_are_told_as_they_were(case: str, tmp_path: Path) -> None:
    hold(f"families/{case}.json", Place(tmp_path).told(Telling(FAMILIES[case])))


def test_the_record_has_each_case_and_no_other() -> None:
    on_record = {path.relative_to(golden.DATA).as_posix() for path in golden.DATA.rglob("*.json")}
    assert on_record == {*golden.parts(FOLDER)}
    for name in CHECKPOINTS:
        assert [*recorded(f"{name}/files.json")] == [*writing(name)]


def test_the_record_lies_as_the_script_writes_it_and_is_small() -> None:
    paths = [*golden.DATA.rglob("*.json")]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        packed = golden_numbers.packed(golden_numbers.unpacked(json.loads(text)))
        assert text == golden_numbers.layout(packed) + "\n", path.name
    assert sum(path.stat().st_size for path in paths) < 1_500_000


def test_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    (short := tmp_path / "a").mkdir()
    (long := tmp_path / "another, with a longer name").mkdir()
    line = WRITING["widened into shards by two workers"]
    assert Place(short, DEMO).written(line) == Place(long, DEMO).written(line)


def test_a_changed_byte_is_seen_with_its_file_and_case(tmp_path: Path) -> None:
    case, place = "untied", Place(tmp_path, DEMO)
    found = place.written(WRITING[case])
    hold("demo/files.json", found, case)
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChangedError, match=r"demo/files\.json, untied:\nfiles\.model\.safetensors: .* on record, now"):
        hold("demo/files.json", {**found, "files": golden.hashes(tmp_path / "out")}, case)


def test_a_changed_record_is_seen_but_for_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / golden.RECORD
    path.write_text(f'{{"version": "{golden.modelsurgeon.__version__}", "seed": 0}}')
    before = golden.hashes(tmp_path)
    monkeypatch.setattr(golden.modelsurgeon, "__version__", "99.0")
    path.write_text('{"version": "99.0", "seed": 0}')
    assert golden.hashes(tmp_path) == before
    path.write_text('{"version": "99.0", "seed": 1}')
    assert golden.hashes(tmp_path) != before


def test_a_missing_file_and_a_new_one_are_seen() -> None:
    case = "widened into shards by two workers"
    found = copy.deepcopy(recorded("demo/files.json", case))
    found["files"]["more.json"] = found["files"].pop("model.safetensors.index.json")
    with pytest.raises(ChangedError, match=r"index\.json: on record, now missing\nfiles\.more\.json: new"):
        hold("demo/files.json", found, case)


def test_a_refusal_that_says_something_else_is_seen() -> None:
    case = "a wider stream that is no multiple, exactly"
    found = recorded("bert/files.json", case)
    with pytest.raises(ChangedError, match=r"bert/files\.json, a wider stream .*:\ncode: 2 on record, now 3"):
        hold("bert/files.json", {**found, "code": 3}, case)


def _loss(document: dict[str, Any], factor: float) -> None:
    document["logits"]["comparisons"][0]["loss_after"] *= factor


def _dropped(document: dict[str, Any]) -> None:
    del document["logits"]["generation"]


def _reordered(document: dict[str, Any]) -> None:
    document["proof"] = {key: document["proof"][key] for key in reversed(document["proof"])}


PLANTED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a number": (lambda document: _loss(document, 1.0001), r"logits\.comparisons\[0\]\.loss_after: .* \(may differ by"),
    "an integer": (lambda document: document["checkpoints"]["source"].update(parameters=7), r"source\.parameters"),
    "an integer for a number": (lambda document: document["proof"].update(rounding=0), r"proof\.rounding: 0\.0 on rec"),
    "a string": (
        lambda document: document.update(verdict="the same"),
        r"verdict: \"same function, proven for all inputs\" on record",
    ),
    "a key that is gone": (_dropped, r"logits\.generation: on record, now missing"),
    "a key that is new": (lambda document: document.update(more=1), r"document\.more: new, 1"),
    "keys in another order": (_reordered, r"document\.proof: keys in another order"),
    "an entry less": (lambda document: document["proof"]["tensors"].pop(), r"proof\.tensors: 39 entries on record"),
    "a number that is none": (lambda document: document["stored"].update(perplexity=None), r"stored\.perplexity: "),
    "not a number": (lambda document: _loss(document, float("nan")), r"loss_after: .* now nan"),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_seen_where_it_is(mistake: str) -> None:
    found = recorded("demo/verify.json")
    hold("demo/verify.json", found)
    plant, message = PLANTED[mistake]
    plant(found["document"])
    with pytest.raises(ChangedError, match=rf"demo/verify\.json:\n.*{message}"):
        hold("demo/verify.json", found)


def test_what_kernels_move_is_let_pass() -> None:
    found = recorded("demo/verify.json")
    _loss(found["document"], 1 + 1e-6)
    hold("demo/verify.json", found)


def test_a_long_list_is_another_one_if_one_number_is() -> None:
    numbers = [1.0 + at / 7 for at in range(100)]
    before = golden_numbers.kept({"values": numbers})
    numbers[3] += 0.01
    assert [*golden_numbers.differences(before, golden_numbers.kept({"values": numbers}))]


def test_another_checkpoint_of_the_same_name_is_told_from_a_changed_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(golden.home(DEMO, None), tmp_path / DEMO)
    monkeypatch.setattr(golden, "home", lambda name, checkpoints: tmp_path / name)
    golden.check_inputs.__wrapped__(DEMO, None)
    with (tmp_path / DEMO / "config.json").open("a") as config:
        config.write(" ")
    with pytest.raises(OtherInputError, match=r"checkpoint demo is not the one on record:\nconfig\.json: "):
        golden.check_inputs.__wrapped__(DEMO, None)


def test_no_part_of_the_record_names_a_place_of_a_machine() -> None:
    for path in golden.DATA.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        for word in (
            *(f'"/{root}' for root in ("tmp", "home", "work", "root", "Users", "var")),
            str(golden.DATA.parent),
        ):
            assert word not in text, f"{path.name}: {word}"
