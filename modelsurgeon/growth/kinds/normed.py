"""Axes of queries and keys before a norm of their own: each follows the axis behind its norm.

Coordinates have the places that they have behind the norm, and their mean square changes as the config's eps does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.kind import Kind, Maps, kind_of, register
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import MEAN, AxisMap


@register
class Normed(Kind):
    word = "normed"
    passes_means = True
    in_heads = True

    def map(self, growth: Growth, name: str, maps: Maps) -> AxisMap:
        """Stretched so that this norm needs the eps that all other norms need, even where the leader does not grow."""
        leader = str(growth.axis(name).follows)
        source = _source(growth, maps[leader])
        scale = _stretch(maps[leader], source, 1.0 if kind_of(growth.axis(leader)).is_head else _eps_ratio(growth))
        return orders.gathered(growth.sizes[name], source, scale, 1 / (orders.ranks(source)[1] * scale), 1.0)

    def orders(self, growth: Growth, name: str, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
        """The one order that leaves each coordinate in its place."""
        yield "as behind its norm", _source(growth, maps[str(growth.axis(name).follows)])

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """Stretched by the ratio of the two configs' eps, not stretched, or copied."""
        table, leader = growth.architecture, maps[str(growth.axis(name).follows)]
        eps = [table.value(config, str(table.eps)) for config in (growth.config, growth.target)]
        known = table.eps and all(isinstance(value, float) and value > 0 for value in eps)
        for ratio in dict.fromkeys((eps[1] / eps[0] if known else 1.0, 1.0)):
            yield _stretch(leader, source, ratio)
        yield np.ones(len(source))


def _source(growth: Growth, leader: AxisMap) -> np.ndarray:
    return np.where(leader.gaps, MEAN, leader.source) if growth.architecture.norm == "layer" else leader.source


def _stretch(leader: AxisMap, source: np.ndarray, ratio: float) -> np.ndarray:
    """[m] float64: the factors at which the mean square changes by this ratio."""
    return np.sqrt(ratio * leader.new_size / (leader.size * orders.ranks(source)[1]))


def _eps_ratio(growth: Growth) -> float:
    """The ratio by which the mean square of the residual changes, and so the eps of the config."""
    if growth.architecture.eps is None:
        return 1.0
    name = next(n for n, axis in growth.architecture.axes.items() if kind_of(axis).spans_layers)
    size, target = growth.sizes[name], growth.targets[name]
    return size / target * (target // size if growth.rule == "exact" else 1)
