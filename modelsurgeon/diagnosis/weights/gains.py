"""The gains and biases of norms, and the place of each norm in the model, by the table alone.

head       the norm of a masked-LM head, after an activation: its gains are often far larger than the body's, 2.3 to
           2.6 against 0.6 to 1.0 in BERT (Su Jianlin, https://www.kexue.fm/archives/8747)
last       the body's last norm, which writes what the head reads, or the last hidden state
embedding  a norm before the first layer
body       all others
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelsurgeon.architectures.architecture import Architecture, Template
from modelsurgeon.diagnosis.weights.numbers import Moments
from modelsurgeon.growth.kinds.kind import kind_of


@dataclass(frozen=True)
class Gain:
    """One gain, or bias, of a norm, with the offset that the model adds to gains; schema.json describes the fields."""

    tensor: str
    template: str
    kind: str
    layer: int | None
    part: str
    place: str
    size: int
    mean: float
    deviation: float
    min: float
    max: float
    rms: float

    @property
    def is_fresh(self) -> bool:
        """Whether it has its initial value: a gain of 1, a bias of 0 everywhere."""
        return self.min == self.max == (1.0 if self.kind == "gain" else 0.0)


def gain(table: Architecture, places: Mapping[str, str], name: str, size: int, moments: Moments) -> Gain | None:
    """The gain or bias of this name, None for another tensor; `moments`: of its finite numbers as stored."""
    template = table.template(name)
    if name not in places or template is None:
        return None
    is_gain = template.signature.normalises is not None
    whole = _layered(table, template, name).name
    counters = [f"{{{counter}}}." for counter in table.counters if f"{{{counter}}}." in whole]
    inside = whole[max(whole.index(one) + len(one) for one in counters) :] if counters else whole
    part = inside.removeprefix(table.prefix).removesuffix(".weight").removesuffix(".bias")
    named = name, template.name, "gain" if is_gain else "bias", layer_of(table, template, name), part, places[name]
    values = moments.moved(table.offset if is_gain else 0.0)
    return Gain(*named, size, values.mean, values.deviation, values.low, values.high, values.rms)


def places(table: Architecture, names: Iterable[str]) -> dict[str, str]:
    """{name on disk of a norm's gain or bias: place}."""
    order = {template.name: number for number, template in enumerate(table.templates)}
    templates = {name: template for name in names if (template := table.template(name))}
    norms = {name: norm for name, template in templates.items() if (norm := _norm(table, template))}
    heads = {name for name, norm in norms.items() if _is_of_head(table, norm)}
    stream = {name: norm for name, norm in norms.items() if name not in heads and _is_of_stream(table, norm)}
    state = (table.outputs.get("last_hidden_state"),)
    stream = {name: norm for name, norm in stream.items() if norm.signature.gains == state} or stream
    where = {name: (order[norm.name], *table.numbers(templates[name], name).values()) for name, norm in stream.items()}
    last = {name for name in where if where[name] == max(where.values())}
    found = {}
    for name, norm in norms.items():
        is_first = _is_before_layers(table, norm, order)
        found[name] = "last" if name in last else "head" if name in heads else "embedding" if is_first else "body"
    return found


def layer_of(table: Architecture, template: Template, name: str) -> int | None:
    """The layer's number in a name on disk, also where a line of the table is for that layer alone; None outside."""
    numbers = table.numbers(_layered(table, template, name), name)
    return next((number for key, number in numbers.items() if key in table.counters), None)


def _norm(table: Architecture, template: Template) -> Template | None:
    """The table's line of the gain, for a gain or a bias; None for another tensor."""
    if template.signature.normalises is not None:
        return template
    name = template.name.removesuffix(".bias") + ".weight"
    norms = (other for other in table.templates if other.name == name and other.signature.normalises is not None)
    return next(norms, None) if template.name.endswith(".bias") else None


def _is_of_head(table: Architecture, norm: Template) -> bool:
    """Whether it normalises the output of an activation, and writes what a head reads."""
    assert norm.signature.normalises is not None
    kinds = [kind_of(table.axes[name]) for name in norm.signature.normalises.axes()]
    passed = all(kind.unit_scale and not kind.spans_layers for kind in kinds)
    return passed and table.tie is not None and norm.signature.gains == (table.tie.axis,)


def _is_of_stream(table: Architecture, norm: Template) -> bool:
    """Whether it writes hidden states, not queries or keys."""
    return all(kind_of(table.axes[name]).spans_layers for name in norm.signature.gains)


def _is_before_layers(table: Architecture, norm: Template, order: Mapping[str, int]) -> bool:
    """Whether it comes before the layers of its part of the model, and nothing reads what it writes before them."""
    if norm.placeholders:
        return False
    module = norm.name.split(".")[:-2]
    for depth in range(len(module), -1, -1):
        inside = [other for other in table.templates if other.name.split(".")[:depth] == module[:depth]]
        layers = [order[other.name] for other in inside if set(other.placeholders) & set(table.counters)]
        if layers:
            return order[norm.name] < min(layers)
        sides = (side for other in inside for side in other.signature.dimensions)
        read = {name for part, side in sides if side == "readers" for name in part.axes()}
        if depth == len(module) and read & set(norm.signature.gains):
            return False
    return False


def _layered(table: Architecture, template: Template, name: str) -> Template:
    """The line of the table that counts layers, where this line is for a single layer."""
    if template.placeholders:
        return template
    canonical = table.canonical(name)
    counted = (other for other in table.templates if other.placeholders and other.pattern.fullmatch(canonical))
    return next(counted, template)
