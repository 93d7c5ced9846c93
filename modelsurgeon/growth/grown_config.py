"""The config of a grown checkpoint follows from the old one and the maps alone, so a record of maps proves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.architectures.config import assigned, lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError
from modelsurgeon.growth.eps import ENTIRE
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.growth.planning import clipped_factors
from modelsurgeon.maps.axis_map import AxisMap


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
