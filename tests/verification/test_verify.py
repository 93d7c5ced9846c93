"""Verification tells the same from the different: no false alarm, and no planted mistake passes."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.errors import SourceError
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.proof.proof import fold, prove
from modelsurgeon.running.options import RunOptions
from modelsurgeon.saving.save import save
from modelsurgeon.tensors.stored import Stored
from modelsurgeon.verification import summary
from modelsurgeon.verification.verify import verify
from support import draws, planting, tiny
from support.attacks import grown
from support.attacks.attack import Attack
from support.attacks.tried import Workshop
from support.grow import widen

Source = Callable[..., Path]
SHORT = RunOptions(length=16, samples=1)
Widened = Callable[..., tuple[Path, Path]]
# One variant of each kind of layout; tests/test_matrix.py proves every growth of every family.
SOUND = [
    *("llama-tied", "gpt2-untied", "bert-tied", "t5-untied", "opt-tied", "gemma2-tied", "falcon-grouped", "bloom-tied"),
    *("gpt_oss-untied", "deepseek_v3-untied", "olmo2-untied", "stablelm-normed", "whisper-tied", "vit", "albert-tied"),
]
ROUNDED = {  # sqrt(3) between embedding and stream, or decoder and head: no power of two holds it, float32 does
    "gemma2-tied": {"model.embed_tokens.weight", "model.norm.weight"},
    "t5-tied": {"decoder.final_layer_norm.weight"},
}


@pytest.fixture(scope="session")
def widened(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Widened:
    """widened(variant, rule, attention, settings) -> (source, result, widened by two without settings)."""
    made: dict[tuple[Any, ...], tuple[Path, Path]] = {}

    def folders(
        name: str, rule: str, attention: str = "heads", settings: Mapping[str, int] | None = None
    ) -> tuple[Path, Path]:
        key = (name, rule, attention, *(settings or {}).items())
        if key not in made:
            before = source(tiny.named(name))
            factor = None if settings else 2
            result = widen(open_checkpoint(before), factor, settings, rule=rule, attention=attention)
            made[key] = before, save(result, tmp_path_factory.mktemp("widened") / "result")
        return made[key]

    return folders


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("attacks"))


MISTAKES = list(grown.every_mistake())


@pytest.mark.parametrize("mistake", draws.some(MISTAKES, 25, "mistakes proven wrong"), ids=str)
def test_every_planted_mistake_is_proven_wrong(mistake: Attack, workshop: Workshop, tmp_path: Path) -> None:
    before, result = workshop.pair(mistake.made)
    planted = shutil.copytree(result, tmp_path / "planted")
    mistake.plant(planted)
    proof = prove(open_checkpoint(before), open_checkpoint(planted))
    assert proof is not None
    assert proof.summary == "wrong"


@pytest.mark.parametrize("rule", ["orthogonal", "exact"])
@pytest.mark.parametrize("name", SOUND)
def test_what_was_widened_well_is_called_the_same(name: str, rule: str, widened: Widened) -> None:
    before, result = (open_checkpoint(folder) for folder in widened(name, rule))
    proof = prove(before, result)
    assert proof is not None
    assert proof.summary != "wrong"
    if before.architecture.eps is None and rule == "orthogonal":
        assert proof.lossy, "its eps is fixed in the code: said, not hidden"
        return
    assert not proof.lossy
    assert proof.summary == "exact" or rule == "orthogonal" or name in ("gemma2-tied", "t5-untied")


@pytest.mark.parametrize("name", SOUND[:4])
def test_what_was_widened_well_is_reported_as_the_same(name: str, widened: Widened) -> None:
    report = verify(*(open_checkpoint(folder) for folder in widened(name, "exact")), options=SHORT)
    assert report.same and report.proof is not None and report.logits is not None


@pytest.mark.parametrize("name", [*SOUND, "t5-tied", "deepseek_v2-untied", "mixtral-untied"])
def test_whole_heads_under_the_exact_rule_round_nothing(name: str, source: Source, tmp_path: Path) -> None:
    before = open_checkpoint(source(tiny.named(name), "bfloat16"))
    proof = prove(before, open_checkpoint(save(widen(before, 3, rule="exact", attention="heads"), tmp_path / "wide")))
    assert proof is not None
    rounded = {verdict.name for verdict in proof.verdicts if verdict.verdict != "exact"}
    assert rounded <= ROUNDED.get(name, set())
    assert proof.rounding <= 2**-24


def test_operations_chain_and_are_proven_against_every_ancestor(source: Source, tmp_path: Path) -> None:
    root = open_checkpoint(source(tiny.named("llama-tied"), "bfloat16"))
    wide = open_checkpoint(save(widen(root, 2), tmp_path / "wide"))
    untied = open_checkpoint(save(untie_embeddings(wide), tmp_path / "untied"))
    wider = open_checkpoint(save(widen(untied, 3), tmp_path / "wider"))
    for ancestor in (root, wide, untied):
        proof = prove(ancestor, wider)
        assert proof is not None
        assert proof.summary == "exact"
    assert prove(wider, root) is None


def test_a_result_of_another_source_is_called_different(source: Source, tmp_path: Path) -> None:
    result = save(widen(open_checkpoint(source(tiny.named("llama-tied"))), 2), tmp_path / "wide")
    other = open_checkpoint(source(tiny.named("llama-tied"), "bfloat16"))
    proof = prove(other, open_checkpoint(result))
    assert proof is not None
    assert proof.summary == "wrong"


def test_without_a_record_the_weights_are_looked_at_first(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    copied = shutil.copytree(before, tmp_path / "copy")
    report = verify(open_checkpoint(before), open_checkpoint(copied), options=SHORT)
    assert report.inferred and report.same and report.proven


def test_without_a_record_and_without_derived_maps_nothing_is_proven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    copied = shutil.copytree(before, tmp_path / "copy")
    report = verify(open_checkpoint(before), open_checkpoint(copied), infer=False, options=SHORT)
    assert report.same and not report.proven and report.verdict == "same on what was run, not proven"
    assert report.proof is None and report.notes[0] == "not proven: no record of how it was made"


def test_a_record_can_be_ignored(widened: Widened) -> None:
    before, result = widened("llama-tied", "exact")
    report = verify(open_checkpoint(before), open_checkpoint(result), ignore_record=True, options=SHORT)
    assert report.inferred and report.proven


def test_a_number_that_derived_maps_do_not_explain_leaves_it_unproven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    copied = shutil.copytree(before, tmp_path / "copy")
    held = load_file(copied / "model.safetensors")
    held["model.norm.weight"][3] *= 1 + 2**-20  # no logit shows it
    save_file(held, copied / "model.safetensors", {"format": "pt"})
    report = verify(open_checkpoint(before), open_checkpoint(copied), options=SHORT)
    assert report.inferred is not None and report.logits is not None and report.logits.same
    assert report.same and not report.proven and report.verdict == "same on what was run, not proven"
    assert any("fail at model.norm.weight" in level.result for level in summary.levels(report.to_json()))


def test_a_record_whose_maps_break_the_law_is_wrong(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")
    planted = shutil.copytree(result, tmp_path / "planted")
    record = json.loads((planted / RECORD).read_text())
    record["steps"][0]["maps"]["mlp"]["share"][0][0] *= 1.01
    (planted / RECORD).write_text(json.dumps(record))
    proof = prove(open_checkpoint(before), open_checkpoint(planted))
    assert proof is not None
    assert [verdict.name for verdict in proof.wrong] == [RECORD]
    assert proof.wrong[0].detail.startswith("steps[0].maps.mlp: an axis map breaks D E")


def test_a_record_whose_maps_do_not_commute_is_wrong(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")
    planted = shutil.copytree(result, tmp_path / "planted")
    record = json.loads((planted / RECORD).read_text())
    mlp = record["steps"][0]["maps"]["mlp"]
    mlp["scale"], mlp["share"] = [[0.5, mlp["new_size"]]], [[1.0, mlp["new_size"]]]
    (planted / RECORD).write_text(json.dumps(record))
    proof = prove(open_checkpoint(before), open_checkpoint(planted))
    assert proof is not None
    assert proof.summary == "wrong"
    assert "pointwise" in proof.wrong[0].detail


def test_a_tensor_too_many_or_too_few_is_wrong(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")
    planted = shutil.copytree(result, tmp_path / "planted")
    held = load_file(planted / "model.safetensors")
    held["model.extra.weight"] = held.pop("model.layers.0.mlp.up_proj.weight")
    save_file(held, planted / "model.safetensors", {"format": "pt"})
    proof = prove(open_checkpoint(before), open_checkpoint(planted))
    assert proof is not None
    assert {(verdict.name, verdict.detail) for verdict in proof.wrong} == {
        ("model.extra.weight", "nothing accounts for it"),
        ("model.layers.0.mlp.up_proj.weight", "missing"),
    }


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    stored = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(12.0).reshape(3, 4)}
    stored["b"][2, 1] = torch.nan
    save_file(stored, tmp_path / "two.safetensors")
    from modelsurgeon.files.file import LocalFile
    from modelsurgeon.tensors.stored import read_header

    header: dict[str, Stored] = read_header(LocalFile(tmp_path / "two.safetensors"))
    verdict = fold("a", header["a"], header["b"])
    assert verdict.verdict == "wrong"
    assert verdict.detail == "at [2, 1] (folded): expected 9, found nan"


def test_a_model_partly_stored_in_float32_is_still_treated_as_16_bits(source: Source, tmp_path: Path) -> None:
    root = open_checkpoint(source(tiny.named("gemma2-tied"), "bfloat16"))
    mixed = open_checkpoint(save(widen(root, 2), tmp_path / "mixed"))
    assert {tensor.dtype for tensor in mixed.tensors.values()} == {"BF16", "F32"}
    again = widen(mixed, 2)
    assert again.steps[-1].arguments["rule"] == "exact"
    proof = prove(root, open_checkpoint(save(again, tmp_path / "again")))
    assert proof is not None
    assert proof.rounding < 2**-23  # sqrt(2) twice, in float32, each within half a unit of the last place


def replanted(result: Path, folder: Path, **changes: Callable[[dict[str, Any]], None]) -> Checkpoint:
    """A result whose record says something else of some axes, and whose tensors follow what it says."""
    planted = shutil.copytree(result, folder)
    record = json.loads((planted / RECORD).read_text())
    for axis, change in changes.items():
        change(record["steps"][0]["maps"][axis])
    (planted / RECORD).write_text(json.dumps(record))
    return open_checkpoint(planted)


def test_a_record_that_moves_coordinates_across_a_norm_is_wrong(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")

    def reverse(record: dict[str, Any]) -> None:
        record["source"] = [[31, -1, 32], [31, -1, 32]]

    proof = prove(open_checkpoint(before), replanted(result, tmp_path / "planted", hidden=reverse))
    assert proof is not None
    assert any("norm" in verdict.detail for verdict in proof.wrong)


@pytest.mark.parametrize("field", ["scale", "share"])
def test_a_record_that_stretches_one_coordinate_of_a_rotary_pair_is_wrong(
    field: str, source: Source, tmp_path: Path
) -> None:
    before = source(tiny.named("llama-tied"))
    wide = save(widen(open_checkpoint(before), 2, rule="exact", attention="head-dim"), tmp_path / "wide")

    def stretch(record: dict[str, Any]) -> None:
        other = {"scale": "share", "share": "scale"}[field]
        values = AxisMap.from_json(record)
        for name, factor in ((field, 2.0), (other, 0.5)):
            vector = getattr(values, name).tolist()
            vector[0] *= factor
            record[name] = [[value, 1] for value in vector]

    proof = prove(open_checkpoint(before), replanted(wide, tmp_path / "planted", head=stretch))
    assert proof is not None
    assert any("pair" in verdict.detail for verdict in proof.wrong)


def test_buffers_that_the_library_recomputes_are_no_part_of_the_proof(source: Source, tmp_path: Path) -> None:
    before = shutil.copytree(source(tiny.named("bert-tied")), tmp_path / "before")
    held = load_file(before / "model.safetensors")
    held["bert.embeddings.position_ids"] = torch.arange(tiny.POSITIONS)[None]
    save_file(held, before / "model.safetensors", {"format": "pt"})
    result = save(untie_embeddings(open_checkpoint(before)), tmp_path / "untied")
    proof = prove(open_checkpoint(before), open_checkpoint(result))
    assert proof is not None
    assert proof.summary == "exact"


def test_a_tensor_that_became_integers_is_wrong(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")
    planted = shutil.copytree(result, tmp_path / "planted")
    held = load_file(planted / "model.safetensors")
    held["model.norm.weight"] = held["model.norm.weight"].to(torch.int64)
    save_file(held, planted / "model.safetensors", {"format": "pt"})
    proof = prove(open_checkpoint(before), open_checkpoint(planted))
    assert proof is not None
    assert [verdict.name for verdict in proof.wrong] == ["model.norm.weight"]


def test_a_source_that_does_not_fit_its_table_is_refused_before_the_proof(widened: Widened, tmp_path: Path) -> None:
    before, result = widened("llama-tied", "exact")
    broken = shutil.copytree(before, tmp_path / "broken")
    planting.config(intermediate_size=41)(broken)
    with pytest.raises(SourceError, match="makes it"):
        prove(open_checkpoint(broken), open_checkpoint(result))


@pytest.mark.parametrize(("window", "same"), [(None, True), (4, False)])
def test_a_checkpoint_converted_to_another_model_type_runs_as_what_it_says_it_is(
    window: int | None, same: bool, source: Source, tmp_path: Path
) -> None:
    before = source(tiny.named("llama-untied"))
    converted = shutil.copytree(before, tmp_path / "mistral")
    planting.config(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=window)(converted)
    report = verify(open_checkpoint(before), open_checkpoint(converted), trainable=True, options=SHORT)
    assert report.same is same and report.proof is None and report.trainable is None
    assert report.notes[0].startswith("the families differ (llama, mistral)") and not report.proven
    assert report.notes[1].startswith("trainable: not examined: no maps")
