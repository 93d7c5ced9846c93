"""Generation with the KV cache: both models continue the same prompts greedily, token for token.

The prompts have several lengths, so that all but one are padded (on the left where the prompt and what follows are one
row, on the right where an encoder reads it). What is compared are the logits behind each token, and:

    tokens   the first place where they differ, beside the *margin* there: by how much the source prefers its own token.
             A margin within the error of the logits is a tie, which rounding may decide either way.
    cache    the logits of one forward pass over prompt and continuation, without cache and without padding before it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.verification.batches import Inputs
from modelsurgeon.verification.comparison import plain
from modelsurgeon.verification.reader import Rows, padded


@dataclass(frozen=True)
class Continued:
    """What one model wrote.

    tokens    [prompts, new] int64
    logits    [prompts, new, vocab] float32: behind each token, with the cache
    uncached  the same of one forward pass over everything
    """

    tokens: torch.Tensor
    logits: torch.Tensor
    uncached: torch.Tensor

    def cut(self, new: int) -> Continued:
        """The first `new` tokens."""
        return Continued(self.tokens[:, :new], self.logits[:, :new], self.uncached[:, :new])


@dataclass(frozen=True)
class Difference:
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
    first: Difference | None
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
        first = self.first and {key: plain(value) for key, value in vars(self.first).items()}
        numbers = ("error", "cache_error", "cache_floor", "tolerance", "allowed")
        found = {"prompts": self.prompts, "tokens": self.tokens, "same": self.same, "tie": self.tie, "first": first}
        return {**found, **{name: plain(getattr(self, name)) for name in numbers}}


def continue_prompts(model: Any, inputs: Inputs, home: torch.device) -> Continued:
    """Continue every prompt by `inputs.new` tokens, greedily and with the cache, then read all of it without."""
    import transformers

    config: Any = transformers.GenerationConfig  # its own types are incomplete
    assert inputs.prompts is not None
    encodes, longest = inputs.start is not None, max(map(len, inputs.prompts))
    ids = padded(inputs.prompts, inputs.pad, left=not encodes).to(home)
    mask = padded([[1] * len(row) for row in inputs.prompts], 0, left=not encodes).to(home)
    # Neither the checkpoint's own taste in sampling nor an end of the text: so many tokens of the largest logit each.
    model.generation_config = config(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=inputs.new,
        pad_token_id=inputs.pad,
        decoder_start_token_id=inputs.start,
        output_logits=True,
        return_dict_in_generate=True,
    )
    with torch.inference_mode():
        written = model.generate(input_ids=ids, attention_mask=mask, **(_empty_cache() if encodes else {}))
    tokens = written.sequences[:, 1 if encodes else longest :].cpu()
    logits = torch.stack(written.logits, 1).float().cpu()
    with torch.inference_mode():
        uncached = _at_once(model, inputs, tokens.to(home), ids, mask)
    return Continued(tokens, logits, uncached)


def _empty_cache() -> dict[str, Any]:
    """A cache that grows by layers as they come: the library's own counts the encoder's where T5's decoder has more."""
    from transformers import DynamicCache, EncoderDecoderCache

    return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}


def _at_once(model: Any, inputs: Inputs, tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[prompts, new, vocab] float32: the logits behind each token, of one forward pass."""
    assert inputs.prompts is not None
    if inputs.start is not None:
        begun = torch.cat([torch.full_like(tokens[:, :1], inputs.start), tokens[:, :-1]], 1)
        returned = model(input_ids=ids, attention_mask=mask, decoder_input_ids=begun, use_cache=False, return_dict=True)
        return torch.as_tensor(returned.logits).float().cpu()
    rows: Rows = [[*prompt, *new[:-1]] for prompt, new in zip(inputs.prompts, tokens.tolist(), strict=True)]
    read = padded(rows, inputs.pad).to(ids.device)
    real = padded([[1] * len(row) for row in rows], 0).to(ids.device)
    logits = model(input_ids=read, attention_mask=real, use_cache=False, return_dict=True).logits.float().cpu()
    return torch.stack([own[len(row) - inputs.new : len(row)] for own, row in zip(logits, rows, strict=True)])


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
            found.append(Difference(prompt, at, expected, other, float(scores[expected] - scores[other])))
    allowed = 2 * logit_error
    first = next((one for one in found if not one.margin <= allowed), found[0] if found else None)
    error = float(torch.stack(errors).max()) / deviation
    cached = [float((one.logits - one.uncached).abs().max()) / deviation for one in (after, before)]
    prompts, tokens = before.tokens.shape
    return Generation(prompts, tokens, first, error, cached[0], cached[1], tolerance, allowed)
