"""What rounding explains of the differences between two models that compute in one dtype.

In float32 that is a tolerance. In 16 bits it is measured: the source against itself in float32 is its noise, and two
16-bit passes of one function are apart from the float32 pass by that noise each.

    limits = Limits.of("bfloat16", comparisons, noise)
    [*limits.broken(comparison)]     one line for each number that rounding does not explain
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from modelsurgeon.verification.comparison import Comparison

# Float32 forward passes of one function in another order of summation differ by 2e-6 to 6e-5 of the outputs' deviation
# (all families, both rules); a planted mistake (a share x 1.01, an eps left alone) moves them by more than 1e-3.
TOLERANCE = 1e-4
EPS = {name: torch.finfo(getattr(torch, name)).eps for name in ("float64", "float32", "bfloat16", "float16")}
BLIND = 1e-2  # deviations: an output whose numbers of usual size are rounded by more tells little
NARROW = ("bfloat16", "float16")
# Two passes are apart by a noise each: the root of 2 times it. Measured over all families, both rules:
NOISE = 3.0  # the largest of many differences is up to 2.2 times the largest noise
TYPICAL = 3.0  # the median of few positions is up to 2.5 times that of the noise
KL_NOISE = 3.5  # the mean KL, a square, is up to 2.6 times the noise's
SHARE = 4.0  # of two logits' errors, in typical noises: the errors of both passes are four deviations apart then
SIGMAS = 4.0  # standard errors of a mean loss
MANY = 16  # positions: of so many the median is not that of the few that a router sends elsewhere
ROUNDING = 0.5  # of eps: what storing a number of one deviation moves it by, at most


@dataclass(frozen=True)
class Limits:
    """The limits of one output's comparisons.

    max_rel, typical  deviations
    kl                nats: of the mean over all inputs; None for other outputs than tokens
    loss              nats: of the difference of two mean losses; None where nothing has labels
    """

    output: str
    max_rel: float = TOLERANCE
    typical: float = TOLERANCE
    kl: float | None = None
    loss: float | None = None

    @classmethod
    def of(
        cls,
        dtype: str,
        comparisons: Sequence[Comparison],
        noise: Sequence[Comparison],
        slack: float = 1.0,
        routed: bool = False,
    ) -> Limits:
        """The limits of comparisons of one output; `noise` is the source's, measured on the same inputs.

        slack   how often the usual limit of the noise: 1, or more where only what is far beyond it shall count
        routed  whether experts are chosen in 16 bits: rounding sends some tokens elsewhere, which is no noise of small
                numbers, so that only the usual difference of many positions counts
        """
        if routed:
            many = [one.typical for one in noise if one.positions >= MANY]
            return cls(comparisons[0].output, math.inf, floor(dtype, many, TYPICAL * slack))
        largest = floor(dtype, [one.max_rel for one in noise], NOISE * slack)
        typical = floor(dtype, [one.typical for one in noise], TYPICAL * slack)
        found = cls(comparisons[0].output, largest, typical)
        if comparisons[0].unit is None:
            return found
        unit = math.sqrt(_mean(comparisons, [(one.unit or 0.0) ** 2 for one in comparisons]))
        # KL is half the variance of the errors at most, a loss moves by two errors at most.
        kl = max(2 * (TOLERANCE * unit) ** 2, KL_NOISE * slack**2 * mean_kl(noise))
        losses = [
            NOISE * slack * (abs(one.loss_after - one.loss_before) + SIGMAS * (one.loss_apart or 0.0))
            for one in noise
            if one.loss_before is not None and one.loss_after is not None
        ]
        labelled = any(one.loss_before is not None for one in comparisons)
        loss = (
            max([2 * TOLERANCE * unit, *(one if math.isfinite(one) else math.inf for one in losses)])
            if labelled
            else None
        )
        return cls(found.output, largest, typical, kl, loss)

    def broken(self, found: Comparison) -> Iterator[str]:
        """One line for each finding on this output that rounding does not explain."""
        what = f"{found.inputs}: {found.output}"
        if found.nonfinite:
            yield f"{what}: {found.nonfinite:,} numbers are finite on one side alone"
        elif not found.max_rel <= self.max_rel:
            yield f"{what}: off by {found.max_rel:.1e} of the deviation (rounding explains {self.max_rel:.1e})"
        elif not found.typical <= self.typical and (math.isfinite(self.max_rel) or found.positions >= MANY):
            yield f"{what}: typically off by {found.typical:.1e} of the deviation (rounding: {self.typical:.1e})"
        if found.flip is not None and not found.flip <= self.max_rel:
            yield f"{what}: another token is preferred by {found.flip:.1e} of the deviation"
        if self.loss is not None and not _near(found.loss_before, found.loss_after, self.loss):
            losses = f"{found.loss_before:.4f} -> {found.loss_after:.4f}"
            yield f"{what}: loss {losses} (rounding explains {self.loss:.1e})"

    def broken_mean(self, comparisons: Sequence[Comparison]) -> Iterator[str]:
        """One line where the mean KL over all inputs is not explained by rounding."""
        if self.kl is not None and not (kl := mean_kl(comparisons)) <= self.kl:
            yield f"{self.output}: KL {kl:.1e} nats (rounding explains {self.kl:.1e})"


def floor(
    dtype: str, noise: Iterable[float], times: float, tolerance: float = TOLERANCE, rounding: float = ROUNDING
) -> float:
    """The limit of an error in deviations: `times` the largest noise, and at least what storing numbers can do.

    tolerance  the limit in more than 16 bits
    rounding   of eps: what storing moves a number by, at most, in deviations
    """
    if dtype not in NARROW:
        return tolerance
    return max([tolerance, rounding * EPS[dtype], *(times * one for one in noise)])


def mean_kl(comparisons: Sequence[Comparison]) -> float:
    """Nats: the mean over all positions of all inputs."""
    return _mean(comparisons, [one.kl or 0.0 for one in comparisons])


def wide_of(dtype: str) -> str:
    """The dtype that noise is measured from."""
    return "float32" if dtype in NARROW else dtype


def _mean(comparisons: Sequence[Comparison], numbers: Sequence[float]) -> float:
    positions = [one.positions for one in comparisons]
    return math.fsum(a * b for a, b in zip(numbers, positions, strict=True)) / max(1, sum(positions))


def _near(before: float | None, after: float | None, limit: float) -> bool:
    if before is None or after is None or before == after or (math.isnan(before) and math.isnan(after)):
        return True
    return abs(after - before) <= limit
