"""Tables for people call axes by plain names, and show no size that a model does not have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.plain_names import PLAIN, plain, plain_sizes
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.inspection import inspect
from modelsurgeon.growth import overview
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.reports import console, html, listings
from modelsurgeon.reports.verification_report import brief, page
from support import reports, tiny

WIDTH = 200
SHORT = {"stream", "final", "kv", "mlp", "labels", "nope", "prehead", "q_rank", "choice"}


def axes() -> set[str]:
    """The axes of all tables in all forms."""
    tables = [registry.find(model_type) for model_type in registry.known()]
    return {name for table in tables for layout in (table, *table.forms) for name in layout.axes}


def cells(text: str, column: int = 0) -> list[str]:
    """The cells of one column of a table on a terminal."""
    return [re.split(r"  +", line)[column] for line in text.splitlines() if len(re.split(r"  +", line)) > column]


def test_every_axis_of_every_table_has_words_and_no_word_is_for_nothing() -> None:
    assert axes() == set(PLAIN)


def test_words_are_words() -> None:
    assert not [words for words in PLAIN.values() if "_" in words or words in SHORT or words != words.strip()]
    assert plain("stream, hidden, final") == "hidden coordinates" and plain("of_mine") == "of mine"


def test_axes_that_share_words_have_one_size(source: Callable[..., Path]) -> None:
    """One row of a table is the size of all axes that go by its words."""
    for variant in tiny.variants():
        if not variant.main:
            continue
        sizes = variant.table.sizes(variant.table.resolve(dict(tiny.build(variant).config.to_dict())))
        for words in set(map(plain, sizes)):
            assert len({size for axis, size in sizes.items() if plain(axis) == words}) == 1, (variant, words, sizes)


def test_labels_are_counted_where_a_class_has_any() -> None:
    sizes = {"labels": 2, "mlp": 8}
    assert plain_sizes(sizes, "LlamaForCausalLM") == {"MLP neurons": 8} == plain_sizes(sizes, None)
    both = {"labels of the classifier": 2, "MLP neurons": 8}
    for name in ("LlamaForSequenceClassification", "BertForMultipleChoice", "BertForNextSentencePrediction"):
        assert plain_sizes(sizes, name) == both


@pytest.mark.parametrize("variant", ["llama-tied", "bert-sequence", "deepseek_v3-untied"])
def test_an_inspection_shows_the_axes_that_its_tensors_have(variant: str, source: Callable[..., Path]) -> None:
    found = inspect(str(source(tiny.named(variant))))
    names = cells(console.as_text(listings.of_inspection(found), WIDTH))
    assert set(names) & set(PLAIN.values()) == {
        plain(axis) for group in found.groups for axis in re.findall(r"\w+", group.signature) if axis in found.axes
    }
    assert ("labels of the classifier" in names) == ("sequence" in variant)


def test_a_family_is_shown_in_words_with_the_names_that_its_signatures_use() -> None:
    details = overview.details("llama")
    text = console.as_text(listings.of_families(overview.family("llama"), details), WIDTH)
    assert {plain(name) for name in details["axes"]} <= set(cells(text))
    assert set(details["axes"]) <= set(cells(text, 1)) | set(cells(text, 2))


def test_a_verification_shows_words() -> None:
    document = reports.full()
    document["trainable"]["axes"][0]["axis"] = "stream, hidden, final"
    sizes = {"vocab": 4096, "stream": 128, "hidden": 128, "final": 128, "labels": 2, "mlp": 192}
    for side in document["checkpoints"].values():
        side["sizes"] = sizes
    terminal, whole = console.as_text(brief(document), WIDTH), html.rendered(page(document))
    assert "hidden coordinates 192 -> 384" in terminal and "stream" not in terminal
    shown = set(re.findall(r">([^<>]+)<", whole))
    assert {"hidden coordinates", "coordinates that the head reads", "MLP neurons"} <= shown
    assert not {*SHORT, "labels of the classifier", "stream, hidden, final"} & shown


def test_sentences_on_copies_use_the_same_words() -> None:
    checkpoint = open_checkpoint("demo")
    table = checkpoint.architecture
    assert {name: kind_of(axis).noun(name) for name, axis in table.axes.items()} == {n: plain(n) for n in table.axes}
