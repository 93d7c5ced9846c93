"""How one axis grows: a pair of matrices (E, D) with D E = gain * I, held in three vectors.

E [m, n] spreads n old coordinates over m new ones and multiplies what *writes* the axis; D [n, m] gathers them again
and multiplies what *reads* it. Doubling an axis of two by plain copies, readers taking half of each:

    >>> m = copies(2, 2, scale=1.0, shares=(0.5, 0.5))
    >>> m.source, m.scale, m.share
    (array([0, 1, 0, 1]), array([1., 1., 1., 1.]), array([0.5, 0.5, 0.5, 0.5]))

The law, checked when a map is built: for each old coordinate i, the sum of scale[j] * share[j] over its copies j is
`gain`. The gain is 1 but on axes where the model itself divides by a power of the axis' size (attention by
sqrt(head)): there it is the inverse of what the growth would change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modelsurgeon.errors import PlanError

LAW_TOLERANCE = 1e-14  # the law's few float64 operations round by some 1e-16 each
LARGEST = 1 << 24  # coordinates of an axis on record, so that a file cannot exhaust the memory
GAP = -1  # the source of a new coordinate that copies none
MEAN = -2  # the source of a new coordinate that holds the mean of all old ones; readers ignore it


@dataclass(frozen=True, eq=False)
class AxisMap:
    """One axis' growth from `size` (n) to `len(source)` (m).

    source  [m] int64: the old coordinate that each new one copies, or GAP, or MEAN (a row of E that is scale / n)
    scale   [m] float64: E, the factor of writers (0 in a gap)
    share   [m] float64: D, the factor of readers (0 in a gap, and for a mean)
    gain    D E = gain * I
    split   the side whose copies are parts of a sum ("readers" or "writers"); the other side's are equal
    Raises PlanError where the law does not hold.
    """

    size: int
    source: np.ndarray
    scale: np.ndarray
    share: np.ndarray
    gain: float = 1.0
    split: str = "readers"

    def __post_init__(self) -> None:
        if not len(self.source) == len(self.scale) == len(self.share):
            raise PlanError("an axis map needs source, scale and share of one length")
        if self.split not in ("readers", "writers"):
            raise PlanError(f"an axis map is split among its readers or its writers, not {self.split!r}")
        if len(self.source) and not (self.source.min() >= MEAN and self.source.max() < self.size):
            raise PlanError(f"an axis map names coordinates outside of 0..{self.size - 1}")
        if not (np.isfinite(self.scale).all() and np.isfinite(self.share).all() and np.isfinite(self.gain)):
            raise PlanError("an axis map holds a factor that is not finite")
        if np.any(self.scale[self.gaps]) or np.any(self.share[~self.copied]):
            raise PlanError("an axis map gives a factor to a coordinate that copies nothing")
        error = float(np.abs(self.fold_matrix_diagonal() - self.gain).max(initial=0.0))
        if error > LAW_TOLERANCE * max(1.0, abs(self.gain)):
            raise PlanError(f"an axis map breaks D E = {self.gain:g} I by {error:.1e}")

    def __repr__(self) -> str:
        return f"AxisMap({self.size} -> {len(self.source)})"

    @property
    def new_size(self) -> int:
        """How many new coordinates there are."""
        return len(self.source)

    @cached_property
    def gaps(self) -> np.ndarray:
        """[m] bool: the new coordinates that copy none."""
        return np.asarray(self.source == GAP)

    @cached_property
    def copied(self) -> np.ndarray:
        """[m] bool: the new coordinates that copy one old coordinate each."""
        return np.asarray(self.source >= 0)

    @cached_property
    def means(self) -> np.ndarray:
        """[m] bool: the new coordinates that hold the mean of all old ones."""
        return np.asarray(self.source == MEAN)

    @property
    def behind_norm(self) -> np.ndarray:
        """[m] int64: the sources of the output of a norm that reads this axis; a mean becomes zero there, a gap."""
        return np.where(self.means, GAP, self.source)

    @cached_property
    def counts(self) -> np.ndarray:
        """[n] int64: how many copies each old coordinate has."""
        return np.bincount(self.source[self.copied], minlength=self.size)

    @cached_property
    def is_identity(self) -> bool:
        """Whether the axis stays as it is."""
        return (
            self.new_size == self.size
            and np.array_equal(self.source, np.arange(self.size))
            and bool(np.all(self.scale == 1) and np.all(self.share == 1))
        )

    def fold_matrix_diagonal(self) -> np.ndarray:
        """[n] float64: the diagonal of D E (off the diagonal it is zero by construction)."""
        return self._sum_of_copies(self.scale * self.share)

    def energy(self) -> np.ndarray:
        """[n] float64: the squared length of each column of E, without rows of means, which add no variance."""
        return self._sum_of_copies(self.scale**2)

    def _sum_of_copies(self, values: np.ndarray) -> np.ndarray:
        """[n] float64: the sum of [m] values over the copies of each old coordinate."""
        return np.bincount(self.source[self.copied], weights=values[self.copied], minlength=self.size)

    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """(E [m, n], D [n, m]): for tests and for the eye."""
        spread, gather = np.zeros((self.new_size, self.size)), np.zeros((self.size, self.new_size))
        copied = np.flatnonzero(self.copied)
        spread[copied, self.source[copied]] = self.scale[copied]
        gather[self.source[copied], copied] = self.share[copied]
        spread[self.means] = self.scale[self.means, None] / self.size
        return spread, gather

    def then(self, later: AxisMap) -> AxisMap:
        """The map of this growth followed by a later one: E = E2 E1, D = D1 D2."""
        if later.size != self.new_size:
            raise PlanError(f"an axis of {self.new_size} cannot be grown by a map of {later.size}")
        copied = later.copied
        middle = later.source[copied]
        source, scale, share = np.full(later.new_size, GAP), np.zeros(later.new_size), np.zeros(later.new_size)
        source[copied] = self.source[middle]
        scale[copied] = later.scale[copied] * self.scale[middle]
        share[copied] = later.share[copied] * self.share[middle]
        source[later.means] = MEAN
        scale[later.means] = later.scale[later.means] * (self._mean() if later.means.any() else 1.0)
        scale[source == GAP], share[source < 0] = 0.0, 0.0
        return AxisMap(self.size, source, scale, share, self.gain * later.gain, self.split)

    def _mean(self) -> float:
        """The mean of the new coordinates over that of the old ones. Raises PlanError where that is no constant."""
        sums = self._sum_of_copies(self.scale) + self.scale[self.means].sum() / self.size
        if not np.allclose(sums, sums[0], rtol=LAW_TOLERANCE * self.new_size, atol=0):
            raise PlanError("a mean of coordinates that weigh differently is no mean of the old ones")
        return float(sums[0]) * self.size / self.new_size

    def to_json(self) -> dict[str, Any]:
        """A compact record, from which `from_json` restores the vectors to the last bit."""
        return {
            "size": self.size,
            "new_size": self.new_size,
            "gain": self.gain,
            "split": self.split,
            "source": _progressions(self.source),
            "scale": _constants(self.scale),
            "share": _constants(self.share),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> AxisMap:
        """The map on record. Raises PlanError where it cannot be read, or breaks the law."""
        try:
            size, new_size = int(record["size"]), int(record["new_size"])
            if not 0 <= size <= LARGEST >= new_size >= 0:
                raise ValueError(f"an axis of {size} or {new_size} coordinates")
            if any(abs(number) > LARGEST for run in record["source"] for number in run):
                raise ValueError(f"a source beyond {LARGEST} coordinates")
            source = _expand(record["source"], new_size, lambda run: run[0] + run[1] * np.arange(run[2]))
            runs = record["scale"], record["share"]
            scale, share = (_expand(part, new_size, lambda run: np.full(run[1], run[0])) for part in runs)
            vectors = source.astype(np.int64), scale.astype(np.float64), share.astype(np.float64)
            gain, split = float(record["gain"]), str(record["split"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise PlanError(f"an axis map on record cannot be read: {error!r}") from None
        return cls(size, *vectors, gain, split)


def occurrence(values: np.ndarray) -> np.ndarray:
    """[n] int64: how many earlier values are equal to each one."""
    order = np.argsort(values, kind="stable")
    first = np.r_[True, np.diff(values[order]) != 0][: len(order)]
    at, count = np.arange(len(values)), np.empty(len(values), dtype=np.int64)
    count[order] = at - np.maximum.accumulate(np.where(first, at, 0))
    return count


def _progressions(values: np.ndarray) -> list[list[int]]:
    """Runs [start, step, length] that give the values back in order."""
    runs: list[list[int]] = []
    at, steps = 0, np.diff(values)
    changes = np.flatnonzero(np.diff(steps)) + 1
    while at < len(values):
        following = changes[np.searchsorted(changes, at, side="right") :]
        end = int(following[0]) + 1 if len(following) else len(values)
        runs.append([int(values[at]), int(steps[at]) if at < len(steps) else 0, end - at])
        at = end
    return runs


def _constants(values: np.ndarray) -> list[list[float]]:
    """Runs [value, length] that give the values back in order."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
    lengths = np.diff(np.r_[starts, len(values)])
    return [[float(values[start]), int(length)] for start, length in zip(starts, lengths, strict=True)]


def _expand(runs: list[Any], size: int, values: Any) -> np.ndarray:
    if sum(int(run[-1]) for run in runs) != size or any(int(run[-1]) < 0 for run in runs):
        raise ValueError(f"runs that do not add up to {size}")
    return np.concatenate([values(run) for run in runs]) if runs else np.zeros(0)
