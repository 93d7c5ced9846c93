"""What remains between the embedding and the head once every residual branch is zero, by the table.

    embedding -> (positions are added) -> the final norm -> head

Such a model is a 2-gram model: its prediction of the next token depends on the last one alone (Su Jianlin,
https://spaces.ac.cn/archives/9698). Where anything else is on the way, or norms in every layer rewrite the stream,
`why` names it: a dense layer before the head, as BERT has, is one of the cures of that article.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.template import Template
from modelsurgeon.tensors.lazy import equal

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint

FIXED_EPS = 1e-5  # the eps of norms without a config key for it: that of torch.nn.LayerNorm
LOOKED_UP = (("vocab",), ("positions",), ("types",))  # the axes that embedding tables are indexed by


@dataclass(frozen=True)
class Norm:
    """A norm that the stream passes: its kind ("layer" or "rms"), the names of its tensors on disk, its eps."""

    kind: str
    gain: str | None
    bias: str | None
    eps: float


@dataclass(frozen=True)
class Path:
    """The way of a token from the embedding to the logits.

    embedding, head  names on disk; one name where the head is the embedding
    scale      what the model multiplies embeddings by
    positions  the name on disk of learned positions, which are added to embeddings
    norms      in the order in which they are passed
    factor     what the model multiplies logits by
    bias       the name on disk of a bias, which is then added to logits
    cap        the bound that a tanh puts on logits, or None
    why        what keeps the model from being a 2-gram one; empty where nothing does
    """

    embedding: str
    head: str
    scale: float = 1.0
    positions: str | None = None
    norms: tuple[Norm, ...] = ()
    factor: float = 1.0
    bias: str | None = None
    cap: float | None = None
    why: str = ""

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return self.head == self.embedding


def find_path(checkpoint: Checkpoint) -> Path | None:
    """The way from embedding to head; None for a model without an output head over its vocabulary."""
    table, tie = checkpoint.architecture, checkpoint.architecture.tie
    templates = {name: table.template(name) for name in checkpoint.tensors}
    # {template: name on disk} of tensors outside the layers
    names = {line.name: name for name, line in templates.items() if line and not line.placeholders}
    if tie is None or not checkpoint.has_head or tie.embedding not in names:
        return None
    start, end, vocab = _axes(table, tie.embedding)[1][-1], tie.axis, _axes(table, tie.head)[1][0]
    embedding, head = names[tie.embedding], names.get(tie.head, names[tie.embedding])
    if head != embedding and checkpoint.is_tied and equal(checkpoint.tensors[head], checkpoint.tensors[embedding]):
        head = embedding
    norms, why = _norms(checkpoint, start, end)
    positions = [name for name in names if _axes(table, name) == (("positions",), (start,))]
    biases = [name for name in names if _axes(table, name) == ((), (vocab,)) and name not in tie.also]
    biases = [name for name in biases if _line(table, name).signature.normalises is None]
    key, absent = table.softcap or ("", None)
    cap = checkpoint.resolved.get(key, absent)
    return Path(
        embedding,
        head,
        scale=_multiplier(checkpoint, tie.embedding),
        positions=names[positions[0]] if positions else None,
        norms=tuple(_norm(checkpoint, names, name) for name in norms),
        factor=_multiplier(checkpoint, tie.head) * _scaled(checkpoint, end),
        bias=names[biases[0]] if biases else None,
        cap=None if cap is None else float(cap),
        why=why,
    )


def _norms(checkpoint: Checkpoint, start: str, end: str) -> tuple[list[str], str]:
    """(the norms from one axis to the other, why these are not all; empty where they are)."""
    table, held = checkpoint.architecture, checkpoint.templates
    present = [(name, s) for name, s in table.norms if name in held or name in table.weightless]
    norms: list[str] = []
    passed, axis = {start}, end
    while axis != start:
        between = [name for name in sorted(held) if _projects(_line(table, name), axis)]
        if between:
            return [], f"{between[0]} stands between the final norm and the head"
        writers = [(name, s) for name, s in present if axis in s.gains and "{" not in name]
        reads = writers[0][1].normalises if len(writers) == 1 else None
        if reads is None or len(reads.axes()) != 1:
            return [], "no one norm writes what the head reads"
        norms.insert(0, writers[0][0])
        (axis,) = reads.axes()
        passed.add(axis)
    again = [name for name, s in present if s.normalises and {*s.normalises.axes()} & passed & {*s.gains}]
    if again:
        return [], f"post-norm: {again[0]} rewrites the stream on its way to the head"
    return norms, ""


def _projects(line: Template, axis: str) -> bool:
    """Whether it is a matrix outside of the layers that writes the axis, and no table of rows that are looked up."""
    signature = line.signature
    is_matrix = any(side == "readers" for _, side in signature.dimensions) and not line.placeholders
    return is_matrix and axis in signature.axes_of("writers") and signature.axes_of("readers") not in LOOKED_UP


def _line(table: Architecture, name: str) -> Template:
    """The template of this name; a weightless norm has none, and is never looked up."""
    return next(template for template in table.templates if template.name == name)


def _axes(table: Architecture, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The axes that a template (reads, writes)."""
    signature = _line(table, name).signature
    return signature.axes_of("readers"), signature.axes_of("writers")


def _norm(checkpoint: Checkpoint, names: dict[str, str], name: str) -> Norm:
    table = checkpoint.architecture
    fixed = table.eps is None or name in table.fixed_eps
    eps = FIXED_EPS if fixed else float(table.value(checkpoint.resolved, table.eps or ""))
    return Norm(table.norm, names.get(name), names.get(name.removesuffix("weight") + "bias"), eps)


def _scaled(checkpoint: Checkpoint, axis: str) -> float:
    """The power of its size by which the model multiplies what the head reads."""
    line = checkpoint.architecture.axes[axis]
    holds = line.scaled and checkpoint.architecture.holds(checkpoint.resolved, line.when)
    return float(checkpoint.sizes[axis] ** line.scaled) if holds else 1.0


def _multiplier(checkpoint: Checkpoint, template: str) -> float:
    """The factor of a tensor's product: a power of a size times factors of the config."""
    table, config = checkpoint.architecture, checkpoint.resolved
    axis, power, *when = table.multiplied.get(template, ("", 0.0))
    holds = power and table.holds(config, when[0] if when else None)
    total = float(checkpoint.sizes[axis] ** power) if holds else 1.0
    for key, (name, exponent) in table.factors.items():
        total *= float(table.value(config, key)) ** exponent if name == template else 1.0
    return total


def normed(norm: Norm, states: torch.Tensor, gain: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """[..., d]: states of that shape after the norm, with this gain (offset added) and bias."""
    centred = states - states.mean(-1, keepdim=True) if norm.kind == "layer" else states
    scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    scaled = scaled if gain is None else scaled * gain
    return scaled if bias is None else scaled + bias
