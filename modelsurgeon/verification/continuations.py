"""Compares what two models wrote after the same prompts, token by token and logit by logit.

A difference is reported by its first place and the *margin* there: how much the source prefers its own token. A margin
that rounding explains at that place is a tie. In 16 bits a margin between what rounding usually explains and what it
can explain at most is not decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.running.generation import Continued
from modelsurgeon.text import printable
from modelsurgeon.verification.comparison import errors
from modelsurgeon.verification.deviation import Deviation


@dataclass(frozen=True)
class Divergence:
    """The first place where two continuations of one prompt differ.

    prompt, at       the numbers of the prompt and of the new token
    expected, found  the source's token, the result's
    margin           the source's logit of its own token minus its logit of the result's
    share            the same over the sum of both logits' units (deviation.py): the error of each that explains it
    """

    prompt: int
    at: int
    expected: int
    found: int
    margin: float
    share: float


@dataclass(frozen=True)
class Generation:
    """How two models continue the same prompts.

    first        the first difference that is no tie, or else the first tie; None: the tokens are equal
    error        of the logits up to the first other token, in deviations of the source's logits at their position
    cache_error  the result's logits with the cache against those without, in the same
    cache_floor  the source's own such error
    tolerance    the limit of `error`, and of the share of a margin that is not decided
    allowed      the share of a margin up to which a difference is a tie
    """

    prompts: int
    tokens: int
    first: Divergence | None
    error: float
    cache_error: float
    cache_floor: float
    tolerance: float
    allowed: float

    @property
    def same(self) -> bool:
        """Whether tokens differ by no more than rounding explains, nor logits, nor the cache changes those."""
        # Models whose positions see the padding differ with the cache, the source as much as the result.
        cache_limit = max(self.tolerance, 2 * self.cache_floor)
        explained = self.first is None or self.tie or self.undecided
        return explained and self.error <= self.tolerance and self.cache_error <= cache_limit

    @property
    def tie(self) -> bool:
        """Whether the tokens differ, and only where the source itself is undecided."""
        return self.first is not None and self.first.share <= self.allowed

    @property
    def undecided(self) -> bool:
        """Whether tokens differ by more than a tie, and by no more than rounding in 16 bits can explain at most."""
        return self.first is not None and not self.tie and self.first.share <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict."""
        verdict = {"same": self.same, "tie": self.tie, "undecided": self.undecided}
        return {"prompts": self.prompts, "tokens": self.tokens, **verdict, **printable(self)}


def compare_continuations(before: Continued, after: Continued, tolerance: float, allowed: float) -> Generation:
    """Compare what the result wrote (`after`) with what the source wrote (`before`).

    tolerance  the limit of the logits' error, in deviations
    allowed    the error of a logit up to which rounding decides between two tokens
    """
    new_tokens = min(before.tokens.shape[1], after.tokens.shape[1])  # fewer where weights wait on the disk
    before, after = before.cut(new_tokens), after.cut(new_tokens)
    deviation, read = Deviation(tokens=True), torch.zeros(before.tokens.shape, dtype=torch.bool)
    deviation.add(before.logits.flatten(0, 1))
    found = []
    for prompt, (old, new) in enumerate(zip(before.tokens, after.tokens, strict=True)):
        apart = (old != new).nonzero()
        at = int(apart[0]) if len(apart) else len(old)
        read[prompt, : at + 1] = True
        if at < len(old):
            found.append(_divergence(before.logits[prompt, at], deviation, prompt, at, int(old[at]), int(new[at])))
    first = next((one for one in found if not one.share <= max(tolerance, allowed)), None)
    first = first or next((one for one in found if not one.share <= allowed), found[0] if found else None)
    error = _error(before.logits[read], after.logits[read], deviation)
    whole = torch.ones_like(read)
    cached = _error(after.uncached[whole], after.logits[whole], deviation)
    floor = _error(before.uncached[whole], before.logits[whole], deviation, noise=True)
    prompts, tokens = before.tokens.shape
    return Generation(prompts, tokens, first, error, cached, floor, tolerance, allowed)


def _divergence(
    logits: torch.Tensor, deviation: Deviation, prompt: int, at: int, expected: int, found: int
) -> Divergence:
    """Where the source, by its [vocab] logits, writes `expected`, and the result writes `found`."""
    units = deviation.units(logits.unsqueeze(0))[0]
    margin = float(logits[expected].double() - logits[found].double())
    return Divergence(prompt, at, expected, found, margin, margin / float(units[expected] + units[found]))


def _error(before: torch.Tensor, after: torch.Tensor, deviation: Deviation, noise: bool = False) -> float:
    """Deviations: the largest error of [positions, vocab] logits; nan where one side alone is not finite.

    noise  leave out numbers that are not finite
    """
    found = errors(before.double(), after.double(), deviation.units(before))
    return math.nan if bool(found.nonfinite.any()) and not noise else max([0.0, *found.worst.tolist()])
