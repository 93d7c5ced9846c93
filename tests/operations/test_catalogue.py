"""An operation is one class: command, help, plan, record, replay, proof, card and Python method follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest

import modelsurgeon as ms
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import OptionsError, PlanError
from modelsurgeon.operations import catalogue
from modelsurgeon.operations.insert_layers import InsertLayers
from modelsurgeon.operations.operation import Operation, option, schema
from modelsurgeon.operations.transforms.replay import applied, replay
from modelsurgeon.operations.transforms.untying import scaled
from modelsurgeon.operations.untie_embeddings import UntieEmbeddings
from modelsurgeon.proof.proof import prove
from modelsurgeon.reports.card import model_card
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification.verify import verify
from support import tiny
from support.command import run
from support.grow import widen


@dataclass(frozen=True)
class Shift(Operation):
    """Multiply the final norm by a power of two, and divide the head that reads it."""

    name = "shift-head"

    by: int = option(1, "The exponent of two.")

    def check(self) -> None:
        if self.by == 0:
            raise OptionsError("--by 0 shifts nothing")

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        tie = checkpoint.architecture.tie
        if tie is None or not checkpoint.has(tie.head):
            raise PlanError("no head of its own; untie first")
        norm, head = checkpoint.on_disk("model.norm.weight"), checkpoint.on_disk(tie.head)
        tensors = dict(checkpoint.tensors)
        tensors[norm] = scaled(tensors[norm], 2.0**self.by)
        tensors[head] = scaled(tensors[head], 2.0**-self.by)
        return replace(checkpoint, tensors=tensors)

    def undo(self) -> Shift:
        return Shift(by=-self.by)


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    catalogue.register(Shift)
    yield
    catalogue.forget(Shift)


@pytest.fixture
def llama(source) -> Path:
    folder: Path = source(tiny.named("llama-untied"))
    return folder


def test_it_is_a_command_with_help(llama, tmp_path):
    said = run("shift-head", "--help").out
    assert "Multiply the final norm by a power of two" in said and "--by" in said and "The exponent of two." in said
    assert "shift-head" in run("--help").out
    done = run("shift-head", llama, "-o", tmp_path / "out", "--by", 3, "--verify")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n")


def test_options_that_contradict_each_other_are_refused_before_anything_is_read(tmp_path):
    done = run("shift-head", "nowhere", "-o", tmp_path / "out", "--by", 0)
    assert (done.code, done.err) == (2, "modelsurgeon: Invalid value: --by 0 shifts nothing\n")


def test_it_is_planned(llama):
    plan = json.loads(run("shift-head", llama, "--dry-run", "--json", "-q").out)["plan"]
    changed = {row["template"]: row["factors"] for row in plan["rows"] if row["factors"] != "1"}
    assert changed == {"model.norm.weight": "2", "lm_head.weight": "0.5"}
    assert plan["lossy"] == []


def test_it_is_recorded_replayed_and_proven(llama, tmp_path):
    saved = ms.open(llama).shift_head(by=2).save(tmp_path / "out")
    step = json.loads((tmp_path / "out" / "modelsurgeon.json").read_text())["steps"][-1]
    assert (step["operation"], step["arguments"], step["lossless"]) == ("shift-head", {"by": 2}, True)
    report = ms.verify(llama, saved, samples=1, length=8)
    assert report.same and report.proven and report.proof.summary == "exact"


def test_a_result_that_is_not_what_the_record_says_is_told(llama, tmp_path):
    ms.open(llama).shift_head(by=2).save(tmp_path / "out")
    record = tmp_path / "out" / "modelsurgeon.json"
    record.write_text(record.read_text().replace('"by": 2', '"by": 3'))
    proof = prove(open_checkpoint(llama), open_checkpoint(tmp_path / "out"))
    assert {verdict.name for verdict in proof.wrong} == {"model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("arguments", [{"by": "much"}, {"by": 1, "and": 2}, {"by": None}])
def test_arguments_on_record_that_it_cannot_have_are_refused(llama, arguments):
    with pytest.raises(PlanError, match="a step 'shift-head' on record with"):
        replay(open_checkpoint(llama), [Step("shift-head", arguments)])


GROWN = "grown"
ORDERS = {"first": (2, GROWN), "last": (GROWN, 2), "between": (GROWN, 2, GROWN), "among": (1, GROWN, 2, GROWN, 3)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rule", ["exact", "orthogonal"])
def test_it_is_proven_before_and_after_growth_with_noise(order, rule, llama, tmp_path):
    before = made = open_checkpoint(llama)
    for step in ORDERS[order]:
        made = widen(made, 2, rule=rule, attention="heads", noise=0.5) if step == GROWN else applied(Shift(step), made)
    save(made, tmp_path / "out")
    proof = prove(before, open_checkpoint(tmp_path / "out"))
    assert proof.summary == ("exact" if rule == "exact" else "rounded"), proof.wrong[:2]
    spoilt = tmp_path / "out" / "model.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:-4] + b"\0\0\0\0")
    assert prove(before, open_checkpoint(tmp_path / "out")).summary == "wrong"


def test_the_card_tells_of_it(llama, tmp_path):
    ms.open(llama).shift_head(by=2).save(tmp_path / "out")
    before, after = open_checkpoint(llama), open_checkpoint(tmp_path / "out")
    card = model_card(
        after, verify(before, after, RunOptions(samples=1, length=8)), command="modelsurgeon shift-head ..."
    )
    assert "shift-head" in card and "by 2; lossless" in card.replace("\\", "")


def test_what_undoes_it_gives_back_the_same_bytes(llama, tmp_path):
    once = applied(Shift(3), open_checkpoint(llama))
    save(applied(Shift(3).undo(), once), tmp_path / "back")
    before, after = open_checkpoint(llama), open_checkpoint(tmp_path / "back")
    for name, tensor in before.tensors.items():
        rows = tensor.shape[0]
        assert after.tensors[name].read(0, rows).equal(tensor.read(0, rows)), name


def test_an_operation_that_is_not_lossless_is_labelled_so(llama):
    class Lossy(Shift):
        name = "lossy"
        lossless = False

    made = applied(Lossy(), open_checkpoint(llama))
    assert made.lossy == made.steps[-1].lossy == ("lossy makes another function",)


def test_two_operations_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two operations are called 'widen'"):
        catalogue.register(dataclass(frozen=True)(type("Other", (Operation,), {"name": "widen"})))


@pytest.mark.parametrize(
    "name", ["verify", "save", "check-files", "option", "model", "Turn", "turn_it", "turn-", "", "-", "--help"]
)
def test_a_name_that_no_command_or_method_can_have_is_refused(name):
    with pytest.raises(ValueError, match="an operation cannot be called"):
        catalogue.register(dataclass(frozen=True)(type("Other", (Operation,), {"name": name})))


def test_options_that_would_be_none_are_told():
    with pytest.raises(TypeError, match=r"Other: put @dataclass\(frozen=True\) under @register"):
        catalogue.register(type("Other", (Shift,), {"name": "turn"}))


def test_an_unknown_step_is_refused_by_name(llama):
    with pytest.raises(PlanError, match=r"a step 'spin' on record, expected one of .*widen"):
        replay(open_checkpoint(llama), [Step("spin", {})])


@pytest.mark.parametrize("operation", catalogue.all_operations().values(), ids=lambda operation: operation.name)
def test_options_have_help_and_a_schema_that_their_defaults_fit(operation):
    found = schema(operation)
    made = operation()
    jsonschema.validate({k: list(v) if isinstance(v, tuple) else v for k, v in vars(made).items()}, found)
    if operation.offered:
        assert all(entry["description"].endswith(".") for entry in found["properties"].values())


def test_layers_that_are_inserted_add_zero_and_are_proven_by_the_record(llama, tmp_path):
    layers = {"layer": [0, None, 1, None]}
    saved = ms.open(llama).apply(InsertLayers(layers=layers)).save(tmp_path / "deep")
    report = ms.verify(llama, saved, samples=1, length=8)
    assert report.same and report.proven and ms.inspect(saved).numbers["num_hidden_layers"] == 4
    assert sum("which adds zero" in verdict.detail for verdict in report.proof.verdicts) == 2 * 9


@pytest.mark.parametrize("name", ["llama-tied", "gpt2-tied"])
@pytest.mark.parametrize("rule", ["exact", "orthogonal"])
def test_growth_of_a_tied_head_and_then_of_its_own_is_proven_against_the_root(name, rule, source, tmp_path):
    root = made = open_checkpoint(source(tiny.named(name)))
    for step in (GROWN, UntieEmbeddings(), GROWN):
        made = widen(made, 2, rule=rule, attention="heads", noise=0.5) if step == GROWN else applied(step, made)
    save(made, tmp_path / "out")
    proof = prove(root, open_checkpoint(tmp_path / "out"))
    assert proof.summary == ("exact" if rule == "exact" else "rounded"), proof.wrong[:2]
