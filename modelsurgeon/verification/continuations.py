"""What two models wrote after the same prompts, token by token and logit by logit (`running/generation.py`).

A difference is reported by its first place and the *margin* there: by how much the source prefers its own token. A
margin within the error of the logits is a tie, which rounding may decide either way.
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

    prompt, at       its number, and that of the new token
    expected, found  the source's token, the result's
    margin           the source's logit of its own token minus that of the other
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
    error        of the logits while the tokens before are equal, over the standard deviation of the source's logits
    cache_error  the result's logits with the cache against those without, over the same
    cache_floor  the source's own
    tolerance    what `error` may be
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
        """Whether tokens differ by ties alone, and the cache changes no logit more than it does in the source."""
        written = self.first is None or self.first.margin <= self.allowed
        return written and self.error <= self.tolerance and self.cache_error <= max(self.tolerance, self.cache_limit)

    @property
    def cache_limit(self) -> float:
        """Models whose positions see the padding differ with it, the source as much as the result."""
        return 2 * self.cache_floor

    @property
    def tie(self) -> bool:
        """Whether the tokens differ, and only where the source itself is undecided."""
        return self.first is not None and self.first.margin <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict."""
        found = printable(self)
        return {
            "prompts": found.pop("prompts"),
            "tokens": found.pop("tokens"),
            "same": self.same,
            "tie": self.tie,
            **found,
        }


def compare_continuations(
    before: Continued, after: Continued, deviation: float, tolerance: float, logit_error: float
) -> Generation:
    """What the result wrote against what the source wrote.

    deviation    of the source's logits
    tolerance    what their error may be, over the deviation
    logit_error  the largest that was measured on other inputs, as it is
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
    cached = [float((one.logits - one.uncached).abs().max()) / deviation for one in (after, before)]
    prompts, tokens = before.tokens.shape
    return Generation(prompts, tokens, first, error, cached[0], cached[1], tolerance, allowed)
