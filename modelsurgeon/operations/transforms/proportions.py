"""The nearest size of the same proportions: settings for a number of parameters.

Query heads and key-value heads grow in their ratio, and keep their size; the residual and the MLPs, experts' MLPs too,
grow as much. Embedding sizes and low ranks of their own stay, and so does the number of experts. SmolLM2-135M has 9
query heads and 3 key-value heads of 64, so one step is a third:

    by_parameters(checkpoint, 360_000_000)    15 heads, 5 of keys and values, hidden 960, MLP 2560: 342 million

Parameters are counted from the signatures: nothing is built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import gcd, log, prod

from modelsurgeon.architectures.template import Template
from modelsurgeon.architectures.values import LARGEST_SIZE
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.source import read_config_of
from modelsurgeon.errors import ModelSurgeonError, PlanError
from modelsurgeon.growth.kinds.kind import Kind, kind_of
from modelsurgeon.growth.targets import by_config, by_settings, grown_keys, target_config
from modelsurgeon.operations.transforms.widening import Widening, widen
from modelsurgeon.text import parse_count

MULTIPLE = 64  # MLP sizes stay multiples of its largest divisor that divides them now
MOST_TRIED = 256  # sizes, the nearest first, before the search ends


def settings_for(
    checkpoint: Checkpoint, sizes: Iterable[str] | Mapping[str, int], like: str | None, params: str | int | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """(settings, notes on them) for sizes by their config keys, the widths of another config, a number of parameters.

    sizes   {config key: size}, or KEY=VALUE texts
    like    a config.json, a folder or a Hub id
    params  such as 350M, 1.5B
    Raises PlanError for what the family does not have, SourceError where there is no such config.
    """
    settings = dict(sizes) if isinstance(sizes, Mapping) else by_settings(checkpoint, sizes)
    notes: tuple[str, ...] = ()
    if like is not None:
        found, notes = by_config(checkpoint, read_config_of(like))
        settings = found | settings
    if params is not None:
        settings, count = by_parameters(checkpoint, parse_count(params), settings)
        notes = (f"{count:,} parameters are the nearest to {params} in these proportions",)
    return settings, notes


def by_parameters(
    checkpoint: Checkpoint, count: int, fixed: Mapping[str, int] | None = None
) -> tuple[dict[str, int], int]:
    """(the lossless settings of the same proportions nearest to `count` parameters, their number of parameters).

    fixed  settings that are chosen already
    Raises PlanError where the model has so many already, or where no size nearby has a plan.
    """
    check(checkpoint)
    proportions, why = Proportions(checkpoint, dict(fixed or {})), ""
    if count <= (present := proportions.present):
        raise PlanError(f"{count:,} parameters: the model has {present:,} already, and growth never takes away")
    for parameters, settings in proportions.around(count):
        try:
            lossy = widen(checkpoint, None, settings, Widening()).lossy
        except ModelSurgeonError as error:
            lossy = (str(error),)
        if not lossy:
            return settings, parameters
        why = why or lossy[0]
    why = why or "the family has none"
    raise PlanError(f"no size of the same proportions near {count:,} parameters can be had without loss: {why}")


@dataclass(frozen=True)
class Proportions:
    """The proportions of a checkpoint's sizes: `settings(unit)` are the present ones."""

    checkpoint: Checkpoint
    fixed: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def templates(self) -> Counter[Template]:
        """{line of the table: how many tensors}."""
        return Counter(filter(None, map(self.checkpoint.architecture.template, self.checkpoint.tensors)))

    @cached_property
    def grown(self) -> dict[str, str]:
        """{config key that grows: its axis}; the sum, where a sum and an activation have one key."""
        keyed, found = grown_keys(self.checkpoint, "heads"), dict[str, str]()
        for name in sorted(keyed, key=lambda name: not self._kind(name).spans_layers):
            found.setdefault(keyed[name], name)
        return found

    @cached_property
    def unit(self) -> int:
        """The number of steps of the present size: the greatest common divisor of all numbers of heads."""
        return gcd(*(self.checkpoint.sizes[n] for n in self.grown.values() if self._kind(n).is_head)) or 1

    def _kind(self, name: str) -> Kind:
        return kind_of(self.checkpoint.architecture.axes[name])

    @property
    def present(self) -> int:
        """The number of parameters that the model stores."""
        return self.parameters(self.checkpoint.sizes)

    def parameters(self, sizes: Mapping[str, int]) -> int:
        """The number of parameters that a model of these sizes, {axis: size}, stores."""
        table, total = self.checkpoint.architecture, Fraction(0)
        for template, count in self.templates.items():
            times = prod(Fraction(sizes[axis], self.checkpoint.sizes[axis]) for axis in table.spread(template))
            total += count * times * prod(template.signature.shape(sizes))
        return int(total)

    def around(self, count: int) -> list[tuple[int, dict[str, int]]]:
        """(parameters, settings) of the possible configs around `count` parameters, the nearest first."""
        middle, found = self._below(count), list[tuple[int, dict[str, int]]]()
        for step in range(max(self.unit + 1, middle - MOST_TRIED // 2), middle + MOST_TRIED // 2):
            settings = self.settings(step)
            with suppress(ModelSurgeonError):
                config = target_config(self.checkpoint, settings)
                found.append((self.parameters(self.checkpoint.architecture.sizes(config)), settings))
        return sorted(found, key=lambda candidate: abs(log(candidate[0] / count)))

    def settings(self, step: int) -> dict[str, int]:
        """Sizes `step / unit` times the present ones."""
        scaled: dict[str, int] = {}
        for key, name in self.grown.items():
            size, kind = self.checkpoint.sizes[name], self._kind(name)
            exact, multiple = size * Fraction(step, self.unit), gcd(size, MULTIPLE)
            is_exact = exact.denominator == 1 and (kind.is_head or kind.spans_layers)
            scaled[key] = int(exact) if is_exact else max(size, round(exact / multiple) * multiple)
        return {**scaled, **self.fixed}

    def _below(self, count: int) -> int:
        """The last step with no more parameters than `count`, possible or not; the present one where there is none."""
        sizes, axes = self.checkpoint.sizes, self.checkpoint.architecture.axes
        growing = {name: axis.key or "" for name, axis in axes.items() if "heads" in kind_of(axis).grown_by}
        low, high = self.unit, self.unit * (LARGEST_SIZE // max(sizes[name] for name in self.grown.values()))
        while high - low > 1:
            step = (low + high) // 2
            ratio = Fraction(step, self.unit)
            grown = {n: self.fixed.get(key, max(1, round(sizes[n] * ratio))) for n, key in growing.items()}
            low, high = (step, high) if self.parameters({**sizes, **grown}) <= count else (low, step)
        return low
