"""The maps of all axes: planned from the present config to the target, and checked, planned or on record.

The axis' kind makes its map; the rule only decides how writers and readers share the factor. Growth changes nothing so
long as what is between writer and reader commutes with E: `eps.py` checks norms, the kinds check all else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.scalars import width_gain
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap

GAIN_TOLERANCE = 1e-14  # a power of a ratio of two integers, in float64


def plan_maps(growth: Growth) -> dict[str, AxisMap]:
    """{axis: its map}. Raises PlanError, naming the axis and the nearest sizes, where there is none."""

    def turn(name: str) -> int:  # independent axes, followers, outputs of weightless norms, what a tied head reads
        if growth.reads_tied(name):
            return 3
        return 2 if growth.weightless(name) else int(growth.axis(name).follows is not None)

    maps: dict[str, AxisMap] = {}
    for name in sorted(growth.architecture.axes, key=turn):
        if growth.targets[name] < growth.sizes[name]:
            why = "" if growth.axis(name).key else ", and other sizes of the config make it so"
            raise growth.refusal(name, f"growth never takes away{why}", ())
        maps[name] = kind_of(growth.axis(name)).map(growth, name, maps)
    return maps


def reasons_against(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> tuple[str, ...]:
    """Why growth by these maps is only approximate; empty where it is the same function.

    Raises PlanError, naming the axis, for maps that are not even near to it.
    """
    sizes = {name: axis_map.size for name, axis_map in maps.items()}
    targets = {name: axis_map.new_size for name, axis_map in maps.items()}
    kinds = {name: kind_of(axis) for name, axis in table.axes.items()}
    for name, axis_map in maps.items():
        wanted = width_gain(table, config, name, sizes, targets)
        if abs(axis_map.gain - wanted) > GAIN_TOLERANCE * wanted:
            raise PlanError(f"axis {name!r}: D E is {axis_map.gain:.6g} I, and must be {wanted:.6g} I at this width")
        if not axis_map.is_identity:
            kinds[name].check(name, axis_map)
    reasons = [reason for name, kind in kinds.items() for reason in kind.reasons_against(table, config, maps, name)]
    if table.clip and lookup(config, table.clip) is not None and len(clipped_factors(table, maps)) > 1:
        raise PlanError(f"{table.clip} clamps queries, keys and values: all must be multiplied by one factor")
    return tuple(reasons)


def clipped_factors(table: Architecture, maps: Mapping[str, AxisMap]) -> np.ndarray:
    """The distinct factors by which these maps multiply the queries, keys and values that a clamp bounds."""
    sides = [(maps[name], side) for name, axis in table.axes.items() for side in kind_of(axis).clamped(maps[name])]
    return np.unique(np.concatenate([np.ones(0), *(side[axis_map.copied] for axis_map, side in sides)]))
