"""Recommended learning rates: those that follow the source's trajectory, group by group, on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.record import Step, read_record
from modelsurgeon.files.file import LocalFile
from modelsurgeon.maps.orders import identity
from modelsurgeon.training.learning_rates import recommended
from modelsurgeon.training.trajectory import Trajectory, exchanged
from support import tiny
from support.command import run
from support.grow import widen

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _groups(checkpoint: Checkpoint, **how: Any) -> dict[str, dict[str, Any]]:
    """{last part of a template but ".weight": its entry}."""
    entries = recommended(checkpoint, widen(checkpoint, **how)).steps[-1].learning_rates
    return {name.split(".")[-2]: dict(entry) for entry in entries for name in entry["tensors"]}


def _numbers(entry: dict[str, Any]) -> tuple[float, float, float]:
    return entry["lr"], entry["weight_decay"], entry["eps"]


@pytest.mark.parametrize("factor", [2, 4])
def test_a_wider_llama_wants_what_was_measured(factor: int, source: Callable[..., Path]) -> None:
    groups = _groups(
        open_checkpoint(source(tiny.named("llama-untied"))), factor=factor, rule="exact", attention="heads"
    )
    for name in MATRICES:
        assert _numbers(groups[name]) == (1 / factor, factor, 1 / factor)
    assert _numbers(groups["lm_head"]) == (1 / factor, factor, 1)
    for name in ("embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"):
        assert _numbers(groups[name]) == (1, 1, 1 / factor)
    assert all("nearly" not in entry["reason"] for entry in groups.values())


def test_a_tied_head_takes_its_share_in_the_last_norm(source: Callable[..., Path]) -> None:
    groups = _groups(open_checkpoint(source(tiny.named("llama-tied"))), factor=2, rule="exact", attention="heads")
    assert _numbers(groups["embed_tokens"]) == (1, 1, 0.5)
    assert _numbers(groups["norm"]) == (0.5, 2, 1)


def test_unequal_shares_have_their_mean_and_say_so(source: Callable[..., Path]) -> None:
    groups = _groups(open_checkpoint(source(tiny.named("llama-untied"))), factor=3, rule="exact", attention="heads")
    assert groups["up_proj"]["lr"] == pytest.approx(1 / 3)
    assert "its factors go from 0.25 to 0.5" in groups["up_proj"]["reason"]
    assert "a norm over 'stream' mixes the gradients" in groups["embed_tokens"]["reason"]
    even = _groups(open_checkpoint(source(tiny.named("llama-untied"))), factor=3, rule="orthogonal", attention="heads")
    assert all("nearly" not in entry["reason"] for entry in even.values())


def test_key_value_heads_of_other_queries_are_no_copies_in_training(source: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(source(tiny.named("llama-untied")))
    groups = _groups(checkpoint, settings={"num_key_value_heads": 4})
    assert all("copies on 'kv' serve queries of their own" in groups[name]["reason"] for name in ("k_proj", "v_proj"))
    groups = _groups(checkpoint, settings={"num_attention_heads": 8, "head_dim": 8})
    assert all("nearly" not in entry["reason"] for entry in groups.values())


@pytest.mark.parametrize("name", ["gpt2-tied", "gemma2-tied", "t5-tied", "deepseek_v3-untied", "opt-tied"])
@pytest.mark.parametrize("rule", ["exact", "orthogonal"])
def test_the_copies_of_a_number_move_as_it_did(name: str, rule: str, source: Callable[..., Path]) -> None:
    """The chain rule: what weights and gradients are multiplied by has the sum 1 over the copies of each number."""
    checkpoint = open_checkpoint(source(tiny.named(name)))
    law = Trajectory(
        checkpoint.architecture, checkpoint.resolved, widen(checkpoint, 2, rule=rule).steps[-1].maps, checkpoint.is_tied
    )
    for template in checkpoint.architecture.templates:
        total = 1.0
        for weight, gradient in zip(template.signature.grow(law.maps), law.gradient(template), strict=True):
            kept = weight.source >= 0
            sums = np.bincount(weight.source[kept], (weight.factor * gradient.factor)[kept], weight.size)
            assert np.ptp(sums) < 1e-12
            total *= float(sums[0])
        assert total == pytest.approx(1, rel=1e-12), template.name


def test_exchanging_the_sides_twice_changes_nothing() -> None:
    axis = identity(3)
    again = exchanged(exchanged(axis))
    assert np.array_equal(again.scale, axis.scale) and np.array_equal(again.share, axis.share)


def test_they_are_on_record_and_older_records_have_none(tmp_path: Path) -> None:
    assert run("widen", "demo", "-o", tmp_path / "wide").code == 0
    record = tmp_path / "wide" / "modelsurgeon.json"
    written = json.loads(record.read_text())
    groups = written["steps"][0]["learning_rates"]
    assert [set(group) for group in groups] == [{"tensors", "lr", "weight_decay", "eps", "reason"}] * len(groups)
    assert [*read_record(LocalFile(record))[0].learning_rates] == groups
    del written["steps"][0]["learning_rates"]
    record.write_text(json.dumps(written))
    assert read_record(LocalFile(record))[0].learning_rates == ()
    assert "learning_rates" not in Step("untie-embeddings", {}).to_json()
