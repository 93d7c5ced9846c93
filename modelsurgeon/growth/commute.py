"""Which maps commute with what an axis passes through: the reasons why a grown model would be another function.

Growth changes nothing so long as what stands between writer and reader commutes with E. Norms are checked in
`eps.py`; everything else is checked here, for planned maps and for maps on record alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.architecture import Architecture, Config
from modelsurgeon.architectures.config import lookup
from modelsurgeon.architectures.scalars import width_gain
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.kinds import heads
from modelsurgeon.growth.kinds.experts import check_experts
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.orders import nested_pairs, repeated_pairs

GAIN_TOLERANCE = 1e-14  # a power of a ratio of two integers, in float64


@dataclass(frozen=True)
class Rotation:
    """How the rotated coordinates of an axis grew.

    kind     "nested", "repeated", or "kept" (plain ones were added, if any)
    rotated  how many there were
    times    how many times as many there are
    """

    kind: str
    rotated: int
    times: int


def reasons_against(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> tuple[str, ...]:
    """Why growth by these maps is only approximate; empty where it is the same function.

    Raises PlanError, naming the axis, for maps that are not even near to it.
    """
    sizes = {name: axis_map.size for name, axis_map in maps.items()}
    targets = {name: axis_map.new_size for name, axis_map in maps.items()}
    for name, axis_map in maps.items():
        axis = table.axes[name]
        wanted = width_gain(table, config, name, sizes, targets)
        if abs(axis_map.gain - wanted) > GAIN_TOLERANCE * wanted:
            raise PlanError(f"axis {name!r}: D E is {axis_map.gain:.6g} I, and must be {wanted:.6g} I at this width")
        if axis_map.is_identity:
            continue
        if axis.through == "fixed":
            raise PlanError(f"axis {name!r} does not grow")
        plain = ("pointwise", "heads", "experts", "choice", "angles", "pointwise residual")
        if axis.through in plain and not np.all(axis_map.scale[~axis_map.gaps] == 1):
            raise PlanError(f"axis {name!r}: only copies of scale 1 pass through {axis.through}")
        if axis_map.means.any() and axis.through not in ("residual", "rank", "normed"):
            raise PlanError(f"axis {name!r}: a mean does not pass through {axis.through}")
        if axis.through == "angles" and not np.array_equal(
            axis_map.source, nested_pairs(axis_map.size, axis_map.new_size // axis_map.size, "half")
        ):
            raise PlanError(f"axis {name!r}: the table's columns do not follow the rotary pairs")
    _check_heads(table, config, maps)
    check_experts(table, config, maps)
    _check_clip(table, config, maps)
    return _against_rotation(table, config, maps)


def _check_heads(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> None:
    """Every copy of a query head uses a copy of the key-value head that its source used, and has its ALiBi slope."""
    for name, axis in table.axes.items():
        axis_map = maps[name]
        if axis.through != "heads" or axis_map.is_identity:
            continue
        if axis.slopes:
            try:
                heads.check_slopes(
                    axis_map.source, axis.slopes(config, axis_map.size), axis.slopes(config, axis_map.new_size)
                )
            except heads.NoHeadsError as error:
                raise PlanError(f"axis {name!r}: {error.reason}") from None
    for name, axis in table.axes.items():
        if axis.through != "heads" or axis.follows is None:
            continue
        queries, keys = maps[axis.follows], maps[name]
        if queries.new_size % keys.new_size:
            raise PlanError(f"axis {name!r}: {queries.new_size} query heads cannot share {keys.new_size}")
        kept = np.flatnonzero(queries.copied)
        used = keys.source[kept // max(1, queries.new_size // keys.new_size)]
        if not np.array_equal(used, queries.source[kept] // max(1, queries.size // keys.size)):
            raise PlanError(f"axis {axis.follows!r}: a copy of a query head uses another key-value head")


def _check_clip(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> None:
    if not table.clip or lookup(config, table.clip) is None:
        return
    factors = {float(factor) for factor in clipped_factors(table, maps)}
    if len(factors) > 1:
        raise PlanError(f"{table.clip} clamps queries, keys and values: all must be multiplied by the same")


def clipped_factors(table: Architecture, maps: Mapping[str, AxisMap]) -> np.ndarray:
    """The distinct factors of what a clamp on queries, keys and values sees."""
    found = [np.ones(0)]
    for name, axis in table.axes.items():
        if axis.through in ("inner", "linear"):
            sides = [maps[name].scale] if axis.through == "linear" else [maps[name].scale, maps[name].share]
            found += [side[maps[name].copied] for side in sides]
    return np.unique(np.concatenate(found))


def rotation(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> Rotation | None:
    """How the rotated axis grew; None where nothing is rotated. Raises PlanError for maps that mix pairs up."""
    rotary = table.rotary
    if rotary is None:
        return None
    name, axis_map = rotary.axis, maps[rotary.axis]
    rotated, layout = rope.rotated_size(config, axis_map.size, rotary.partial, rotary.size_key), rotary.pairs(config)
    count = axis_map.new_size // axis_map.size
    found = None
    for kind, turned, times in (
        ("kept", np.arange(rotated), 1),
        ("nested", nested_pairs(rotated, count, layout), count),
        ("repeated", repeated_pairs(rotated, count, layout), count),
    ):
        still = axis_map.source[len(turned) :]
        if np.array_equal(axis_map.source[: len(turned)], turned) and not np.any((still >= 0) & (still < rotated)):
            found = Rotation(kind, rotated, times)
            break
    if found is None:
        raise PlanError(f"axis {name!r}: rotary pairs are neither nested nor repeated")
    turned_size = found.rotated * found.times
    if not all(_is_even(factor[:turned_size], layout) for factor in (axis_map.scale, axis_map.share)):
        raise PlanError(f"axis {name!r}: the two coordinates of a rotary pair are multiplied by different factors")
    partly = rotary.partial is not None or rotary.size_key is not None
    if found.kind == "kept" and axis_map.new_size != axis_map.size and not partly:
        raise PlanError(f"axis {name!r}: this family rotates the whole of it, and plain coordinates were added")
    return found


def _against_rotation(table: Architecture, config: Config, maps: Mapping[str, AxisMap]) -> tuple[str, ...]:
    found = rotation(table, config, maps)
    if found is None or found.kind == "kept":
        return ()
    reason = rope.reasons_against_nesting(config)
    if reason:
        raise PlanError(f"axis {table.rotary.axis!r}: {reason}" if table.rotary else reason)
    if found.kind == "repeated":
        return ("approximate: repeated rotary pairs turn at other frequencies (--rope nested keeps them)",)
    return ()


def _is_even(factor: np.ndarray, layout: str) -> bool:
    """Whether both coordinates of each pair have one factor: a rotation mixes them."""
    pairs = factor.reshape(2, -1) if layout == "half" else factor.reshape(-1, 2).T
    return bool(np.array_equal(pairs[0], pairs[1]))
