"""Generation with the KV cache: a model continues prompts greedily, then reads everything in one pass without cache.

The prompts have several lengths, so that all but one are padded: on the left for a decoder, which writes into the
prompt's own row; on the right for an encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.running.batches import Inputs
from modelsurgeon.running.reader import TokenRows, padded, real_positions


@dataclass(frozen=True)
class Continued:
    """What one model wrote.

    tokens    [prompts, new] int64
    logits    [prompts, new, vocab] float32: the logits that chose each token, with the cache
    uncached  [prompts, new, vocab] float32: those of one forward pass over everything, without it
    """

    tokens: torch.Tensor
    logits: torch.Tensor
    uncached: torch.Tensor

    def cut(self, new: int) -> Continued:
        """The first `new` tokens."""
        return Continued(self.tokens[:, :new], self.logits[:, :new], self.uncached[:, :new])


def continue_prompts(model: Any, inputs: Inputs, home: torch.device) -> Continued:
    """Continue every prompt by `inputs.new` tokens, greedily and with the cache, then read all of it without."""
    from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig

    config: Any = GenerationConfig  # its own types are incomplete
    assert inputs.prompts is not None
    encodes, longest = inputs.start is not None, max(map(len, inputs.prompts))
    ids = padded(inputs.prompts, inputs.pad, left=not encodes).to(home)
    mask = real_positions(inputs.prompts, left=not encodes).long().to(home)
    # Not the checkpoint's own config: it may sample, and stop at an end of the text.
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
    # For T5, the library's own cache has the encoder's depth where the decoder has more; this one grows by itself.
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if encodes else {}
    with torch.inference_mode():
        written = model.generate(input_ids=ids, attention_mask=mask, **cache)
    tokens = written.sequences[:, 1 if encodes else longest :].cpu()
    logits = torch.stack(written.logits, 1).float().cpu()
    with torch.inference_mode():
        uncached = _at_once(model, inputs, tokens.to(home), ids, mask)
    return Continued(tokens, logits, uncached)


def _at_once(model: Any, inputs: Inputs, tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[prompts, new, vocab] float32: the logits for each token, from one forward pass."""
    assert inputs.prompts is not None
    if inputs.start is not None:
        begun = torch.cat([torch.full_like(tokens[:, :1], inputs.start), tokens[:, :-1]], 1)
        returned = model(input_ids=ids, attention_mask=mask, decoder_input_ids=begun, use_cache=False, return_dict=True)
        return torch.as_tensor(returned.logits).float().cpu()
    rows: TokenRows = [[*prompt, *new[:-1]] for prompt, new in zip(inputs.prompts, tokens.tolist(), strict=True)]
    read = padded(rows, inputs.pad).to(ids.device)
    real = real_positions(rows).long().to(ids.device)
    logits = model(input_ids=read, attention_mask=real, use_cache=False, return_dict=True).logits.float().cpu()
    return torch.stack([own[len(row) - inputs.new : len(row)] for own, row in zip(logits, rows, strict=True)])
