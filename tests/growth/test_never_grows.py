"""What never grows: depth, vocabulary, keys that are no widths; smaller sizes; and heads that cannot be untied."""

from __future__ import annotations

import pytest
import torch

from modelsurgeon.architectures.config import lookup
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.growth.targets import settable
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.saving.save import save
from support import draws, tiny
from support.grow import widen
from support.growths import Source
from support.refusal import FAMILIES, checkpoint, refusal

__all__ = ["checkpoint", "refusal"]  # fixtures

# --- what never grows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_growth_takes_nothing_away(variant, checkpoint):
    """By rules that are drawn: that both say the same of the width itself is tried below."""
    small = checkpoint(variant.name)
    for key, rule in draws.drawn(settable(small.architecture), RULES, f"shrinking {variant}"):
        size = lookup(small.resolved, key)
        if isinstance(size, int) and size > 1:
            with pytest.raises(PlanError, match=r"^\S+( \S+){5}[^\n]*$"):
                widen(small, settings={key: size // 2}, rule=rule)


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_a_smaller_width_is_refused_as_such(variant, checkpoint, refusal):
    small = checkpoint(variant.name)
    axes = small.architecture.axes
    key = axes["stream" if "stream" in axes else "hidden"].key
    assert "growth never takes away" in refusal(variant.name, **{key: small.resolved[key] // 2})


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_depth_does_not_grow(variant, checkpoint, refusal):
    small = checkpoint(variant.name)
    for key in small.architecture.counters.values():
        said = refusal(variant.name, **{key: 2 * small.architecture.value(small.resolved, key)})
        assert said.startswith(f"{key}: depth does not grow")


@pytest.mark.parametrize("variant", [v for v in FAMILIES if "vocab" in v.table.axes], ids=str)
def test_the_vocabulary_does_not_grow(variant, refusal):
    assert refusal(variant.name, vocab_size=2 * tiny.VOCAB).startswith("vocab_size: the vocabulary does not grow")


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_a_key_that_is_no_width_is_refused_with_those_that_are(variant, checkpoint, refusal):
    known = ", ".join(settable(checkpoint(variant.name).architecture))
    assert refusal(variant.name, bogus_size=64).endswith(f"what can grow: {known}")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt2-untied", "n_positions"),
        ("bert-untied", "type_vocab_size"),
        ("llama-untied", "rms_norm_eps"),
        ("vit", "image_size"),
        ("vit", "pooler_output_size"),
        ("whisper-untied", "num_mel_bins"),
        ("deepseek_v3-untied", "num_key_value_heads"),
        ("deepseek_v3-untied", "qk_head_dim"),
    ],
)
def test_other_keys_of_the_config_do_not_grow(name, key, refusal):
    assert refusal(name, **{key: 128}).startswith(f"{key}: ")


@pytest.mark.parametrize("value", [True, 41.0, 0, -3, "64", None])
def test_a_size_is_a_whole_number(value, refusal):
    said = refusal("llama-untied", intermediate_size=value)
    assert said == f"intermediate_size is {value!r}, expected a whole number of 1 or more"


def test_nothing_to_grow_is_said(refusal):
    assert refusal("llama-untied", intermediate_size=40) == "nothing to grow: the model has these sizes already"


@pytest.mark.parametrize("factor", [1, 0, -2, True, 2.0])
def test_a_factor_is_a_whole_number_of_two_or_more(factor, checkpoint):
    with pytest.raises(PlanError, match=rf"factor is {factor!r}, expected a whole number (of 2 or more|or None)$"):
        widen(checkpoint("llama-untied"), factor)


# --- untying ---------------------------------------------------------------------------------------------------------


def test_a_head_that_is_the_embedding_in_the_code_cannot_be_untied(checkpoint):
    with pytest.raises(PlanError, match="cannot be untied: with legacy = false the model multiplies by its word embed"):
        untie_embeddings(checkpoint("deberta-v2-fixed-head"))


@pytest.mark.parametrize("name", ["mt5-tied", "t5-tied", "umt5-tied"])
def test_heads_that_the_library_ties_again_where_they_are_equal_are_doubled(name, source, tmp_path):
    variant = tiny.named(name)
    small = Source(variant, source(variant, "float64"))
    assert small.error(save(untie_embeddings(small.checkpoint), tmp_path / "untied")) == 0
    head = tiny.load(tmp_path / "untied", variant.kind).lm_head.weight
    embedding = tiny.load(source(variant), variant.kind).get_input_embeddings().weight
    torch.testing.assert_close(head, 2 * embedding)
