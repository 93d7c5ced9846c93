"""What stands between the embedding and the head once every residual branch is zero, by the table.

    embedding -> (positions are added) -> the final norm -> head

Such a model is a 2-gram model: what it says of the next token depends on the last one alone (Su Jianlin,
https://spaces.ac.cn/archives/9698). Where anything else is on the way, or norms in every layer rewrite the stream,
`why` says what: a dense layer before the head is one of the cures of that article, BERT's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.template import Template
from modelsurgeon.maps.signature import Signature
from modelsurgeon.tensors.lazy import equal

if TYPE_CHECKING:
    from modelsurgeon.checkpoints.checkpoint import Checkpoint

FIXED_EPS = 1e-5  # of norms whose eps the code fixes: what torch.nn.LayerNorm has
LOOKED_UP = (("vocab",), ("positions",), ("types",))  # what the tables of an embedding are read by


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

    embedding, head  names on disk; the same where the head is the embedding
    scale      what the model multiplies embeddings by
    positions  the name of a table of learned positions, which are added to them
    norms      in the order of the way
    factor     what the model multiplies logits by
    bias       the name of what is added to the logits then
    cap        the bound that a tanh puts on them, or None
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
        return self.head == self.embedding


def find_path(checkpoint: Checkpoint) -> Path | None:
    """The way from embedding to head; None for a model without an output head over its vocabulary."""
    table, names = checkpoint.architecture, _on_disk(checkpoint)
    tie = table.tie
    if tie is None or not checkpoint.has_head or tie.embedding not in names:
        return None
    written, read = (_line(table, name).signature for name in (tie.embedding, tie.head))
    start, end = _written(written)[-1], tie.axis
    vocab = _written(read)[0]
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
    """(the norms from one axis to the other, why these are not all that there is)."""
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
    return reads and not line.placeholders and axis in _written(line.signature) and not _is_lookup(line)


def _is_lookup(line: Template) -> bool:
    """Whether its rows are looked up: by token, position, type."""
    return _read(line.signature) in LOOKED_UP


def _adds_positions(line: Template, axis: str) -> bool:
    return _read(line.signature) == ("positions",) and _written(line.signature) == (axis,)


def _is_bias_of(line: Template, vocab: str) -> bool:
    signature = line.signature
    return not _read(signature) and signature.normalises is None and _written(signature) == (vocab,)


def _written(signature: Signature) -> tuple[str, ...]:
    return tuple(axis for expression, side in signature.dimensions if side == "writers" for axis in expression.axes())


def _read(signature: Signature) -> tuple[str, ...]:
    return tuple(axis for expression, side in signature.dimensions if side == "readers" for axis in expression.axes())


def _line(table: Architecture, name: str) -> Template:
    """The line of the table of this name; a weightless norm has none and is never asked for."""
    return next(template for template in table.templates if template.name == name)


def _on_disk(checkpoint: Checkpoint) -> dict[str, str]:
    """{template: name on disk} of what does not lie in layers."""
    table = checkpoint.architecture
    found = {name: table.template(name) for name in checkpoint.tensors}
    return {line.name: name for name, line in found.items() if line is not None and not line.placeholders}


def _head(checkpoint: Checkpoint, names: dict[str, str]) -> str:
    """What serves as head: the embedding where they are tied, or equal under a flag that ties them when loaded."""
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
    """What the model multiplies a tensor's product by: a power of a size, and what the config says."""
    table, config = checkpoint.architecture, checkpoint.resolved
    axis, power, *when = table.multiplied.get(template, ("", 0.0))
    holds = power and table.holds(config, when[0] if when else None)
    total = float(checkpoint.sizes[axis] ** power) if holds else 1.0
    for key, (name, exponent) in table.factors.items():
        total *= float(table.value(config, key)) ** exponent if name == template else 1.0
    return total


def normed(norm: Norm, states: torch.Tensor, gain: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """[..., d]: what the norm makes of states of that shape, with this gain (offset added) and bias."""
    centred = states - states.mean(-1, keepdim=True) if norm.kind == "layer" else states
    found = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    found = found if gain is None else found * gain
    return found if bias is None else found + bias
