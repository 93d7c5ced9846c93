"""Hidden states: the first one that differs is named, and those that cannot be folded are not compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.running import batches
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification import visits
from modelsurgeon.verification.layers import TOLERANCE, ComparedState, Layers
from modelsurgeon.verification.logits import LogitReport, compare_all
from support.grow import widen
from support.tiny import ROUNDING, named

OPTIONS = RunOptions(samples=1, length=12)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONG", 24)
    monkeypatch.setattr(batches, "NEW", 2)
    monkeypatch.setattr(visits, "FEW", 1)


Pair = tuple[Checkpoint, Checkpoint, Mapping[str, Any]]


@pytest.fixture(scope="module")
def pair(source: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """pair(variant) -> a tiny model, the same twice as wide, and the maps between them."""
    made: dict[str, Pair] = {}

    def of(name: str) -> Pair:
        if name not in made:
            before = open_checkpoint(source(named(name)))
            plan = widen(before, 2)
            after = open_checkpoint(save(plan, tmp_path_factory.mktemp(name) / "wider"))
            made[name] = before, after, plan.steps[-1].maps
        return made[name]

    return of


def report(pair: Pair, after: Checkpoint | None = None, options: RunOptions = OPTIONS) -> LogitReport:
    return compare_all(pair[0], after or pair[1], options, maps=pair[2], behaviour=True, in_stored=False)[0]


def changed(checkpoint: Checkpoint, folder: Path, name: str = "", **config: Any) -> Checkpoint:
    """A copy on disk whose tensor `name` is a hundredth off."""
    folder.mkdir()
    tensors = load_file(checkpoint.origin.path / "model.safetensors")
    tensors = {key: value * (1.01 if key == name else 1) for key, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**checkpoint.config, **config}))
    return open_checkpoint(folder)


def first(found: LogitReport) -> str | None:
    assert found.layers is not None
    return found.layers.first.name if found.layers.first else None


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("llama-tied", ["model.embed_tokens", "model.layers.1.self_attn.o_proj", "model.layers.1", "model.norm"]),
        ("mixtral-tied", ["model.layers.0.mlp.experts", "model.layers.0"]),  # experts are one tensor, no modules
        ("t5-tied", ["decoder.embed_tokens", "encoder.block.1", "decoder.block.2.layer.1.EncDecAttention.o"]),
        ("bert-tied", ["bert.embeddings.word_embeddings", "bert.encoder.layer.1.output.LayerNorm"]),
        ("albert-tied", ["albert.encoder.albert_layer_groups.0.albert_layers.1.ffn_output"]),
    ],
)
def test_states_of_a_result_are_those_of_its_source(name: str, some: list[str], pair: Callable[[str], Pair]) -> None:
    found = report(pair(name))
    assert found.same and found.layers is not None and first(found) is None
    assert set(some) <= {row.name for row in found.layers.rows}
    assert all(row.max_rel < ROUNDING for row in found.layers.rows)
    assert not [note for note in found.notes if "hidden states" in note]


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("llama-tied", "model.layers.1.self_attn.o_proj"),
        ("llama-tied", "model.layers.1.post_attention_layernorm"),
        ("t5-tied", "decoder.block.2.layer.1.EncDecAttention.o"),
    ],
)
def test_the_first_state_that_differs_is_named(
    name: str, tensor: str, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    found = report(pair(name), changed(pair(name)[1], tmp_path / "mutant", f"{tensor}.weight"))
    assert not found.same and first(found) == tensor


def test_what_differs_between_two_states_shows_in_the_next_one(pair: Callable[[str], Pair], tmp_path: Path) -> None:
    """No rotation writes a residual axis: what attention ends in is the first to tell."""
    llama = pair("llama-tied")
    turned = changed(llama[1], tmp_path / "rope", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert first(report(llama, turned)) == "model.layers.0.self_attn.o_proj"


def test_states_of_another_size_that_no_map_grew_are_left_out_and_said(pair: Callable[[str], Pair]) -> None:
    before, after, _ = pair("llama-tied")
    found = report((before, after, {}))
    assert found.layers is None and found.same
    assert [note for note in found.notes if note.startswith("hidden states not compared: model.embed_tokens and 11")]


def test_hidden_states_tell_and_do_not_judge() -> None:
    rows = (
        ComparedState("a", None, "a", 0.0, TOLERANCE),
        ComparedState("b.0.c", 0, "c", 1.0, float("nan")),
        ComparedState("d", None, "d", 1.0, 1.0),
    )
    layers = Layers("text", rows)
    assert layers.first == rows[1]
    assert layers.to_json()["first"] == "b.0.c" and layers.to_json()["rows"][1]["max_rel"] == "nan"
    assert not LogitReport("float32", (), layers=layers).same


def test_behaviour_is_run_on_long_and_shifted_rows_padded_on_both_sides(pair: Callable[[str], Pair]) -> None:
    found = report(pair("llama-tied"), options=RunOptions(samples=1, length=5))
    assert [c.inputs for c in found.comparisons] == [
        "random ids, length 1",
        "random ids, length 5",
        "padded batch",
        "batch padded on the left",
        "positions from 19",
        "long row, length 24",
    ]
    assert found.comparisons[3].positions == found.comparisons[2].positions
    told = report(pair("t5-tied"), options=RunOptions(samples=1, length=5)).notes
    assert "long context: 24 tokens; config.json does not say how many the model was trained on" in told


def test_positions_that_the_result_does_not_know_are_seen(pair: Callable[[str], Pair], tmp_path: Path) -> None:
    gpt2 = pair("gpt2-tied")
    mutant = tmp_path / "mutant"
    mutant.mkdir()
    tensors = load_file(gpt2[1].origin.path / "model.safetensors")
    tensors["transformer.wpe.weight"][13:] *= 1.01  # later than any usual row reaches
    save_file(tensors, mutant / "model.safetensors", {"format": "pt"})
    (mutant / "config.json").write_text(json.dumps(dict(gpt2[1].config)))
    found = report(gpt2, open_checkpoint(mutant))
    wrong = {c.inputs for c, limit in zip(found.comparisons, found.limits, strict=True) if not c.max_rel <= limit}
    assert wrong == {"positions from 12", "long row, length 24"}


def test_weights_that_stay_on_the_disk_give_the_same_answers(pair: Callable[[str], Pair]) -> None:
    both = pair("mixtral-tied")  # its experts are put together while they are loaded, and written to the disk again
    plain, apart = report(both), report(both, options=replace(OPTIONS, device="auto", memory=20_000))
    assert apart.same and apart.generation is not None and apart.generation.tokens == 1  # each token reads all weights
    assert apart.layers is not None and plain.layers is not None
    assert [row.name for row in apart.layers.rows] == [row.name for row in plain.layers.rows]
    assert apart.scatter is not None and plain.scatter is not None
    for found, expected in zip(astuple(apart.scatter), astuple(plain.scatter), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)  # weights at other addresses are multiplied by other kernels
