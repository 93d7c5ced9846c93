"""What people call the coordinates of each axis: the words of reports, where tables and signatures have short names.

    >>> plain("kv"), plain("stream"), plain("hidden")
    ('key-value heads', 'hidden coordinates', 'hidden coordinates')

Each is a plural, so that one name serves a table of sizes ("key-value heads  2") and a sentence ("8 pairs of key-value
heads will part"). Axes share a name where nobody but this program tells them apart, as what is added to the residual
stream and what is read of it. Documents (`--json`), records and errors keep the short names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

WITH_LABELS = "Classification|Choice|Question|Sentence|Sequence"  # in the names of classes whose output is labels
PLAIN: Mapping[str, str] = {
    "vocab": "tokens of the vocabulary",
    "positions": "positions",
    "types": "token types",
    "tasks": "task types",
    "buckets": "buckets of distances",
    "labels": "labels of the classifier",
    "stream": "hidden coordinates",
    "hidden": "hidden coordinates",
    "final": "coordinates that the head reads",
    "branch": "hidden coordinates",
    "embedded": "embedding coordinates",
    "transform": "neurons before the head",
    "pooled": "neurons of the pooler",
    "mlp": "MLP neurons",
    "expert_mlp": "MLP neurons of an expert",
    "shared_mlp": "MLP neurons of the shared experts",
    "experts": "experts",
    "choice": "experts",
    "heads": "attention heads",
    "kv": "key-value heads",
    "head": "query and key coordinates of a head",
    "value": "value coordinates of a head",
    "prehead": "query and key coordinates of a head",
    "preheads": "attention heads",
    "prekv": "key-value heads",
    "nope": "coordinates of a head that are not rotated",
    "rope": "coordinates of a head that are rotated",
    "angles": "rotary angles",
    "q_rank": "low-rank coordinates of queries",
    "pre_q_rank": "low-rank coordinates of queries",
    "kv_rank": "low-rank coordinates of keys and values",
    "pre_kv_rank": "low-rank coordinates of keys and values",
    "encoder": "hidden coordinates of the encoder",
    "encoder_mlp": "MLP neurons of the encoder",
    "encoder_heads": "attention heads of the encoder",
    "encoder_head": "query and key coordinates of a head in the encoder",
    "encoder_value": "value coordinates of a head in the encoder",
    "decoder_mlp": "MLP neurons of the decoder",
    "decoder_heads": "attention heads of the decoder",
    "decoder_head": "query and key coordinates of a head in the decoder",
    "decoder_value": "value coordinates of a head in the decoder",
    "stem": "neurons of the first convolution",
    "channels": "colour channels",
    "patch": "pixels along a patch",
    "pixels": "numbers in a patch of the picture",
    "frames": "frames of the sound",
    "mels": "frequency bands",
}


def plain(axis: str) -> str:
    """The words for an axis, or for several that norms join ("stream, hidden"): those of the first."""
    first = axis.partition(", ")[0]
    return PLAIN.get(first, first.replace("_", " "))


def plain_sizes(sizes: Mapping[str, int], model: str | None) -> dict[str, int]:
    """{words: size}; the number of labels only of classes that have any, for every config gives one.

    model  the class that config.json names
    """
    has_labels = re.search(WITH_LABELS, model or "")
    return {plain(axis): size for axis, size in sizes.items() if axis != "labels" or has_labels}
