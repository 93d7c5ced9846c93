"""Checkpoints whose layers, heads and experts are in another order, made in plain torch, without this package.

    permuted(folder, target, "mlp", "heads")        another order in each layer: the same function

Attentions, MLPs and routers of a family are views into its tensors (`parts.py`), so that one function reorders all
families. What is done is a word of KINDS; `change` plants a mistake afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from support.foreign import Change, Tensors, read, write
from support.parts import FAMILIES, Parts, View


def reorder(view: View, order: torch.Tensor) -> None:
    view.copy_(view[order].clone())


def shuffled(size: int) -> torch.Tensor:
    """A permutation that moves something, if there are two."""
    while size > 1:
        order = torch.randperm(size)
        if not torch.equal(order, torch.arange(size)):
            return order
    return torch.arange(size)


def heads(parts: Parts) -> None:
    """Key-value heads with their query groups."""
    for one in parts.attentions:
        order = shuffled(len(one.k[0]))
        for view in [*one.q, *one.k, *one.v, *one.o, *one.each]:
            reorder(view, order)


def queries(parts: Parts) -> None:
    """Query heads inside of each group."""
    for one in parts.attentions:
        for kv in range(len(one.q[0])):
            order = shuffled(one.q[0].shape[1])
            for view in [*one.q, *one.o, *one.each]:
                reorder(view[kv], order)


def values(parts: Parts) -> None:
    """Coordinates of values, in each head."""
    for one in parts.attentions:
        for kv in range(len(one.v[0])):
            order = shuffled(one.v[0].shape[1])
            for view in one.v:
                reorder(view[kv], order)
            for view in one.o:
                for group in range(view.shape[1]):
                    reorder(view[kv, group], order)


def keys(parts: Parts) -> None:
    """Coordinates of queries and keys, in each head: only where nothing rotates them."""
    for one in parts.attentions:
        for kv in range(len(one.k[0])):
            order = shuffled(one.k[0].shape[1])
            for view in one.k:
                reorder(view[kv], order)
            for view in one.q:
                for group in range(view.shape[1]):
                    reorder(view[kv, group], order)


def value_scales(parts: Parts) -> None:
    """Coordinates of values times factors, some of them negative."""
    for one in parts.attentions:
        for kv in range(len(one.v[0])):
            factor = (torch.rand(one.v[0].shape[1]) + 0.5) * torch.randn(one.v[0].shape[1]).sign()
            _scaled([view[kv] for view in one.v], [view[kv, g] for view in one.o for g in range(view.shape[1])], factor)


def value_powers(parts: Parts) -> None:
    """Coordinates of values times powers of two: nothing is rounded."""
    for one in parts.attentions:
        for kv in range(len(one.v[0])):
            factor = 2.0 ** torch.randint(-2, 3, (one.v[0].shape[1],))
            _scaled([view[kv] for view in one.v], [view[kv, g] for view in one.o for g in range(view.shape[1])], factor)


def mlp(parts: Parts) -> None:
    """Neurons of each MLP, and of each expert."""
    for one in parts.mlps:
        order = shuffled(len(one.write[0]))
        for view in [*one.write, *one.read]:
            reorder(view, order)


def relu_scales(parts: Parts) -> None:
    """Neurons behind a ReLU times positive factors."""
    for one in parts.mlps:
        _scaled(one.write, one.read, torch.rand(len(one.write[0])) + 0.5)


def experts(parts: Parts) -> None:
    """Experts, with their router's rows."""
    for one in parts.routers:
        order = shuffled(len(one.rows[0]))
        for view in one.rows:
            reorder(view, order)
        for views in one.named:
            before = [view.clone() for view in views]
            for view, old in zip(views, order, strict=True):
                view.copy_(before[int(old)])


def _scaled(writers: list[View], readers: list[View], factor: torch.Tensor) -> None:
    for views, by in ((writers, factor), (readers, 1 / factor)):
        for view in views:
            view.mul_(by.reshape(-1, *[1] * (view.ndim - 1)).to(view.dtype))


INSIDE = {  # dimensions of the stream's size that are not the stream: of all heads together
    r".*(q_proj|k_proj|v_proj|query|key|value|q|k|v)\.weight": 0,
    r".*(q_proj|k_proj|v_proj|query|key|value)\.bias": 0,
    r".*(o_proj|out_proj|attention\.output\.dense|self_attention\.dense|attention\.dense|\.o)\.weight": 1,
    r".*attn\.c_proj\.weight": 0,
    r".*attn\.Wo\.weight": 1,
}


def streams(tensors: Tensors, size: int, signs: bool = False) -> None:
    """Coordinates of the residual stream in another order; `signs`: some of them negative, too."""
    order, sign = shuffled(size), torch.randn(size).sign()
    for name, tensor in tensors.items():
        inside = [dimension for pattern, dimension in INSIDE.items() if re.fullmatch(pattern, name)]
        for dimension, count in enumerate(tensor.shape):
            if count != size or dimension in inside:
                continue
            moved = tensors[name].index_select(dimension, order)
            is_gain = tensor.ndim == 1 and "norm" in name
            by = sign.to(tensor.dtype) if signs and not is_gain else torch.ones(size, dtype=tensor.dtype)
            tensors[name] = (moved.movedim(dimension, -1) * by).movedim(-1, dimension).contiguous()


KINDS: dict[str, Callable[[Parts], None]] = {
    "mlp": mlp,
    "heads": heads,
    "queries": queries,
    "values": values,
    "keys": keys,
    "experts": experts,
    "value scales": value_scales,
    "value powers": value_powers,
    "relu scales": relu_scales,
}


def permuted(source: Path, folder: Path, *kinds: str, change: Change | None = None, stream: str = "") -> Path:
    """A folder of the same sizes with these things reordered.

    stream  the config key of the residual's size, to reorder that, too; with ~ behind it some signs change
    """
    tensors, config = read(source)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    apply(tensors, config, *kinds)
    if stream:
        streams(tensors, config[stream.removesuffix("~")], signs=stream.endswith("~"))
    if change:
        change(tensors, config)
    return write(folder, tensors, config)


def apply(tensors: Tensors, config: dict[str, Any], *kinds: str) -> None:
    """Reorder tensors in place."""
    parts = FAMILIES[config["model_type"]](tensors, config)
    for kind in kinds:
        KINDS[kind](parts)
