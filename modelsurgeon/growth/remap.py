"""Apply axis maps to a checkpoint: every tensor by its signature, every config key that follows.

The result is lazy. `lossy` lists what cannot be exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.architectures.scalars import multiplier
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.commute import reasons_against
from modelsurgeon.growth.eps import ENTIRE, eps_change, norm_ratios
from modelsurgeon.growth.grown_config import grown_config
from modelsurgeon.growth.growth import written_by_embedding
from modelsurgeon.maps import dimension
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.maps.orders import identity
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, FLOATS
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.remapped import Remapped


@dataclass(frozen=True)
class Storage:
    """How numbers are stored.

    dtype    what every float tensor is stored in; None: as it was
    promote  store as float32 what 16 bits would round
    noise    what makes copies differ; None: nothing does
    """

    dtype: str | None = None
    promote: bool = False
    noise: Noise | None = None


def losses(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> tuple[str, ...]:
    """Why growth by these maps would be another function; empty where it would not.

    Raises PlanError where the maps do not commute with the model.
    """
    table, every = checkpoint.architecture, _of_every_axis(checkpoint, maps)
    lossy = eps_change(checkpoint, norm_ratios(table, every))[1]
    return (*lossy, *reasons_against(table, checkpoint.resolved, every))


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
    against = reasons_against(table, checkpoint.resolved, every)
    eps, lossy = eps_change(checkpoint, norm_ratios(table, every))
    config = grown_config(checkpoint, every, eps)
    if table.sizes(table.resolve(config)) != targets:
        raise PlanError(f"no config of this model type has the sizes {targets}")
    _check_projection(table, targets)
    if checkpoint.is_tied:
        _check_tie(checkpoint, every)
    tensors = GrownTensors(checkpoint, every, storage).grown()
    if storage.dtype:
        name = next(name for name, short in DTYPE_NAMES.items() if short == storage.dtype)
        config = {**config, dtype_key(config): name}
    return replace(checkpoint, config=config, tensors=tensors, lossy=(*checkpoint.lossy, *lossy, *against))


def dtype_key(config: Mapping[str, Any]) -> str:
    """The config key of the dtype that tensors are stored in."""
    return "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"


@dataclass
class GrownTensors:
    """The tensors of one remap. Those of one signature share their dimensions: layers cost nothing."""

    checkpoint: Checkpoint
    maps: Mapping[str, AxisMap]
    storage: Storage
    dimensions: dict[str, tuple[Dimension, ...]] = field(default_factory=dict)

    @cached_property
    def targets(self) -> dict[str, int]:
        """{axis: new size}."""
        return {axis: axis_map.new_size for axis, axis_map in self.maps.items()}

    def grown(self) -> dict[str, LazyTensor]:
        """{name on disk: lazy tensor}; an axis that names are spread over makes further names."""
        table = self.checkpoint.architecture
        tensors: dict[str, LazyTensor] = {}
        for name, tensor in self.checkpoint.tensors.items():
            template = table.template(name)
            if template is None:
                continue
            text = template.signature.text
            self.dimensions[text] = self.dimensions.get(text) or template.signature.grow(self.maps)
            remapped = self.remapped(template, tensor, self.dimensions[text])
            for other, copied in self._names(template, name):
                tensors[other] = self.disturbed(template, other, remapped) if copied else zeros(remapped)
        return tensors

    def _names(self, template: Template, name: str) -> list[tuple[str, bool]]:
        """(name on disk, whether it copies this tensor) of every tensor that it becomes."""
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

    def remapped(self, template: Template, tensor: LazyTensor, dimensions: tuple[Dimension, ...]) -> LazyTensor:
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

    def disturbed(self, template: Template, name: str, tensor: LazyTensor) -> LazyTensor:
        """A grown tensor whose copies differ, where they are parts of a sum."""
        noise, signature = self.storage.noise, template.signature
        if not noise or signature.normalises or tensor.dtype not in FLOATS:
            return tensor
        # queries' rows, which are parts of q.k, before the columns that read the stream
        turns = sorted(range(len(tensor.shape)), key=lambda axis: signature.dimensions[axis][1] == "readers")
        return tensor.with_noise(noise.of(name), tuple(turns))


COMPONENT = re.compile(r"(?<=\.)\d+(?=\.)")


def _renumbered(name: str, at: int, number: int) -> str:
    """A name on disk with another number in the place of its placeholder number `at`."""
    span = list(COMPONENT.finditer(name))[at].span()
    return f"{name[: span[0]]}{number}{name[span[1] :]}"


def zeros(tensor: LazyTensor) -> LazyTensor:
    """A tensor of this shape and dtype that copies none."""
    first, *rest = (dimension.ungrown(size) for size in tensor.shape)
    return Remapped(tensor, (first.emptied, *rest), tensor.dtype)


def _check_projection(table: Architecture, targets: Mapping[str, int]) -> None:
    """Raise PlanError where two sizes would become equal, so that the library leaves out what projects between them."""
    for axis, other in [table.projected] if table.projected and set(table.projected) <= set(table.axes) else []:
        keys = table.axes[axis].key, table.axes[other].key
        if keys[0] != keys[1] and targets[axis] == targets[other]:
            raise PlanError(
                f"{keys[0]} and {keys[1]} would both be {targets[axis]}: transformers then leaves out the projection "
                "between them; choose another size for one"
            )


def _check_tie(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> None:
    """Raise PlanError unless one tensor can serve as embedding and head: both must be multiplied by the same."""
    table = checkpoint.architecture
    assert table.tie is not None
    written, read = maps[written_by_embedding(table)], maps[table.tie.axis]
    targets = {axis: axis_map.new_size for axis, axis_map in maps.items()}
    constant = multiplier(table, checkpoint.resolved, table.tie.embedding, checkpoint.sizes, targets)
    same = np.array_equal(written.behind_norm, read.source)
    kept = read.copied  # what the norm before the head leaves at zero is read with anything
    if not (same and np.allclose(written.scale[kept] * constant, read.share[kept], rtol=ENTIRE, atol=0)):
        raise PlanError(
            f"{table.tie.head} is tied to {table.tie.embedding}, and these maps grow them apart; untie first"
        )
