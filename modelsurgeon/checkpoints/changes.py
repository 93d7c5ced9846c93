"""What a transform changed in config.json, and the sizes that follow from it, in one line.

    hidden_size 32 -> 64, rms_norm_eps 0.01 -> 0.005; so head 8 -> 16

Long lists (LongRoPE's factors, one for each pair) are counted, not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint

LONGEST = 40  # characters of a value that is shown


def config_changes(before: Checkpoint, after: Checkpoint) -> str:
    """The keys whose values differ, then the sizes that no key names; empty where nothing differs."""
    old, new = dict(flat(before.config)), dict(flat(after.config))
    changed = [f"{key} {_shown(old, key)} -> {_shown(new, key)}" for key in new if old.get(key) != new[key]]
    changed += [f"{key} {_shown(old, key)} left out" for key in old if key not in new]
    keyless = [name for name in before.sizes if before.architecture.axes[name].key is None]
    resized = [name for name in keyless if before.sizes[name] != after.sizes.get(name, before.sizes[name])]
    implied = [f"{name} {before.sizes[name]} -> {after.sizes[name]}" for name in resized]
    return "; so ".join(", ".join(part) for part in (changed, implied) if part)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every value that is no object."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if value is None:
        return "(implied)"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"({len(value)} values)" if isinstance(value, list) else "(long)"
