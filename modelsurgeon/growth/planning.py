"""Which map each axis gets, from the config that is there to the config that is wanted: a loop over the axes.

What an axis passes through decides which copies commute with it (`Axis.through`), so which kind makes its map; the rule
only decides how the factor is shared between its writers and its readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds import attention, experts, pointwise, residual
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import identity

Maps = Mapping[str, AxisMap]


def _fixed_map(growth: Growth, name: str, maps: Maps) -> AxisMap:
    size = growth.sizes[name]
    if growth.targets[name] != size:
        raise growth.refusal(name, growth.axis(name).why or "this axis does not grow", (size,))
    return identity(size)


KINDS: Mapping[str, Callable[[Growth, str, Maps], AxisMap]] = {
    "residual": residual.residual_map,
    "rank": residual.residual_map,
    "pointwise residual": residual.residual_map,
    "pointwise": lambda growth, name, maps: pointwise.pointwise_map(growth, name),
    "linear": lambda growth, name, maps: attention.value_map(growth, name),
    "heads": lambda growth, name, maps: attention.heads_map(growth, name),
    "inner": lambda growth, name, maps: attention.inner_map(growth, name),
    "normed": lambda growth, name, maps: attention.normed_map(growth, name, maps[str(growth.axis(name).follows)]),
    "angles": lambda growth, name, maps: attention.angles_map(growth, name),
    "experts": lambda growth, name, maps: experts.experts_map(growth, name),
    "choice": lambda growth, name, maps: experts.choice_map(maps[str(growth.axis(name).follows)]),
    "fixed": _fixed_map,
}


def plan_maps(growth: Growth) -> dict[str, AxisMap]:
    """{axis: its map}. Raises PlanError, naming the axis and the nearest sizes, where there is none."""
    maps: dict[str, AxisMap] = {}
    for name in sorted(growth.architecture.axes, key=lambda name: _turn(growth, name)):
        if growth.targets[name] < growth.sizes[name]:
            why = "" if growth.axis(name).key else ", and other sizes of the config make it so"
            raise growth.refusal(name, f"growth never takes away{why}", ())
        maps[name] = KINDS[growth.axis(name).through](growth, name, maps)
    return maps


def _turn(growth: Growth, name: str) -> int:
    """Planning order: independent axes, followers, outputs of weightless norms, what a tied head reads."""
    if growth.reads_tied(name):
        return 3
    if growth.weightless(name):
        return 2
    return int(growth.axis(name).follows is not None)
