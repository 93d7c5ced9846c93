"""The same limits on tiny models of all families: what is planted is seen, and a right result beside it is the same."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.running import batches
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.verification.logits import LogitReport, compare_all
from modelsurgeon.verification.verify import verify
from support.draws import EXHAUSTIVE, drawn, some
from support.grow import widen
from support.tiny import named, variants

SHORT = RunOptions(samples=1, length=16)
Change = Callable[[dict[str, torch.Tensor]], None]
BIAS = "final_logits_bias"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONG", 24)
    monkeypatch.setattr(batches, "NEW", 2)


def changed(folder: Path, to: Path, change: Change) -> Checkpoint:
    """A copy of a checkpoint on disk, changed."""
    shutil.copytree(folder, to)
    for file in to.glob("*.safetensors"):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})
    return open_checkpoint(to)


def times(factors: Mapping[str, float]) -> Change:
    """A function that multiplies tensors whose names end so."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for end, factor in factors.items():
            names = [name for name in tensors if name.endswith(end)]
            assert names, end
            tensors.update({name: tensors[name] * factor for name in names})

    return change


def compared(
    before: Checkpoint, after: Checkpoint, dtype: str = "float32", behaviour: bool = False, maps: object = None
) -> LogitReport:
    options = replace(SHORT, dtype=dtype)
    found, _ = compare_all(before, after, options, behaviour=behaviour, in_stored=False, maps=maps)  # type: ignore[arg-type]
    return found


# {name: (the tokens whose bias it is, the bias that both models share)}
BIASES: Mapping[str, tuple[slice, float]] = {
    "one of -1e9": (slice(5, 6), -1e9),
    "one of 1e9": (slice(5, 6), 1e9),
    "one of -inf": (slice(5, 6), -math.inf),
    "half of -1e9": (slice(0, None, 2), -1e9),
}


@pytest.mark.parametrize("name", some(BIASES, 1, "huge biases"))
def test_two_random_models_that_share_a_huge_bias_are_different(
    name: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    where, number = BIASES[name]
    folder = source(named("bart-tied"))

    def biased(tensors: dict[str, torch.Tensor], seed: int | None = None) -> None:
        generator = torch.Generator().manual_seed(seed or 0)
        for key, value in tensors.items() if seed is not None else ():
            order = torch.randperm(value.numel(), generator=generator)
            tensors[key] = value.flatten()[order].view(value.shape)
        tensors[BIAS] = torch.zeros(1, tensors["model.shared.weight"].shape[0])
        tensors[BIAS][0, where] = number

    before = changed(folder, tmp_path / "before", biased)
    other = changed(folder, tmp_path / "other", lambda tensors: biased(tensors, 1))
    plan = widen(before, 2)
    right = open_checkpoint(save(plan, tmp_path / "right"))
    assert compared(before, right, maps=plan.steps[-1].maps).same
    found = compared(before, other)
    assert not found.same and found.decides


def test_an_output_that_tells_nothing_leaves_it_to_the_hidden_states(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    def constant(tensors: dict[str, torch.Tensor]) -> None:
        tensors[BIAS] = torch.full((1, tensors["model.shared.weight"].shape[0]), 1e9)

    def wrong(tensors: dict[str, torch.Tensor]) -> None:
        constant(tensors)
        times({"decoder.layers.1.fc2.weight": 2.0})(tensors)

    folder = source(named("bart-tied"))
    before = changed(folder, tmp_path / "before", constant)
    found = compared(before, changed(folder, tmp_path / "wrong", wrong), behaviour=True)
    assert not found.decides and "logits" in found.blind and any("can hardly tell" in note for note in found.notes)
    assert not found.same and "the outputs tell nothing" in found.reasons[-1]
    assert compared(before, before, behaviour=True).same


OVERFLOWS = {"up_proj.weight": 2.0**16, "down_proj.weight": 2.0**-16}


@pytest.fixture(scope="module")
def half(source: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A Llama in float16, of whose numbers none is rounded by OVERFLOWS."""

    def coarse(tensors: dict[str, torch.Tensor]) -> None:
        times({"down_proj.weight": 2.0**-16})(tensors)
        times({"down_proj.weight": 2.0**16})(tensors)

    folder = tmp_path_factory.mktemp("half")
    return changed(source(named("llama-untied"), "float16"), folder / "half", coarse)


def test_a_result_that_overflows_in_the_stored_16_bits_is_different(half: Checkpoint, tmp_path: Path) -> None:
    """Exact powers of two: the function in float32 is the same to the last bit."""
    after = changed(half.origin.path, tmp_path / "after", times(OVERFLOWS))
    assert all(tensor.isfinite().all() for tensor in load_file(after.origin.path / "model.safetensors").values())
    report = verify(half, after, SHORT, infer=False)
    assert report.logits is not None and report.logits.same
    assert report.stored is not None and not report.stored.same and not report.same
    assert any("finite on one side alone" in line for line in report.stored.reasons)
    assert json.loads(json.dumps(report.to_json()))["same"] is False
    assert verify(half, half, SHORT, infer=False).same
    back = verify(after, half, SHORT, infer=False)  # the other way round
    assert not back.same and back.logits is not None and back.logits.same


def test_16_bits_say_below_which_difference_they_cannot_tell(source: Callable[..., Path], tmp_path: Path) -> None:
    folder = source(named("llama-untied"))
    before = open_checkpoint(folder)
    after = changed(folder, tmp_path / "after", times({"layers.1.mlp.up_proj.weight": 1.002}))
    found = compared(before, after, "bfloat16")
    assert found.same and not found.decides
    assert f"bfloat16 cannot tell differences below {max(found.limits):.1e} of the deviation" in found.notes[-1]
    wide = compared(before, after)
    assert not wide.same and wide.decides and not any("cannot tell" in note for note in wide.notes)


MAIN = sorted({variant.name for variant in variants() if variant.main})
DTYPES = ("bfloat16", "float16")
ALL = drawn(MAIN, [(stored, run) for stored in ("float32", *DTYPES) for run in (*DTYPES, "float32")], "noise floors")
SOME = ALL if EXHAUSTIVE else ALL[:: max(1, len(ALL) // 4)]


@pytest.mark.parametrize(("name", "dtypes"), SOME, ids=str)
def test_a_right_result_diverges_nowhere_in_any_dtype(
    name: str, dtypes: tuple[str, str], source: Callable[..., Path], tmp_path: Path
) -> None:
    before = open_checkpoint(source(named(name), dtypes[0]))
    try:
        plan = widen(before, 2, rule="exact")
    except PlanError as error:
        pytest.skip(f"no such growth: {error}")
    after = open_checkpoint(save(plan, tmp_path / "wider"))
    found = compared(before, after, dtypes[1], behaviour=True, maps=plan.steps[-1].maps)
    assert found.reasons == ()
    assert found.layers is None or found.layers.first is None


@pytest.mark.parametrize("name", ["mixtral-untied", "qwen3_moe-untied"])
def test_a_router_that_rounds_otherwise_makes_nothing_different_and_hides_nothing(
    name: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    folder = source(named(name), "float16")
    before, plan = open_checkpoint(folder), widen(open_checkpoint(folder), 2, attention="head-dim")
    right = compared(before, open_checkpoint(save(plan, tmp_path / "right")), "float16", maps=plan.steps[-1].maps)
    assert right.same and any("a router that rounds otherwise" in note for note in right.notes)
    wrong = compared(before, changed(folder, tmp_path / "wrong", times({"lm_head.weight": 1.5})), "float16")
    assert not wrong.same and "typically off" in wrong.reasons[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "place", some(["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj"], 1, "places")
)
def test_a_fault_is_told_where_it_is_in_every_dtype(
    place: str, dtype: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    folder = source(named("llama-untied"), "float32")
    wrong = changed(folder, tmp_path / "wrong", times({f"{place}.weight": 1.5}))
    found = compared(open_checkpoint(folder), wrong, dtype, behaviour=True)
    assert not found.same and found.layers is not None
    assert found.layers.first is not None and found.layers.first.name == place
    assert {row.noise is None for row in found.layers.rows} == {dtype == "float32"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_outlier_channel_hides_no_fault(dtype: str, source: Callable[..., Path], tmp_path: Path) -> None:
    """One channel of the residual stream is a thousand times the others, as in large models."""

    def outlying(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][:, 3] = 500.0

    before = changed(source(named("llama-untied")), tmp_path / "before", outlying)
    plan = widen(before, 2)
    right = open_checkpoint(save(plan, tmp_path / "right"))
    found = compared(before, right, dtype, behaviour=True, maps=plan.steps[-1].maps)
    assert found.same and found.layers is not None and found.layers.first is None
    fault = "model.layers.0.mlp.down_proj"
    wrong = changed(before.origin.path, tmp_path / "wrong", times({f"{fault}.weight": 2.0}))
    layers = compared(before, wrong, dtype, behaviour=True).layers
    assert layers is not None and layers.first is not None and layers.first.name == fault
