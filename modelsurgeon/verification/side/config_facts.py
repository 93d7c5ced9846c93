"""Keys of config.json that do not show in a forward pass: special token ids, label names, dropout, and the dtype.

    special token ids  different  eos_token_id (2 -> 3)
    dtype in config    different  result: config says bfloat16, weights are float32

Both configs are compared as the library reads them, so that a default that is written down is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.running.settings import as_read
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, FLOATS
from modelsurgeon.text import shown
from modelsurgeon.verification.side.finding import (
    DIFFERENT,
    NEITHER,
    Beside,
    Pair,
    apart,
    brief,
    listed,
    soft,
    verdict,
)

IS_ID = re.compile(r"(.*_)?token_(ids?|index)$|(begin_)?suppress_tokens$")
WORDS = {name: word for word, name in DTYPE_NAMES.items()}  # {"F32": "float32"}
CONFIG_DTYPE = "dtype in config"

Config = Mapping[str, Any]


def compare_config(pair: Pair) -> Iterator[Beside]:
    """A row each for special ids, labels, dropout, the weights' dtype and the config's."""
    read = [as_read(side.config) for side in pair.sides]
    known: list[Config] = [one or {} for one in read] if all(read) else [side.config for side in pair.sides]
    yield soft("special token ids", lambda: _special(pair, known))
    yield soft("label names", lambda: _labels(known))
    yield soft("dropout", lambda: _dropout(known))
    yield soft("dtype of the weights", lambda: _dtypes(pair))
    yield soft(CONFIG_DTYPE, lambda: _config_dtypes(pair))


def _chosen(config: Config, pattern: str | re.Pattern[str]) -> dict[str, Any]:
    """{dotted key: value} of the keys that fit, in nested objects too."""
    found = dict[str, Any]()
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": one for inner, one in _chosen(value, pattern).items()}
        elif isinstance(key, str) and re.match(pattern, key):
            found[key] = value
    return found


def _special(pair: Pair, configs: list[Config]) -> Beside:
    before, after = (_chosen(config, IS_ID) for config in configs)
    outside = [_outside(*both) for both in zip(pair.sides, (before, after), strict=True)]
    return _each_side("special token ids", apart(before, after, {}), _pairs(before), outside)


def _pairs(values: Config) -> str:
    return listed([f"{shown(key)} {brief(value)}" for key, value in values.items() if value is not None]) or NEITHER


def _outside(side: Checkpoint, ids: Config) -> str:
    """The special ids of one side that its vocabulary does not have."""
    try:
        size = side.sizes["vocab"]
    except (ModelSurgeonError, KeyError):
        return ""
    wrong = [(key, one) for key, value in ids.items() for one in (value if isinstance(value, list) else [value])]
    wrong = [(key, one) for key, one in wrong if isinstance(one, int) and not 0 <= one < size]
    named = listed([f"{shown(key)} {one}" for key, one in wrong])
    return f"{named} outside the vocabulary of {size:,}" if wrong else ""


def _each_side(what: str, differences: Iterator[str], same: str, notes: list[str]) -> Beside:
    """The verdict, with what is to be said of each side: a difference unless it can be said of both."""
    found = list(differences)
    if notes[0] == notes[1]:
        return verdict(what, found, "; ".join(filter(None, [same, f"on both sides {notes[0]}" if notes[0] else ""])))
    said = [f"{side}: {note}" for side, note in zip(("source", "result"), notes, strict=True) if note]
    return Beside(what, DIFFERENT, "; ".join([*([listed(found)] if found else []), *said]))


def _labels(configs: list[Config]) -> Beside:
    before, after = map(_named, configs)
    names = [brief(name) for name in before["id2label"].values()]
    return verdict("label names", apart(before, after, {}), f"{len(names)}: {listed(names)}" if names else NEITHER)


def _named(config: Config) -> dict[str, dict[str, Any]]:
    """Both directions, with keys as JSON has them; one that is left out is the other's inverse."""
    names = {str(at): name for at, name in (config.get("id2label") or {}).items()}
    numbers = config.get("label2id") or {name: int(at) for at, name in names.items()}
    return {"id2label": names, "label2id": dict(numbers)}


def _dropout(configs: list[Config]) -> Beside:
    before, after = (_chosen(config, ".*drop(?!ping)") for config in configs)
    return verdict("dropout", apart(before, after, {}), _pairs(before))


# --- dtypes ----------------------------------------------------------------------------------------------------------


def _dtypes(pair: Pair) -> Beside:
    before, after = map(_stored, pair.sides)
    change = [f"{' and '.join(before)} -> {' and '.join(after)}"]
    return verdict("dtype of the weights", change if before != after else [], " and ".join(before))


def _stored(side: Checkpoint) -> list[str]:
    """The dtypes of its numbers; those of most bytes first."""
    sizes: dict[str, int] = {}
    for tensor in side.tensors.values():
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    return [WORDS[name] for name in sorted(sizes, key=lambda name: (-sizes[name], name))]


def _config_dtypes(pair: Pair) -> Beside:
    before, after = map(_said, pair.sides)
    notes = [_against(side) for side in pair.sides]
    differences = iter([f"{before or 'nothing'} -> {after or 'nothing'}"] if before != after else [])
    return _each_side(CONFIG_DTYPE, differences, before or "neither says any", notes)


def _said(side: Checkpoint) -> str:
    """The dtype that config.json names; empty where it names none, which means that of the weights."""
    value = side.config.get("dtype") or side.config.get("torch_dtype")
    return "" if value is None else brief(value).strip("'").removeprefix("torch.")


def _against(side: Checkpoint) -> str:
    said, stored = _said(side), _stored(side)
    return f"config says {said}, weights are {' and '.join(stored)}" if said and stored[:1] != [said] else ""
