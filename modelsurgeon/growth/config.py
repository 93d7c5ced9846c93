"""The config of a grown checkpoint: a function of the old one and of the maps, and of nothing else.

So a record of maps is enough to prove a result: what its config must say follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.architectures.config import assigned, lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError
from modelsurgeon.growth.commute import clipped_factors, rotation
from modelsurgeon.growth.eps import ENTIRE
from modelsurgeon.growth.kinds.experts import chosen_copies
from modelsurgeon.maps.axis_map import AxisMap


def grown_config(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], eps: float) -> dict[str, Any]:
    """The new config.json; `eps` is what the norms' eps is multiplied by."""
    table, config = checkpoint.architecture, dict(checkpoint.config)
    for key, value in _positions(table, checkpoint.resolved, maps).items():
        config = assigned(config, key, value)
    for name, axis in table.axes.items():
        if axis.key and not _same_size(maps[name]):
            config = assigned(config, axis.key, maps[name].new_size)
        if axis.active and axis.through == "experts":
            config = _times(config, table, axis.active, chosen_copies(table, maps, name))
    for name, axis in table.axes.items():  # what was implied and would now imply something else is written out
        if axis.key and lookup(config, axis.key) is None and _implied(table, config, name) != maps[name].new_size:
            config = assigned(config, axis.key, maps[name].new_size)
    if table.clip and lookup(config, table.clip) is not None:
        config = _clipped(config, table.clip, maps, table)
    if table.eps and abs(eps - 1) > ENTIRE:
        config = assigned(config, table.eps, float(table.value(checkpoint.resolved, table.eps)) * eps)
    for alias, native in table.aliases.items():
        if alias in config and lookup(config, native) is not None:
            config[alias] = lookup(config, native)
    for key, value in table.derived(config).items():
        config = assigned(config, key, value)
    return config


def _same_size(axis_map: AxisMap) -> bool:
    return axis_map.new_size == axis_map.size


def _implied(table: Architecture, config: Config, name: str) -> int | None:
    """The size that an absent key stands for; None where the config no longer implies one."""
    try:
        return table.size(table.resolve(config), name)
    except SourceError:
        return None


def _times(config: dict[str, Any], table: Architecture, key: str, count: int) -> dict[str, Any]:
    return config if count == 1 else assigned(config, key, int(table.value(config, key)) * count)


def _positions(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> dict[str, Any]:
    """What rotary positions need: factors of the nested pairs, or the share of coordinates that are rotated."""
    found = rotation(table, config, maps)
    if found is None or table.rotary is None:
        return {}
    rotary, axis_map = table.rotary, maps[table.rotary.axis]
    if found.kind == "kept":
        kept = _same_size(axis_map) or rotary.size_key or rotary.partial is None
        return {} if kept else rope.appended(config, found.rotated, axis_map.new_size)
    changed = rope.nested(config, found.rotated, found.times) if found.kind == "nested" else {}
    if rotary.size_key and found.times > 1:
        changed[rotary.size_key] = found.rotated * found.times
    return changed


def _clipped(config: dict[str, Any], key: str, maps: Mapping[str, AxisMap], table: Architecture) -> dict[str, Any]:
    (factor,) = clipped_factors(table, maps)
    return config if factor == 1 else assigned(config, key, float(lookup(config, key)) * float(factor))
