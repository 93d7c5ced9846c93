"""What a plan takes is done once: maps, tensors, headers, memory; counted on the way from the command to the files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from modelsurgeon.operations.transforms import widening
from modelsurgeon.saving import plan, save, shards
from support import tiny
from support.command import run


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of the costly steps is taken."""
    found: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def counting(*given: Any, **named: Any) -> Any:
            found[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(module, name, counting)

    for module, names in {
        widening: ("plan_maps", "remap"),
        plan: ("plan_memory",),
        save: ("plan_memory",),
        shards: ("layout", "read_header", "plan_memory"),
    }.items():
        for name in names:
            count(module, name)
    return found


def test_a_float32_widen_does_each_step_once(counted, source, tmp_path):
    assert run("widen", source(tiny.named("llama-tied")), "-o", tmp_path / "out").code == 0
    assert counted == {"plan_maps": 1, "remap": 1, "plan_memory": 1, "layout": 1}


def test_a_rule_that_loses_something_is_planned_again_and_remapped_once(counted, source, tmp_path):
    assert run("widen", source(tiny.named("opt-tied")), "-o", tmp_path / "out").code == 0  # its eps is fixed
    assert counted == {"plan_maps": 2, "remap": 1, "plan_memory": 1, "layout": 1}


def test_a_head_size_that_cannot_grow_is_planned_again_and_remapped_once(counted, source, tmp_path):
    model = shutil.copytree(source(tiny.named("llama-tied")), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rope_scaling": {"rope_type": "unheard-of"}}))
    done = run("widen", model, "--dry-run")
    assert "attention heads: axis 'head' (head_dim) cannot go from" in done.err
    assert counted == {"plan_maps": 2, "remap": 1, "plan_memory": 1}


def test_each_shards_header_is_built_once_and_a_whole_file_is_looked_for_once(counted, source, tmp_path):
    made = tmp_path / "made"
    assert run("widen", source(tiny.named("llama-tied")), "-o", made, "--shard-size", "60kB").code == 0
    number = len(list(made.glob("*.safetensors")))
    assert number > 2 and counted["layout"] == number
    counted.clear()
    assert run("untie-embeddings", made, "-o", tmp_path / "untied").code == 0
    assert counted == {"plan_memory": 1, "layout": number + 1, "read_header": number + 1}
