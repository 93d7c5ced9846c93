"""The words that tables are written with: axes, ties, rotary positions, default sizes.

`Axis.through` names the kind of an axis, which decides how it can grow: each is a file in `growth/kinds/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelsurgeon.errors import SourceError

Config = Mapping[str, Any]
Rule = Callable[[Config], Any]
Default = Rule | int | float | bool | str
Slopes = Callable[[Config, int], np.ndarray]


@dataclass(frozen=True)
class Axis:
    """One named axis.

    key       the config key of its size (`outer.inner` if nested), or None where the size only follows from others
    default   its size when the key is absent or null: a number, or a function of the config
    through   what the axis passes on the way from its writers to its readers; it decides which maps commute:
              "residual"    sums and norms
              "rank"        the same, for an axis of its own between two projections: embedding size, low ranks
              "pointwise"   an activation: copies of scale 1 ("pointwise residual": sums, norms and an activation)
              "linear"      nothing: copies of any scale
              "heads"       a softmax per head: whole copies of scale 1
              "inner"       an inner product: copies; nested pairs where it is rotated
              "normed"      an inner product's axis, or its heads, before a norm of their own: follows `follows`
              "angles"      the columns of a stored table of rotations: follows `follows`
              "experts"     a router's choice of `active` out of so many
              "choice"      what is added to the router's scores for the choice alone: follows `follows`
              "fixed"       never grows
    scaled    the power of its size by which the model multiplies what crosses it (-0.5: attention by sqrt(head))
    when      the condition of `scaled`: a config key (its default is in `Architecture.defaults`) or a function(config)
    over      the axes whose sizes are added up, where `scaled` is a power of their sum
    follows   of key-value heads: the query heads, consecutive runs of which share one of them
    active    the config key of the number of experts that a token gets
    groups    the config key of the number of groups of consecutive experts, among which the router chooses first
    slopes    function(config, heads): ALiBi's slopes, float64; None where positions are not ALiBi's
    why       the reason why a fixed axis is fixed
    """

    key: str | None = None
    default: Default | None = None
    through: str = "fixed"
    scaled: float = 0.0
    when: str | Rule | None = None
    follows: str | None = None
    over: tuple[str, ...] = ()
    active: str | None = None
    groups: str | None = None
    slopes: Slopes | None = None
    why: str = ""

    @property
    def grows(self) -> bool:
        return self.through != "fixed"


@dataclass(frozen=True)
class Tie:
    """An output head that is the embedding, unless the config says otherwise.

    head       the head's tensor, absent on disk while tied
    embedding  the tensor that it is tied to
    default    whether a config without `tie_word_embeddings` ties them
    axis       what the head reads: grown so that one tensor can serve as both
    also       further tensors that are tied by the same flag, {target: source}
    forced     the norm that untying halves while it doubles the head, to make them differ: the library ties two equal
               tensors whatever the flag says (powers of two: the logits keep their last bit)
    requires   the template that only checkpoints with a head hold
    refused    the reason why the head cannot have a tensor of its own
    """

    head: str
    embedding: str
    default: bool
    axis: str = "final"
    also: Mapping[str, str] = field(default_factory=dict)
    forced: str | None = None
    requires: str | None = None
    refused: str = ""


@dataclass(frozen=True)
class Rotary:
    """Rotary positions.

    layout    the coordinates of a pair, "half" (j, j + d/2) or "interleaved" (2j, 2j + 1), or a function(config) of it
    partial   the share of the axis that is rotated when the config names none; None: always the whole axis
    axis      the axis that is rotated
    size_key  the config key of the number of rotated coordinates, where there is one
    """

    layout: str | Rule = "half"
    partial: float | None = None
    axis: str = "head"
    size_key: str | None = None

    def pairs(self, config: Config) -> str:
        """The layout of this config."""
        return self.layout if isinstance(self.layout, str) else str(self.layout(config))


@dataclass(frozen=True)
class Key:
    """A default: the value of another config key."""

    key: str

    def __call__(self, config: Config) -> Any:
        return config[self.key]


@dataclass(frozen=True)
class Null:
    """A default where an absent key means one thing, and one that is null another."""

    key: str
    absent: Default
    null: Default

    def __call__(self, config: Config) -> Any:
        return meaning(self.null if self.key in config else self.absent, config)


@dataclass(frozen=True)
class Quotient:
    """A default size: one config key divided by another. Raises SourceError where it is no whole number."""

    above: str
    below: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys that it is made of."""
        return self.above, self.below

    def __call__(self, config: Config) -> int:
        above, below = config[self.above], config[self.below]
        if above % below:
            near = above - above % below + below
            raise SourceError(
                f"config.json: {self.above} = {above} is no multiple of {self.below} = {below}, such as {near}"
            )
        return int(above // below)


@dataclass(frozen=True)
class Multiple:
    """A default size: a config key times `factor`."""

    key: str
    factor: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys that it is made of."""
        return (self.key,)

    def __call__(self, config: Config) -> Any:
        return self.factor * config[self.key]


def meaning(default: Default, config: Config) -> Any:
    """The value of a default under a config: itself where it is a constant."""
    return default(config) if callable(default) else default


def labels(config: Config) -> int:
    """A default size: how many labels a classification head tells apart."""
    names = config.get("id2label")
    return len(names) if isinstance(names, Mapping) else int(config.get("num_labels") or 2)
