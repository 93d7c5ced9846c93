"""What growth does to the eps of norms, and what one eps for many norms costs.

A norm divides by sqrt(variance + eps). Where a map multiplies the mean square of what the norm reads by a ratio, the
output stays the same (up to a factor that the gain takes) if eps is multiplied by that ratio, too. One key of the
config serves many norms, and no key reaches the eps of some: notes name what that costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.maps.signature import gain_factors, mean_square_ratio

ENTIRE = 1e-12  # a ratio nearer to 1 than this is 1: it comes from a few float64 operations
NEGLIGIBLE_EPS = 1e-9  # on a variance of 0.01 it moves a norm's output by 5e-8: a rounding


def norm_ratios(table: Architecture, maps: Mapping[str, AxisMap]) -> dict[str, float]:
    """{template of a gain: the ratio by which the mean square that its norm sees changes}.

    Raises PlanError where a norm would not pass the maps of what it reads and writes.
    """
    ratios: dict[str, float] = {}
    for name, signature in table.norms:
        assert signature.normalises is not None
        read = [maps[axis] for axis in signature.normalises.axes()]
        for before, after in zip(read, (maps[axis] for axis in signature.gains), strict=True):
            if not np.array_equal(before.behind_norm, after.source):
                raise PlanError(f"{name}: a norm keeps every coordinate in its place, and these maps move some")
            uniform = len({*before.counts.tolist()}) == len({*before.scale.tolist()}) == 1 and not before.gaps.any()
            if table.norm == "layer" and not uniform:
                raise PlanError(f"{name}: a LayerNorm passes only whole copies of one scale, and their mean")
            if table.norm != "layer" and before.means.any():
                raise PlanError(f"{name}: an RMSNorm does not take the mean away")
            if name in table.weightless and not np.allclose(gain_factors(before), after.scale, rtol=ENTIRE, atol=0):
                raise PlanError(f"{name}: a norm without weights, whose readers expect another scale")
        ratios[name] = prod(map(mean_square_ratio, read))
    return ratios


def eps_change(checkpoint: Checkpoint, ratios: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """(the factor of the config's eps, notes on norms that it does not serve)."""
    table, held = checkpoint.architecture, checkpoint.templates
    present = {name: ratio for name, ratio in ratios.items() if name in held or name in table.weightless}
    fixed = {name for name in present if table.eps is None or name in table.fixed_eps}
    free = [ratio for name, ratio in present.items() if name not in fixed]
    change = max(dict.fromkeys(free), key=free.count, default=1.0)
    off = [ratio for name, ratio in present.items() if name in fixed and abs(ratio - 1) > ENTIRE]
    lossy = [f"the norms' eps is fixed in the model's code and cannot be multiplied by {off[0]:.4g}"] if off else []
    if table.eps is None:
        return 1.0, tuple(lossy)
    eps = float(table.value(checkpoint.resolved, table.eps))
    lossy += [
        f"{name}: its norm would need an eps of {eps * ratio:.3g}; the config has only one, {eps * change:.3g}"
        for name, ratio in present.items()
        if name not in fixed and abs(ratio / change - 1) > ENTIRE and eps * abs(ratio - change) > NEGLIGIBLE_EPS
    ]
    return change, tuple(lossy)
