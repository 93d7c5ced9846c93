"""Architectures are tables: which axes a model has, which of them each tensor writes and reads, what its norms need.

Keys of `tensors` are names on disk, with the placeholders of `template.py`; `{layer.last}` is the last layer's number.
Of two templates that fit a name the one with fewer placeholders holds. A tensor that no template names is refused, and
so is one that is missing; so is a config key with an effect that the table does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from modelsurgeon.architectures.config import INERT, lookup
from modelsurgeon.architectures.template import NUMBER, Template, expand, one_name_a_line
from modelsurgeon.architectures.words import (
    Axis,
    Config,
    Default,
    Key,
    Multiple,
    Null,
    Quotient,
    Rotary,
    Rule,
    Tie,
    labels,
    meaning,
)
from modelsurgeon.errors import ArchitectureError, SourceError
from modelsurgeon.maps.signature import Signature, parse

# What tables are written with, all from one place.
__all__ = ["Architecture", "Axis", "Config", "Form", "Key", "Multiple", "Null", "Quotient", "Rotary", "Template", "Tie"]
__all__ += ["but", "labels"]

FREQUENCIES = r".*rotary_emb\.inv_freq"

# What a table's function raises for a config of wrong types: the mistake is in the config.
SENSELESS = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Form:
    """Another layout of the same family.

    name     for people; unique in its table
    when     function(config, canonical names of tensors): whether a checkpoint has this layout
    tensors  {template: signature, or None for one that this layout lacks}
    axes     {name: Axis}
    fields   {field of Architecture: value}
    """

    name: str
    when: Callable[[Config, frozenset[str]], bool]
    tensors: Mapping[str, str | None] = field(default_factory=dict)
    axes: Mapping[str, Axis] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", one_name_a_line(self.tensors))

    def of(self, table: Architecture) -> Architecture:
        """The table of this layout."""
        tensors = {**table.tensors, **self.tensors}
        present = {name: text for name, text in tensors.items() if text is not None}
        return replace(table, tensors=present, axes={**table.axes, **self.axes}, **self.fields)


@dataclass(frozen=True)
class Architecture:
    """Everything that surgery must know of a family.

    axes       name -> Axis
    tensors    name template -> signature
    counters   {layer} -> the config key that counts it
    norm       "layer" or "rms"
    eps        the config key of the norms' eps, or None where the code fixes it
    tie        the output head's tie, or None
    prefix     how tensor names begin, except in some files of the bare body
    offset     what the model adds to every gain: 1 for (1 + w)
    weightless signatures of norms that hold no tensor
    fixed_eps  templates of norms whose eps the code fixes, where others' is in the config
    multiplied tensors whose product the model multiplies by a power of an axis' size: {template: (axis, power)}, or
               (axis, power, what must be true) as in `Axis.when`
    factors    {config key: (template, power)}: the model multiplies a tensor's product by that power of the key's value
    softcap    (config key, what its absence means) of the bound that a tanh puts on logits; null: none
    clip       the config key of a clamp on queries, keys and values
    fills      {template: number}: what new entries hold that copy no old one
    computed   {template: function(size, new size) -> function(start, stop) -> rows}: what computes new entries
    keys       further config keys that have an effect, but none that depends on width: one string, between blanks
    requires   {key: (accepted values ...)}: any other value is refused
    defaults   {key: constant, or function(config)}: what the absence of keys means, except `tie_word_embeddings`
    multiples  {key: key, or number}: the library cannot run a config where the first is no multiple of the second
    projected  (axis, axis): the library leaves out the projection between them where their sizes are equal
    equal      {key: key, or function(config)}: derived keys, checked in an old config and written to a new one
    aliases    {other name in config.json: native key}
    synonyms   (piece of a tensor name in some files, the same piece in the table)
    ignored    patterns of tensors, beside rotary frequencies, that the library recomputes: results lack them
    only       {piece of a template: function(config, layer)}: which layers have the tensors of such templates
    forms      other layouts, applied in order where they hold
    outputs    {name of a model's output: the axis of its last dimension}
    model      the transformers class used when config.json names none
    """

    axes: Mapping[str, Axis]
    tensors: Mapping[str, str]
    norm: str
    model: str
    eps: str | None = "rms_norm_eps"
    counters: Mapping[str, str] = field(default_factory=lambda: {"layer": "num_hidden_layers"})
    tie: Tie | None = None
    rotary: Rotary | None = None
    prefix: str = "model."
    offset: float = 0.0
    weightless: tuple[str, ...] = ()
    fixed_eps: tuple[str, ...] = ()
    multiplied: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    factors: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    softcap: tuple[str, float | None] | None = None
    clip: str | None = None
    fills: Mapping[str, float] = field(default_factory=dict)
    computed: Mapping[str, Callable[[int, int], Any]] = field(default_factory=dict)
    keys: str = ""
    requires: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Default] = field(default_factory=dict)
    multiples: Mapping[str, str | int] = field(default_factory=dict)
    projected: tuple[str, str] | None = None
    equal: Mapping[str, str | Rule] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    synonyms: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    only: Mapping[str, Callable[[Config, int], bool]] = field(default_factory=dict)
    forms: tuple[Form, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=lambda: {"last_hidden_state": "final"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", one_name_a_line(self.tensors))

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """The table, one template a tensor."""
        return tuple(template for name, text in self.tensors.items() for template in expand(name, text))

    @cached_property
    def _shapes(self) -> dict[str, list[Template]]:
        """{name with # for every number and placeholder: templates, those with the fewest placeholders first}."""
        by_shape: dict[str, list[Template]] = {}
        for template in sorted(self.templates, key=lambda template: template.name.count("{")):
            by_shape.setdefault(NUMBER.sub("#", template.name), []).append(template)
        return by_shape

    @cached_property
    def norms(self) -> tuple[tuple[str, Signature], ...]:
        """(template's name, signature) of every norm: of its gain, or of one that has none."""
        gains = [(t.name, t.signature) for t in self.templates if t.signature.normalises is not None]
        return (*gains, *((text, parse(text)) for text in self.weightless))

    def fitted(self, config: Config, names: Iterable[str]) -> Architecture:
        """The table for a checkpoint: what depends on its config, or on the tensors that it holds, is decided."""
        table, present = self, frozenset(map(self.canonical, names) if self.forms else ())
        for form in self.forms:
            if _call(form.when, config, present):
                table = form.of(table)
        for counter, key in table.counters.items():
            count, last = table.value(config, key), f"{{{counter}.last}}"
            if any(last in name for name in table.tensors):
                number = str(count - 1 if isinstance(count, int) else 0)
                table = replace(table, tensors={name.replace(last, number): t for name, t in table.tensors.items()})
        return table if table is self else replace(table, forms=())

    @cached_property
    def accounted_keys(self) -> frozenset[str]:
        """Every config key that this table knows."""
        rope = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")
        rotary = (*rope, self.rotary.size_key) if self.rotary else ()
        sizes = (key for axis in self.axes.values() for key in (axis.key, axis.active, axis.groups))
        mappings = (self.requires, self.defaults, self.equal, self.counters.values(), self.aliases)
        keys = (*sizes, *rotary, self.eps, self.clip, *self.keys.split(), *(key for one in mappings for key in one))
        layouts = (replace(form, fields={**form.fields, "forms": ()}).of(self) for form in self.forms)
        return frozenset(INERT | {key.split(".")[0] for key in keys if key}).union(*(t.accounted_keys for t in layouts))

    @property
    def dotted(self) -> frozenset[str]:
        """The keys that this table looks up in nested objects."""
        axes = [key for axis in self.axes.values() for key in (axis.key, axis.active, axis.groups, axis.when)]
        keys = [*axes, self.eps, self.clip, *self.keys.split(), *self.requires, *self.absent, *self.equal]
        return frozenset(key for key in keys if isinstance(key, str) and "." in key)

    def canonical(self, name: str) -> str:
        """The name on disk -> the name in the table (prefix and old spellings undone)."""
        return self._looked_up(name)[0]

    def template(self, name: str) -> Template | None:
        """The line of the table for a name on disk. None: the library recomputes this tensor.

        Raises ArchitectureError when nothing accounts for it.
        """
        template = self._looked_up(name)[1]
        if not template and not self.is_recomputed(name):
            raise ArchitectureError(f"tensor {name!r}: no line of this model type's table accounts for it")
        return template

    def is_recomputed(self, name: str) -> bool:
        """Whether the library computes this tensor itself, or ignores it in a file."""
        patterns = (*self.ignored, FREQUENCIES) if self.rotary else self.ignored
        return any(re.fullmatch(pattern, name) for pattern in patterns)

    @cached_property
    def _seen(self) -> dict[str, tuple[str, Template | None]]:
        """{name on disk: (canonical name, template)} of every name asked for so far: a large model has 100,000."""
        return {}

    def _looked_up(self, name: str) -> tuple[str, Template | None]:
        if name not in self._seen:
            canonical = name
            for old, new in self.synonyms:
                canonical = canonical.replace(old, new)
            template = self._find(canonical)
            if self.prefix and not template and self._find(self.prefix + canonical):
                canonical, template = self.prefix + canonical, self._find(self.prefix + canonical)
            self._seen[name] = (canonical, None if self.is_recomputed(name) else template)
        return self._seen[name]

    def _find(self, name: str) -> Template | None:
        alike = self._shapes.get(NUMBER.sub("#", name), ())
        return next((template for template in alike if template.pattern.fullmatch(name)), None)

    def spread(self, template: Template) -> tuple[str, ...]:
        """The axes whose coordinates are tensors of their own, by name."""
        return tuple(name for name in template.placeholders if name in self.axes)

    def numbers(self, template: Template, name: str) -> dict[str, int]:
        """{counter or axis: number} in a name on disk."""
        match = template.pattern.fullmatch(self.canonical(name))
        return {key: int(number) for key, number in match.groupdict().items()} if match else {}

    def is_in(self, template: Template, config: Config, numbers: Mapping[str, int]) -> bool:
        """Whether the layer of these numbers ({counter: number}) has the template's tensors at all."""
        layer = next(iter(numbers.values()), None)
        return layer is None or all(
            _call(has, config, layer) for piece, has in self.only.items() if piece in template.name
        )

    def resolve(self, config: Config) -> dict[str, Any]:
        """The config as the library reads it: other names of a key, where present, win over the native one."""
        named = {native: config[alias] for alias, native in self.aliases.items() if config.get(alias) is not None}
        return {**config, **named}

    @property
    def absent(self) -> Mapping[str, Default]:
        """{key: what its absence means}"""
        return {**self.defaults, **({"tie_word_embeddings": self.tie.default} if self.tie else {})}

    def value(self, config: Config, key: str) -> Any:
        """A config value, or what its absence means."""
        value = lookup(config, key)
        if value is None and key in self.absent:
            return _call(meaning, self.absent[key], config)
        return value

    def holds(self, config: Config, when: str | Rule | None) -> bool:
        """Whether what `Axis.when` names is true."""
        return when is None or bool(self.value(config, when) if isinstance(when, str) else _call(when, config))

    def derived(self, config: Config) -> dict[str, Any]:
        """{key: value} that derived keys must have: those in the config, and those whose absence means something."""
        rules = {k: rule for k, rule in self.equal.items() if lookup(config, k) is not None or k in self.absent}
        return {k: lookup(config, rule) if isinstance(rule, str) else _call(rule, config) for k, rule in rules.items()}

    def spelled_out(self, config: Config) -> dict[str, Any]:
        """{key: value} of the keys that are absent from a config and mean something."""
        return {key: meaning(default, config) for key, default in self.absent.items() if lookup(config, key) is None}

    def sizes(self, config: Config) -> dict[str, int]:
        """{axis: size}. Raises SourceError where one is no positive integer."""
        return {name: self.size(config, name) for name in self.axes}

    def size(self, config: Config, name: str) -> int:
        """The size of an axis. Raises SourceError where it is no positive integer."""
        axis = self.axes[name]
        size = lookup(config, axis.key) if axis.key else None
        if size is None:
            if axis.default is None:
                raise SourceError(f"config.json: no {axis.key!r}, which is the size of the axis {name!r}")
            try:
                size = meaning(axis.default, config)
            except SENSELESS as error:
                raise SourceError(f"config.json: the size of axis {name!r} cannot be computed ({error!r})") from None
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SourceError(f"config.json: {axis.key or name} is {size!r}, expected a positive integer")
        return size


def but(
    other: Architecture,
    model: str,
    *,
    prefix: str | None = None,
    axes: Mapping[str, Axis] = MappingProxyType({}),
    tensors: Mapping[str, str] = MappingProxyType({}),
    keys: str = "",
    without: tuple[str, ...] = (),
) -> Architecture:
    """The table of a family that differs from another in three lines at most, its class and prefix aside.

    axes, tensors, keys  those that it has besides, or has otherwise
    without              keys of the other's `defaults` that it does not have
    """
    old, new = other.prefix, other.prefix if prefix is None else prefix
    tie = other.tie and replace(other.tie, embedding=_moved(other.tie.embedding, old, new))
    return replace(
        other,
        model=model,
        prefix=new,
        tie=tie,
        axes={**other.axes, **axes},
        tensors={**{_moved(name, old, new): text for name, text in other.tensors.items()}, **tensors},
        keys=f"{other.keys} {keys}",
        defaults={key: default for key, default in other.defaults.items() if key not in without},
    )


def _moved(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if old and name.startswith(old) else name


def _call(rule: Callable[..., Any], *given: Any) -> Any:
    """The result of a table's function. Raises SourceError where the config makes no sense to it."""
    try:
        return rule(*given)
    except SENSELESS as error:
        raise SourceError(f"config.json: a setting makes no sense here ({error!r})") from None
