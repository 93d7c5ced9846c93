"""What to grow to. A target is a config; what differs between it and the present one is what grows.

    by_settings    KEY=VALUE, as typed
    by_factor      hidden, MLP and attention width times a whole number: a short form of these settings
    by_config      the widths of another config of the family
    by_parameters  the nearest size of the same proportions (`proportions.py`)

All give settings, {config key: value}; `target_config` makes the config of them. Sizes that the file only implies stay
what they are unless they are named: a hidden size alone grows alone, where the family can say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.config import INERT, assigned, lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.kinds.kind import kind_of

ATTENTIONS = ("head-dim", "heads")
NO_DEPTH = "depth does not grow"
SHORT = (bool, int, float, str)  # values that a note can show

Settings = Mapping[str, Any]


def settable(table: Architecture) -> tuple[str, ...]:
    """The config keys that growth can change, in the order of the table."""
    keys: dict[str, None] = {}
    for axis in table.axes.values():
        if axis.grows:
            keys |= dict.fromkeys(key for key in (axis.key, axis.active) if key)
    if table.rotary and table.rotary.size_key:
        keys[table.rotary.size_key] = None
    return tuple(keys)


def target_config(checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    """The resolved config with these settings, and every size that it implied spelled out.

    Raises PlanError for a key that growth cannot change, a value that is no size, or settings that change nothing.
    """
    table, config = checkpoint.architecture, dict(checkpoint.resolved)
    for name, axis in table.axes.items():
        if axis.key and lookup(config, axis.key) is None and axis.grows:
            config = assigned(config, axis.key, checkpoint.sizes[name])
    before = config
    for key, value in settings.items():
        native = table.aliases.get(key, key)
        _check_setting(checkpoint, key, native, value)
        config = assigned(config, native, value)
    for key, value in table.derived(config).items():
        if key in settings and settings[key] != value:
            raise PlanError(f"{key} = {settings[key]}: the rest of the config makes it {value}")
        config = assigned(config, key, value)
    for key, of in table.multiples.items():
        total, part = lookup(config, key), of if isinstance(of, int) else lookup(config, of)
        if total % part:
            divisor, above = of if isinstance(of, int) else f"{of} = {part}", total - total % part + part
            raise PlanError(f"{key} = {total}: transformers wants a multiple of {divisor}, such as {above}")
    if all(lookup(config, key) == lookup(before, key) for key in settable(table)):
        raise PlanError("nothing to grow: the model has these sizes already")
    return config


def _check_setting(checkpoint: Checkpoint, key: str, native: str, value: Any) -> None:
    table = checkpoint.architecture
    known = settable(table)
    if native not in known:
        kind = checkpoint.config["model_type"]
        fixed = {axis.key: axis.why for axis in table.axes.values() if axis.key and not axis.grows}
        kept = {"vocab_size": "the vocabulary does not grow", **dict.fromkeys(table.counters.values(), NO_DEPTH)}
        why = fixed.get(native) or kept.get(native, "")
        raise PlanError(f"{key}: {why or f'not a width of {kind}'}; what can grow: {', '.join(known)}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{key} is {value!r}, expected a whole number of 1 or more")


def by_settings(checkpoint: Checkpoint, texts: Iterable[str]) -> dict[str, int]:
    """What `KEY=VALUE` texts say, under the family's own names of the keys.

    Raises PlanError for a text of another form, and for two values of one key.
    """
    settings: dict[str, int] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise PlanError(f"setting {text!r}: expected KEY=VALUE, as in hidden_size=1024")
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise PlanError(f"{key} is {value!r}, expected a whole number of 1 or more")
        native, size = checkpoint.architecture.aliases.get(key, key), int(value)
        _check_setting(checkpoint, key, native, size)
        if settings.setdefault(native, size) != size:
            raise PlanError(f"{key} is set twice, to {settings[native]} and to {size}")
    return settings


def by_factor(checkpoint: Checkpoint, factor: int, attention: str) -> dict[str, int]:
    """Hidden, MLP and attention width `factor` times as large; attention by "heads" or by "head-dim"."""
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 2:
        raise PlanError(f"factor is {factor!r}, expected a whole number of 2 or more")
    table = checkpoint.architecture
    settings = {key: checkpoint.sizes[name] * factor for name, key in grown_keys(checkpoint, attention).items()}
    if attention == "head-dim" and table.rotary and table.rotary.size_key:
        rotated = lookup(checkpoint.resolved, table.rotary.size_key)
        settings |= {table.rotary.size_key: rotated * factor} if isinstance(rotated, int) else {}
    return settings


def grown_keys(checkpoint: Checkpoint, attention: str) -> dict[str, str]:
    """{axis: its config key} of what grows in proportion, attention by "heads" or by "head-dim"."""
    table = checkpoint.architecture
    kept = {*table.derived(checkpoint.resolved), *(a.key for a in table.axes.values() if kind_of(a).keeps_size)}
    keyed = {name: axis.key for name, axis in table.axes.items() if attention in kind_of(axis).grown_by and axis.key}
    return {name: key for name, key in keyed.items() if key not in kept}


def by_config(checkpoint: Checkpoint, other: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """(the widths of another config of this family, notes of what else differs and is not taken).

    Nothing else need be in it than `model_type` and widths. Raises PlanError where it is of another family, SourceError
    where it lacks a width.
    """
    kind = checkpoint.config["model_type"]
    if other.get("model_type") != kind:
        raise PlanError(f"the other config is of model_type {other.get('model_type')!r}, expected {kind!r}")
    table = checkpoint.architecture
    resolved = table.resolve(other)
    growing = {name: axis.key for name, axis in table.axes.items() if axis.key and axis.grows}
    settings = {key: table.size(resolved, name) for name, key in growing.items()}
    beside = {key: lookup(resolved, key) for key in settable(table) if key not in settings}
    settings |= {key: value for key, value in beside.items() if value is not None}
    return settings, tuple(_not_taken(checkpoint, resolved, set(settings)))


def _not_taken(checkpoint: Checkpoint, other: Mapping[str, Any], taken: set[str]) -> list[str]:
    """What else two configs differ in, as a note."""
    table, present = checkpoint.architecture, checkpoint.resolved
    follows = {*taken, *table.equal, *table.aliases}
    known = {key.split(".")[0] for key in table.accounted_keys} - (INERT - {"vocab_size", "tie_word_embeddings"})
    pairs = {key: (table.value(present, key), lookup(other, key)) for key in sorted(known - follows)}
    differs = [
        f"{key} {here} (there {there})" if isinstance(here, SHORT) and isinstance(there, SHORT) else key
        for key, (here, there) in pairs.items()
        if here != there and None not in (here, there)
    ]
    return [f"not taken from the other config: {', '.join(differs)}"] if differs else []
