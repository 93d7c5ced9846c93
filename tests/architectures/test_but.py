"""A family is a full listing; one that differs from another in three lines at most is that table, but for these."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from importlib import import_module
from itertools import combinations
from typing import Any

import pytest

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture, Axis, but

MOST = 3
FOUND = {model_type: registry.find(model_type) for model_type in registry.known()}


def source(model_type: str) -> str:
    return inspect.getsource(import_module(f"modelsurgeon.architectures.tables.{model_type}"))


SHORT = {model_type for model_type in FOUND if "ARCHITECTURE = but(" in source(model_type)}


def lines(table: Architecture) -> dict[tuple[str, str], Any]:
    """{(field, entry): value} of a table without its class and prefix: one entry a line, all keys together one."""
    found: dict[tuple[str, str], Any] = {}
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if isinstance(value, Mapping):
            found |= {(field.name, bare(table, entry)): one for entry, one in value.items()}
        elif field.name not in ("model", "prefix"):
            found[field.name, ""] = value
    tie = table.tie and dataclasses.replace(table.tie, embedding=bare(table, table.tie.embedding))
    return found | {("keys", ""): set(table.keys.split()), ("tie", ""): tie}


def bare(table: Architecture, name: str) -> str:
    return name.removeprefix(table.prefix) if table.prefix else name


def difference(one: Architecture, other: Architecture) -> int:
    a, b = lines(one), lines(other)
    return sum(line not in a or line not in b or a[line] != b[line] for line in a | b)


def test_a_family_that_is_another_but_for_some_lines_differs_in_three_at_most():
    assert SHORT
    full = [table for model_type, table in FOUND.items() if model_type not in SHORT]
    nearest = {model_type: min(difference(FOUND[model_type], table) for table in full) for model_type in SHORT}
    assert {model_type: least for model_type, least in nearest.items() if least > MOST} == {}


def test_a_full_listing_differs_from_every_other_in_more_than_three_lines():
    full = [(model_type, table) for model_type, table in FOUND.items() if model_type not in SHORT]
    assert [(a, b) for (a, one), (b, other) in combinations(full, 2) if difference(one, other) <= MOST] == []


@pytest.mark.parametrize("model_type", FOUND)
def test_no_table_is_made_of_another_in_any_other_way(model_type):
    assert "replace(" not in source(model_type)
    if model_type not in SHORT:
        assert "ARCHITECTURE = Architecture(" in source(model_type)


def test_but_gives_names_the_new_prefix_and_leaves_the_other_table_as_it_is():
    bert, t5 = registry.find("bert"), registry.find("t5")
    other = but(bert, "X", prefix="x.", axes={"tasks": Axis("tasks")}, keys="more")
    assert difference(bert, other) == 2
    assert bare(other, "x.pooler.dense.weight") in {bare(bert, template.name) for template in bert.templates}
    assert other.tie.embedding == "x.embeddings.word_embeddings.weight" in {one.name for one in other.templates}
    assert "tasks" not in bert.axes and "more" not in bert.keys
    assert difference(t5, but(t5, "X", without=("scale_decoder_outputs",))) == 1
    assert "scale_decoder_outputs" in t5.defaults
