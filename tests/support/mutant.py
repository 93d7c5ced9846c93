"""The class of planted mistakes, and UNSEEN, the record of which levels of verification do not see which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

KINDS = ("map", "scale", "bias", "weight", "layout", "config", "tie", "noise")
LEVELS = ("proof", "logits", "layers", "generation", "bf16")
Change = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    kind       one of KINDS
    name       the mistake in words
    family     the tiny variant that is widened
    plant      a function that changes the folder of the widened result
    rule       the rule of the widening
    settings   the sizes of the widening; empty: twice the width
    attention  the option of a widening by two
    noise      the noise of the widening
    """

    kind: str
    name: str
    family: str
    plant: Callable[[Path], None]
    rule: str = "exact"
    settings: Mapping[str, int] = field(default_factory=dict)
    attention: str = "heads"
    noise: float = 0.0

    @property
    def levels(self) -> frozenset[str]:
        """The levels of verification that see it."""
        return frozenset(LEVELS) - frozenset(UNSEEN.get(str(self), "").split())

    @property
    def too_small(self) -> bool:
        """Whether float32 logits cannot tell it from rounding: the proof sees it."""
        return "logits" not in self.levels

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


IN_NOISE = (  # of bfloat16's own roundings
    "llama-tied: a share x 1.01",
    "llama-tied: a share x 1.01 in one tensor's every column",
    "llama-tied: noise that does not sum to zero",
    "llama-tied: noise of one key head alone",
    "qwen3-tied: a query norm scaled",
    "gpt2-tied: an eps of the old width",
    "gpt2-tied: noise that does not sum to zero",
    "olmo2-untied: a query norm scaled",
    "gptj-untied: a rotated size left alone",
    "gpt_oss-untied: sinks of the first copies only",
    "gpt_oss-untied: gate and up that alternate grown as halves",
    "granite-untied: another factor of what layers add",
)
BEHIND_THE_LAYERS = (
    "llama-tied: another head under a flag that is still true",
    "llama-untied: one number",
    "t5-tied: an un-scaled head",
    "gemma2-tied: another cap of logits",
    "olmo-untied: a head that a norm without weights cannot correct",
    "opt-350m: a projection that reads every copy whole",
    "granite-untied: another factor of logits",
)
BY_THE_PROOF_ALONE = (
    "llama-untied: a head tied again",  # this version of the library ties nothing where both tensors are stored
    "gpt2-untied: a head tied again",
    "gpt2-tied: a mean column off by 1%",  # less than the tolerance of float32
    "gpt2-tied: a mean of a bias off by 1%",
)
WRITING_NOTHING = (  # encoders, and Whisper, which is given no prompt
    "bert-tied: the article's second MLP bias",
    "bert-tied: a gain without its root",
    "bert-tied: a norm's bias left alone",
    "whisper-tied: a convolution that reads every copy whole",
    "whisper-tied: channels that others write",
    "whisper-tied: sounds off by one position",
    "vit: a class token forgotten",
    "vit: patches off by one position",
    "modernbert-tied: a first layer that reads as if behind a norm",
    "deberta-v2-tied: distances off by one",
)
# {mutant: the levels that do not see it}, as scripts/campaigns/mutant_campaign.py found
UNSEEN: Mapping[str, str] = {
    **dict.fromkeys(IN_NOISE, "bf16"),
    **dict.fromkeys(BEHIND_THE_LAYERS, "layers"),
    **dict.fromkeys(BY_THE_PROOF_ALONE, "logits layers generation bf16"),
    **dict.fromkeys(WRITING_NOTHING, "generation"),
    "roformer-tied: a position table of another base": "generation bf16",
    "albert-tied: a mapping of embeddings off by 1%": "generation bf16",
}
