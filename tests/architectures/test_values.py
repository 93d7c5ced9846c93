"""Values that no setting can have are refused by their key; the lists of keys are those of the library's classes."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import transformers

from modelsurgeon.architectures import registry, values
from modelsurgeon.architectures.values import check_settings
from modelsurgeon.errors import SourceError
from support import tiny
from support.command import run

WHOLES = values.COUNTS | values.WHOLES | values.OR_NONE | values.ANY_WHOLES | values.LISTED
NUMBERS = values.AMOUNTS | values.DIVISORS | values.NUMBERS


def declared(hint: Any) -> set[str]:
    """The names of the types that a field of a config class may have."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return set().union(*map(declared, typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    return {getattr(origin, "__name__", str(origin))} - {"NoneType"}


def list_of(kinds: set[str]) -> frozenset[str] | None:
    """The keys that a field of these types must be among; None where its values are no numbers."""
    if kinds == {"bool"}:
        return values.FLAGS
    if "float" in kinds and not kinds - {"float", "int"}:
        return NUMBERS
    return WHOLES if "int" in kinds and not kinds - {"int", "list", "tuple"} else None


@pytest.mark.parametrize("model_type", registry.known())
def test_every_number_and_flag_that_the_library_declares_is_on_the_list_of_its_type(model_type: str) -> None:
    table, missing = registry.find(model_type), []
    for field in dataclasses.fields(transformers.CONFIG_MAPPING[model_type]):
        wanted = list_of(declared(field.type))
        names = {field.name, table.aliases.get(field.name)}
        if wanted is not None and not names & (wanted | {*table.counters.values()}):
            missing.append(field.name)
    assert missing == []


@pytest.mark.parametrize("model_type", registry.known())
def test_what_the_library_has_by_default_is_never_refused(model_type: str) -> None:
    check_settings(transformers.CONFIG_MAPPING[model_type]().to_dict(), registry.find(model_type))


WRONG: list[Any] = ["x", "32", [], [1.5], {}, {"a": 1}, 0.5, -7, 2**40, 10**300, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("model_type", registry.known())
def test_a_value_that_no_number_can_have_is_refused_by_its_key(model_type: str) -> None:
    table = registry.find(model_type)
    config = transformers.CONFIG_MAPPING[model_type]().to_dict()
    for key in config.keys() & table.accounted_keys & (WHOLES | NUMBERS):
        fine: list[Any] = [0.5, -7, 2**40] if key in values.NUMBERS else [0.5, 2**40] if key in NUMBERS else []
        fine += ["x", "32"] if key in values.WORDED else []
        fine += [-7] if key in values.ANY_WHOLES else [[]] if key in values.LISTED else []
        for value in [one for one in WRONG if one not in fine] + [True]:
            with pytest.raises(SourceError, match=rf"^config\.json: {key} is "):
                check_settings({**config, key: value}, table)


SENSELESS = {
    "num_attention_heads": 0,
    "vocab_size": 10**12,
    "max_position_embeddings": 0,
    "num_hidden_layers": 10**9,
    "rope_theta": math.nan,
    "pad_token_id": -5,
    "eos_token_id": [2, -7],
    "initializer_range": -0.02,
    "attention_bias": "x",
    "rope_parameters": {"rope_type": "linear", "factor": 0},
}
COMMANDS = (["widen", "--dry-run"], ["untie-embeddings", "--dry-run"], ["diagnose"], ["verify"])


@pytest.mark.parametrize("key", SENSELESS)
def test_every_command_refuses_it_in_one_line(key: str, source: Any, tmp_path: Path) -> None:
    sound = source(tiny.named("llama-tied"))
    folder = Path(shutil.copytree(sound, tmp_path / "hostile"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: SENSELESS[key]}))
    for command, *options in COMMANDS:
        for names in ([folder], [folder, sound], [sound, folder]) if command == "verify" else ([folder],):
            if command == "verify" and len(names) == 1:
                continue
            done = run(command, *names, *options)
            assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
            assert f"config.json: {key}" in done.err and "expected" in done.err
    shown = run("inspect", folder)
    assert shown.code == 0 and f"would be refused: config.json: {key}" in shown.out


@pytest.mark.parametrize("pad", [tiny.VOCAB + 3, tiny.VOCAB, -1])
@pytest.mark.parametrize("name", ["llama-tied", "bert-tied"])
def test_a_padding_token_that_the_vocabulary_lacks_is_none(name: str, pad: int, source: Any, tmp_path: Path) -> None:
    sound = source(tiny.named(name))
    folder = Path(shutil.copytree(sound, tmp_path / "padded"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": pad}))
    assert run("widen", folder, "--dry-run").code == 0
    if pad >= 0:
        assert run("verify", folder, folder, "--samples", 1, "--length", 8).code == 0
