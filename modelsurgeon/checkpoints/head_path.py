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
    """A norm that the stream passes: "layer" or "rms", the names of its tensors on disk, its eps."""

    kind: str
    gain: str | None
    bias: str | None
    eps: float


@dataclass(frozen=True)
class Path:
    """The way of a token from the embedding to the logits.

    embedding, head  names on disk; one name where the head is the embedding
    scale      the model multiplies embeddings by it
    positions  the name of a table of learned positions, which are added to embeddings
    norms      in the order in which they are passed
    factor     the model multiplies logits by it
    bias       the name of a bias, which is then added to logits
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
    table, names = checkpoint.architecture, _on_disk(checkpoint)
    tie = table.tie
    if tie is None or not checkpoint.has_head or tie.embedding not in names:
        return None
    written, read = (_line(table, name).signature.axes_of("writers") for name in (tie.embedding, tie.head))
    start, end, vocab = written[-1], tie.axis, read[0]
    norms, why = _norms(checkpoint, start, end)
    positions = [name for name in names if _adds_positions(_line(table, name), start)]
    biases = [name for name in names if _is_bias_of(_line(table, name), vocab) and name not in tie.also]
    key, absent = table.softcap or ("", None)
    cap = checkpoint.resolved.get(key, absent)
    return Path(
        names[tie.embedding],
        _head(checkpoint, names),
        scale=_multiplier(checkpoint, tie.embedding),
        positions=names[positions[0]] if positions else None,
        norms=tuple(_norm(checkpoint, names, name) for name in norms),
        factor=_multiplier(checkpoint, tie.head) * _scaled(checkpoint, end),
        bias=names[biases[0]] if biases else None,
        cap=None if cap is None else float(cap),
        why=why,
    )


def _norms(checkpoint: Checkpoint, start: str, end: str) -> tuple[list[str], str]:
    """(the norms from one axis to the other, why there is more than these)."""
    table, held = checkpoint.architecture, checkpoint.templates
    present = [(name, s) for name, s in table.norms if name in held or name in table.weightless]
    found: list[str] = []
    passed, axis = {start}, end
    while axis != start:
        between = [name for name in sorted(held) if _projects(_line(table, name), axis)]
        if between:
            return [], f"{between[0]} stands between the final norm and the head"
        writers = [(name, s) for name, s in present if axis in s.gains and "{" not in name]
        reads = writers[0][1].normalises if len(writers) == 1 else None
        if reads is None or len(reads.axes()) != 1:
            return [], "no one norm writes what the head reads"
        found.insert(0, writers[0][0])
        (axis,) = reads.axes()
        passed.add(axis)
    again = [name for name, s in present if s.normalises and {*s.normalises.axes()} & passed & {*s.gains}]
    if again:
        return [], f"post-norm: {again[0]} rewrites the stream on its way to the head"
    return found, ""


def _projects(line: Template, axis: str) -> bool:
    """Whether it is a matrix outside of the layers' branches that writes the axis."""
    reads = any(side == "readers" for _, side in line.signature.dimensions)
    return reads and not line.placeholders and axis in line.signature.axes_of("writers") and not _is_lookup(line)


def _is_lookup(line: Template) -> bool:
    """Whether its rows are looked up: by token, position, type."""
    return line.signature.axes_of("readers") in LOOKED_UP


def _adds_positions(line: Template, axis: str) -> bool:
    signature = line.signature
    return signature.axes_of("readers") == ("positions",) and signature.axes_of("writers") == (axis,)


def _is_bias_of(line: Template, vocab: str) -> bool:
    signature = line.signature
    reads, writes = signature.axes_of("readers"), signature.axes_of("writers")
    return not reads and signature.normalises is None and writes == (vocab,)


def _line(table: Architecture, name: str) -> Template:
    """The template of this name; a weightless norm has none, and is never looked up."""
    return next(template for template in table.templates if template.name == name)


def _on_disk(checkpoint: Checkpoint) -> dict[str, str]:
    """{template: name on disk} of tensors outside the layers."""
    table = checkpoint.architecture
    found = {name: table.template(name) for name in checkpoint.tensors}
    return {line.name: name for name, line in found.items() if line is not None and not line.placeholders}


def _head(checkpoint: Checkpoint, names: dict[str, str]) -> str:
    """The head's name: that of the embedding where they are tied, or equal under a flag that ties them when loaded."""
    tie = checkpoint.architecture.tie
    assert tie is not None
    embedding, head = names[tie.embedding], names.get(tie.head)
    if head is None:
        return embedding
    shared = checkpoint.is_tied and equal(checkpoint.tensors[head], checkpoint.tensors[embedding])
    return embedding if shared else head


def _norm(checkpoint: Checkpoint, names: dict[str, str], name: str) -> Norm:
    table = checkpoint.architecture
    fixed = table.eps is None or name in table.fixed_eps
    eps = FIXED_EPS if fixed else float(table.value(checkpoint.resolved, table.eps or ""))
    return Norm(table.norm, names.get(name), names.get(name.removesuffix("weight") + "bias"), eps)


def _scaled(checkpoint: Checkpoint, axis: str) -> float:
    """The power of its size by which the model multiplies what the head reads."""
    line = checkpoint.architecture.axes[axis]
    if not line.scaled or not checkpoint.architecture.holds(checkpoint.resolved, line.when):
        return 1.0
    return float(checkpoint.sizes[axis] ** line.scaled)


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
    found = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    found = found if gain is None else found * gain
    return found if bias is None else found + bias
