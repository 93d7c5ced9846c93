"""Axis maps that break a law cannot be built, and records that say something impossible cannot be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelsurgeon.errors import PlanError
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import LAW_TOLERANCE, MEAN, AxisMap

# --- illegal maps cannot be built ------------------------------------------------------------------------------------


def broken(grown, name, at, value):
    vector = getattr(grown, name).copy()
    vector[at] = value
    return lambda: replace(grown, **{name: vector})


GOOD = orders.gathered(4, orders.nested_pairs(4, 2, "half"), np.ones(8), np.ones(8), 1.0)
TAILED = orders.gathered(4, np.r_[np.arange(4), MEAN], np.ones(5), np.ones(5), 1.0)
ILLEGAL = {
    "a share x 1.01": (broken(GOOD, "share", 0, 1.01), r"breaks D E = 1 I by 1\.0e-02"),
    "a scale x 1.01": (broken(GOOD, "scale", 0, 1.01), r"breaks D E = 1 I by 1\.0e-02"),
    "a share off by the least that is more than rounding": (
        broken(GOOD, "share", 0, 1 + 2 * LAW_TOLERANCE), "breaks D E = 1 I"),
    "another gain": (lambda: replace(GOOD, gain=2.0), "breaks D E = 2 I"),
    "a gain that is no number": (lambda: replace(GOOD, gain=float("nan")), "breaks D E = nan I|not finite"),
    "a source past the end": (broken(GOOD, "source", 0, 4), r"outside of 0\.\.3"),
    "a source before the mean": (broken(GOOD, "source", 0, MEAN - 1), r"outside of 0\.\.3"),
    "a share where a mean stands": (
        broken(TAILED, "share", 4, 0.5), "a factor to a coordinate that copies nothing"),
    "a mean in the place of the only copy": (broken(TAILED, "source", 0, MEAN), "a factor to a coordinate that copies"),
    "a mean of infinite weight": (broken(TAILED, "scale", 4, np.inf), "not finite"),
    "a mean that no scale makes up for": (
        lambda: orders.gathered(2, np.array([0, MEAN]), np.ones(2), np.ones(2), 1.0), "breaks D E = 1 I by 1"),
    "a coordinate that nothing copies": (broken(GOOD, "source", 0, 1), "breaks D E"),
    "a factor in a gap": (broken(GOOD, "scale", 1, 0.5), "a factor to a coordinate that copies nothing"),
    "a share in a gap": (broken(GOOD, "share", 1, 0.5), "a factor to a coordinate that copies nothing"),
    "an infinite scale": (broken(GOOD, "scale", 0, np.inf), "not finite"),
    "a share that is no number": (broken(GOOD, "share", 0, np.nan), "not finite"),
    "vectors of different lengths": (lambda: replace(GOOD, scale=np.ones(7)), "of one length"),
    "a split among neither": (lambda: replace(GOOD, split="both"), "among its readers or its writers, not 'both'"),
    "shares that do not sum to one": (lambda: orders.copies(3, 2, 1.0, (0.5, 0.25)), "breaks D E"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", ILLEGAL)
def test_a_map_cannot_have(mistake):
    build, message = ILLEGAL[mistake]
    with pytest.raises(PlanError, match=message):
        build()


def test_a_mean_may_weigh_anything():
    for scale in (0.0, 3.0):
        assert replace(TAILED, scale=np.r_[np.ones(4), scale]).dense()[0][4].tolist() == [scale / 4] * 4


RECORD = GOOD.to_json()
UNREADABLE = {
    "no source": {key: value for key, value in RECORD.items() if key != "source"},
    "runs that do not add up": {**RECORD, "new_size": 9},
    "a run of negative length": {**RECORD, "scale": [[1.0, 9], [0.0, -1]]},
    "words for numbers": {**RECORD, "share": [["half", 8]]},
    "a list for a record": [],
    "sources before the mean": {**RECORD, "source": [[MEAN - 1, 0, 8]]},
    "an axis larger than memory": {**RECORD, "size": 1 << 40},
    "a size below zero": {**RECORD, "size": -1},
    "a share that breaks the law": {**RECORD, "share": [[1.01, 1], [0.0, 1], [1.01, 1], [0.0, 1]] * 2},
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_record_cannot_have(fault):
    with pytest.raises(PlanError):
        AxisMap.from_json(UNREADABLE[fault])
