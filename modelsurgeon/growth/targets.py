"""What to grow to: a target is a config, and the sizes that differ from the present config grow.

    by_settings    KEY=VALUE, as typed
    by_factor      hidden, MLP and attention width times a whole number
    by_config      the widths of another config of the family
    by_parameters  the nearest size of the same proportions (`proportions.py`)

All return settings, {config key: value}, and `target_config` makes a config of them. A size that the file only implies
grows only where the settings name it: a hidden size alone grows alone, where the family's config can express that.
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


def settable(table: Architecture) -> tuple[str, ...]:
    """The config keys that growth can change, in the order of the table."""
    keys = [key for axis in table.axes.values() if axis.grows for key in (axis.key, axis.active)]
    return tuple(dict.fromkeys(filter(None, [*keys, table.rotary.size_key if table.rotary else None])))


def target_config(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config with these settings, and every implied size spelled out.

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
    table, known = checkpoint.architecture, settable(checkpoint.architecture)
    if native not in known:
        fixed = {axis.key: axis.why for axis in table.axes.values() if axis.key and not axis.grows}
        depth = dict.fromkeys(table.counters.values(), "depth does not grow")
        others = {"vocab_size": "the vocabulary does not grow", **depth}
        why = fixed.get(native) or others.get(native) or f"not a width of {checkpoint.config['model_type']}"
        raise PlanError(f"{key}: {why}; what can grow: {', '.join(known)}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{key} is {value!r}, expected a whole number of 1 or more")


def by_settings(checkpoint: Checkpoint, texts: Iterable[str]) -> dict[str, int]:
    """The settings of `KEY=VALUE` texts, under the family's own names of the keys.

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
    fixed = {*table.derived(checkpoint.resolved), *(a.key for a in table.axes.values() if kind_of(a).keeps_size)}
    grown = {name: axis.key for name, axis in table.axes.items() if attention in kind_of(axis).grown_by}
    return {name: key for name, key in grown.items() if key and key not in fixed}


def by_config(checkpoint: Checkpoint, other: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """(the widths of another config of this family, notes on what else differs and is not taken).

    The other config needs `model_type` and widths only. Raises PlanError where it is of another family, SourceError
    where it lacks a width.
    """
    table, expected = checkpoint.architecture, checkpoint.config["model_type"]
    if other.get("model_type") != expected:
        raise PlanError(f"the other config is of model_type {other.get('model_type')!r}, expected {expected!r}")
    resolved = table.resolve(other)
    settings = {axis.key: table.size(resolved, n) for n, axis in table.axes.items() if axis.key and axis.grows}
    further = {key: lookup(resolved, key) for key in settable(table) if key not in settings}
    settings |= {key: value for key, value in further.items() if value is not None}
    known = {key.split(".")[0] for key in table.accounted_keys} - (INERT - {"vocab_size", "tie_word_embeddings"})
    differs, short = [], (bool, int, float, str)  # a note shows no longer values
    for key in sorted(known - {*settings, *table.equal, *table.aliases}):
        here, there = table.value(checkpoint.resolved, key), lookup(resolved, key)
        if here != there and None not in (here, there):
            shown = isinstance(here, short) and isinstance(there, short)
            differs.append(f"{key} {here} (there {there})" if shown else key)
    return settings, (f"not taken from the other config: {', '.join(differs)}",) if differs else ()
