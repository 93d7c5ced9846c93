"""The table of Su Jianlin's article, number by number, as `widen` writes it to disk; its one error corrected.

https://www.kexue.fm/archives/8444 doubles BERT: every coordinate twice, divided by sqrt(2). "For k times, most of
the 2s in the table become k." The article stores copies side by side (x1, x1, x2, x2) and writes matrices [in, out];
here copies are whole tiles and matrices are [out, in]. Neither changes a number: each is a factor times one old number.
"""

from __future__ import annotations

import json
from math import sqrt

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.saving.save import save
from support import tiny
from support.grow import widen

# A float64 product rounded once to float32 is off by at most half a unit in the last place.
ROUNDING = 2**-24
TOLERANCE, NOTICED = tiny.ROUNDING, 10 * tiny.ROUNDING  # of the logits, and what a mistake moves them by

BODY = "bert.encoder.layer.{}."
ATTENTION = BODY + "attention.self."
HEAD = "cls.predictions."


def weights_and_biases(k):
    """{tensor: its factor}; {} stands for the layers. The article's table, with k for 2."""
    root, fourth = sqrt(k), k**0.25
    return {
        "bert.embeddings.word_embeddings.weight": 1 / root,
        "bert.embeddings.position_embeddings.weight": 1 / root,
        "bert.embeddings.token_type_embeddings.weight": 1 / root,
        "bert.embeddings.LayerNorm.weight": 1 / root,
        "bert.embeddings.LayerNorm.bias": 1 / root,
        BODY + "attention.output.LayerNorm.weight": 1 / root,
        BODY + "attention.output.LayerNorm.bias": 1 / root,
        BODY + "output.LayerNorm.weight": 1 / root,
        BODY + "output.LayerNorm.bias": 1 / root,
        ATTENTION + "query.weight": fourth / k,
        ATTENTION + "query.bias": fourth / root,
        ATTENTION + "key.weight": fourth / k,
        ATTENTION + "key.bias": fourth / root,
        ATTENTION + "value.weight": 1 / k,
        ATTENTION + "value.bias": 1 / root,
        BODY + "attention.output.dense.weight": 1 / k,
        BODY + "attention.output.dense.bias": 1 / root,
        BODY + "intermediate.dense.weight": 1 / root,
        BODY + "intermediate.dense.bias": 1.0,
        BODY + "output.dense.weight": 1 / (k * root),
        # The article has 1/2 for this one (1/k). What it is added to is the old sum / sqrt(k), and so must it be: the
        # article's own rule of "repeat, divide by sqrt(2)". See the test below.
        BODY + "output.dense.bias": 1 / root,
    }


# "For BERT ... a dense layer with GELU stands before the embedding matrix: it only repeats; the LayerNorm behind it
# divides by one more sqrt(2)."
def masked_lm_head(k):
    return {
        HEAD + "transform.dense.weight": 1 / sqrt(k),
        HEAD + "transform.dense.bias": 1.0,
        HEAD + "transform.LayerNorm.weight": 1 / sqrt(k),
        HEAD + "transform.LayerNorm.bias": 1 / sqrt(k),
        HEAD + "bias": 1.0,
    }


def untied_output(k):
    return {HEAD + "decoder.weight": 1 / sqrt(k), HEAD + "decoder.bias": 1.0}


TABLES = {
    "bert-tied": lambda k: {**weights_and_biases(k), **masked_lm_head(k)},
    "bert-untied": lambda k: {**weights_and_biases(k), **masked_lm_head(k), **untied_output(k)},
}


@pytest.fixture(scope="module")
def widened(source, tmp_path_factory):
    """widened(name, k) -> (tensors of the source, tensors of the result, folder of the result)"""
    made = {}

    def make(name, k):
        if (name, k) not in made:
            folder = source(tiny.named(name))
            wide = widen(open_checkpoint(folder), k, rule="orthogonal", attention="head-dim")
            out = save(wide, tmp_path_factory.mktemp("article") / "wide")
            made[name, k] = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors"), out
        return made[name, k]

    return make


def tiled(old, new, name):
    """The old numbers where the new ones copy them: whole tiles of each dimension, heads kept apart."""
    for axis, (before, after) in enumerate(zip(old.shape, new.shape, strict=True)):
        k, rest = divmod(after, before)
        assert not rest
        in_heads = (axis == 0 and ".attention.self." in name) or (axis == 1 and "attention.output.dense" in name)
        shape = [*old.shape[:axis], *((4, before // 4) if in_heads else (1, before)), *old.shape[axis + 1 :]]
        old = old.reshape(shape).repeat_interleave(1, axis)
        repeats = [1] * old.ndim
        repeats[axis + 1] = k
        old = old.repeat(repeats).flatten(axis, axis + 1)
    return old


def assert_is(new, old, factor, name):
    wanted = tiled(old, new, name).double() * factor
    worst = ((new.double() - wanted).abs() / wanted.abs().clamp_min(1e-30)).max()
    assert worst <= ROUNDING, f"{name} is not {factor:.6f} x the old one: off by {worst:.1e}"


def rows(name, k):
    return {row.format(layer): factor for row, factor in TABLES[name](k).items() for layer in (0, 1)}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(
    ("name", "row"), [(name, row) for name, table in TABLES.items() for row in table(2)], ids=lambda part: part
)
def test_each_number_is_the_tables_factor_times_an_old_one(name, row, k, widened):
    before, after, _ = widened(name, k)
    for layer in (0, 1):
        tensor = row.format(layer)
        assert_is(after[tensor], before[tensor], TABLES[name](k)[row], tensor)


@pytest.mark.parametrize("name", TABLES)
def test_the_table_names_every_tensor(name, widened):
    before, after, _ = widened(name, 2)
    assert set(rows(name, 2)) == set(before) == set(after)


def test_a_factor_that_is_off_by_a_millionth_is_seen(widened):
    before, after, _ = widened("bert-tied", 2)
    name = (BODY + "output.dense.weight").format(0)
    with pytest.raises(AssertionError, match="off by 1"):
        assert_is(after[name] * (1 + 1e-6), before[name], TABLES["bert-tied"](2)[BODY + "output.dense.weight"], name)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", TABLES)
def test_the_table_widens_bert_without_loss(name, k, widened, source):
    variant = tiny.named(name)
    *_, folder = widened(name, k)
    before = tiny.run(source(variant), variant.kind)
    assert tiny.error(before, tiny.run(folder, variant.kind), variant) <= TOLERANCE


def test_the_second_mlp_bias_as_the_article_has_it_moves_the_logits(widened, source, tmp_path):
    """1/2 as printed, 1/sqrt(2) as it must be: https://www.kexue.fm/archives/8444, the section on FeedForward."""
    variant = tiny.named("bert-tied")
    old, new, folder = widened("bert-tied", 2)
    for layer in (0, 1):
        name = (BODY + "output.dense.bias").format(layer)
        new = {**new, name: tiled(old[name], new[name], name) / 2}
    (tmp_path / "printed").mkdir()
    save_file(new, tmp_path / "printed" / "model.safetensors", {"format": "pt"})
    (tmp_path / "printed" / "config.json").write_text((folder / "config.json").read_text())
    before = tiny.run(source(variant), variant.kind)
    assert tiny.error(before, tiny.run(tmp_path / "printed", variant.kind), variant) > NOTICED


@pytest.mark.parametrize("k", [2, 3])
def test_every_norms_eps_is_divided_by_k_of_which_the_article_is_silent(k, widened):
    *_, folder = widened("bert-tied", k)
    assert json.loads((folder / "config.json").read_text())["layer_norm_eps"] == pytest.approx(1e-12 / k, rel=1e-15)


@pytest.mark.parametrize("k", [2, 3])
def test_without_an_attention_scale_queries_and_keys_need_no_fourth_root(k, widened):
    """ "A model such as T5 has no scale behind its inner product": repeat and divide by sqrt(k) on both sides."""
    before, after, _ = widened("t5-tied", k)
    for part in ("encoder.block.0.layer.0.SelfAttention", "decoder.block.1.layer.1.EncDecAttention"):
        for name in (f"{part}.q.weight", f"{part}.k.weight", f"{part}.v.weight", f"{part}.o.weight"):
            wanted = before[name].double() / k
            heads_at = 1 if name.endswith("o.weight") else 0
            split = wanted.unflatten(heads_at, (4, -1))
            grown = split.repeat([k if axis in (1, 2) and axis == heads_at + 1 else 1 for axis in range(3)])
            grown = grown.flatten(heads_at, heads_at + 1)
            grown = grown.repeat(*((k, 1) if heads_at else (1, k)))
            # float32 holds the product to half a unit in its last place
            torch.testing.assert_close(after[name].double(), grown, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("name", ["gpt2-unscaled", "gpt2-tied"])
def test_gpt2_needs_the_fourth_root_only_while_its_config_scales_attention(name, widened):
    before, after, _ = widened(name, 2)
    fourth = 1.0 if name == "gpt2-unscaled" else 2**0.25
    old, new = before["transformer.h.0.attn.c_attn.bias"], after["transformer.h.0.attn.c_attn.bias"]
    for part, factor in ((0, fourth / sqrt(2)), (1, fourth / sqrt(2)), (2, 1 / sqrt(2))):
        wanted = old[32 * part : 32 * (part + 1)].double().reshape(4, 8).repeat(1, 2).flatten() * factor
        torch.testing.assert_close(new[64 * part : 64 * (part + 1)].double(), wanted, rtol=ROUNDING, atol=0)
