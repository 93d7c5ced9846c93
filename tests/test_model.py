"""The Python API: its names, the session of docs/python.md, and models that are loaded without a disk."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import modelsurgeon as ms
from modelsurgeon import delivery
from modelsurgeon.cli.request import Request
from modelsurgeon.delivery import Wanted
from modelsurgeon.maps.orders import copies
from modelsurgeon.model import Model
from modelsurgeon.operations import catalogue
from modelsurgeon.running import assembly
from support import tiny
from support.command import ROOT, contents, run

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
SESSION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAMES = """
    AmbiguousError ArchitectureError DifferentError FieldError Model ModelSurgeonError Operation OptionsError
    OutputError PlanError Saved SourceError __version__ check_files diagnose families init inspect open option register
    verify
"""
METHODS = "apply load plan save untie_embeddings widen"
FIRST = [variant for variant in tiny.variants() if variant.main]
OF_SAVE = ("output", "progress", "say")  # not options: where to, and who is told
OF_COMMANDS = ("source", "revision", "stream", "dry_run", "as_json", "quiet")


def test_the_public_names_are_these():
    assert ms.__all__ == NAMES.split()
    assert all(getattr(ms, name) for name in ms.__all__)
    offered = [name for name in dir(ms.open("demo")) if not name.startswith("_")]
    assert offered == sorted([*METHODS.split(), "checkpoint", "operations", "source"])


def test_importing_it_loads_nothing_large():
    code = (
        "import modelsurgeon, sys; print([m for m in ('torch', 'numpy', 'transformers', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.stdout == b"[]\n"


WRONG = """
import modelsurgeon as ms
ms.opne("demo")
ms.open("demo").save(7)
"""


@pytest.fixture
def registered():
    before = catalogue.all_operations()
    yield
    for name in catalogue.all_operations().keys() - before.keys():
        catalogue.forget(catalogue.all_operations()[name])


def test_a_first_session_does_what_the_page_shows(tmp_path, monkeypatch, registered, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "session.py").write_text("\n".join(SESSION))
    runpy.run_path("session.py", run_name="session")
    shown = capsys.readouterr().out
    plan = run("widen", "demo", "--factor", 2, "--dry-run").err.split("\n")[0]
    assert plan.split() == shown.split("\n")[0].split()  # its headings
    assert {path.name for path in tmp_path.iterdir()} == {"session.py", "wide", "fresh", "wider"}


def test_a_users_code_passes_strict_type_checks(tmp_path):
    typed = [block for block in SESSION if "def apply" not in block]
    (tmp_path / "session.py").write_text("\n".join(typed).replace("told = []", "told: list[tuple[str, int, int]] = []"))
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--cache-dir"]
    asked = [*command, str(ROOT / ".mypy_cache" / "users"), "session.py", "wrong.py"]
    done = subprocess.run(
        asked, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    told = [line for line in done.stdout.splitlines() if not line.startswith(("  ", str(ROOT)))]
    assert [line.partition(":")[0] for line in told if "error" in line] == ["wrong.py"] * 2, done.stdout + done.stderr


def test_the_tree_of_errors_is_drawn_where_people_read():
    drawn = re.findall(r"^ *[│├└─ ]*(\w+Error) ", str(sys.modules["modelsurgeon.errors"].__doc__), re.MULTILINE)
    assert set(drawn) == {name for name in ms.__all__ if name.endswith("Error")}
    assert all(f"{name} " in PAGE for name in drawn)


def test_save_takes_what_every_command_takes_with_the_same_defaults():
    commands = {one.name: one.default for one in dataclasses.fields(Request) if one.name not in OF_COMMANDS}
    wanted = {one.name: one.default for one in dataclasses.fields(Wanted)}
    saves = {name: p.default for name, p in inspect.signature(Model.save).parameters.items() if name != "self"}
    assert commands == wanted
    assert {k: v for k, v in saves.items() if k not in OF_SAVE} == {k: v for k, v in wanted.items() if k not in OF_SAVE}


def test_an_operations_method_takes_what_its_command_takes_with_the_same_defaults():
    for operation in catalogue.offered():
        named = ms.open("demo") if operation.reads == "checkpoint" else ms
        taken = inspect.signature(getattr(named, catalogue.method(operation))).parameters
        defaults = {one.name: one.default for one in dataclasses.fields(operation)}
        assert {name: p.default for name, p in taken.items() if name in defaults} == defaults
    assert inspect.signature(ms.open("demo").widen).parameters["noise"].default == 0.5


def test_python_and_the_command_line_write_the_same_bytes(tmp_path):
    made = ms.open("demo").widen(factor=2, seed=3).save(tmp_path / "python")
    assert run("widen", "demo", "-o", tmp_path / "command", "--factor", 2, "--seed", 3).code == 0
    assert contents(made.path) == contents(tmp_path / "command")


def test_a_card_names_the_command_line_that_makes_the_same(monkeypatch, tmp_path):
    cards = []
    monkeypatch.setattr(delivery, "check_push", lambda *_, **__: None)
    monkeypatch.setattr(delivery, "push", lambda *_, card, **__: cards.append(card) or "https://there")
    model = ms.open("demo").widen(set={"intermediate_size": 384}, seed=2).untie_embeddings()
    saved = model.save(tmp_path / "out", push_to_hub="org/name")
    assert (saved.pushed, saved.result) == ("https://there", str(tmp_path / "out"))
    first = "modelsurgeon widen demo --set intermediate_size=384 --seed 2 -o result-1"
    assert f"{first} | modelsurgeon untie-embeddings - -o result\n" in cards[0]


def test_a_wrong_option_is_a_type_error_and_a_wrong_value_a_plan_error():
    model = ms.open("demo")
    with pytest.raises(TypeError, match="fcator"):
        model.widen(fcator=2)
    with pytest.raises(ms.PlanError, match="rule is 'best'"):
        model.widen(rule="best")
    with pytest.raises(ms.OptionsError, match="--factor and --params each name all widths"):
        model.widen(factor=2, params="9M")
    with pytest.raises(AttributeError, match="no operation 'shrink'"):
        model.shrink()
    with pytest.raises(ms.OptionsError, match="no output"):
        model.save()
    with pytest.raises(ms.OptionsError, match="device 'tpu'"):
        model.save("anywhere", device="tpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": True}, "widen: factor is True, expected a whole number or None"),
        ({"factor": 2.0}, "widen: factor is 2.0, expected a whole number or None"),
        ({"noise": None}, "widen: noise is None, expected a number"),
        ({"seed": 1.5}, "widen: seed is 1.5, expected a whole number"),
        ({"set": "hidden_size=256"}, "widen: set is 'hidden_size=256', expected a list or names with values"),
        ({"params": 9.5}, "widen: params is 9.5, expected a text or a whole number or None"),
        ({"rule": None}, "widen: rule is None, expected a text"),
    ],
)
def test_an_option_of_another_type_is_told(options, said):
    with pytest.raises(ms.OptionsError, match=re.escape(said)):
        ms.open("demo").widen(**options)


def test_an_option_that_would_say_nothing_is_refused_as_on_the_command_line():
    with pytest.raises(ms.OptionsError, match="--memory bounds what --device auto keeps"):
        ms.verify("demo", "demo", memory="1GB")
    with pytest.raises(ms.OptionsError, match="--stream stores nothing"):
        ms.diagnose("demo", stream=True)


def test_a_number_is_taken_where_the_command_line_has_a_text_of_it(tmp_path):
    text, number = (ms.open("demo").widen(params=params).checkpoint.config for params in ("9M", 9_000_000))
    assert text == number
    for std in ("0.03", 0.03):
        ms.init(ROOT / "modelsurgeon" / "demo" / "config.json", tmp_path / str(type(std)), std=std, measure=False)
    made = [contents(folder)["model.safetensors"] for folder in tmp_path.iterdir()]
    assert len(made) == 2 and made[0] == made[1]


@pytest.mark.parametrize("option", ["shard_size", "memory"])
@pytest.mark.parametrize("size", [0, -1, "0", "much"])
def test_what_is_no_size_is_refused_as_a_text_and_as_a_number(option, size, tmp_path):
    with pytest.raises(ms.OutputError, match=f"{option.replace('_', ' ')} {size!r}: expected a number of bytes"):
        ms.open("demo").widen(factor=2).save(tmp_path / "out", **{option: size})
    assert list(tmp_path.iterdir()) == []


def test_a_text_is_a_file_as_on_the_command_line(tmp_path):
    for ask in (lambda text: ms.verify("demo", "demo", text=text), lambda text: ms.diagnose("demo", text=text)):
        for nowhere in ("nowhere.txt", tmp_path):
            with pytest.raises(ms.OptionsError, match=f"--text {nowhere}: cannot be read"):
                ask(nowhere)
    (tmp_path / "text").write_text("The river was high and the road was closed for most of the week. " * 40)
    given, sample = (ms.verify("demo", "demo", text=text, samples=1) for text in (str(tmp_path / "text"), None))
    assert given.to_json()["settings"] != sample.to_json()["settings"]


def test_further_files_of_two_operations_are_refused_not_dropped(monkeypatch, tmp_path):
    files = SimpleNamespace(nbytes=1, peak=1, notes=(), write=lambda folder: None)
    for name in ("widen", "untie-embeddings"):
        monkeypatch.setattr(catalogue.all_operations()[name], "companion", lambda *_: files)
    with pytest.raises(ms.OptionsError, match="widen and untie-embeddings: further files go with a result once"):
        ms.open("demo").widen(factor=2).untie_embeddings().save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_same_function_is_not_written(tmp_path):
    fresh = ms.open("demo").untie_embeddings(head="half-swap")
    with pytest.raises(ms.DifferentError) as raised:
        fresh.save(tmp_path / "out", verify=True)
    assert raised.value.saved.report.same is False
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_bytes_that_are_written(tmp_path):
    told = []
    wide = ms.open("demo").widen(factor=2)
    wide.save(tmp_path / "out", workers=2, shard_size="3MB", progress=lambda *said: told.append(said))
    assert told == sorted(told, key=lambda said: said[1])
    assert told[-1][1] >= told[-1][2] == wide.plan().bytes[1]


def test_what_a_notebook_shows_of_a_result_fits_a_line(tmp_path):
    model = ms.open("demo")
    saved = model.widen(factor=2).save(tmp_path / "out", verify=True)
    report, found = saved.report, ms.diagnose("demo")
    assert repr(report) == "Report('same function, proven for all inputs', same=True, proven=True)"
    assert repr(found) == f"Diagnosis('demo', {len(found.findings)} findings)"
    assert repr(model.checkpoint) == f"Checkpoint('demo', llama, {len(model.checkpoint.tensors)} tensors)"
    assert repr(copies(2, 3, 1.0, (0.25, 0.25, 0.5))) == "AxisMap(2 -> 6)"
    assert len(repr(saved)) < 300 + len(str(tmp_path))


def test_a_plan_says_a_note_once_whatever_number_of_operations_say_it(source, tmp_path):
    folder = shutil.copytree(source(FIRST[0]), tmp_path / "source")
    (folder / "beside.onnx").write_bytes(b"0")
    notes = ms.open(folder).widen(factor=2).widen(factor=2).plan().notes
    assert sorted(set(notes)) == sorted(notes)
    assert any("beside.onnx" in note for note in notes)


# --- loaded without a disk -------------------------------------------------------------------------------------------


def bits(state):
    return {name: (value.dtype, value.contiguous().reshape(-1).view(torch.uint8)) for name, value in state.items()}


@pytest.mark.parametrize("variant", FIRST, ids=str)
def test_a_plan_loads_as_what_it_saves_to_the_last_bit(variant, source, tmp_path):
    model, number = ms.open(source(variant)), FIRST.index(variant)
    if model.checkpoint.architecture.weightless and model.checkpoint.is_tied:
        model = model.untie_embeddings()
    wide = model.widen(factor=2, attention="heads", noise=number % 2 / 2)
    dtype = (None, "bfloat16", "float16")[number % 3]
    loaded, saved = wide.load(dtype), wide.save(tmp_path / "out")
    found = bits(loaded.state_dict())
    wanted = bits(type(loaded).from_pretrained(saved.path, dtype=dtype or "auto").state_dict())
    assert found.keys() == wanted.keys()
    apart = [
        name for name, (dtype, value) in found.items() if dtype != wanted[name][0] or not value.equal(wanted[name][1])
    ]
    assert apart == []


def test_what_lies_beside_the_weights_is_loaded_too(tmp_path):
    source = ms.open("demo").save(tmp_path / "source")
    beside = source.path / "generation_config.json"
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "max_new_tokens": 7}))
    assert ms.open(source).load().generation_config.max_new_tokens == 7


def test_beside_the_model_one_piece_is_in_memory(monkeypatch):
    asked = []

    class Counted(assembly.Arena):
        def __call__(self, shape, dtype):
            asked.append(dtype.itemsize * torch.Size(shape).numel())
            return super().__call__(shape, dtype)

    monkeypatch.setattr(assembly, "Arena", Counted)
    monkeypatch.setattr(assembly, "LARGEST", 1 << 14)
    wide = ms.open("demo").widen(factor=2)
    largest = max(tensor.nbytes for tensor in wide.checkpoint.tensors.values())
    wide.load()
    assert 0 < max(asked) <= 1 << 16 < largest // 16


def test_a_model_that_the_library_would_make_up_is_refused(tmp_path):
    wide = ms.open("demo").widen(factor=2)
    del wide.checkpoint.tensors["model.norm.weight"]
    with pytest.raises(ms.SourceError, match="would make it up"):
        wide.load()


def test_a_config_that_the_library_refuses_is_an_error_of_the_source(tmp_path):
    source = ms.open("demo").save(tmp_path / "source")
    config = json.loads((source.path / "config.json").read_text())
    (source.path / "config.json").write_text(json.dumps({**config, "hidden_act": "swoosh"}))
    with pytest.raises(ms.SourceError, match=r"transformers cannot load it: .*swoosh"):
        ms.open(source).load()


def test_a_load_on_a_device_that_is_not_there_is_refused():
    with pytest.raises(ms.OptionsError, match="device 'tpu'"):
        ms.open("demo").load(device="tpu")
