"""Mistakes planted in results of transforms, and tensors set to zero: the outputs show every one of them."""

from __future__ import annotations

import json

import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.growth.eps import NEGLIGIBLE_EPS
from support import tiny
from support.grow import widen
from support.growths import LOSSLESS
from support.oracle import in_float64
from support.transformed import FAMILIES, NOTICED, TOLERANCE, change_config, change_tensors, eps, moved, saved

SEEN = 1e2 * LOSSLESS  # the same in float64


# --- planted mistakes ------------------------------------------------------------------------------------------------


def halves(tensors, name, axis, factor):
    """The first half of a tensor along one axis multiplied: one of two copies is wrong."""
    tensor = tensors[name].clone()
    tensor.narrow(axis, 0, tensor.shape[axis] // 2).mul_(factor)
    return {**tensors, name: tensor}


def permuted(tensors, name, axis, *shape_and_order):
    """A tensor with its `axis` seen as `shape`, and the parts of that in another order."""
    shape, order = shape_and_order
    tensor = tensors[name].movedim(axis, 0)
    parts = tensor.reshape(*shape, *tensor.shape[1:])
    rest = range(len(shape), parts.ndim)
    return {**tensors, name: parts.permute(*order, *rest).reshape(tensor.shape).movedim(0, axis)}


def times(tensors, name, factor):
    return {**tensors, name: tensors[name] * factor}


RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
O_PROJ = "model.layers.0.self_attn.o_proj.weight"
MUTANTS = {
    "a share x 1.01 in one tensor": (
        "llama-untied", "exact", "heads", lambda t: halves(t, O_PROJ, 1, 1.01)),
    "a share x 1.01 in the last norm": (
        "llama-tied", "exact", "heads", lambda t: halves(t, "model.norm.weight", 0, 1.01)),
    "heads in another order for the out-projection": (
        "llama-untied", "exact", "heads", lambda t: permuted(t, O_PROJ, 1, (2, 4, 8), (1, 0, 2))),
    "queries tiled without their key-value heads": (
        "llama-untied", "exact", "heads",
        lambda t: permuted(t, "model.layers.0.self_attn.q_proj.weight", 0, (4, 2, 8), (1, 0, 2))),
    "a bias that was left alone": (
        "bert-tied", "orthogonal", "head-dim", lambda t: times(t, "bert.encoder.layer.0.output.dense.bias", 2**0.5)),
    "a query bias that was left alone": (
        "qwen2-untied", "orthogonal", "head-dim", lambda t: times(t, "model.layers.0.self_attn.q_proj.bias", 2**-0.25)),
    "a head's scale that was forgotten": (
        "t5-tied", "exact", "heads", lambda t: times(t, "decoder.final_layer_norm.weight", 2**-0.5)),
    "an attention's scale that was forgotten": (
        "opt-untied", "exact", "head-dim",
        lambda t: times(t, "model.decoder.layers.0.self_attn.q_proj.weight", 2**-0.5)),
    "an embedding's scale that was forgotten": (
        "gemma2-untied", "exact", "heads", lambda t: times(t, "model.embed_tokens.weight", 2**0.5)),
    "gains of (1 + w) scaled like w": (
        "gemma2-untied", "orthogonal", "heads",
        lambda t: {**t, "model.norm.weight": (1 + t["model.norm.weight"]) * 2**0.5 * 2**-0.5 - 0.5}),
    "queries, keys, values head by head where they are one after another": (
        "gpt2-tied", "exact", "heads",
        lambda t: permuted(t, "transformer.h.0.attn.c_attn.weight", 1, (3, 8, 8), (1, 0, 2))),
    "queries, keys, values one after another where they are head by head": (
        "gpt_neox-untied", "exact", "heads",
        lambda t: permuted(t, "gpt_neox.layers.0.attention.query_key_value.weight", 0, (8, 3, 16), (1, 0, 2))),
    "rotary pairs one place off": (
        "llama-untied", "exact", "head-dim",
        lambda t: {**t, **{n: t[n].roll(1, 0) for n in t if n.endswith(("q_proj.weight", "k_proj.weight"))}}),
    "a relative position bias in another order of heads": (
        "t5-tied", "exact", "heads",
        lambda t: permuted(t, RELATIVE, 1, (2, 4), (1, 0))),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MUTANTS)
def test_the_outputs_show(mistake, source, tmp_path):
    name, rule, attention, change = MUTANTS[mistake]
    variant = tiny.named(name)
    wide = saved(widen(open_checkpoint(source(variant)), 2, rule=rule, attention=attention), tmp_path / "wide")
    assert moved(variant, source(variant), wide) <= TOLERANCE
    change_tensors(wide, change)
    assert moved(variant, source(variant), wide) > NOTICED


@pytest.mark.parametrize("variant", [v for v in FAMILIES if eps(v) > NEGLIGIBLE_EPS], ids=str)
def test_the_outputs_show_an_eps_that_was_left_alone(variant, source, tmp_path):
    wide = saved(widen(open_checkpoint(source(variant)), 2, rule="orthogonal", attention="head-dim"), tmp_path / "wide")
    key = variant.table.eps
    change_config(wide, **{key: json.loads((source(variant) / "config.json").read_text())[key]})
    assert moved(variant, source(variant), wide) > NOTICED


# A bias of keys adds the same to every score of a query, which the softmax takes away again (not behind a rotation;
# DeBERTa's scores are of content with positions, too). An untied head has a bias of its own where a tied one has these,
# and BART's two sides embeddings of their own.
DEAD_KEYS = (
    *("attention.self.key.bias", "self_attn.k_proj.bias", "encoder_attn.k_proj.bias", "attention.key.bias"),
    *("attention.k_proj.bias", "attention.k_lin.bias", "self.pos_key_proj.bias"),
)
DEAD = ("cls.predictions.bias", "predictions.bias", "lm_head.bias", "model.shared.weight")


def dead(variant, name):
    """Tensors with no say in the outputs: nothing tells whether they are right, and nothing need."""
    if name in DEAD:
        return variant.table.tie is not None and name in (*variant.table.tie.also.values(), variant.table.tie.embedding)
    return variant.table.rotary is None and name.endswith(DEAD_KEYS)


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_the_outputs_depend_on_every_tensor(variant, source):
    """So a mistake in any of them is seen in float64: every other number x 1.01 moves the outputs."""
    model = tiny.load64(source(variant, "float64"), variant.kind)
    unseen = []
    with in_float64():
        before = tiny.outputs(model)
        for name, parameter in model.named_parameters():
            kept = parameter.detach().clone()
            every_other = torch.arange(kept.numel()).reshape(kept.shape) % 2 == 0
            parameter.mul_(torch.where(every_other, 1.01, 1.0))
            if tiny.error(before, tiny.outputs(model), variant) <= SEEN:
                unseen.append(name)
            parameter.copy_(kept)
    assert unseen == [name for name, _ in model.named_parameters() if dead(variant, name)]
