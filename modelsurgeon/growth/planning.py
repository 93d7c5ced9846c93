"""Which map each axis gets, from the config that is there to the config that is wanted: a loop over the axes.

The axis' kind makes its map; the rule only decides how the factor is shared between its writers and its readers.
"""

from __future__ import annotations

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap


def plan_maps(growth: Growth) -> dict[str, AxisMap]:
    """{axis: its map}. Raises PlanError, naming the axis and the nearest sizes, where there is none."""
    maps: dict[str, AxisMap] = {}
    for name in sorted(growth.architecture.axes, key=lambda name: _turn(growth, name)):
        if growth.targets[name] < growth.sizes[name]:
            why = "" if growth.axis(name).key else ", and other sizes of the config make it so"
            raise growth.refusal(name, f"growth never takes away{why}", ())
        maps[name] = kind_of(growth.axis(name)).map(growth, name, maps)
    return maps


def _turn(growth: Growth, name: str) -> int:
    """Planning order: independent axes, followers, outputs of weightless norms, what a tied head reads."""
    if growth.reads_tied(name):
        return 3
    if growth.weightless(name):
        return 2
    return int(growth.axis(name).follows is not None)
