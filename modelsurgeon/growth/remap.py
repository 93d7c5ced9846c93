"""Apply axis maps to a checkpoint, lazily: to every tensor by its signature, and to every config key that follows.

The new config follows from the old one and the maps alone, so a record of maps proves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Config, Template
from modelsurgeon.architectures.config import assigned, lookup
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.growth.eps import ENTIRE, eps_change, norm_ratios
from modelsurgeon.growth.growth import written_by_embedding
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.growth.planning import clipped_factors, reasons_against
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import identity
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, FLOATS
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.remapped import Remapped

Dimensions = tuple[dimension.Dimension, ...]


@dataclass(frozen=True)
class Storage:
    """How numbers are stored."""

    dtype: str | None = None  # the dtype of every float tensor; None: as it was
    promote: bool = False  # whether to store as float32 what 16 bits would round
    noise: Noise | None = None  # what makes copies differ; None: nothing does


def effects(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> tuple[float, tuple[str, ...]]:
    """(the factor of the config's eps, why growth by the maps of all axes is another function; empty where it is not).

    Raises PlanError where the maps do not commute with the model.
    """
    against = reasons_against(checkpoint.architecture, checkpoint.resolved, maps)
    eps, lossy = eps_change(checkpoint, norm_ratios(checkpoint.architecture, maps))
    return eps, (*lossy, *against)


def _of_every_axis(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> dict[str, AxisMap]:
    """{axis: its map}, the identity where none is given. Raises PlanError for a map of another size."""
    sizes = checkpoint.sizes
    for axis, axis_map in maps.items():
        if sizes.get(axis) != axis_map.size:
            raise PlanError(f"axis {axis!r} has {sizes.get(axis)} coordinates; the map grows {axis_map.size}")
    return {axis: maps.get(axis) or identity(size) for axis, size in sizes.items()}


def remap(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], storage: Storage = Storage()) -> Checkpoint:
    """The checkpoint with every axis of `maps` grown. Raises PlanError where the maps do not commute with the model."""
    table, every = checkpoint.architecture, _of_every_axis(checkpoint, maps)
    targets = {axis: axis_map.new_size for axis, axis_map in every.items()}
    eps, lossy = effects(checkpoint, every)
    config = grown_config(checkpoint, every, eps)
    if table.sizes(table.resolve(config)) != targets:
        raise PlanError(f"no config of this model type has the sizes {targets}")
    if table.projected and set(table.projected) <= set(table.axes):
        (one, size), (other, other_size) = ((table.axes[axis].key, targets[axis]) for axis in table.projected)
        if one != other and size == other_size:
            raise PlanError(
                f"{one} and {other} would both be {size}: transformers then leaves out the projection "
                "between them; choose another size for one"
            )
    if checkpoint.is_tied:
        _check_tie(checkpoint, every)
    tensors = GrownTensors(checkpoint, every, storage).grown()
    if storage.dtype:
        name = next(name for name, short in DTYPE_NAMES.items() if short == storage.dtype)
        config = {**config, dtype_key(config): name}
    return replace(checkpoint, config=config, tensors=tensors, lossy=(*checkpoint.lossy, *lossy))


def grown_config(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], eps: float) -> dict[str, Any]:
    """The new config.json, in which the norms' eps is multiplied by `eps`."""
    table, config = checkpoint.architecture, dict(checkpoint.config)
    for name, axis in table.axes.items():
        for key, value in kind_of(axis).settings(table, checkpoint.resolved, maps, name).items():
            config = assigned(config, key, value)
    for name, axis in table.axes.items():
        if axis.key and maps[name].new_size != maps[name].size:
            config = assigned(config, axis.key, maps[name].new_size)
    for name, axis in table.axes.items():  # spell out what would now imply another size
        if axis.key and lookup(config, axis.key) is None and _implied(table, config, name) != maps[name].new_size:
            config = assigned(config, axis.key, maps[name].new_size)
    if table.clip and lookup(config, table.clip) is not None:
        (factor,) = clipped_factors(table, maps)
        if factor != 1:
            config = assigned(config, table.clip, float(lookup(config, table.clip)) * float(factor))
    if table.eps and abs(eps - 1) > ENTIRE:
        config = assigned(config, table.eps, float(table.value(checkpoint.resolved, table.eps)) * eps)
    for alias, native in table.aliases.items():
        if alias in config and lookup(config, native) is not None:
            config[alias] = lookup(config, native)
    for key, value in table.derived(config).items():
        config = assigned(config, key, value)
    return config


def _implied(table: Architecture, config: Config, name: str) -> int | None:
    """The size that an absent key implies; None where the config no longer implies one."""
    try:
        return table.size(table.resolve(config), name)
    except SourceError:
        return None


def dtype_key(config: Mapping[str, Any]) -> str:
    """The config key of the dtype that tensors are stored in."""
    return "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"


@dataclass
class GrownTensors:
    """The tensors of one remap."""

    checkpoint: Checkpoint
    maps: Mapping[str, AxisMap]
    storage: Storage

    @cached_property
    def targets(self) -> dict[str, int]:
        """{axis: new size}."""
        return {axis: axis_map.new_size for axis, axis_map in self.maps.items()}

    def grown(self) -> dict[str, LazyTensor]:
        """{name on disk: lazy tensor}; an axis that names are spread over makes further names."""
        tensors: dict[str, LazyTensor] = {}
        dimensions: dict[str, Dimensions] = {}  # tensors of one signature share them: layers cost nothing
        for name, tensor in self.checkpoint.tensors.items():
            template = self.checkpoint.architecture.template(name)
            if template is None:
                continue
            text = template.signature.text
            dimensions[text] = dimensions.get(text) or template.signature.grow(self.maps)
            remapped = self.remapped(template, tensor, dimensions[text])
            for other, copied in self._names(template, name):
                tensors[other] = self._noisy(template, other, remapped) if copied else zeros(remapped)
        return tensors

    def _names(self, template: Template, name: str) -> list[tuple[str, bool]]:
        """(name on disk, whether it copies this tensor) of every tensor that this one becomes."""
        table = self.checkpoint.architecture
        found = [(name, True)]
        for axis in table.spread(template):
            axis_map, number = self.maps[axis], table.numbers(template, name)[axis]
            if axis_map.is_identity:
                continue
            own = [(int(j), True) for j in np.flatnonzero(axis_map.source == number)]
            empty = [(int(j), False) for j in np.flatnonzero(axis_map.gaps)] if number == 0 else []
            at = template.placeholders.index(axis)
            found = [(_renumbered(n, at, j), was and here) for n, was in found for j, here in [*own, *empty]]
        return found

    def remapped(self, template: Template, tensor: LazyTensor, dimensions: Dimensions) -> LazyTensor:
        """One tensor, grown."""
        table, storage = self.checkpoint.architecture, self.storage
        dtype = storage.dtype if storage.dtype and tensor.dtype in FLOATS else tensor.dtype
        constant = multiplier(table, self.checkpoint.resolved, template.name, self.checkpoint.sizes, self.targets)
        if constant == 1.0 and dtype == tensor.dtype and all(dimension.is_identity for dimension in dimensions):
            return tensor
        gain = template.signature.normalises is not None
        offset = table.offset if gain else 0.0
        fill: Any = table.fills.get(template.name, 1.0 - offset if gain else 0.0)
        if template.name in table.computed:
            fill = table.computed[template.name](tensor.shape[-1], dimensions[-1].new_size)
        remapped = Remapped(tensor, dimensions, dtype, constant, offset, fill, free=gain)  # a norm's gaps are zero
        if storage.promote and not storage.dtype and dtype in ("BF16", "F16") and not remapped.is_exact:
            return replace(remapped, dtype="F32")
        return remapped

    def _noisy(self, template: Template, name: str, tensor: LazyTensor) -> LazyTensor:
        """A grown tensor whose copies differ, where they are parts of a sum."""
        noise, signature = self.storage.noise, template.signature
        if not noise or signature.normalises or tensor.dtype not in FLOATS:
            return tensor
        # queries' rows, which are parts of q.k, before the columns that read the stream
        turns = sorted(range(len(tensor.shape)), key=lambda axis: signature.dimensions[axis][1] == "readers")
        return tensor.with_noise(noise.of(name), tuple(turns))


def _renumbered(name: str, at: int, number: int) -> str:
    """A name on disk with another number in the place of its placeholder number `at`."""
    span = list(re.finditer(r"(?<=\.)\d+(?=\.)", name))[at].span()
    return f"{name[: span[0]]}{number}{name[span[1] :]}"


def zeros(tensor: LazyTensor) -> LazyTensor:
    """Zeros in this tensor's shape and dtype."""
    first, *rest = (dimension.ungrown(size) for size in tensor.shape)
    return Remapped(tensor, (first.emptied, *rest), tensor.dtype)


def _check_tie(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> None:
    """Raise PlanError unless one tensor can serve as embedding and head: both must be multiplied by one factor."""
    table, tie = checkpoint.architecture, checkpoint.architecture.tie
    assert tie is not None
    written, read = maps[written_by_embedding(table)], maps[tie.axis]
    targets = {axis: axis_map.new_size for axis, axis_map in maps.items()}
    constant = multiplier(table, checkpoint.resolved, tie.embedding, checkpoint.sizes, targets)
    same = np.array_equal(written.behind_norm, read.source)
    copied = read.copied  # the norm before the head writes zero elsewhere, where any share is right
    if not (same and np.allclose(written.scale[copied] * constant, read.share[copied], rtol=ENTIRE, atol=0)):
        raise PlanError(f"{tie.head} is tied to {tie.embedding}, and these maps grow them apart; untie first")
