"""What `compare_all` must see, and what it must not be troubled by."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.checkpoints.source import DEMO
from modelsurgeon.errors import ModelSurgeonError, SourceError
from modelsurgeon.running.batches import make_inputs
from modelsurgeon.running.options import RunOptions
from modelsurgeon.running.reader import UNLABELLED, Reader, read_off
from modelsurgeon.running.reference import checked_view, load, model_class
from modelsurgeon.saving.save import save
from modelsurgeon.verification.logits import TOLERANCE, Comparison, LogitReport, compare_all
from support.grow import widen
from support.tiny import named

FEW = RunOptions(samples=2, length=24)
# Float32 passes that sum in another order, in units of the logits' deviation. Each sum rounds up to 704 times, by half
# a unit at most and either way; three sums follow one another in each of four layers: five deviations of such a walk.
ROUNDING = 5 * math.sqrt(704 * 12) * 2.0**-24


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return open_checkpoint("demo")


@pytest.fixture(scope="module")
def wider(demo: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save(widen(demo, 2), tmp_path_factory.mktemp("demo") / "wider"))


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A Llama without a head, every parameter random."""
    from transformers import LlamaConfig, LlamaModel

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=50, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=20, **sizes)
    torch.manual_seed(0)
    model = LlamaModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.5 if parameter.ndim == 1 else 0.0, std=0.3)
    folder = tmp_path_factory.mktemp("body") / "body"
    model.save_pretrained(folder)
    return open_checkpoint(folder)


def compare(source: Checkpoint, result: Checkpoint, options: RunOptions = RunOptions(), **asked: Any) -> LogitReport:
    return compare_all(source, result, options, in_stored=False, **asked)[0]


def compare_stored(source: Checkpoint, result: Checkpoint, options: RunOptions = RunOptions()) -> LogitReport | None:
    return compare_all(source, result, options)[1]


def mutated(
    checkpoint: Checkpoint, folder: Path, change: Callable[[dict[str, torch.Tensor]], object], **config: Any
) -> Checkpoint:
    """A copy of a checkpoint on disk, changed."""
    shutil.copytree(checkpoint.origin.path, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**checkpoint.config, **config}))
    return open_checkpoint(folder)


def scaled(name: str, factor: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.update({name: (tensors[name].double() * factor).to(tensors[name].dtype)})


def test_a_checkpoint_is_the_same_as_itself_to_the_last_bit(demo: Checkpoint) -> None:
    report = compare(demo, demo, options=FEW)
    assert report.same and not report.notes
    assert {(c.max_abs, c.max_rel, c.kl, c.top1) for c in report.comparisons} == {(0.0, 0.0, 0.0, 1.0)}
    kinds = ["text", "random ids, length 1", "random ids, length 7", "random ids, length 24", "padded batch"]
    assert [c.inputs for c in report.comparisons] == kinds
    assert [c.positions for c in report.comparisons] == [48, 1, 7, 24, 24 + 16 + 6 + 1]
    assert {c.output for c in report.comparisons} == {"logits"}


def test_a_widened_checkpoint_is_the_same_in_float32(demo: Checkpoint, wider: Checkpoint) -> None:
    report = compare(demo, wider, options=FEW)
    assert report.same
    assert all(c.max_rel < ROUNDING for c in report.comparisons)


def test_text_has_a_loss_and_random_ids_have_none(demo: Checkpoint, wider: Checkpoint) -> None:
    text, *others = compare(demo, wider, options=FEW).comparisons
    assert text.loss_before is not None and text.loss_after is not None
    assert text.loss_before < math.log(4096)  # better than guessing
    # a mean of log sum - logit, in float64: each of the two moves as far as a logit at most
    assert abs(text.loss_after - text.loss_before) <= 2 * text.max_abs + 1e-12
    assert all(c.loss_before is None and c.loss_after is None for c in others)


def test_in_its_stored_16_bits_a_result_stays_within_the_noise_of_the_source(
    demo: Checkpoint, wider: Checkpoint
) -> None:
    report = compare_stored(demo, wider, options=FEW)
    assert report is not None and report.dtype == "bfloat16" and report.same
    assert [n.inputs for n in report.noise] == [c.inputs for c in report.comparisons]
    assert all(n.max_rel > 1e-3 for n in report.noise)  # bfloat16 has 8 bits
    assert report.limits[0] == 6 * max(n.max_rel for n in report.noise)  # twice as far as where it decides alone


def test_a_source_stored_in_32_bits_has_no_16_bit_report(body: Checkpoint) -> None:
    assert compare_stored(body, body) is None


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.layers.1.mlp.down_proj.weight", 1.01),
        ("model.layers.0.input_layernorm.weight", 1.01),
        ("model.layers.3.self_attn.o_proj.weight", 1.01),
        ("model.embed_tokens.weight", 1.01),
    ],
)
def test_one_tensor_that_is_a_hundredth_off_is_not_the_same(
    demo: Checkpoint, wider: Checkpoint, tmp_path: Path, name: str, factor: float
) -> None:
    report = compare(demo, mutated(wider, tmp_path / "mutant", scaled(name, factor)), options=FEW)
    assert not report.same
    assert max(c.max_rel for c in report.comparisons) > 10 * TOLERANCE


def test_a_nan_is_not_the_same_and_can_be_written_as_json(demo: Checkpoint, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = math.nan

    report = compare(demo, mutated(demo, tmp_path / "nan", spoil), options=FEW)
    assert not report.same
    assert "NaN" not in json.dumps(report.to_json())
    assert report.to_json()["comparisons"][0]["max_abs"] == "nan"


def test_a_report_with_nothing_in_it_is_not_the_same() -> None:
    assert not LogitReport("float32", ()).same


def test_a_report_survives_json(demo: Checkpoint, wider: Checkpoint) -> None:
    report = compare_stored(demo, wider, options=FEW)
    assert report is not None
    record = json.loads(json.dumps(report.to_json()))
    assert record == report.to_json() and record["same"] is True
    assert tuple(Comparison(**c) for c in record["comparisons"]) == report.comparisons
    assert tuple(Comparison(**c) for c in record["noise"]) == report.noise


def test_what_stands_in_padded_positions_does_not_count(
    body: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_padding(tensors: dict[str, torch.Tensor]) -> None:
        tensors["embed_tokens.weight"][0] *= 3  # token 0 is what a model without a pad token is padded with

    plain = mutated(body, tmp_path / "plain", lambda tensors: None)  # laid out alike, so multiplied by the same kernels
    changed = mutated(body, tmp_path / "padding", other_padding)
    model, _ = load(body, body.origin.path)

    def holds_padding(seed: int) -> bool:
        padded = make_inputs(model, body.origin.path, RunOptions(seed=seed)).batches[-1]
        return 0 in padded.arguments["input_ids"][padded.real]

    seed = next(seed for seed in range(99) if not holds_padding(seed))
    assert compare(plain, changed, RunOptions(seed=seed)).comparisons[-1].max_abs == 0
    monkeypatch.setattr("modelsurgeon.verification.visits.real_rows", lambda model, batch, name, value: value)
    assert compare(plain, changed, RunOptions(seed=seed)).comparisons[-1].max_rel > TOLERANCE


def test_a_body_without_a_head_is_folded_back_by_its_maps(body: Checkpoint, tmp_path: Path) -> None:
    plan = widen(body, 3)
    result = open_checkpoint(save(plan, tmp_path / "wider"))
    report = compare(body, result, maps=plan.steps[-1].maps)
    assert report.same
    assert {(c.output, c.kl, c.loss_before) for c in report.comparisons} == {("last_hidden_state", None, None)}
    with pytest.raises(ModelSurgeonError, match=r"16 numbers a position before, 48 after; .* by the maps on record"):
        compare(body, result)


def test_a_body_of_no_named_class_is_run_without_a_head_and_its_pooled_output_is_folded_too(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=50, num_hidden_layers=2, max_position_embeddings=20, **sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "named")
    body = mutated(open_checkpoint(tmp_path / "named"), tmp_path / "body", lambda tensors: None, architectures=None)
    plan = widen(body, 2)
    report = compare(body, open_checkpoint(save(plan, tmp_path / "wider")), maps=plan.steps[-1].maps)
    assert report.same
    last = {c.output: c.positions for c in report.comparisons[-2:]}
    assert last == {"last_hidden_state": 20 + 13 + 5 + 1, "pooler_output": 4}


def test_a_map_of_other_copies_is_not_the_same(body: Checkpoint, tmp_path: Path) -> None:
    plan = widen(body, 2)
    result = open_checkpoint(save(plan, tmp_path / "wider"))
    final = plan.steps[-1].maps["final"]
    swapped = replace(final, source=final.source[::-1].copy())
    assert not compare(body, result, maps={"final": swapped}).same


def test_without_a_tokenizer_only_random_ids_are_run(body: Checkpoint) -> None:
    report = compare(body, body)
    assert report.comparisons[0].inputs == "random ids, length 1"
    assert len(report.notes) == 1 and report.notes[0].startswith("random ids only: no tokenizer")
    assert max(c.positions for c in report.comparisons if c.inputs != "padded batch") == 20  # all that the model takes


def test_a_tokenizer_with_more_tokens_than_the_model_is_not_used(body: Checkpoint, tmp_path: Path) -> None:
    source = mutated(body, tmp_path / "body", lambda tensors: None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO / name, source.origin.path / name)
    report = compare(source, source)
    assert report.notes == ("random ids only: the tokenizer has more tokens than the model's 50",)


def test_a_model_with_weights_that_the_library_would_make_up_is_refused(demo: Checkpoint, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    lacking = mutated(demo, tmp_path / "lacking", lambda tensors: tensors.pop(name))
    with pytest.raises(SourceError, match=f"finds no '{name}'"):
        compare(demo, lacking, options=FEW)
    narrow = mutated(demo, tmp_path / "narrow", lambda t: t.update({name: t[name][:-1].contiguous()}))
    with pytest.raises(SourceError, match=f"finds no '{name}' that fits"):
        compare(demo, narrow, options=FEW)


def test_a_config_that_the_library_refuses_is_one_line(demo: Checkpoint, tmp_path: Path) -> None:
    odd = mutated(demo, tmp_path / "odd", lambda tensors: None, num_attention_heads=3)
    with pytest.raises(SourceError, match="transformers cannot load it") as caught:
        compare(demo, odd, options=FEW)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_saved_is_refused(demo: Checkpoint, wider: Checkpoint) -> None:
    with pytest.raises(ModelSurgeonError, match="a plan cannot be run"):
        compare(demo, widen(demo, 2), options=FEW)
    assert compare(demo, widen(demo, 2), result_path=wider.origin.path, options=FEW).same


def test_the_library_sees_a_folder_of_nothing_but_config_and_weights(demo: Checkpoint, tmp_path: Path) -> None:
    traps = {"transformers_weights": "model.safetensors", "auto_map": {"AutoModel": "evil.Model"}}
    folder = mutated(demo, tmp_path / "traps", lambda tensors: None, _attn_implementation="evil/kernel", **traps)
    (folder.origin.path / "evil.py").write_text("raise SystemExit(77)")
    with checked_view(folder.origin.path) as view:
        assert sorted(path.name for path in view.iterdir()) == ["config.json", "model.safetensors"]
        assert not {*traps, "_attn_implementation"} & set(json.loads((view / "config.json").read_text()))
    assert compare(demo, folder, options=FEW).same


def test_a_sharded_result_is_run_like_any_other(demo: Checkpoint, tmp_path: Path) -> None:
    result = open_checkpoint(save(widen(demo, 2), tmp_path / "shards", shard_size=2 * 10**6))
    assert len({tensor.file for tensor in result.tensors.values()}) > 1  # type: ignore[union-attr]
    assert compare(demo, result, options=FEW).same


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["LlamaForCausalLM"], "LlamaForCausalLM"),
        (["LlamaModel"], "LlamaModel"),
        (["MistralForCausalLM"], "LlamaForCausalLM"),  # of another model type
        (["Path"], "LlamaForCausalLM"),  # no model at all
        ([], "LlamaForCausalLM"),
    ],
)
def test_the_class_is_the_configs_where_it_is_of_the_model_type(
    demo: Checkpoint, named: list[str], expected: str
) -> None:
    assert model_class(replace(demo, config={**demo.config, "architectures": named})).__name__ == expected


def test_a_seed_gives_the_same_random_ids_again(demo: Checkpoint) -> None:
    model = model_class(demo)(model_class(demo).config_class(**tiny()))
    first, again, other = (make_inputs(model, DEMO, RunOptions("text", 1, 9, seed=seed)).batches for seed in (0, 0, 1))
    ids = [[b.arguments["input_ids"].tolist() for b in made if b.inputs != "text"] for made in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def tiny() -> dict[str, Any]:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {**sizes, "num_hidden_layers": 1, "vocab_size": 4096}


def test_a_causal_model_is_to_predict_the_next_token() -> None:
    batch = Reader(vocab=9, longest=9, pad=0).batch("text", [[1, 2, 3]], torch.Generator(), labelled=True)
    assert batch.arguments["input_ids"].tolist() == [[1, 2, 3]]
    assert batch.labels.tolist() == [[2, 3, UNLABELLED]]


def test_a_masked_model_is_to_fill_in_what_was_hidden() -> None:
    reader = Reader(vocab=99, longest=99, pad=0, mask=98)
    row = list(range(1, 41))
    batch = reader.batch("text", [row], torch.Generator().manual_seed(0), labelled=True)
    read, wanted = batch.arguments["input_ids"][0].tolist(), batch.labels[0].tolist()
    assert read.count(98) == 6  # 15% of 40
    assert [r if w == UNLABELLED else w for r, w in zip(read, wanted, strict=True)] == row
    assert all((r == 98) == (w != UNLABELLED) for r, w in zip(read, wanted, strict=True))


def test_an_encoder_decoder_reads_one_half_and_is_to_predict_the_other() -> None:
    reader = Reader(vocab=99, longest=99, pad=0, start=7)
    batch = reader.batch("text", [[1, 2, 3, 4, 5], [6]], torch.Generator(), labelled=True)
    found = {name: value.tolist() for name, value in batch.arguments.items()}
    assert found == {
        "input_ids": [[1, 2], [6, 0]],
        "attention_mask": [[1, 1], [1, 0]],
        "decoder_input_ids": [[7, 3, 4], [7, 0, 0]],
        "decoder_attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert batch.labels.tolist() == [[3, 4, 5], [6, UNLABELLED, UNLABELLED]]
    assert batch.real.tolist() == [[True, True, True], [True, False, False]]
    assert batch.read.tolist() == [[True, True], [True, False]]


def test_rows_that_must_end_in_one_token_have_it_nowhere_else() -> None:
    batch = Reader(vocab=9, longest=9, pad=0, end=2).batch("text", [[1, 2, 3, 4], [2]], torch.Generator())
    assert batch.arguments["input_ids"].tolist() == [[1, 3, 3, 2], [2, 0, 0, 0]]


def test_a_model_of_speech_is_to_write_the_whole_text_while_it_hears_noise() -> None:
    reader = Reader(vocab=99, longest=99, pad=0, start=7, signal=("input_features", (4, 6)))
    batch = reader.batch("text", [[1, 2, 3], [5]], torch.Generator(), labelled=True)
    heard = batch.arguments["input_features"]
    assert heard.shape == (2, 4, 6) and not torch.equal(heard[0], heard[1])
    assert batch.arguments["decoder_input_ids"].tolist() == [[7, 1, 2], [7, 0, 0]]
    assert set(batch.arguments) == {"input_features", "decoder_input_ids", "decoder_attention_mask"}
    assert batch.labels.tolist() == [[1, 2, 3], [5, UNLABELLED, UNLABELLED]]


TEXTLESS = ("random pixel_values", "random input_features")
IDS = ("random ids, length 1", "random ids, length 7", "random ids, length 9", "padded batch")


@pytest.mark.parametrize(
    ("name", "inputs", "output", "positions"),
    [
        ("vit", TEXTLESS[:1], "logits", 5),
        ("vit-body", TEXTLESS[:1], "last_hidden_state", 5 * 10),  # nine patches and the class
        ("vit-masked", TEXTLESS[:1], "reconstruction", 5 * 3 * 12),
        ("whisper-tied", IDS, "logits", 9 + 6 + 2 + 1),
        ("whisper-body", IDS, "encoder_last_hidden_state", 4 * 10),
        ("whisper-causal", IDS, "logits", 9 + 6 + 2 + 1),
        ("whisper-sound", TEXTLESS[1:], "logits", 5),
        ("bart-sequence", IDS, "logits", 4),
        ("bart-question", IDS, "start_logits", 9 + 6 + 2 + 1),
        ("bert-choice", IDS, "logits", 4),
    ],
)
def test_what_a_model_reads_is_read_off_it(
    name: str, inputs: tuple[str, ...], output: str, positions: int, source: Callable[..., Path], tmp_path: Path
) -> None:
    before = open_checkpoint(source(named(name)))
    plan = widen(before, 2)
    after = open_checkpoint(save(plan, tmp_path / "wider"))
    options, maps = RunOptions(samples=5, length=9), plan.steps[-1].maps
    report = compare(before, after, options, maps=maps)
    assert report.same
    last = [c for c in report.comparisons if c.output == output]
    assert tuple(c.inputs for c in last) == inputs and last[-1].positions == positions
    layer = next(n for n in after.tensors if n.endswith(("fc2.weight", ".output.dense.weight")))
    assert not compare(before, mutated(after, tmp_path / "mutant", scaled(layer, 1.1)), options, maps=maps).same


@pytest.mark.parametrize("name", ["vit", "whisper-tied"])
def test_pictures_and_sounds_come_in_the_dtype_of_the_model(name: str, source: Callable[..., Path]) -> None:
    narrow = open_checkpoint(source(named(name), "bfloat16"))
    report = compare_stored(narrow, narrow, RunOptions(samples=2, length=9))
    assert report is not None and report.same


def test_a_model_of_something_else_is_refused() -> None:
    class Model:
        main_input_name, config = "input_values", None

    with pytest.raises(ModelSurgeonError, match="Model takes input_values; expected input_ids or pixel_values or"):
        read_off(Model(), None, torch.Generator())


def test_importing_the_module_does_not_import_transformers() -> None:
    code = "import sys, modelsurgeon.verification.logits; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
