"""Records are claims: none makes the proof call rounded what no step can round, or new what must be copied."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import modelsurgeon as ms
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.record import MOST_STEPS
from modelsurgeon.maps.orders import identity
from modelsurgeon.operations.insert_layers import InsertLayers
from modelsurgeon.proof.proof import Proof, prove
from modelsurgeon.proof.rounding import CHAIN
from modelsurgeon.saving.save import save
from support import tiny
from support.command import run
from support.forging import WIDEN, Document, changed, claims, forged, scaled, step
from support.grow import widen

UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
VALUES, OUT = "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight"
Tensors = dict[str, torch.Tensor]


def proven(source: Path, result: Path) -> Proof:
    proof = prove(open_checkpoint(source), open_checkpoint(result))
    assert proof is not None, "a result with a record is judged by it"
    return proof


def told(proof: Proof) -> str:
    """exact, rounded, wrong, or not proven: where the maps, or what the steps may have rounded, leave a doubt."""
    return "not proven" if proof.summary != "wrong" and proof.lossy else proof.summary


def row(name: str, factor: float) -> Callable[[Tensors], Any]:
    """One row of a tensor times a factor."""
    return lambda tensors: tensors[name][3].mul_(factor)


def nothing(tensors: Tensors) -> None:
    """No tensor is changed."""


SAME = step("widen", WIDEN, {"mlp": identity(40), "hidden": identity(32)})
TO = {dtype: step("widen", {**WIDEN, "dtype": dtype}) for dtype in ("bfloat16", "float16", "float32", "float64")}
STRETCHED = [step("widen", WIDEN, {"value": scaled(8, factor)}) for factor in (math.sqrt(2), 1 / math.sqrt(2))]
NUDGED = step("widen", WIDEN, {"value": scaled(8, 1 + 2.0**-52)})


@dataclass(frozen=True)
class Forgery:
    """A copy of a source with a record of these steps and a change in its tensors, and what the proof must say."""

    dtype: str
    steps: list[Document]
    change: Callable[[Tensors], Any]
    verdict: str
    says: str = ""


FORGERIES = {
    "nothing was done, 90 times": Forgery("bfloat16", [SAME] * 90, nothing, "exact"),
    "identity steps excuse no row x 1.5": Forgery("bfloat16", [SAME] * 90, row(UP, 1.5), "wrong", "at [3, 0]"),
    "identity steps excuse no row x -1": Forgery("bfloat16", [SAME] * 90, row(UP, -1), "wrong"),
    "identity steps excuse no last bit": Forgery("bfloat16", [SAME] * 3, row(UP, 1 + 2.0**-7), "wrong"),
    "150 steps": Forgery("bfloat16", [SAME] * 150, row(UP, 1.5), "wrong", f"expected {MOST_STEPS} at most, found 150"),
    "600 steps": Forgery("bfloat16", [SAME] * 600, nothing, "wrong", f"expected {MOST_STEPS} at most, found 600"),
    "casts to the same dtype": Forgery("bfloat16", [TO["bfloat16"]] * 50, row(UP, 1.01), "wrong"),
    "factors that are 1 but for float64": Forgery("bfloat16", [NUDGED] * 50, row(VALUES, 1.01), "wrong"),
    "steps that round other tensors": Forgery("bfloat16", STRETCHED * 20, row(UP, 1.004), "wrong"),
    "two steps that round": Forgery("bfloat16", STRETCHED, row(VALUES, 1.004), "rounded"),
    "two steps do not round by 1%": Forgery("bfloat16", STRETCHED, row(VALUES, 1.012), "wrong"),
    "40 steps are no proof": Forgery("bfloat16", STRETCHED * 20, row(VALUES, 1.02), "not proven", "too much"),
    "40 steps excuse no row x 1.5": Forgery("bfloat16", STRETCHED * 20, row(VALUES, 1.5), "wrong"),
    "40 steps excuse no row x -1": Forgery("bfloat16", STRETCHED * 20, row(OUT, -1), "wrong"),
    "through 16 bits and back": Forgery(
        "float32", [TO["bfloat16"], TO["float32"]], row(UP, 1 + 2.0**-9), "not proven", "of which their own dtype"
    ),
    "through 16 bits and back, by more": Forgery("float32", [TO["bfloat16"], TO["float32"]], row(UP, 1.01), "wrong"),
    "16 bits that the file does not have": Forgery("float32", [TO["bfloat16"]], row(UP, 1 + 2.0**-9), "not proven"),
    "through half precision": Forgery("float32", [TO["float16"], TO["float32"]], row(UP, 1 + 2.0**-9), "wrong"),
    "through a wider dtype": Forgery("float32", [TO["float64"], TO["float32"]], row(UP, 1 + 2.0**-20), "wrong"),
    "an init that makes all tensors new": Forgery(
        "float32", [step("init", dict.fromkeys(("std", "distribution", "residual")))], row(UP, 2), "wrong", "init"
    ),
    "a fresh head that is the old one": Forgery(
        "float32", [step("untie-embeddings", {"head": "half-swap"})], nothing, "wrong", "lm_head"
    ),
    "a factor that only a record has": Forgery(
        "float32", [step("widen", {**WIDEN, "inferred": True})], nothing, "wrong", "arguments.inferred: expected no"
    ),
    "a map of another size": Forgery("float32", [step("widen", WIDEN, {"mlp": identity(41)})], nothing, "wrong", "40"),
    "an axis that nobody knows": Forgery("float32", [step("widen", WIDEN, {"x": identity(4)})], nothing, "wrong", "x"),
    "an axis that never grows": Forgery(
        "float32", [step("widen", WIDEN, {"vocab": {**identity(61).to_json(), "source": [[60, -1, 61]]}})],
        nothing, "wrong", "does not grow",
    ),
    "copies that cancel": Forgery(
        "float32",
        [step("widen", WIDEN, {"value": {**identity(1).to_json(), "size": 8, "new_size": 16, "source": [[0, 1, 8]] * 2,
                                         "scale": [[1.0, 16]], "share": [[3.0, 8], [-2.0, 8]]}})],
        nothing, "wrong", "parts that cancel each other",
    ),
}  # fmt: skip


def planted(forgery: Forgery, source: Any, folder: Path) -> tuple[Path, Path]:
    before = source(tiny.named("llama-untied"), forgery.dtype)
    return before, changed(forged(before, folder, forgery.steps), forgery.change)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_told(name: str, source: Any, tmp_path: Path) -> None:
    forgery = FORGERIES[name]
    proof = proven(*planted(forgery, source, tmp_path / "forged"))
    said = f"{[(one.name, one.detail) for one in proof.wrong]} {proof.lossy}"
    assert told(proof) == forgery.verdict, said
    assert forgery.says in said


MAPS: dict[str, tuple[dict[str, Any], str]] = {
    "shares of a million that cancel": ({"share": [[1e6, 40], [1 - 1e6, 40]]}, "factors of 2**-16"),
    "a factor that leaves nothing": ({"scale": [[1e-18, 80]], "share": [[5e17, 80]]}, "factors of 2**-16"),
    "a scale of zero": ({"scale": [[0.0, 80]]}, "breaks D E"),
    "a scale that is no number": ({"scale": [[math.nan, 80]]}, "scale[0][0]: expected a number, found nan"),
    "a scale that is infinite": ({"scale": [[math.inf, 80]]}, "scale[0][0]: expected a number, found inf"),
    "a share x 1.01": ({"share": [[0.505, 80]]}, "breaks D E"),
    "a size that is none": ({"size": -40}, "an axis of -40"),
    "more coordinates than memory": (
        {"new_size": 2**40, "source": [[0, 0, 2**40]]},
        "maps of 67108864 coordinates at most",
    ),
    "a source beyond all numbers": ({"source": [[0, 2**62, 40], [0, 1, 40]]}, "source"),
    "gaps in the place of copies": ({"source": [[-1, 0, 40], [-1, 0, 40]]}, "copies nothing"),
    "means in the place of copies": ({"source": [[-2, 0, 40], [0, 1, 40]]}, "coordinate that copies nothing"),
    "a gain of its own": ({"gain": 2.0, "share": [[1.0, 80]]}, "D E is 2 I, and must be 1 I"),
    "a split that is none": ({"split": "both"}, "split"),
    "a field that maps lack": ({"free": True}, "free: expected no such field"),
}


@pytest.fixture(scope="session")
def wide(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose MLP was widened from 40 to 80, with its record."""
    before = open_checkpoint(source(tiny.named("llama-untied")))
    return save(widen(before, None, {"intermediate_size": 80}), tmp_path_factory.mktemp("wide") / "wide")


def spoilt(wide: Path, folder: Path, change: Callable[[Document], Any]) -> Path:
    record = json.loads((wide / "modelsurgeon.json").read_text())
    return claims(forged(wide, folder, record["steps"]), change)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_on_record_that_no_growth_makes_is_told_by_its_field(
    name: str, source: Any, wide: Path, tmp_path: Path
) -> None:
    change, says = MAPS[name]
    result = spoilt(wide, tmp_path / "forged", lambda record: record["steps"][0]["maps"]["mlp"].update(change))
    (only,) = proven(source(tiny.named("llama-untied")), result).verdicts
    assert (only.name, only.verdict) == ("modelsurgeon.json", "wrong")
    assert only.detail.startswith("steps") and says in only.detail


def test_reasons_on_record_weaken_no_proof_and_their_absence_strengthens_none(
    source: Any, wide: Path, tmp_path: Path
) -> None:
    before = source(tiny.named("llama-untied"))
    lossy = {"lossy": ["weights are rounded to BF16"], "lossless": False}
    excused = spoilt(wide, tmp_path / "excused", lambda record: record["steps"][0].update(lossy))
    assert told(proven(before, excused)) == "exact"
    changed(excused, row(NORM, 1.001))
    assert told(proven(before, excused)) == "wrong"
    fresh = ms.open(before).untie_embeddings(head="half-swap").save(tmp_path / "fresh").path
    assert fresh is not None
    claims(fresh, lambda record: record["steps"][0].update(lossy=[], lossless=True))
    assert told(proven(before, fresh)) == "not proven"


def test_a_source_of_another_name_and_stale_hashes_do_not_decide(source: Any, wide: Path, tmp_path: Path) -> None:
    def lie(record: Document) -> None:
        record["steps"][0]["source"] = {"id": "elsewhere", "revision": "0" * 40}
        record["files"]["model.safetensors"] = {"bytes": 1, "blake3": "0" * 64}

    result = spoilt(wide, tmp_path / "forged", lie)
    assert told(proven(source(tiny.named("llama-untied")), result)) == "exact"
    assert run("verify", "--files", result).code == 1, "that is what the hashes are for"


def test_new_layers_excuse_no_old_ones(source: Any, tmp_path: Path) -> None:
    """The second insertion moves the first one's new layer; what is at its old number is copied and must be equal."""
    before = source(tiny.named("llama-untied"))
    twice = ms.open(before).apply(InsertLayers(layers={"layer": [0, None, 1]}))
    twice = twice.apply(InsertLayers(layers={"layer": [0, None, 1, 2]}))
    result = twice.save(tmp_path / "deep").path
    assert result is not None and told(proven(before, result)) == "exact"

    def repeat(tensors: Tensors) -> None:
        for name in [name for name in tensors if ".layers.2." in name]:
            tensors[name] = tensors[name.replace(".layers.2.", ".layers.0.")].clone()

    changed(result, repeat)
    assert told(proven(before, result)) == "wrong", "the first layer would be run twice"


def test_gaps_that_something_reads_must_be_zero(source: Any, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))
    result = save(widen(open_checkpoint(before), None, {"hidden_size": 40}, rule="exact"), tmp_path / "wide")
    assert told(proven(before, result)) == "rounded", "gains and square roots of 40 / 32"
    changed(result, lambda tensors: tensors["model.embed_tokens.weight"][:, 39].fill_(1.0))
    assert told(proven(before, result)) == "wrong"


CHAINS = {
    "three times by square roots in 16 bits": ("bfloat16", [("orthogonal", None)] * 3, "rounded"),
    "with casts between": (
        "bfloat16", [("orthogonal", "float32"), ("orthogonal", "bfloat16"), ("orthogonal", None)], "rounded"),
    "by powers of two": ("bfloat16", [("exact", None)] * 3, "exact"),
    "half precision": ("float16", [("orthogonal", None), ("exact", None), ("orthogonal", None)], "rounded"),
    "in float64": ("float64", [("orthogonal", None)] * 3, "rounded"),
    "through 16 bits": ("float32", [("orthogonal", "bfloat16"), ("exact", "float32")], "not proven"),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", ["llama-tied", "gpt2-tied"])
def test_an_honest_chain_is_never_wrong(name: str, chain: str, source: Any, tmp_path: Path) -> None:
    dtype, steps, verdict = CHAINS[chain]
    before = made = source(tiny.named(name), dtype)
    for at, (rule, stored) in enumerate(steps):
        grown = widen(open_checkpoint(made), 2, rule=rule, dtype=stored, attention="heads", noise=0.5)
        made = save(grown, tmp_path / str(at))
    proof = proven(before, made)
    assert told(proof) == verdict, proof.wrong[:2]
    assert proof.rounding < CHAIN


def test_a_result_that_was_stored_in_fewer_bits_afterwards_is_rounded(source: Any, wide: Path, tmp_path: Path) -> None:
    narrow = spoilt(wide, tmp_path / "narrow", lambda record: None)
    changed(narrow, lambda tensors: tensors.update({name: t.bfloat16() for name, t in tensors.items()}))
    assert told(proven(source(tiny.named("llama-untied")), narrow)) == "rounded"
