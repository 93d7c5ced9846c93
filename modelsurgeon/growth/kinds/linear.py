"""Axes that pass nothing between two projections, such as attention's values: copies of any scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.inner import clamp_factor, is_clamped
from modelsurgeon.growth.kinds.kind import Kind, Maps, register
from modelsurgeon.maps.axis_map import AxisMap


@register
class Linear(Kind):
    word = "linear"
    grown_by = ("head-dim",)
    in_heads = True

    def scale(self, growth: Growth, count: np.ndarray) -> np.ndarray:
        """The factor that a clamp allows; without a clamp 1, or by the orthogonal rule sqrt(1 / count)."""
        if is_clamped(growth):
            return np.full(len(count), clamp_factor(growth))
        return np.ones(len(count)) if growth.rule == "exact" else np.sqrt(1 / count)

    def clamped(self, axis_map: AxisMap) -> tuple[np.ndarray, ...]:
        return (axis_map.scale,)

    def factors(self, growth: Growth, name: str, source: np.ndarray, maps: Maps) -> Iterator[np.ndarray]:
        """Those of all kinds, and the factor that a clamp allows, where the family can have one."""
        yield from super().factors(growth, name, source, maps)
        if growth.architecture.clip:
            yield np.full(len(source), clamp_factor(growth))
