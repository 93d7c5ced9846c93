"""The map of each axis, from the present config to the target.

The axis' kind makes its map; the rule only decides how writers and readers share the factor.
"""

from __future__ import annotations

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap


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
