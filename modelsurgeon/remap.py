"""Apply axis maps to a checkpoint: every tensor by its signature, every config key that follows.

The result is lazy. What the maps do to the norms decides the new eps; what cannot be made exact is said in `lossy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from modelsurgeon.architecture import Architecture, Template
from modelsurgeon.axis_map import AxisMap, identity
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.commute import reasons_against
from modelsurgeon.dimension import Dimension
from modelsurgeon.errors import PlanError
from modelsurgeon.signature import mean_square_ratio
from modelsurgeon.tensor import FLOATS, LazyTensor, Remapped

ENTIRE = 1e-12  # a ratio nearer to 1 than this is 1: it comes from a few float64 operations

# A norm divides by sqrt(variance + eps). On a variance of 0.01 this much eps moves its output by 5e-8: a rounding.
NEGLIGIBLE_EPS = 1e-9


@dataclass(frozen=True)
class Storage:
    """How numbers are stored.

    dtype    what every float tensor is stored in; None: as it was
    promote  store as float32 what 16 bits would round
    """

    dtype: str | None = None
    promote: bool = False


def remap(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], storage: Storage = Storage()) -> Checkpoint:
    """The checkpoint with every axis of `maps` grown. Raises PlanError where the maps do not commute with the model."""
    table = checkpoint.architecture
    sizes = checkpoint.sizes
    for axis, axis_map in maps.items():
        if sizes.get(axis) != axis_map.size:
            raise PlanError(f"axis {axis!r} has {sizes.get(axis)} coordinates; the map grows {axis_map.size}")
    every = {axis: maps.get(axis) or identity(size) for axis, size in sizes.items()}
    targets = {axis: axis_map.new_size for axis, axis_map in every.items()}
    ratios = norm_ratios(table, every)
    against = reasons_against(table, checkpoint.resolved, every)
    config, lossy = grown_config(checkpoint, targets, ratios)
    if table.resolve(config) and table.sizes(table.resolve(config)) != targets:
        raise PlanError(f"no config of this model type has the sizes {targets}")
    if checkpoint.is_tied:
        _check_tie(table, every, sizes, targets)
    tensors: dict[str, LazyTensor] = {}
    grown: dict[str, tuple[Dimension, ...]] = {}  # tensors of one signature share their dimensions: layers cost nothing
    for name, tensor in checkpoint.tensors.items():
        template = table.template(name)
        if template is not None:
            text = template.signature.text
            grown[text] = grown.get(text) or template.signature.grow(every)
            tensors[name] = _remap_tensor(table, template, tensor, grown[text], every, sizes, storage)
    if storage.dtype:
        config = {**config, _dtype_key(config): _LONG[storage.dtype]}
    return replace(checkpoint, config=config, tensors=tensors, lossy=(*checkpoint.lossy, *lossy, *against))


_LONG = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def _dtype_key(config: Mapping[str, Any]) -> str:
    return "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"


def _remap_tensor(
    table: Architecture,
    template: Template,
    tensor: LazyTensor,
    dimensions: tuple[Dimension, ...],
    maps: Mapping[str, AxisMap],
    sizes: Mapping[str, int],
    storage: Storage,
) -> LazyTensor:
    dtype = storage.dtype if storage.dtype and tensor.dtype in FLOATS else tensor.dtype
    axis, power = table.multiplied.get(template.name, ("", 0.0))
    constant = (sizes[axis] / maps[axis].new_size) ** power if power else 1.0
    if constant == 1.0 and dtype == tensor.dtype and all(dimension.is_identity for dimension in dimensions):
        return tensor
    gain = template.signature.normalises is not None
    offset = table.offset if gain else 0.0
    fill: Any = 1.0 - offset if gain else 0.0
    if template.name in table.computed:
        fill = table.computed[template.name](tensor.shape[-1], dimensions[-1].new_size)
    remapped = Remapped(tensor, dimensions, dtype, constant, offset, fill)
    if storage.promote and not storage.dtype and dtype in ("BF16", "F16") and not remapped.is_exact:
        return replace(remapped, dtype="F32")
    return remapped


def norm_ratios(table: Architecture, maps: Mapping[str, AxisMap]) -> dict[str, float]:
    """{template of a gain: by how much the mean square that its norm sees changes}.

    Raises PlanError where a LayerNorm would see another mean.
    """
    ratios = {}
    for template in table.templates:
        axis = template.signature.normalises
        if axis is None:
            continue
        axis_map = maps[axis]
        written = maps[template.signature.axes[0]]
        if not np.array_equal(axis_map.source, written.source):
            raise PlanError(f"{template.name}: a norm keeps every coordinate in its place, and these maps move some")
        if table.norm == "layer" and not _is_uniform(axis_map):
            raise PlanError(f"{template.name}: a LayerNorm passes only whole copies of one scale")
        ratios[template.name] = mean_square_ratio(axis_map)
    return ratios


def _is_uniform(axis_map: AxisMap) -> bool:
    """Whether every old coordinate has as many copies as every other, all of one scale, and nothing stands between."""
    counts = np.bincount(axis_map.source[~axis_map.gaps], minlength=axis_map.size)
    return not axis_map.gaps.any() and len(set(counts.tolist())) == 1 and len(set(axis_map.scale.tolist())) == 1


def grown_config(
    checkpoint: Checkpoint, targets: Mapping[str, int], ratios: Mapping[str, float]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the new config.json, what its one eps cannot serve exactly)."""
    table, config = checkpoint.architecture, dict(checkpoint.config)
    for name, axis in table.axes.items():
        if axis.key and targets[name] != checkpoint.sizes[name]:
            config[axis.key] = targets[name]
    for name, axis in table.axes.items():  # what was implied and would now imply something else is written out
        if axis.key and config.get(axis.key) is None and table.size(table.resolve(config), name) != targets[name]:
            config[axis.key] = targets[name]
    for ours, theirs in table.equal.items():
        if config.get(ours) is not None:
            config[ours] = config[theirs]
    for alias, native in table.aliases.items():
        if alias in config and config.get(native) is not None:
            config[alias] = config[native]
    change, exceptions = _eps(checkpoint, ratios)
    if table.eps and change != 1.0:
        config[table.eps] = float(table.value(checkpoint.resolved, table.eps)) * change
    return config, exceptions


def _eps(checkpoint: Checkpoint, ratios: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """(what the config's eps is multiplied by, which norms that does not serve)."""
    table = checkpoint.architecture
    present = {name: ratio for name, ratio in ratios.items() if checkpoint.has_any(name)}
    change = max(set(present.values()), key=list(present.values()).count, default=1.0)
    if table.eps is None:
        fixed = f"the norms' eps is fixed in the model's code and cannot be multiplied by {change:.4g}"
        return 1.0, () if abs(change - 1) < ENTIRE else (fixed,)
    eps = float(table.value(checkpoint.resolved, table.eps))
    return change, tuple(
        f"{name}: its norm would need an eps of {eps * ratio:.3g}; the config has only one, {eps * change:.3g}"
        for name, ratio in present.items()
        if abs(ratio / change - 1) > ENTIRE and eps * abs(ratio - change) > NEGLIGIBLE_EPS
    )


def _check_tie(
    table: Architecture, maps: Mapping[str, AxisMap], sizes: Mapping[str, int], targets: Mapping[str, int]
) -> None:
    """One tensor serves as embedding and head only where both would be multiplied by the same."""
    assert table.tie is not None
    templates = {template.name: template for template in table.templates}
    written = templates[table.tie.embedding].signature.axes[-1]
    axis, power = table.multiplied.get(table.tie.embedding, ("", 0.0))
    constant = (sizes[axis] / targets[axis]) ** power if power else 1.0
    embedding, head = maps[written].scale * constant, maps[table.tie.axis].share
    if not (
        np.array_equal(maps[written].source, maps[table.tie.axis].source) and np.allclose(embedding, head, rtol=ENTIRE)
    ):
        raise PlanError(
            f"{table.tie.head} is tied to {table.tie.embedding}, and these maps grow them apart; untie first"
        )


def parameters(checkpoint: Checkpoint) -> int:
    """How many numbers the checkpoint stores."""
    return sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
