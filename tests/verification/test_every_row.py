"""Mistakes that show only where an input runs into them: seen without a proof, and counted by the coverage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.running import sampling
from modelsurgeon.running.options import RunOptions
from modelsurgeon.verification.logits import LogitReport, compare_all
from support import draws, tiny
from support.tiny import Variant, named

SHORT = RunOptions(samples=1, length=8)
Tensors = dict[str, torch.Tensor]
LLAMA, LARGE = "LlamaForCausalLM", {"vocab_size": 900, "tie_word_embeddings": False}
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Mistake:
    """A change of a tiny model that rows of eight tokens of the text, and some random ones, do not show.

    config  of the source; `changed` are the keys of the result's config.json
    plant   what is done to the result's tensors
    """

    name: str
    model_type: str
    kind: str
    config: Mapping[str, Any]
    plant: Callable[[Tensors], object] = lambda tensors: None
    changed: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def pair(self, folder: Path) -> tuple[Checkpoint, Checkpoint]:
        """(source, result)"""
        before = tiny.save(Variant(self.name, self.model_type, self.kind, self.config), folder / "source")
        return open_checkpoint(before), changed(before, folder / "result", self.plant, **self.changed)


def changed(before: Path, folder: Path, plant: Callable[[Tensors], object], **config: Any) -> Checkpoint:
    """A copy with other tensors, and other keys of its config."""
    shutil.copytree(before, folder)
    tensors = load_file(folder / "model.safetensors")
    plant(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    found = {**json.loads((before / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(found))
    return open_checkpoint(folder)


def times(name: str, factor: float, rows: slice | int) -> Callable[[Tensors], object]:
    def plant(tensors: Tensors) -> None:
        (full,) = [tensor for tensor in tensors if tensor.endswith(name)]
        tensors[full][rows] *= factor

    return plant


def swapped(tensors: Tensors) -> None:
    tensors[EMBEDDING][[700, 800]] = tensors[EMBEDDING][[800, 700]]


MISTAKES = (
    Mistake("one embedding row", "llama", LLAMA, LARGE, times(EMBEDDING, -3, 777)),
    Mistake("one embedding row is no number", "llama", LLAMA, LARGE, times(EMBEDDING, float("nan"), 777)),
    Mistake("two rows swapped", "llama", LLAMA, LARGE, swapped),
    Mistake("a row of a classifier", "llama", "LlamaForSequenceClassification", LARGE, times(EMBEDDING, -3, 777)),
    Mistake("a row that two sides read", "bart", "BartModel", {"vocab_size": 900}, times("shared.weight", -3, 777)),
    Mistake("a token type", "bert", "BertForMaskedLM", {}, times("token_type_embeddings.weight", -30, 1)),
    Mistake(
        "a token type of a classifier",
        "electra",
        "ElectraForSequenceClassification",
        {},
        times("token_type_embeddings.weight", -30, 1),
    ),
    Mistake(
        "positions of GPT-2", "gpt2", "GPT2LMHeadModel", {"n_positions": 512}, times("wpe.weight", -3, slice(99, 480))
    ),
    Mistake(
        "one position of RoBERTa",
        "roberta",
        "RobertaForMaskedLM",
        {"max_position_embeddings": 200},
        times("position_embeddings.weight", -3, 120),
    ),
    Mistake(
        "one position of OPT",
        "opt",
        "OPTForCausalLM",
        {"max_position_embeddings": 200},
        times("embed_positions.weight", -3, 120),
    ),
    Mistake(
        "a position of BART's decoder",
        "bart",
        "BartForConditionalGeneration",
        {"max_position_embeddings": 200},
        times("decoder.embed_positions.weight", -3, 150),
    ),
    Mistake(
        "a position of BART's encoder",
        "bart",
        "BartForConditionalGeneration",
        {"max_position_embeddings": 200},
        times("encoder.embed_positions.weight", -3, 150),
    ),
    Mistake(
        "a position of Whisper's decoder",
        "whisper",
        "WhisperForConditionalGeneration",
        {"max_target_positions": 100},
        times("decoder.embed_positions.weight", -3, 77),
    ),
    Mistake(
        "a far bucket of T5",
        "t5",
        "T5ForConditionalGeneration",
        {"relative_attention_max_distance": 64},
        times("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", -3, 7),
    ),
    Mistake(
        "no window",
        "mistral",
        "MistralForCausalLM",
        {"sliding_window": 64, "max_position_embeddings": 200},
        changed={"sliding_window": None},
    ),
    Mistake(
        "a window of 4096 removed",
        "mistral",
        "MistralForCausalLM",
        {
            "sliding_window": 4096,
            "max_position_embeddings": 8192,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        },
        changed={"sliding_window": None},
    ),
    Mistake(
        "all layers full",
        "gemma2",
        "Gemma2ForCausalLM",
        {"sliding_window": 32, "max_position_embeddings": 200},
        changed={"layer_types": ["full_attention", "full_attention"]},
    ),
    Mistake(
        "no local layers",
        "gpt_neo",
        "GPTNeoForCausalLM",
        {"max_position_embeddings": 200, "window_size": 32},
        changed={"attention_types": [[["global"], 2]], "attention_layers": ["global", "global"]},
    ),
    Mistake(
        "longer factors of rotary pairs",
        "phi3",
        "Phi3ForCausalLM",
        {
            "max_position_embeddings": 200,
            "original_max_position_embeddings": 100,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
            },
        },
        changed={
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [3.0] * 4,
            }
        },
    ),
)


def compare(source: Checkpoint, result: Checkpoint, **asked: Any) -> LogitReport:
    return compare_all(source, result, SHORT, in_stored=False, **asked)[0]


@pytest.mark.parametrize("mistake", draws.some(MISTAKES, 2, "mistakes that few inputs show"), ids=str)
def test_without_a_proof_it_is_seen(mistake: Mistake, tmp_path: Path) -> None:
    source, result = mistake.pair(tmp_path)
    assert compare(source, result).same, "the usual inputs see it: this shows nothing"
    assert not compare(source, result, thorough=True).same


def test_the_source_is_the_same_as_itself_and_all_of_it_was_run(tmp_path: Path) -> None:
    config = {"vocab_size": 300, "max_position_embeddings": 100, "type_vocab_size": 5}
    source = open_checkpoint(tiny.save(Variant("bert", "bert", "BertForMaskedLM", config), tmp_path / "bert"))
    report = compare(source, source, thorough=True)
    found = report.to_json()["coverage"]
    assert report.same and report.coverage is not None
    assert found == {
        "positions": report.coverage.positions,
        "tokens": [300, 300],
        "position_rows": [100, 100],
        "token_types": [5, 5],
        "experts": None,
        "longest": 100,
        "trained": 100,
    }
    assert found["positions"] == sum(one.positions for one in report.comparisons)


def test_few_inputs_are_told_as_few(tmp_path: Path) -> None:
    source = open_checkpoint(
        tiny.save(Variant("large", "gpt2", "GPT2LMHeadModel", {"vocab_size": 900}), tmp_path / "a")
    )
    few, many = (compare(source, source, thorough=thorough).coverage for thorough in (False, True))
    assert few is not None and many is not None
    assert few.tokens[0] < 60 and many.tokens == (900, 900)
    assert few.position_rows == (8, tiny.POSITIONS) and many.position_rows == (tiny.POSITIONS, tiny.POSITIONS)
    assert few.longest == 8 and many.longest == many.trained == tiny.POSITIONS


def test_a_budget_leaves_tokens_out_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_checkpoint(tiny.save(Variant("large", "llama", LLAMA, LARGE), tmp_path / "a"))
    monkeypatch.setattr(sampling, "BUDGET", 2.0 * source.parameters * 320)
    report = compare(source, source, thorough=True)
    assert "fed: 320 of 900 token ids; more would exceed" in " ".join(report.notes)
    assert report.coverage is not None and 320 <= report.coverage.tokens[0] < 400


def test_a_window_that_no_row_reaches_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"sliding_window": 64, "max_position_embeddings": 200}
    source = open_checkpoint(tiny.save(Variant("a", "mistral", "MistralForCausalLM", config), tmp_path / "a"))
    monkeypatch.setattr(sampling, "BUDGET", 2.0 * source.parameters * 60)
    monkeypatch.setattr(sampling, "LONG", 50)
    assert "attention's window of 64 is not reached: the longest row has" in " ".join(
        compare(source, source, thorough=True).notes
    )


def test_experts_that_were_chosen_are_counted(tmp_path: Path) -> None:
    config = {"num_experts": 40, "num_experts_per_tok": 1, "clip_qkv": None}
    variant = Variant("many", "olmoe", "OlmoeForCausalLM", config)
    source = open_checkpoint(tiny.save(variant, tmp_path / "source"))

    few, many = (compare(source, source, thorough=thorough).coverage for thorough in (False, True))
    assert few is not None and many is not None and few.experts is not None and many.experts is not None
    assert few.experts[0] < many.experts[0] <= many.experts[1] == 80
    model = tiny.load(tmp_path / "source", variant.kind)
    chosen = [set[int](), set[int]()]
    for layer, seen in zip(model.model.layers, chosen, strict=True):
        layer.mlp.gate.register_forward_hook(
            lambda module, given, out, seen=seen: seen.update(out[2].flatten().tolist())
        )
    with torch.no_grad():
        model(torch.arange(tiny.VOCAB)[None, : tiny.POSITIONS])
    assert 0 < sum(map(len, chosen)) <= many.experts[0]


def test_sixteen_bits_that_nobody_asked_for_run_the_usual_inputs_alone(source: Callable[..., Path]) -> None:
    narrow = open_checkpoint(source(named("llama-tied"), "bfloat16"))
    wide, stored = compare_all(narrow, narrow, SHORT, thorough=True)
    assert stored is not None and wide.coverage is not None and stored.coverage is not None
    assert stored.coverage.tokens[0] < wide.coverage.tokens[0] == tiny.VOCAB
    assert {one.inputs for one in stored.comparisons} < {one.inputs for one in wide.comparisons}
