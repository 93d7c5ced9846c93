"""Which maps commute with what an axis passes through: the reasons why a grown model would be another function.

design: growth changes nothing so long as what stands between writer and reader commutes with E. Norms are checked where
their gains are grown (`signature.py`, `remap.py`); everything else is checked here, for planned maps and for maps on
record alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelsurgeon.architecture import Architecture, Config
from modelsurgeon.axis_map import AxisMap, nested_pairs, repeated_pairs
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import NESTING_ROPE_TYPES, rope_type, rotated_size, width_gain

GAIN_TOLERANCE = 1e-14  # a power of a ratio of two integers, in float64


def reasons_against(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> tuple[str, ...]:
    """Why growth by these maps is only approximate; empty where it is the same function.

    Raises PlanError, naming the axis, for maps that are not even near to it.
    """
    reasons: list[str] = []
    for name, axis_map in maps.items():
        through = table.axes[name].through
        if axis_map.is_identity:
            continue
        if through == "fixed":
            raise PlanError(f"axis {name!r} does not grow")
        if through in ("pointwise", "heads") and not np.all(axis_map.scale == 1):
            raise PlanError(f"axis {name!r}: only copies of scale 1 pass through {through}")
        wanted = width_gain(table, config, name, axis_map.size, axis_map.new_size)
        if abs(axis_map.gain - wanted) > GAIN_TOLERANCE * wanted:
            raise PlanError(f"axis {name!r}: D E is {axis_map.gain:.6g} I, and must be {wanted:.6g} I at this width")
        if through == "inner" and table.rotary:
            reasons += _against_rotation(table, config, name, axis_map)
        if through == "angles" and not np.array_equal(
            axis_map.source, nested_pairs(axis_map.size, axis_map.new_size // axis_map.size, "half")
        ):
            raise PlanError(f"axis {name!r}: the table's columns do not follow the rotary pairs")
    return tuple(reasons)


def _against_rotation(table: Architecture, config: Config, name: str, axis_map: AxisMap) -> list[str]:
    assert table.rotary is not None
    if rope_type(config) not in NESTING_ROPE_TYPES:
        raise PlanError(f"axis {name!r}: rope type {rope_type(config)!r} changes with the head's size")
    rotated, layout = rotated_size(table, config, axis_map.size), table.rotary.layout
    count = axis_map.new_size // axis_map.size
    nested, repeated = nested_pairs(rotated, count, layout), repeated_pairs(rotated, count, layout)
    turned, still = axis_map.source[: len(nested)], axis_map.source[len(nested) :]
    if np.any(still < rotated):
        raise PlanError(f"axis {name!r}: a coordinate that turns is copied to where none does")
    if not all(_is_even(factor[: len(nested)], layout) for factor in (axis_map.scale, axis_map.share)):
        raise PlanError(f"axis {name!r}: the two coordinates of a rotary pair are multiplied by different factors")
    if np.array_equal(turned, nested):
        return []
    if np.array_equal(turned, repeated):
        return ["approximate: repeated rotary pairs turn at other frequencies (--rope nested keeps them)"]
    raise PlanError(f"axis {name!r}: rotary pairs are neither nested nor repeated")


def _is_even(factor: np.ndarray, layout: str) -> bool:
    """Whether both coordinates of each pair have one factor: a rotation mixes them."""
    pairs = factor.reshape(2, -1) if layout == "half" else factor.reshape(-1, 2).T
    return bool(np.array_equal(pairs[0], pairs[1]))
