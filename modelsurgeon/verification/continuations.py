"""Compares what two models wrote after the same prompts, token by token and logit by logit.

A difference is reported by its first place and the *margin* there: how much the source prefers its own token. A margin
within the error of the logits is a tie, which rounding may decide either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.running.generation import Continued
from modelsurgeon.text import printable


@dataclass(frozen=True)
class Divergence:
    """The first place where two continuations of one prompt differ.

    prompt, at       the numbers of the prompt and of the new token
    expected, found  the source's token, the result's
    margin           the source's logit of its own token minus its logit of the result's
    """

    prompt: int
    at: int
    expected: int
    found: int
    margin: float


@dataclass(frozen=True)
class Generation:
    """How two models continue the same prompts.

    first        the first difference that is no tie, or else the first tie; None: the tokens are equal
    error        of the logits up to the first other token, over the standard deviation of the source's logits
    cache_error  the result's logits with the cache against those without, over the same deviation
    cache_floor  the source's own such error
    tolerance    the limit of `error`
    allowed      the margin up to which a difference is a tie: twice the error of a logit, for two are compared
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
        """Whether tokens differ by ties alone, and the cache changes no logit much more than it does in the source."""
        # Models whose positions see the padding differ with the cache, the source as much as the result.
        cache_limit = max(self.tolerance, 2 * self.cache_floor)
        return (self.first is None or self.tie) and self.error <= self.tolerance and self.cache_error <= cache_limit

    @property
    def tie(self) -> bool:
        """Whether the tokens differ, and only where the source itself is undecided."""
        return self.first is not None and self.first.margin <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict."""
        verdict = {"same": self.same, "tie": self.tie}
        return {"prompts": self.prompts, "tokens": self.tokens, **verdict, **printable(self)}


def compare_continuations(
    before: Continued, after: Continued, deviation: float, tolerance: float, logit_error: float
) -> Generation:
    """Compare what the result wrote (`after`) with what the source wrote (`before`).

    deviation    the standard deviation of the source's logits
    tolerance    the limit of the logits' error over the deviation
    logit_error  the largest difference of a logit on other inputs
    """
    new_tokens = min(before.tokens.shape[1], after.tokens.shape[1])  # fewer where weights wait on the disk
    before, after = before.cut(new_tokens), after.cut(new_tokens)
    found, errors = [], [torch.zeros(())]
    for prompt, (old, new) in enumerate(zip(before.tokens, after.tokens, strict=True)):
        apart = (old != new).nonzero()
        at = int(apart[0]) if len(apart) else len(old)
        errors.append((before.logits[prompt, : at + 1] - after.logits[prompt, : at + 1]).abs().max())
        if at < len(old):
            scores, expected, other = before.logits[prompt, at], int(old[at]), int(new[at])
            found.append(Divergence(prompt, at, expected, other, float(scores[expected] - scores[other])))
    allowed = 2 * logit_error
    first = next((one for one in found if not one.margin <= allowed), found[0] if found else None)
    error = float(torch.stack(errors).max()) / deviation
    cached, floor = (float((one.logits - one.uncached).abs().max()) / deviation for one in (after, before))
    prompts, tokens = before.tokens.shape
    return Generation(prompts, tokens, first, error, cached, floor, tolerance, allowed)
