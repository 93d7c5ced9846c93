"""What one backward pass must tell: which copies stay copies, which part, and what never gets a gradient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.growth.kinds.pointwise import Pointwise
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.progress import Tell, silent
from modelsurgeon.proof import coordinates
from modelsurgeon.proof.coordinates import GrownAxis
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification import ranks
from modelsurgeon.verification.copies import compare
from modelsurgeon.verification.ranks import numerical_rank
from modelsurgeon.verification.trainable import CopiedAxis, Trainability, examine, measure
from support import tiny
from support.grow import widen

Tensors = dict[str, torch.Tensor]
Grow = Callable[..., Checkpoint]


@pytest.fixture
def grow(source: Callable[..., Path], tmp_path: Path) -> Grow:
    """grow(variant, change, **how) -> a widened tiny model on disk, its tensors changed."""

    def grown(name: str, change: Callable[[Tensors], object] | None = None, **how: Any) -> Checkpoint:
        how = {"factor": 2, "noise": 0.0, **how}
        folder = save(widen(open_checkpoint(source(tiny.named(name))), **how), tmp_path / f"{name}-{len(how)}")
        if change:
            tensors = load_file(folder / "model.safetensors")
            change(tensors)
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return open_checkpoint(folder)

    return grown


def examined(result: Checkpoint, length: int = 9, tell: Tell = silent) -> Trainability:
    return examine(result, composed_maps(result.steps), RunOptions(samples=1, length=length), tell)


def by_axis(report: Trainability) -> Mapping[str, CopiedAxis]:
    return {axis.axis.split(",")[0]: axis for axis in report.axes}


def parted(tensors: Tensors, names: str, dimension: int, amount: float = 1e-3) -> None:
    """Add noise to the first half of a dimension and take it from the second: sums stay.

    It is itself a copy along the other dimension, so the copies there stay equal.
    """
    for name in [name for name in tensors if names in name]:
        tensor = tensors[name].movedim(dimension, -1).contiguous()
        half, height = tensor.shape[-1] // 2, tensor.shape[0] // 2
        noise = torch.randn(height, half, generator=torch.Generator().manual_seed(1)) * amount * tensor.std()
        tensor += torch.cat([noise, -noise], -1).repeat(2, 1)
        tensors[name] = tensor.movedim(-1, dimension).contiguous()


@pytest.mark.parametrize("name", ["llama-untied", "gpt2-tied", "bert-tied", "t5-tied"])
def test_plain_copies_stay_copies_for_ever(name: str, grow: Grow) -> None:
    report = examined(grow(name, attention="heads"), length=24)  # more positions than any matrix had rows
    assert not report.trainable and {"mlp", "heads"} < set(by_axis(report))
    for axis in report.axes:
        assert axis.stuck == axis.pairs > 0 and not axis.dead
        assert axis.says.startswith(f"{axis.pairs} of {axis.pairs} pairs of ")
        assert axis.cosine and axis.weight_cosine
        assert min(axis.cosine.min, axis.weight_cosine.min) > 1 - 1e-9  # of float32 sums, in float64
    assert all(rank.rank <= rank.copies_allow and rank.weight_rank <= rank.copies_allow for rank in report.ranks)
    assert any(rank.copies_allow < rank.possible for rank in report.ranks)


def test_every_layer_and_every_expert_has_neurons_of_its_own_and_the_residual_none(grow: Grow) -> None:
    report = examined(grow("mixtral-untied", attention="heads"))
    axes = by_axis(report)
    assert all(axis.stuck == axis.pairs for axis in report.axes)
    assert {name: axis.pairs for name, axis in axes.items()} == {
        "stream": 32,
        "mlp": 40 * 2 * 6,  # two layers of six experts
        "heads": 4 * 2,
        "kv": 2 * 2,
    }
    assert axes["stream"].axis == "stream, hidden, final"
    assert axes["mlp"].says.startswith("480 of 480 pairs of MLP neurons will stay copies for ever")


@pytest.mark.parametrize(
    ("tensor", "dimension", "parts"), [("down_proj.weight", 1, "mlp"), ("up_proj.weight", 1, "stream")]
)
def test_noise_in_one_axis_leaves_exactly_the_others_stuck(tensor: str, dimension: int, parts: str, grow: Grow) -> None:
    report = examined(grow("llama-untied", lambda t: parted(t, tensor, dimension), attention="heads"))
    axes = by_axis(report)
    assert {name for name, axis in axes.items() if axis.stuck} == set(axes) - {parts}
    assert axes[parts].stuck == 0 and axes[parts].says.startswith(f"all {axes[parts].pairs} pairs of ")
    assert all(axis.stuck == axis.pairs for name, axis in axes.items() if name != parts)
    assert not report.trainable


def test_noise_in_one_layer_leaves_the_other_ones_neurons_stuck(grow: Grow) -> None:
    result = grow("gpt2-tied", lambda t: parted(t, "h.1.mlp.c_proj.weight", 0), settings={"n_inner": 80}, factor=None)
    mlp = by_axis(examined(result))["mlp"]
    assert (mlp.pairs, mlp.stuck) == (80, 40)
    assert mlp.says.endswith("equal weights get equal gradients; the other 40 will part")


@pytest.mark.parametrize("name", ["mixtral-untied", "mixtral-modern"])
def test_noise_in_one_expert_leaves_the_other_ones_neurons_stuck(name: str, grow: Grow) -> None:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if "layers.0" in name and name.endswith(("experts.3.w2.weight",))]:
            tensors[name][:, :40] *= 1.5
            tensors[name][:, 40:] *= 0.5
        for name in [name for name in tensors if "layers.0" in name and name.endswith("experts.down_proj")]:
            tensors[name][3, :, :40] *= 1.25
            tensors[name][3, :, 40:] *= 0.75

    mlp = by_axis(examined(grow(name, change, settings={"intermediate_size": 80}, factor=None)))["mlp"]
    assert (mlp.pairs, mlp.pairs - mlp.stuck) == (480, 40)


@pytest.mark.parametrize("name", ["llama-untied", "phi3-untied"])
def test_noise_in_one_key_value_head_leaves_the_other_ones_values_stuck(name: str, grow: Grow) -> None:
    def change(tensors: Tensors) -> None:  # queries 0 and 1 share a key-value head; each value has 8 coordinates
        out = next(tensors[name] for name in tensors if "layers.0" in name and name.endswith("o_proj.weight"))
        out[:, 16:24] *= 1.1
        out[:, 24:32] *= 0.9

    value = by_axis(examined(grow(name, change, attention="head-dim")))["value"]
    assert (value.pairs, value.stuck) == (8 * 2 * 2, 8 * 3)


def test_nested_pairs_that_nobody_writes_are_dead_until_queries_hold_something(grow: Grow) -> None:
    result = grow("llama-untied", attention="head-dim")
    head = by_axis(examined(result))["head"]
    assert (head.pairs, head.dead) == (0, 8 * 2 * 2)  # in two layers of two key-value heads
    assert head.says.startswith("32 new query and key coordinates of a head get no gradient")
    nested = np.tile(composed_maps(result.steps)["head"].gaps, 4)

    def alive(tensors: Tensors) -> None:
        for name in [name for name in tensors if "q_proj" in name]:
            tensors[name][torch.from_numpy(nested)] = 0.1

    head = by_axis(examined(grow("llama-untied", alive, attention="head-dim", seed=1)))
    assert head["head"].dead == 0 and head["head"].says == "the new query and key coordinates of a head get gradients"


def test_copies_of_other_shares_part_and_only_equal_ones_stay(grow: Grow) -> None:
    """1/2 1/4 1/4: a step of any optimiser does not keep proportions, so what is parallel now is not afterwards."""
    result = grow("llama-untied", factor=3, rule="exact", attention="heads")
    axes = by_axis(examined(result))
    assert (axes["mlp"].pairs, axes["mlp"].stuck, axes["mlp"].slow) == (3 * 80, 80, 160)
    assert axes["mlp"].cosine and axes["mlp"].cosine.min > 1 - 1e-9
    assert axes["mlp"].says.endswith("the other 160 will part; 160 of them slowly, since only their shares differ")
    model = tiny.load(result.origin.path, "LlamaForCausalLM")
    for optimiser in (torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(model.parameters(), lr=1e-3)):
        with torch.enable_grad():
            model.zero_grad()
            model(**tiny.inputs(model)).logits.square().mean().backward()
            found, _ = measure(model, result, composed_maps(result.steps), 0, [])
            optimiser.step()
        mlp = next(axis for axis in found if axis.axis == "mlp")
        assert mlp.stuck == 80
    assert mlp.slow == 0 and mlp.cosine and mlp.cosine.min < 1 - 1e-6  # after the first step


def test_a_trained_model_is_asked_to_predict_its_text_in_float32(tmp_path: Path) -> None:
    demo = open_checkpoint("demo")
    assert demo.dtype == "BF16"
    result = open_checkpoint(save(widen(demo, settings={"intermediate_size": 400}, noise=0.0), tmp_path / "wider"))
    told: list[tuple[str, int, int]] = []
    report = examined(result, length=24, tell=lambda *said: told.append(said))
    before = examine(demo, {}, RunOptions(samples=1, length=24))
    assert before.trainable and not before.axes and not before.ranks
    assert report.loss == pytest.approx(before.loss, rel=1e-5)  # the same function, in another order of sums
    assert 1 < report.loss < 8.3  # better than chance, which is log(4096)
    (mlp,) = report.axes
    assert (mlp.pairs, mlp.stuck) == (4 * 48, 4 * 48)
    assert [rank.tensor.split(".")[2] for rank in report.ranks if "up_proj" in rank.tensor] == ["0", "2", "3"]
    assert "ranks: of each kind of matrix the first, the middle and the last layer's" in report.notes
    assert "dropout off" in report.notes
    assert {what: done for what, done, total in told if done == total} == {"backward": 1, "copies": 1, "ranks": 9}
    assert json.loads(json.dumps(report.to_json()))["trainable"] is False


def test_a_model_without_labels_is_pulled_towards_random_numbers_folded_back(grow: Grow) -> None:
    report = examined(grow("bert-body"))
    assert all(axis.stuck == axis.pairs for axis in report.axes)
    assert any(note.startswith("loss: the mean square distance of last_hidden_state") for note in report.notes)
    assert any("hidden_dropout_prob = 0.1" in note for note in report.notes)


def test_a_plan_has_no_gradients(source: Callable[..., Path]) -> None:
    plan = widen(open_checkpoint(source(tiny.named("gpt2-tied"))), 2)
    with pytest.raises(ModelSurgeonError, match="a plan cannot be run"):
        examined(plan)


def test_gradients_that_are_no_numbers_tell_nothing(grow: Grow) -> None:
    result = grow("gpt2-tied", lambda tensors: tensors["transformer.ln_f.bias"].fill_(float("nan")))
    with pytest.raises(ModelSurgeonError, match="its gradient holds NaN or infinities"):
        examined(result)


def test_large_axes_are_sampled_and_large_matrices_left_out_and_both_are_said(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinates, "MOST_PAIRS", 10)
    monkeypatch.setattr(ranks, "LARGEST", 63)
    report = examined(grow("llama-untied", attention="heads"))
    axes = by_axis(report)
    assert axes["mlp"].pairs == axes["mlp"].stuck == 2 * 10 and axes["stream"].pairs == 10
    assert "mlp: 10 of 40 pairs of each place were compared, evenly drawn" in report.notes
    assert all(min(rank.shape) <= 63 for rank in report.ranks)
    assert "ranks: 10 matrices of more than 63 rows and columns left out" in report.notes


@pytest.mark.parametrize(
    ("weight", "gradient", "stuck"), [(0.0, 1e-6, 40), (0.0, 1e-3, 0), (1e-3, 0.0, 0), (1e-3, 1e-3, 0)]
)
def test_copies_are_stuck_where_both_weights_and_gradients_are_equal(
    weight: float, gradient: float, stuck: int
) -> None:
    generator = torch.Generator().manual_seed(0)

    def copied(apart: float) -> torch.Tensor:
        half = torch.randn(40, 32, generator=generator)
        return torch.cat([half, half + apart * torch.randn(40, 32, generator=generator)])

    table = tiny.named("llama-untied").table
    axis = GrownAxis(("mlp",), Pointwise(), 40, np.tile(np.arange(40), 2), False)
    values = {"model.layers.0.mlp.up_proj.weight": (copied(weight), copied(gradient))}
    found = compare(axis, table, {"mlp": 80, "hidden": 32}, values)
    assert found and (len(found.stuck), found.stuck.sum(), found.parallel.sum()) == (40, stuck, 0)


def test_experts_that_are_never_chosen_are_dead_and_others_copies(grow: Grow) -> None:
    asleep = by_axis(examined(grow("deepseek_v3-tied", factor=None, settings={"n_routed_experts": 16})))["experts"]
    assert (asleep.pairs, asleep.dead) == (0, 8)
    chosen = {"num_local_experts": 12, "num_experts_per_tok": 4}
    together = by_axis(examined(grow("mixtral-untied", factor=None, settings=chosen)))["experts"]
    assert (together.pairs, together.stuck, together.dead) == (12, 12, 0)


def test_pairs_are_every_two_copies_of_one_coordinate() -> None:
    axis = GrownAxis(("a",), Pointwise(), 3, np.array([0, 1, -1, 2, 1, 1]), False)
    assert list(zip(*(side.tolist() for side in axis.pairs), strict=True)) == [(1, 4), (1, 5), (4, 5)]
    assert axis.new.tolist() == [2]


def test_a_rank_is_what_stands_out_of_the_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(40, 7, generator=generator), torch.randn(7, 30, generator=generator)
    product = (left.double() @ right.double()).float()  # rounded to float32
    assert numerical_rank(product) == 7
    product[0, 0] += 1e-2
    assert numerical_rank(product) == 8
    assert numerical_rank(torch.zeros(3, 4)) == 0


def test_a_map_that_moves_without_copying_leaves_nothing_to_tell(source: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(source(tiny.named("gpt2-tied")))
    shuffled = AxisMap(40, np.roll(np.arange(40), 1), np.ones(40), np.ones(40))
    (mlp,) = examine(checkpoint, {"mlp": shuffled}, RunOptions(samples=1, length=9)).axes
    assert (mlp.pairs, mlp.stuck, mlp.dead, mlp.cosine) == (0, 0, 0, None)
