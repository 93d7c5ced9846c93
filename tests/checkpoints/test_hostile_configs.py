"""Configs of wrong types: every key of every family's config, set to what no config should hold, is used or refused.

Widening is planned on each, and nothing else may come of it than a plan or one line that says what is wrong. All keys
times all values are 29,000: a run takes every 41st, from another start in each family, which with 21 values meets every
value of most keys somewhere. MODELSURGEON_ALL_CONFIGS=1 tries them all.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_config
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.files.file import LocalFolder
from modelsurgeon.saving.plan import make_plan
from support import tiny
from support.grow import widen

VALUES: list[Any] = ["x", "32", -1, 0, 0.5, math.inf, math.nan, 10**18, 2**63, True, None, [], {}, [[]], {"a": 1}]
VALUES += ["\x1b[31m", 10**300, -0.0, False, [1, 2], "\ud800"]
EVERY = 1 if os.environ.get("MODELSURGEON_ALL_CONFIGS") else 41
LONGEST = 1000  # characters of a message
SLOWEST = 2.0  # seconds of this thread for one config: a wild number must not be counted up to
FAMILIES = [variant for variant in tiny.variants() if variant.main and not variant.name.endswith("-untied")]


def places(config: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key, nested ones too."""
    for key, value in config.items():
        yield (*prefix, key)
        if isinstance(value, Mapping):
            yield from places(value, (*prefix, key))


def changed(config: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The config with another value in one place."""
    first, *rest = place
    return {**config, first: changed(config[first], tuple(rest), value) if rest else value}


def planned(checkpoint: Checkpoint, config: Mapping[str, Any], folder: Path) -> str:
    """Plan to widen a checkpoint of this config; what was said of it where it is refused."""
    (folder / "config.json").write_text(json.dumps(config))
    try:
        opened = replace(checkpoint, config=read_config(LocalFolder(folder)))
        make_plan(opened, widen(opened, 2))
    except ModelSurgeonError as error:
        return str(error)
    return ""


def problem(checkpoint: Checkpoint, place: tuple[str, ...], value: Any, folder: Path) -> str:
    """What is wrong with how a value in this place was taken; empty where nothing is."""
    started = time.thread_time()
    try:
        said = planned(checkpoint, changed(checkpoint.config, place, value), folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if (took := time.thread_time() - started) > SLOWEST:
        return f"took {took:.1f} s"
    return "" if "\n" not in said and len(said) < LONGEST else f"said {said!r}"


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_a_value_of_any_type_is_used_or_refused(variant: tiny.Variant, source: Any, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source(variant))
    tried = [(place, value) for place in places(checkpoint.config) for value in VALUES]
    some = tried[FAMILIES.index(variant) % EVERY :: EVERY]
    found = {(place, repr(value)): problem(checkpoint, place, value, tmp_path) for place, value in some}
    assert {what: wrong for what, wrong in found.items() if wrong} == {}
