"""Which keys of a config change nothing that a model computes, and why: `inert_keys.toml`, read.

    [[keys]]
    reason = "the window of layers that slide, and no layer does"
    names = "sliding_window"
    families = "qwen2 qwen3"        # none: every family
    when = "no layer slides"        # one of CONDITIONS

A key without an entry counts: where its values differ, the models do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from modelsurgeon.architectures.config import ABSENT, READ_BESIDE
from modelsurgeon.running.settings import class_defaults

TABLE = Path(__file__).parent / "inert_keys.toml"
FIELDS = frozenset({"reason", "names", "families", "classes", "other_classes", "when"})
_SCALED, _ORIGINAL = "factor mscale_all_dim", "original_max_position_embeddings"
# What each rope type reads of its record, beside ALWAYS_READ. Upstream: transformers/modeling_rope_utils.py, and
# yarn_apply_mscale of DeepSeek, which reads its factor for any type but the default.
ROPE_READS: Mapping[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "default": "",
        "linear": _SCALED,
        "dynamic": _SCALED,
        "proportional": _SCALED,
        "llama3": f"{_SCALED} {_ORIGINAL} low_freq_factor high_freq_factor",
        "longrope": f"{_SCALED} {_ORIGINAL} attention_factor short_factor long_factor",
        "yarn": f"{_SCALED} {_ORIGINAL} attention_factor beta_fast beta_slow mscale truncate",
    }.items()
}
SWITCHES = frozenset({"is_causal", "use_bidirectional_attention"})  # whose default is null, or that no class lists
ALWAYS_READ = frozenset({"rope_type", "rope_theta", "partial_rotary_factor"})


@dataclass(frozen=True)
class Side:
    """One of the two configs.

    model_type  the family
    model       the transformers class
    settings    {dotted key: value} as the library reads it
    has_head    whether the model has an output head that can be tied
    partial     whether its default rotary positions can turn a part of a head
    """

    model_type: str
    model: str
    settings: Mapping[str, Any]
    has_head: bool
    partial: bool = False

    def value(self, key: str) -> Any:
        """The value of a key, or what its absence means to the code that reads it; ABSENT where it means nothing."""
        value = self.settings.get(key, READ_BESIDE.get(key, ABSENT))
        if key == "head_dim" and value in (None, ABSENT):  # as rotary positions are computed
            hidden, heads = (self.settings.get(name) for name in ("hidden_size", "num_attention_heads"))
            return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else value
        return value

    @property
    def ropes(self) -> dict[str, str]:
        """{dotted key of a rope record: its type}."""
        ends = ".rope_type"
        return {key.removesuffix(ends): str(v) for key, v in self.settings.items() if key.endswith(ends)}


Pair = tuple[Side, Side]
Condition = Callable[[str, Pair], bool]


def _both(holds: Callable[[Side], bool]) -> Condition:
    return lambda key, sides: all(map(holds, sides))


def _off(name: str) -> Condition:
    return _both(lambda side: not side.settings.get(name))


def _on(name: str) -> Condition:
    return _both(lambda side: bool(side.settings.get(name)))


def _equal(value: Callable[[Side, str], Any]) -> Condition:
    return lambda key, sides: bool(value(sides[0], key) == value(sides[1], key))


def _range(side: Side, key: str) -> Any:
    """DeBERTa's range of relative positions: the number of positions where the key gives none."""
    value = side.settings.get(key)
    return value if isinstance(value, int) and value > 0 else side.settings.get("max_position_embeddings")


def _sparse_layers(side: Side, key: str) -> list[int]:
    """The layers of a Qwen model that have experts."""
    dense, step = (side.settings.get(name) for name in ("mlp_only_layers", "decoder_sparse_step"))
    layers = range(int(side.settings.get("num_hidden_layers") or 0))
    return [i for i in layers if i not in (dense or ()) and (i + 1) % (step or 1) == 0]


def _half(side: Side, key: str) -> Any:
    value = side.settings.get(key)
    return value // 2 if isinstance(value, int) else value


def _is_unread(key: str, sides: Pair) -> bool:
    """Whether the rope types of both sides do not read this entry of a rope record."""
    record, _, name = key.rpartition(".")
    types = [side.ropes.get(record, "default") for side in sides]
    if types == ["default", "default"] and name == "partial_rotary_factor":
        return not any(side.partial for side in sides)
    return all(t in ROPE_READS and name not in ROPE_READS[t] | ALWAYS_READ for t in types)


def _is_unused(key: str, sides: Pair) -> bool:
    """Whether this entry of a rope record is for a type of layers that no layer has."""
    layer = key.split(".")[1] if key.count(".") > 1 else None
    return layer is not None and not any(layer in (side.settings.get("layer_types") or [layer]) for side in sides)


def _unlimited(side: Side) -> bool:
    """Whether rotary positions are the same whatever the trained length is."""

    def reads_length(record: str, kind: str) -> bool:
        return kind == "dynamic" or (kind in ("longrope", "yarn") and side.settings.get(f"{record}.factor") is None)

    return bool(side.ropes) and not any(reads_length(*item) for item in side.ropes.items())


def _null_is_false(key: str, sides: Pair) -> bool:
    """Whether a switch is null on one side and false on the other."""
    if not isinstance(class_defaults(sides[0].model_type).get(key), bool) and key not in SWITCHES:
        return False
    values = [side.settings.get(key, ABSENT) for side in sides]
    return any(values[i] is None and values[1 - i] is False for i in (0, 1))


def _absent_means(meaning: bool) -> Condition:
    return lambda key, sides: {side.value(key) for side in sides} == {ABSENT, meaning}


# What `when` can name: function(key, both sides) -> bool.
CONDITIONS: Mapping[str, Condition] = {
    "absent is false": lambda key, sides: _absent_means(False)(key, sides) and _off("is_decoder")(key, sides),
    "absent is true": _absent_means(True),
    "absent is true, in a decoder": lambda key, sides: (
        _absent_means(True)(key, sides) and _on("is_decoder")(key, sides)
    ),
    "a window": _both(lambda side: side.settings.get("sliding_window") is not None),
    "absolute positions": _both(lambda s: s.settings.get("position_embedding_type") in (None, "absolute")),
    "no decoder": _off("is_decoder"),
    "alibi": _on("alibi"),
    "equal sparse layers": _equal(_sparse_layers),
    "equal halves": _equal(_half),
    "equal ranges": _equal(_range),
    "newer architecture": _on("new_decoder_architecture"),
    "no buckets": _both(lambda side: side.value("position_buckets") in range(-9, 1)),
    "no parallel branches": lambda key, sides: (
        _off("parallel_attn")(key, sides) and _off("new_decoder_architecture")(key, sides)
    ),
    "no tasks": _off("use_task_id"),
    "no balancing loss": _off("output_router_logits"),
    "no head": _both(lambda side: not side.has_head),
    "no layer slides": _both(lambda side: "sliding_attention" not in (side.settings.get("layer_types") or ())),
    "no length of pretraining": _both(lambda side: not {*side.ropes.values()} & {"llama3", "longrope", "yarn"}),
    "no limit of positions": _both(_unlimited),
    "not read by this rope type": _is_unread,
    "named": lambda key, sides: all(side.value(key) is not None for side in sides),
    "not sparse": _off("sparse_prediction"),
    "none named": lambda key, sides: not any(side.settings.get(key) for side in sides),
    "norms behind": _off("do_layer_norm_before"),
    "nothing to begin with": _both(lambda side: side.settings.get("decoder_start_token_id") is None),
    "null is false": _null_is_false,
    "one kv head": _both(lambda s: bool(s.settings.get("multi_query")) and not s.settings["new_decoder_architecture"]),
    "no layer of this type": _is_unused,
    "plain relative": _off("relative_attention"),
}


@dataclass(frozen=True)
class Entry:
    """Keys (patterns, `*` for anything) that are inert: in some families, of some classes, on some condition.

    classes        pieces of class names, one of which the model's must have; none: any class
    other_classes  pieces that it must not have
    """

    reason: str
    names: tuple[str, ...]
    families: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    other_classes: tuple[str, ...] = ()
    when: str = ""

    def holds(self, key: str, sides: Pair) -> bool:
        """Whether this is why the key changes nothing."""
        named = any(fnmatchcase(key, name) for name in self.names) and all(map(self._is_of, sides))
        return named and (not self.when or CONDITIONS[self.when](key, sides))

    def _is_of(self, side: Side) -> bool:
        return (
            (not self.families or side.model_type in self.families)
            and (not self.classes or any(piece in side.model for piece in self.classes))
            and not any(piece in side.model for piece in self.other_classes)
        )


@cache
def entries() -> tuple[Entry, ...]:
    """The table. Raises ValueError for a field or a condition that does not exist."""
    found = []
    for line in tomllib.loads(TABLE.read_text(encoding="utf-8"))["keys"]:
        if line.keys() - FIELDS or line.get("when", "") not in {"", *CONDITIONS}:
            raise ValueError(f"{TABLE.name}: an entry with unknown fields or an unknown condition: {line}")
        split = {name: tuple(text.split()) for name, text in line.items() if name not in ("reason", "when")}
        found.append(Entry(line["reason"], when=line.get("when", ""), **split))
    return tuple(found)


def reason(key: str, sides: Pair) -> str | None:
    """Why a key changes nothing between two configs; None where it may."""
    return next((entry.reason for entry in entries() if entry.holds(key, sides)), None)
