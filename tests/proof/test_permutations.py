"""Results without a record whose neurons, heads, experts or coordinates are in another order: the same functions.

The orders are made in `permuted.py`, in plain torch. That they change nothing is asked of the library's models, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.proof.infer import Inferred, infer
from modelsurgeon.proof.proof import prove
from modelsurgeon.saving.save import save
from support import draws, foreign, tiny
from support.grow import widen
from support.parts import FAMILIES
from support.permuted import experts, permuted

A = TypeVar("A")
Source = Callable[..., Path]
ROTARY = "mlp heads values value-scales value-powers"
LEARNED, GROUPED = f"{ROTARY} keys", f"{ROTARY} queries"
ORDERS: dict[str, str] = {
    **dict.fromkeys(("llama-tied", "qwen3-untied", "phi3-untied", "gemma2-tied", "falcon-grouped"), GROUPED),
    **dict.fromkeys(("mixtral-untied", "qwen3_moe-untied", "gpt_oss-untied"), f"{GROUPED} experts"),
    **dict.fromkeys(("deepseek_v3-every-group", "deepseek_v2-greedy"), f"{LEARNED} experts"),
    **dict.fromkeys(("gpt_neox-untied", "modernbert-tied"), ROTARY),
    **dict.fromkeys(("gpt2-tied", "bart-tied", "whisper-tied", "bert-tied", "roberta-untied"), LEARNED),
    **dict.fromkeys(("t5-tied", "opt-tied"), f"{LEARNED} relu-scales"),
    "falcon-tied": "mlp values value-scales",
    "bloom-tied": "mlp values keys",
}
STREAMS = {
    "d_model": ("t5-tied", "bart-tied"),
    "hidden_size": ("llama-tied", "qwen3-untied", "bert-tied", "falcon-tied"),
}
SIGNED = {"hidden_size~": ("llama-tied", "mixtral-untied")}


def found(source: Path, result: Path, name: str, same: bool = True) -> Inferred:
    """What is inferred; the library's models must agree with it."""
    variant, inferred = tiny.named(name), infer(open_checkpoint(source), open_checkpoint(result))
    maps = composed_maps(inferred.steps) if inferred.fits else {}
    error = tiny.error(tiny.run(source, variant.kind), tiny.run(result, variant.kind), variant, maps)
    assert (error < 1e-4) == same, "the test itself is wrong"
    assert inferred.fits == same, (inferred.nearest, inferred.lines)
    return inferred


def some(cases: list[A], count: int) -> list[A]:
    return cases if draws.EXHAUSTIVE else draws.chance("orders").sample(cases, count)


@pytest.mark.parametrize(("name", "kind"), some([(name, kind) for name in ORDERS for kind in ORDERS[name].split()], 12))
def test_each_kind_of_order_is_proven(name: str, kind: str, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named(name))
    inferred = found(before, permuted(before, tmp_path / "result", kind.replace("-", " ")), name)
    assert inferred.proof and inferred.proof.summary == ("rounded" if kind.endswith("scales") else "exact")


@pytest.mark.parametrize("name", some(list(ORDERS), 3))
def test_several_orders_at_once_are_proven(name: str, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named(name))
    kinds = [kind.replace("-", " ") for kind in ORDERS[name].split()]
    inferred = found(before, permuted(before, tmp_path / "result", *kinds), name)
    assert len(inferred.lines) > 1 and inferred.to_json()["fits"]


@pytest.mark.parametrize(
    ("key", "name"), some([(k, n) for k, names in {**STREAMS, **SIGNED}.items() for n in names], 3)
)
def test_another_order_of_the_residual_is_proven(key: str, name: str, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named(name))
    inferred = found(before, permuted(before, tmp_path / "result", "mlp", stream=key), name)
    assert "reordered" in " ".join(line for line in inferred.lines if line.startswith(("stream", "hidden")))


GROWN = ["llama-tied", "gpt2-tied", "t5-tied", "mixtral-untied", "gpt_neox-untied", "qwen3-untied", "bert-tied"]


@pytest.mark.parametrize(
    ("name", "way"),
    draws.drawn(
        some(GROWN, 3), [(r, a) for r in ("exact", "orthogonal") for a in ("heads", "head-dim")], "grown orders"
    ),
)
def test_orders_beside_copies_and_noise_are_proven(
    name: str, way: tuple[str, str], source: Source, tmp_path: Path
) -> None:
    before, (rule, attention) = source(tiny.named(name)), way
    wide = save(widen(open_checkpoint(before), 2, rule=rule, attention=attention, noise=0.5), tmp_path / "wide")
    (wide / RECORD).unlink()
    inferred = found(before, permuted(wide, tmp_path / "result", "mlp", "heads", "values"), name)
    assert any("then copies in tiles" in line for line in inferred.lines if "mlp" in line)


@pytest.mark.parametrize(("rule", "factors"), some([("exact", (3,)), ("exact", (2, 2)), ("orthogonal", (2, 2))], 1))
def test_orders_after_several_growths_are_proven(
    rule: str, factors: tuple[int, ...], source: Source, tmp_path: Path
) -> None:
    before = wide = source(tiny.named("llama-untied"))
    for at, factor in enumerate(factors):
        wide = save(widen(open_checkpoint(wide), factor, rule=rule, attention="heads", noise=0.5), tmp_path / f"{at}")
        (wide / RECORD).unlink()
        wide = permuted(wide, tmp_path / f"permuted {at}", "mlp", "heads")
    found(before, wide, "llama-untied")


def test_a_conversion_beside_an_order_is_proven(source: Source, tmp_path: Path) -> None:
    def respelled(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        named = {name.removeprefix("model."): tensor.double() for name, tensor in tensors.items()}
        tensors.clear()
        tensors |= named

    before = source(tiny.named("llama-tied"))
    after = permuted(before, tmp_path / "result", "mlp", "heads", change=respelled)
    assert infer(open_checkpoint(before), open_checkpoint(after)).fits


def own_choices(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Net2Net: each layer copies neurons of its own choice, some of them several times."""
    size = config["intermediate_size"]
    for layer in range(2):
        source = torch.cat([torch.arange(size), torch.randint(0, size, (size // 2,))])[torch.randperm(size * 3 // 2)]
        _regrown(tensors, layer, source, 1 / torch.bincount(source)[source])
    config["intermediate_size"] = size * 3 // 2


def zeros_between(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Eight neurons of zeros, at other places in each layer."""
    size = config["intermediate_size"]
    for layer in range(2):
        order = torch.randperm(size + 8)
        _regrown(tensors, layer, order.clamp(max=size - 1), (order < size).float(), zeros=True)
    config["intermediate_size"] = size + 8


def _regrown(
    tensors: foreign.Tensors, layer: int, order: torch.Tensor, share: torch.Tensor, zeros: bool = False
) -> None:
    at = f"model.layers.{layer}.mlp."
    for part in ("gate", "up"):
        rows = tensors[f"{at}{part}_proj.weight"][order]
        tensors[f"{at}{part}_proj.weight"] = rows * share[:, None] if zeros else rows
    tensors[f"{at}down_proj.weight"] = tensors[f"{at}down_proj.weight"][:, order] * share


@pytest.mark.parametrize("change", [own_choices, zeros_between])
def test_copies_of_each_layers_own_choice_are_proven(change: foreign.Change, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))
    inferred = found(before, foreign.converted(before, tmp_path / "right", change), "llama-untied")
    assert "mlp" in inferred.reordered and "mlp" not in inferred.maps

    def wrong(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        change(tensors, config)
        tensors["model.layers.1.mlp.down_proj.weight"][:, 7] += 0.1
        tensors["model.layers.1.mlp.gate_proj.weight"][7, 3] += 0.1

    inferred = found(before, foreign.converted(before, tmp_path / "wrong", wrong), "llama-untied", same=False)
    assert "model.layers.1.mlp." in inferred.nearest


def only_up(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].flip(0)


def keys_alone(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    for part in ("k", "v"):
        name = f"model.layers.1.self_attn.{part}_proj.weight"
        tensors[name] = tensors[name].unflatten(0, (2, -1)).flip(0).flatten(0, 1)


def one_number(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 0.1


def rotated_coordinates(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    for part, heads in (("q", 4), ("k", 2)):
        name = f"model.layers.1.self_attn.{part}_proj.weight"
        tensors[name] = tensors[name].unflatten(0, (heads, -1)).flip(1).flatten(0, 1)


def gate_times_two(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Lawful behind a ReLU, and not behind SiLU."""
    tensors["model.layers.1.mlp.gate_proj.weight"] *= 2
    tensors["model.layers.1.mlp.down_proj.weight"] *= 0.5


@pytest.mark.parametrize("change", [only_up, keys_alone, one_number, rotated_coordinates, gate_times_two])
def test_mistakes_beside_orders_are_named(change: foreign.Change, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))
    inferred = found(
        before, permuted(before, tmp_path / "r", "mlp", "heads", change=change), "llama-untied", same=False
    )
    assert "model.layers.1." in inferred.nearest or "'heads'" in inferred.nearest
    if change is one_number:
        assert inferred.proof
        assert [wrong.name for wrong in inferred.proof.wrong] == ["model.layers.1.mlp.down_proj.weight"]


def test_experts_without_their_routers_rows_are_refuted(source: Source, tmp_path: Path) -> None:
    def experts_alone(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        parts = FAMILIES["mixtral"](tensors, config)
        for router in parts.routers:
            router.rows = [torch.zeros(len(router.rows[0]))]
        experts(parts)

    before = source(tiny.named("mixtral-untied"))
    found(before, foreign.converted(before, tmp_path / "r", experts_alone), "mixtral-untied", same=False)


def test_experts_that_change_their_group_are_refuted(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("deepseek_v3-untied"))
    inferred = found(before, permuted(before, tmp_path / "r", "experts"), "deepseek_v3-untied", same=False)
    assert ".mlp." in inferred.nearest


def test_the_proof_holds_for_the_reordered_result_alone(source: Source, tmp_path: Path) -> None:
    before, after = source(tiny.named("llama-untied")), tmp_path / "result"
    checkpoints = open_checkpoint(before), open_checkpoint(permuted(before, after, "mlp"))
    inferred = infer(*checkpoints)
    again, untouched = prove(checkpoints[0], inferred.result, inferred.steps), prove(*checkpoints, inferred.steps)
    assert again and untouched and (again.summary, untouched.summary) == ("exact", "wrong")
    assert inferred.reordered == ("mlp",)
