"""Every field of a record, set to what no record should hold, makes the record wrong, and never the result the same.

`verify` says "different" and names the field; every other command refuses, and says how to go on without the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import modelsurgeon as ms
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.errors import FieldError, ModelSurgeonError
from modelsurgeon.operations.insert_layers import InsertLayers
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.operations.widen import Widen
from modelsurgeon.proof.proof import prove
from modelsurgeon.verification import summary
from support import draws, tiny
from support.command import run
from support.forging import WIDEN, Document, claims, forged, step

Place = tuple[str | int, ...]
VALUES: list[Any] = [
    "x",
    "",
    -1,
    0.5,
    float("nan"),
    float("inf"),
    2**70,
    10**300,
    True,
    None,
    [],
    {},
    [[]],
    {"a": 1},
    [1, "x"],
]
VALUES += ["\x1b[31m", [None], 0, 1e30]
EVERY = 1 if draws.EXHAUSTIVE else 29
# Fields that say nothing of the function, under which many values are as good as others.
FREE = {
    "seed",
    "id",
    "reason",
    "lossy",
    "revision",
    "weight_decay",
    "lr",
    "eps",
    "tensors",
    "noise",
    "std",
    "kinds",
    "learning_rates",
}

OPERATIONS = {
    "widen": ("llama-tied", lambda model: model.widen(factor=2, seed=3)),
    "untie-embeddings": ("llama-tied", lambda model: model.untie_embeddings()),
    "insert-layers": ("llama-untied", lambda model: model.apply(InsertLayers(layers={"layer": [0, None, 1]}))),
    "a chain": (
        "llama-tied",
        lambda model: model.widen(factor=2).untie_embeddings().widen(set={"intermediate_size": 99}),
    ),
}


@pytest.fixture(scope="session")
def honest(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """honest(operation) -> (source, result with its record, as they lie on the disk)."""
    made: dict[str, tuple[Path, Path]] = {}

    def folders(operation: str) -> tuple[Path, Path]:
        if operation not in made:
            name, operate = OPERATIONS[operation]
            before = source(tiny.named(name))
            made[operation] = before, operate(ms.open(before)).save(tmp_path_factory.mktemp("honest") / "out").path
        return made[operation]

    return folders


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """The path of every member of a document."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        yield (*at, name)
        yield from places(inner, (*at, name))


def member(document: Any, at: Place) -> Any:
    for name in at:
        document = document[name]
    return document


def wrong_fields(record: Document) -> list[tuple[Place, Any]]:
    """(place, value) of every change to try: another value, a field that is left out, one too many."""
    found: list[tuple[Place, Any]] = []
    for at in places(record):
        found += [(at, value) for value in VALUES if not equal(value, member(record, at))]
        found += [(at, Ellipsis)] if isinstance(at[-1], str) else []
        found += [((*at, "more"), 1)] if isinstance(member(record, at), dict) else []
    return found


def equal(a: Any, b: Any) -> bool:
    """Whether two values say the same: 0 is 0.0, and neither is false."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def change(record: Document, at: Place, value: Any) -> None:
    outer = member(record, at[:-1])
    if value is Ellipsis:
        del outer[at[-1]]
    else:
        outer[at[-1]] = value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_field_that_cannot_be_right_makes_no_result_the_same(operation: str, honest: Any, tmp_path: Path) -> None:
    before, result = honest(operation)
    text, source = (result / RECORD).read_text(), open_checkpoint(before)
    assert (honestly := prove(source, open_checkpoint(result))) and honestly.summary != "wrong"
    folder, found = forged(result, tmp_path / "forged", []), {}
    tried = wrong_fields(json.loads(text))
    for at, value in tried[draws.chance(operation).randrange(EVERY) :: EVERY]:
        (folder / RECORD).write_text(text)
        claims(folder, lambda record, at=at, value=value: change(record, at, value))
        found[at, repr(value)] = problem(source, folder, at)
    assert {what: wrong for what, wrong in found.items() if wrong} == {}


def problem(source: Checkpoint, folder: Path, at: Place) -> str:
    """What is wrong with how a record was taken; empty where nothing is."""
    try:
        proof = prove(source, open_checkpoint(folder))
    except ModelSurgeonError as error:
        return "" if at == ("format",) and "written by a later version" in str(error) else f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if at[-1] in FREE or {*at} & {"lossy", "tensors", "kinds"} or at in (("files",), ("steps",)) or "files" in at:
        return ""  # whatever it says, the proof does not rest on it
    if proof is None or proof.summary == "wrong":
        return ""
    return "proven all the same"


FIELDS: dict[str, tuple[Document, str]] = {
    "no layers": (step("insert-layers", {}), "steps[0].arguments.layers: expected an object of lists "),
    "another factor": (step("widen", {**WIDEN, "factor": 3}), "arguments make hidden_size 96, and the maps make it 32"),
    "another size": (step("widen", {**WIDEN, "settings": {"hidden_size": 33}}), "arguments make hidden_size 33, and"),
    "layers that are a number": (step("insert-layers", {"layers": 5}), "steps[0].arguments.layers: expected an object"),
    "layers of a word": (step("insert-layers", {"layers": {"layer": "x"}}), "layers.layer: expected a list"),
    "an unknown counter": (step("insert-layers", {"layers": {"block": [0, 1, None]}}), "of layer, found 'block'"),
    "layers out of order": (step("insert-layers", {"layers": {"layer": [1, None, 0]}}), "layer: expected 0, 1, 2"),
    "a negative layer": (step("insert-layers", {"layers": {"layer": [-1, None]}}), "layer: expected 0, 1, 2"),
    "more old layers than there are": (step("insert-layers", {"layers": {"layer": [0, 1, 2, None]}}), "2 old layers"),
    "an unknown operation": (step("spin", {}), "steps[0].operation: expected one of init, insert-layers, "),
    "an unknown argument": (step("untie-embeddings", {"by": 2}), "by: expected no such field, found 2"),
    "a version that is none": ({**step("untie-embeddings", {}), "version": "new"}, "version: expected a version"),
    "a seed that is none": ({**step("untie-embeddings", {}), "seed": "x"}, "seed: expected a whole number or null"),
    "a source that is none": ({**step("untie-embeddings", {}), "source": 7}, "source: expected an object, found 7"),
    "a source without files": ({**step("untie-embeddings", {}), "source": {"id": "x"}}, "revision, files, config"),
    "a key too many": ({**step("untie-embeddings", {}), "more": 1}, "steps[0].more: expected no such field, found 1"),
    "no maps": ({k: v for k, v in step("widen", WIDEN).items() if k != "maps"}, "steps[0].maps: expected an object"),
    "maps of an untying": (step("untie-embeddings", {}, {"mlp": {}}), "steps[0].maps.mlp.size: expected"),
    "noise of 2": (step("widen", {**WIDEN, "noise": 2}), "steps[0].arguments.noise: expected 0 to 1, found 2"),
    "noise that is no number": (step("widen", {**WIDEN, "noise": float("nan")}), "noise: expected a number, found nan"),
    "a dtype that is none": (step("widen", {**WIDEN, "dtype": "int8"}), "dtype: expected one of None, bfloat16"),
    "a deviation below 0": (step("untie-embeddings", {"head": "normal", "std": -1}), "std: expected a number above"),
    "reasons of a lossless step": ({**step("widen", WIDEN), "lossy": ["x"]}, "lossless: expected false, since"),
}  # fmt: skip
SOME_FIELDS = [*FIELDS] if draws.EXHAUSTIVE else draws.chance("fields of a record").sample([*FIELDS], 5)


@pytest.mark.parametrize("name", SOME_FIELDS)
def test_verify_calls_it_different_and_names_the_field(name: str, source: Any, tmp_path: Path) -> None:
    said, words = FIELDS[name]
    before = source(tiny.named("llama-untied"))
    result = forged(before, tmp_path / "forged", [said])
    report = ms.verify(before, result, samples=1, length=8)
    assert (report.same, report.proven, report.verdict) == (False, False, "different")
    row = next(row for row in summary.levels(report.to_json()) if row.name == "proof")
    assert (row.what, row.mood) == ("the record", summary.BAD)
    assert row.result.startswith("cannot be right: steps[0]") and words in row.result
    assert ms.verify(before, result, samples=1, length=8, ignore_record=True).same


COMMANDS = (["widen"], ["untie-embeddings"], ["diagnose", "--weights"])


def test_other_commands_refuse_it_and_say_how_to_go_on(source: Any, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    for name, said in (("unread", {**step("widen", WIDEN), "seed": "x"}), ("unknown", step("spin", {}))):
        result = forged(before, tmp_path / name, [said])
        for command, *options in COMMANDS[: 2 + (name == "unread")]:
            done = run(command, result, *options, *(["-o", tmp_path / "out"] if command != "diagnose" else []))
            assert done.code == 2 and done.err.count("\n") == 1, done.err
            assert "modelsurgeon.json: steps[0]." in done.err and "remove modelsurgeon.json" in done.err
    done = run("verify", tmp_path / "unread", before)
    assert (done.code, done.out) == (2, "")
    assert "remove modelsurgeon.json to treat it as a checkpoint without a record" in done.err


def test_the_command_ends_in_1_with_the_field_and_no_traceback(source: Any, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))
    result = forged(before, tmp_path / "forged", [step("insert-layers", {"layers": 5})])
    done = run("verify", before, result, "--samples", 1, "--length", 8)
    assert done.code == 1
    assert "cannot be right: steps[0].arguments.layers: expected" in done.err and "0 tensors" not in done.err
    (result / RECORD).write_text("{")
    assert run("verify", before, result).code == 2, "what is no JSON says nothing"


def test_steps_that_were_just_made_are_as_good_as_those_on_record(source: Any) -> None:
    made = open_checkpoint(source(tiny.named("llama-tied")))
    for operation in (Widen(set=("hidden_size=64",)), UntieEmbeddings(), Widen(factor=2)):
        made = applied(operation, made)
    assert len(made.steps) == 3
    with pytest.raises(FieldError, match=r"steps\[0\]\.arguments\.rule: expected one of orthogonal, exact"):
        applied(Widen(), forged_in_memory(made))


def forged_in_memory(checkpoint: Checkpoint) -> Checkpoint:
    first, *rest = checkpoint.steps
    return replace(checkpoint, steps=(replace(first, arguments={**first.arguments, "rule": "best"}), *rest))
