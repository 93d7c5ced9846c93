"""Inserted layers: the function stays the same where every new layer adds zero to the sum of the layers.

    [0, 1, None, 2, 3, None]    the old layers in order, a new one behind the second and behind the last

The signatures show what a layer adds: all tensors that write the summed axis (`stream <- mlp`), with their biases.
Where a norm follows a projection (`branch => stream`), either its gain must be zero or all that it reads. LLaMA Pro
(Wu et al., https://arxiv.org/abs/2401.02415) adds copies of blocks in this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.architectures.config import assigned
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.files.fields import refuse
from modelsurgeon.files.json_file import shortened
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.growth.remap import zeros
from modelsurgeon.operations.operation import Demand, Guess
from modelsurgeon.running.settings import as_read
from modelsurgeon.tensors.lazy import LazyTensor

LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")  # one entry a layer
BY_NUMBER = "scale_attn_by_inverse_layer_idx"
PATTERN = "attention_types"  # of GPT-Neo: repeated until all layers have one
ADDS_ZERO = "of a new layer, which adds zero"
SILENT = Demand(True, ADDS_ZERO, "a new layer must add zero")
FINITE = Demand(False, ADDS_ZERO, "holds NaN or infinity, which times zero is no zero")
BLOCK = 1 << 20  # numbers that are read at a time
MOST_LAYERS = 1 << 16

Layout = Sequence[int | None]  # the old layer at each place, or None for a new one
_Layer = Mapping[str, Sequence[str]]  # {template: names on disk}


@dataclass(frozen=True)
class Depth:
    """One counter of a family (`layer`), and the axis on which its layers' outputs are summed."""

    table: Architecture
    counter: str
    summed: str

    def silencing(self, held: Mapping[str, Sequence[LazyTensor]]) -> frozenset[str]:
        """The templates of one layer that must be zero; `held` has the layer's tensors, {template: tensors}."""
        present = [t for t in self.table.templates if self.counter in t.placeholders and t.name in held]
        silent: set[str] = set()
        for template in (t for t in present if self.summed in _written(t)):
            norm = template.signature.normalises
            if norm is None:
                silent.add(template.name)
            elif any(_differs(tensor, -self.table.offset) for tensor in held[template.name]):
                silent |= {t.name for t in present if not t.signature.normalises and set(norm.axes()) & _written(t)}
        return frozenset(silent)


def depth_of(checkpoint: Checkpoint, counter: str) -> Depth:
    """A counter, with the axis that its layers add to. Raises PlanError where no layer can be inserted."""
    table = checkpoint.architecture
    held = [template for template in table.templates if template.name in checkpoint.templates]
    inside = [template for template in held if counter in template.placeholders]
    outside = {axis for t in held if counter not in t.placeholders for axis in t.signature.axes}
    sums = {axis for t in inside for axis in _written(t) & outside if kind_of(table.axes[axis]).spans_layers}
    post = [t.name for t in inside if t.signature.normalises and sums & {*t.signature.normalises.axes()} & _written(t)]
    if post:
        raise PlanError(f"{table.counters[counter]}: no layer can be added, {post[0]} norms the sum itself (post-norm)")
    if checkpoint.resolved.get(PATTERN):
        raise PlanError(f"{PATTERN}: a pattern of layers, which says nothing of new ones")
    if len(sums) != 1:
        raise PlanError(f"{table.counters[counter]}: no layer can be added, its layers have no sum of their own")
    if table.value(checkpoint.resolved, BY_NUMBER):
        raise PlanError(f"{BY_NUMBER}: attention is divided by the layer's number, so no layer can be put in between")
    return Depth(table, counter, sums.pop())


def insert_layers(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with new layers, lazily: copies of those before, which the proof requires to add zero."""
    for counter, layout in arguments["layers"].items():
        table = checkpoint.architecture
        if counter not in table.counters:
            known = " or ".join(table.counters)
            raise PlanError(f"arguments.layers: expected layers of {known}, found {shortened(counter)}")
        depth_of(checkpoint, counter)
        key, last = table.counters[counter], 0
        count = table.value(checkpoint.resolved, key)
        if [old for old in layout if old is not None] != list(range(count)):
            raise PlanError(f"{key}: the {count} old layers must be in their order among the new ones")
        like = [last := last if old is None else old for old in layout]
        tensors: dict[str, LazyTensor] = {}
        for name, tensor in checkpoint.tensors.items():
            template = None if table.is_recomputed(name) else table.template(name)
            if template is None or counter not in template.placeholders:
                tensors[name] = tensor
                continue
            numbers = table.numbers(template, name)
            for place in (place for place, old in enumerate(like) if old == numbers[counter]):
                tensors[template.name.format(**{**numbers, counter: place})] = tensor
        config = assigned(checkpoint.config, key, len(layout))
        config |= {alias: len(layout) for alias, native in table.aliases.items() if native == key and alias in config}
        config |= _lists(checkpoint, count, layout, like, arguments.get("kinds") or {})
        checkpoint = replace(checkpoint, config=config, tensors=tensors)
    return checkpoint


def silent_layers(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with new layers that add zero, lazily: copies of those before, with zeros where they write."""
    deeper = insert_layers(checkpoint, arguments)
    required = demands(inserted([arguments["layers"]]), deeper, deeper, {name: name for name in deeper.tensors})
    silent = {name: zeros(deeper.tensors[name]) for name, demand in required.items() if demand.zero}
    return replace(deeper, tensors={**deeper.tensors, **silent})


def _lists(
    checkpoint: Checkpoint, count: int, layout: Layout, like: Sequence[int], kinds: Mapping[str, list[Any]]
) -> dict[str, list[Any]]:
    """The config's lists of one entry a layer: old layers keep theirs, new ones take `kinds`, or the one before.

    Lists that the file leaves to the library are spelled out: a pattern would count the new layers, too.
    """
    config, found = {**(as_read(checkpoint.resolved) or {}), **checkpoint.resolved}, {}
    for key in LISTS:
        old = config.get(key)
        if not isinstance(old, list) or len(old) != count:
            continue
        new = kinds[key] if len(kinds.get(key, ())) == len(layout) else [old[number] for number in like]
        found[key] = [new[place] if number is None else old[number] for place, number in enumerate(layout)]
    if isinstance(checkpoint.resolved.get("mlp_only_layers"), list):
        named = set(checkpoint.resolved["mlp_only_layers"])
        found["mlp_only_layers"] = [place for place, number in enumerate(like) if number in named]
    return found


def check_arguments(arguments: Mapping[str, Any], where: str) -> None:
    """Raise FieldError, with the place, for arguments on record that insert no layers."""
    if not arguments["layers"]:
        refuse(f"{where}.layers", "the layers of a counter", arguments["layers"])
    for counter, layout in arguments["layers"].items():
        old = [number for number in layout if number is not None]
        if old != list(range(len(old))) or len(old) == len(layout) or len(layout) > MOST_LAYERS:
            expected = f"0, 1, 2 ... in order with null among them, {MOST_LAYERS} at most"
            refuse(f"{where}.layers.{counter}", expected, layout)
    lengths = {len(layout) for layout in arguments["layers"].values()}
    for key, entries in arguments.get("kinds", {}).items():
        if key not in LISTS or len(entries) not in lengths:
            refuse(f"{where}.kinds.{key}", f"an entry for each layer, of {', '.join(LISTS)}", entries)


def inserted(layouts: Sequence[Mapping[str, Layout]]) -> dict[str, list[int]]:
    """{counter: the numbers that the first layouts' new layers have after all of them, one insertion after another}."""
    found: dict[str, list[int]] = {}
    for counter, first in layouts[0].items():
        numbers = [place for place, old in enumerate(first) if old is None]
        for later in layouts[1:]:
            if counter in later:
                numbers = [place for place, old in enumerate(later[counter]) if old in numbers]
        found[counter] = numbers
    return found


def demands(
    new: Mapping[str, Sequence[int]], expected: Checkpoint, result: Checkpoint, names: Mapping[str, str]
) -> dict[str, Demand]:
    """{tensor of a new layer: whether it must be zero, or finite only}.

    new    {counter: the numbers of new layers}
    names  {name in `expected`: name in `result`}
    """
    found: dict[str, Demand] = {}
    for counter, numbers in new.items():
        depth, layers = depth_of(expected, counter), _layers(expected, counter)
        for number in numbers:
            layer = {template: [n for n in of if n in names] for template, of in layers.get(number, {}).items()}
            silent = depth.silencing({t: [result.tensors[names[n]] for n in of] for t, of in layer.items() if of})
            found |= {n: SILENT if template in silent else FINITE for template, of in layer.items() for n in of}
    return found


def guess_inserted(source: Checkpoint, result: Checkpoint) -> Guess:
    """The source with new layers, where the result has more; the kinds of these are in the result's config."""
    layers: dict[str, list[int | None]] = {}
    lines: list[str] = []
    try:
        for counter, key in source.architecture.counters.items():
            before, after = (c.architecture.value(c.resolved, key) for c in (source, result))
            if isinstance(before, int) and isinstance(after, int) and before < after:
                layers[counter] = layout = _layout(depth_of(source, counter), source, result)
                new = ", ".join(str(place) for place, old in enumerate(layout) if old is None)
                lines.append(f"{key}: layers {new} of {len(layout)} are new")
        if not layers:
            return Guess(source)
        config = as_read(result.resolved) or result.resolved
        kinds = {key: config[key] for key in LISTS if isinstance(config.get(key), list)}
        step = Step("insert-layers", {"layers": layers, "kinds": kinds})
        return Guess(insert_layers(source, step.arguments), step, tuple(lines))
    except PlanError as error:
        return Guess(source, lines=(f"depth: {error}",))


def _written(template: Template) -> set[str]:
    """The axes that a tensor writes, or whose gain it is."""
    return {axis for expression, _ in template.signature.written for axis in expression.axes()}


def _layers(checkpoint: Checkpoint, counter: str) -> dict[int, dict[str, list[str]]]:
    """{number of a layer: {template: names on disk}}."""
    table, found = checkpoint.architecture, dict[int, dict[str, list[str]]]()
    for name in checkpoint.tensors:
        template = None if table.is_recomputed(name) else table.template(name)
        if template and counter in template.placeholders:
            number = table.numbers(template, name)[counter]
            found.setdefault(number, {}).setdefault(template.name, []).append(name)
    return found


def _layout(depth: Depth, source: Checkpoint, result: Checkpoint) -> list[int | None]:
    """The old layer, or None, at each place: new layers add zero, or do not begin as the next old layer does.

    Where neither tells new layers from old ones, the new ones are spread evenly.
    """
    before, after = (_layers(checkpoint, depth.counter) for checkpoint in (source, result))
    silent = [_is_silent(depth, result, after[number]) for number in sorted(after)]
    was_silent = [_is_silent(depth, source, before[number]) for number in sorted(before)]
    new, old = len(silent), len(was_silent)
    if silent.count(False) == was_silent.count(False):
        layout = _in_order(new, old, lambda place, layer: silent[place] == was_silent[layer])
    else:
        layout = _in_order(new, old, lambda place, layer: _begin_alike(source, result, before[layer], after[place]))
    if set(layout) >= set(range(old)):
        return layout
    every = new // max(1, new - old)
    return _in_order(new, old, lambda place, layer: place % every != every - 1 or new - place <= old - layer)


def _in_order(new: int, old: int, fits: Callable[[int, int], bool]) -> list[int | None]:
    """The old layers, one after another, each at the first place where it fits; new ones at all others."""
    layout: list[int | None] = []
    layer = 0
    for place in range(new):
        is_old = layer < old and fits(place, layer)
        layout.append(layer if is_old else None)
        layer += is_old
    return layout


def _is_silent(depth: Depth, checkpoint: Checkpoint, layer: Mapping[str, Sequence[str]]) -> bool:
    held = {template: [checkpoint.tensors[name] for name in names] for template, names in layer.items()}
    return not any(_differs(tensor, 0.0) for template in depth.silencing(held) for tensor in held[template])


def _differs(tensor: LazyTensor, value: float) -> bool:
    """Whether a tensor holds any other number than this one; reading ends at the first."""
    rows = tensor.shape[0] if tensor.shape else 1
    step = max(1, BLOCK * rows // max(1, math.prod(tensor.shape)))
    blocks = (tensor.read(at, min(at + step, rows)) for at in range(0, rows, step))
    return any(bool((block != value).any()) for block in blocks)


def _begin_alike(source: Checkpoint, result: Checkpoint, before: _Layer, after: _Layer) -> bool:
    """Whether the first rows of two layers' tensors are the same numbers, up to rounding."""
    if before.keys() != after.keys():
        return False
    pairs = [(source.tensors[before[t][0]], result.tensors[after[t][0]]) for t in before]
    return all(old.shape == new.shape for old, new in pairs) and all(
        torch.allclose(old.read(0, 1).double(), new.read(0, 1).double(), 2**-7, 1e-30) for old, new in pairs
    )
