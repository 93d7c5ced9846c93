"""Sizes that are equal by chance, tokens outside of the vocabulary, resized vocabularies, models that are no pair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.options import RunOptions
from modelsurgeon.verification.logits import LogitReport, compare_all
from support import draws, tiny
from support.tiny import Variant, named

SHORT = RunOptions(samples=2, length=8)


def compare(source: Checkpoint, result: Checkpoint, options: RunOptions = SHORT, **asked: Any) -> LogitReport:
    return compare_all(source, result, options, in_stored=False, **asked)[0]


def saved(kind: str, model_type: str, folder: Path, **config: Any) -> Checkpoint:
    return open_checkpoint(tiny.save(Variant(kind, model_type, kind, config), folder))


def changed(
    source: Checkpoint, folder: Path, plant: Callable[[dict[str, torch.Tensor]], object], **config: Any
) -> Checkpoint:
    shutil.copytree(source.origin.path, folder)
    tensors = load_file(folder / "model.safetensors")
    plant(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**source.config, **config}))
    return open_checkpoint(folder)


SIZES = (
    ("BertModel", "bert", {"max_position_embeddings": 40}, 32, "pooler_output", 2),  # as wide as the windows
    ("BertForSequenceClassification", "bert", {"num_labels": 8}, 8, "logits", 2),
    ("BertForNextSentencePrediction", "bert", {}, 2, "logits", 2),
    ("LlamaForSequenceClassification", "llama", {"num_labels": 8}, 8, "logits", 2),
    ("BertForMultipleChoice", "bert", {}, 1, "logits", 2),
    ("ElectraForPreTraining", "electra", {}, 8, "logits", 16),  # a number a position
    ("BertForQuestionAnswering", "bert", {"num_labels": 2}, 8, "start_logits", 16),
    ("BertForTokenClassification", "bert", {"num_labels": 8}, 8, "logits", 16),
    ("LlamaForCausalLM", "llama", {"vocab_size": 8}, 8, "logits", 16),
    ("LlamaModel", "llama", {"max_position_embeddings": 40}, 32, "last_hidden_state", 64),
)


@pytest.mark.parametrize(
    ("kind", "model_type", "config", "length", "output", "rows"), draws.some(SIZES, 2, "sizes that are equal by chance")
)
def test_sizes_that_are_equal_by_chance_do_not_make_positions_of_a_width(
    kind: str, model_type: str, config: Mapping[str, Any], length: int, output: str, rows: int, tmp_path: Path
) -> None:
    source = saved(kind, model_type, tmp_path / "a", **config)
    report = compare(source, source, RunOptions(samples=1, length=length))
    first = [c for c in report.comparisons if c.inputs == f"random ids, length {length}" and c.output == output]
    assert report.same and [2 * c.positions for c in first] == [rows]


def test_a_classifier_with_as_many_labels_as_tokens_predicts_no_tokens(tmp_path: Path) -> None:
    source = saved("LlamaForSequenceClassification", "llama", tmp_path / "a", num_labels=tiny.VOCAB)
    assert {c.kl for c in compare(source, source).comparisons} == {None}


TOKENS = (
    ("llama-tied", {"pad_token_id": tiny.VOCAB + 3}),
    ("llama-tied", {"pad_token_id": -1, "eos_token_id": 99, "bos_token_id": 99}),
    ("gpt2-sequence", {"pad_token_id": 99}),
    ("roberta-tied", {"pad_token_id": -1}),
    ("bart-sequence", {"eos_token_id": 99}),
    ("bart-question", {"decoder_start_token_id": 99}),
    ("bart-tied", {"decoder_start_token_id": 99}),
    ("t5-tied", {"decoder_start_token_id": -1, "pad_token_id": 99}),
)


@pytest.mark.parametrize(("name", "config"), draws.some(TOKENS, 2, "tokens outside of the vocabulary"))
def test_tokens_outside_of_the_vocabulary_are_never_fed(
    name: str, config: Mapping[str, Any], source: Callable[..., Path], tmp_path: Path
) -> None:
    odd = changed(open_checkpoint(source(named(name))), tmp_path / "odd", lambda tensors: None, **config)
    report = compare(odd, odd, behaviour="tied" in name)
    assert report.same
    told = [key for key in ("eos_token_id", "decoder_start_token_id") if key in config]
    assert all(any(f"{key} {config[key]}" in note for note in report.notes) for key in told)


def resized(tensors: dict[str, torch.Tensor], vocab: int) -> None:
    """Other rows behind those that stay."""
    for name, tensor in tensors.items():
        if len(tensor) == tiny.VOCAB:
            more = torch.randn(
                max(0, vocab - tiny.VOCAB), *tensor.shape[1:], generator=torch.Generator().manual_seed(0)
            )
            tensors[name] = torch.cat([tensor[:vocab], more]).contiguous()


@pytest.mark.parametrize(
    ("name", "vocab"), draws.drawn(["llama-untied", "gpt2-tied", "bert-tied", "t5-untied"], [64, 50], "resized")
)
def test_a_resized_vocabulary_is_compared_on_the_tokens_that_both_have(
    name: str, vocab: int, source: Callable[..., Path], tmp_path: Path
) -> None:
    before = open_checkpoint(source(named(name)))
    after = changed(before, tmp_path / "after", lambda tensors: resized(tensors, vocab), vocab_size=vocab)
    common = min(vocab, tiny.VOCAB)
    report = compare(before, after, thorough=name != "t5-untied", behaviour=True)
    assert report.same and report.generation is None
    assert f"vocabulary 61 -> {vocab}: compared on the {common} tokens that both have" in report.notes
    assert any(c.kl is not None for c in report.comparisons)
    assert report.coverage is not None and report.coverage.tokens[0] <= common


def test_a_row_that_both_vocabularies_have_still_counts(source: Callable[..., Path], tmp_path: Path) -> None:
    def plant(tensors: dict[str, torch.Tensor]) -> None:
        resized(tensors, 64)
        tensors["model.embed_tokens.weight"][60] *= -3

    before = open_checkpoint(source(named("llama-untied")))
    after = changed(before, tmp_path / "after", plant, vocab_size=64)
    assert not compare(before, after, thorough=True).same


@pytest.mark.parametrize(
    ("before", "after"),
    [("llama-tied", "gpt2-tied"), ("bert-tied", "vit"), ("gpt2-tied", "t5-tied"), ("vit", "bert-tied")],
)
def test_models_that_are_no_pair_end_in_one_line_or_in_a_difference(
    before: str, after: str, source: Callable[..., Path]
) -> None:
    pair = [open_checkpoint(source(named(name))) for name in (before, after)]
    try:
        assert not compare(*pair).same
    except ModelSurgeonError as error:
        assert "\n" not in str(error) and "out of range" not in str(error)


def test_fewer_positions_are_said(source: Callable[..., Path], tmp_path: Path) -> None:
    def plant(tensors: dict[str, torch.Tensor]) -> None:
        tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:6].clone()

    before = open_checkpoint(source(named("gpt2-tied")))
    after = changed(before, tmp_path / "after", plant, n_positions=6)
    expected = "GPT2LMHeadModel cannot run on text: 8 positions, where it takes 6|random ids, length 7: 7 positions"
    with pytest.raises(ModelSurgeonError, match=expected):
        compare(before, after)


def test_more_positions_are_no_difference(source: Callable[..., Path], tmp_path: Path) -> None:
    def plant(tensors: dict[str, torch.Tensor]) -> None:
        table = tensors["transformer.wpe.weight"]
        tensors["transformer.wpe.weight"] = torch.cat([table, table])

    before = open_checkpoint(source(named("gpt2-tied")))
    after = changed(before, tmp_path / "after", plant, n_positions=2 * tiny.POSITIONS)
    assert compare(before, after, thorough=True).same
