"""Does a checkpoint fit its table? Before any surgery, config, names, shapes and counts must agree.

Anything that no table accounts for is refused, except config keys without an effect in any family: a note lists them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.architectures.config import EFFECTIVE, lookup
from modelsurgeon.architectures.values import LARGEST_SIZE
from modelsurgeon.checkpoints.checkpoint import Checkpoint, left_behind
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.errors import ArchitectureError, FieldError, SourceError
from modelsurgeon.tensors import quantised
from modelsurgeon.tensors.dtypes import FLOATS
from modelsurgeon.text import shown

WITHOUT_RECORD = f"remove {RECORD} to treat it as a checkpoint without a record"
DIGITS = 9  # of a layer's number


def check(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Compare config, table and shapes; returns notes on unknown keys and on files left behind.

    Raises SourceError or ArchitectureError for the first thing that does not fit.
    """
    check_record(checkpoint)
    table, config = checkpoint.architecture, checkpoint.resolved
    _check_numbers(checkpoint)
    for key, accepted in table.requires.items():
        if table.value(config, key) not in accepted:
            raise ArchitectureError(
                f"config.json: {key} = {lookup(config, key)!r} is not supported for {config['model_type']}; "
                f"expected {' or '.join(map(repr, accepted))}"
            )
    unaccounted = sorted(set(config) - table.accounted_keys)
    axes = [axis for name in registry.known() for axis in registry.find(name).axes.values()] if unaccounted else []
    effective = EFFECTIVE | {axis.key.split(".")[0] for axis in axes if axis.key and axis.grows}  # in some family
    foreign = [key for key in unaccounted if key in effective]
    if foreign:
        raise SourceError(
            f"config.json: {foreign[0]} = {config[foreign[0]]!r} is not accounted for by {config['model_type']}; "
            "remove it if it has no effect"
        )
    for key, wanted in table.derived(config).items():
        if (found := table.value(config, key)) != wanted:
            raise SourceError(f"config.json: {key} = {found!r}, but the rest makes it {wanted!r}")
    _check_tensors(checkpoint)
    notes = {
        "code that config.json names, which is not copied; transformers runs its own unless told to trust it": _code(
            config
        ),
        f"config keys kept as they are, unknown to {config['model_type']}": [*map(shown, unaccounted)],
        "files left behind": left_behind(checkpoint),
    }
    return tuple(f"{note}: {', '.join(names)}" for note, names in notes.items() if names)


def _code(config: Mapping[str, Any]) -> list[str]:
    """What `auto_map` names: a family with a table is one that the library has code for, and runs by default."""
    named = config.get("auto_map")
    return [shown(str(code)) for code in named.values()] if isinstance(named, Mapping) else []


def check_record(checkpoint: Checkpoint) -> None:
    """Raise FieldError where a field of the record cannot be right."""
    if checkpoint.misrecorded:
        raise FieldError(f"{checkpoint.origin.id}: {checkpoint.misrecorded}; {WITHOUT_RECORD}")


def _check_numbers(checkpoint: Checkpoint) -> None:
    """Check what no tensor's shape depends on, and that sizes fit the memory."""
    table, config = checkpoint.architecture, checkpoint.resolved
    labels = config.get("num_labels")
    _expect(labels is None or _is_whole(labels, -math.inf), "num_labels", labels, "a whole number")
    if table.eps:
        eps = table.value(config, table.eps)
        _expect(_is_number(eps) and 0 <= eps < math.inf, table.eps, eps, "a number of 0 or more")
    for key in sorted({key.split(".")[0] for key in table.dotted}):
        _expect(isinstance(config.get(key), Mapping | None), key, config.get(key), "an object")
    sizes = checkpoint.sizes  # which may depend on the keys checked above
    for name, axis in table.axes.items():  # a router chooses some of the experts, in groups of one size
        if axis.active:
            active = table.value(config, axis.active)
            _expect(_is_whole(active, 1, sizes[name]), axis.active, active, f"1 to {sizes[name]} (experts)")
        if axis.groups and (groups := table.value(config, axis.groups)) is not None:
            even = _is_whole(groups, 1, sizes[name]) and sizes[name] % groups == 0
            _expect(even, axis.groups, groups, f"groups of {sizes[name]} experts")
    if table.clip:
        clip = lookup(config, table.clip)
        positive = _is_number(clip) and 0 < clip < math.inf
        _expect(clip is None or positive, table.clip, clip, "a number above 0, or null")
    for name, size in sizes.items():
        _expect(size <= LARGEST_SIZE, table.axes[name].key or name, size, f"{LARGEST_SIZE} at most")


def _expect(holds: bool, key: str, value: Any, expected: str) -> None:
    if not holds:
        raise SourceError(f"config.json: {key} is {value!r}, expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: float, most: float = math.inf) -> bool:
    return _is_number(value) and isinstance(value, int) and least <= value <= most


def _check_tensors(checkpoint: Checkpoint) -> None:
    table, sizes = checkpoint.architecture, checkpoint.sizes
    present: set[str] = set()
    limits = _limits(checkpoint)
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in FLOATS and not table.is_recomputed(name):
            raise SourceError(quantised.of_tensor(name, tensor.dtype))
        template = table.template(name)
        if template is None:  # the library recomputes it
            continue
        expected = template.signature.shape(sizes)
        if tensor.shape != expected:
            keys = dict.fromkeys(filter(None, (table.axes[axis].key for axis in template.signature.axes)))
            raise SourceError(
                f"tensor {name!r}: config.json makes it {list(expected)} ({template.signature.text}; "
                f"by {', '.join(keys)}), the file holds {list(tensor.shape)}"
            )
        canonical = table.canonical(name)
        if canonical in present:
            raise SourceError(f"tensor {name!r} appears twice, under two names")
        present.add(canonical)
        _check_place(table, template, name, limits)
    _check_complete(checkpoint, present, limits)
    tie = table.tie
    if tie and checkpoint.has_head and not checkpoint.is_tied and not checkpoint.has(tie.head):
        raise SourceError(f"tensor {tie.head!r} is missing, and config.json does not tie it to {tie.embedding!r}")


def _limits(checkpoint: Checkpoint) -> dict[str, int]:
    """{counter or axis in names: how many there are}."""
    limits, table = dict(checkpoint.sizes), checkpoint.architecture
    for counter, key in table.counters.items():
        limits[counter] = count = table.value(checkpoint.resolved, key)
        _expect(_is_whole(count, 0), key, count, "a whole number")
    return limits


def _check_place(table: Architecture, template: Template, name: str, limits: Mapping[str, int]) -> None:
    """Check the numbers in a tensor's name: of its layer, of its expert."""
    numbers = template.pattern.fullmatch(table.canonical(name))
    for counter, value in (numbers.groupdict() if numbers else {}).items():
        if len(value) > DIGITS or str(int(value)) != value:
            raise SourceError(
                f"tensor {name!a}: {counter} is {value[:20]!a}, "
                f"expected at most {DIGITS} decimal digits without leading zeros"
            )
        if int(value) >= limits[counter]:
            key = table.counters.get(counter) or table.axes[counter].key or counter
            raise SourceError(f"tensor {name!r}: config.json has only {key} = {limits[counter]}")


def _check_complete(checkpoint: Checkpoint, present: set[str], limits: Mapping[str, int]) -> None:
    """Check that no tensor is missing or in a wrong layer, and that optional ones are in all layers or none."""
    table = checkpoint.architecture
    for template in table.templates:
        names = _names(checkpoint, template, limits, len(present) + 1)
        expected = [name for name, belongs in names if belongs]
        missing = [name for name in expected if name not in present]
        if missing and not (template.optional and len(missing) == len(expected)):
            raise SourceError(f"tensor {missing[0]!r} is missing")
        astray = next((name for name, belongs in names if not belongs and name in present), None)
        if astray and table.template(astray) is template:
            raise SourceError(f"tensor {astray!r}: by config.json its layer has none")


def _names(checkpoint: Checkpoint, template: Template, limits: Mapping[str, int], most: int) -> list[tuple[str, bool]]:
    """(name, whether its layer has it) for every tensor of a template; at most `most` names a placeholder."""
    table, config = checkpoint.architecture, checkpoint.resolved
    names: list[tuple[str, dict[str, int]]] = [(template.name, {})]
    for key in template.placeholders:
        numbers = range(min(limits[key], most))
        names = [(name.replace(f"{{{key}}}", str(i)), {**place, key: i}) for name, place in names for i in numbers]
    return [(name, table.is_in(template, config, place)) for name, place in names]
