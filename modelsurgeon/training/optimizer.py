"""The state of AdamW, grown along with the weights: moments, and the param groups that follow the source's trajectory.

    state     {index: {"step", "exp_avg", "exp_avg_sq"}}         exp_avg c, exp_avg_sq c^2      (`trajectory.py`)
    groups    [{"params": [index ...], "lr", "eps" ...}]         lr f, eps c, weight_decay / f

A group of the source is split where its tensors have different factors. Each new group names its parameters
("param_names", as torch writes it): so a model finds them, and the state can grow once more.
The second moment of a number that copies nothing is the tensor's mean: with zero, its first gradient would make a step
of several times the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsurgeon.architectures.template import Template
from modelsurgeon.errors import ArchitectureError, PlanError, SourceError, first_line
from modelsurgeon.files.json_file import shortened
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.training.trajectory import Scaling, Trajectory

FIRST, SECOND = ("exp_avg",), ("exp_avg_sq", "max_exp_avg_sq")  # moments
NEEDED = ("step", *FIRST, "exp_avg_sq")
OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad")  # no other optimizer than Adam and AdamW has all of them
BLOCK = 1 << 14  # numbers of a moment that are computed at a time, in float64: larger blocks leave holes in the heap

Orders = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Parameter:
    """One trained tensor.

    group      the index of its group in the source
    state      the source's optimizer state for it; empty where it never had a gradient
    new_shape  after growth
    """

    name: str
    group: int
    template: Template
    scaling: Scaling
    state: Mapping[str, Any]
    new_shape: tuple[int, ...]

    @property
    def moments(self) -> list[torch.Tensor]:
        return [value for key, value in self.state.items() if key in FIRST + SECOND]


@dataclass(frozen=True, eq=False)
class AdamState:
    """A state that was read, and how it grows.

    groups      the source's options, without parameters
    parameters  in the source's order
    """

    law: Trajectory
    groups: tuple[Mapping[str, Any], ...]
    parameters: tuple[Parameter, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the grown moments."""
        return sum(prod(one.new_shape) * moment.element_size() for one in self.parameters for moment in one.moments)

    @property
    def old_nbytes(self) -> int:
        """Bytes of the moments that were read."""
        return sum(moment.nbytes for parameter in self.parameters for moment in parameter.moments)

    @property
    def split(self) -> list[tuple[int, tuple[float, float, float], list[Parameter]]]:
        """[(the source's group, (lr, weight_decay, eps) multipliers, its parameters)], in the new order."""
        members: dict[tuple[int, tuple[float, float, float]], list[Parameter]] = {}
        for parameter in self.parameters:
            options, scaling, decay = self.groups[parameter.group], parameter.scaling, 1.0
            if options["weight_decay"]:  # Adam adds it to the gradient: there it must shrink as the gradient does
                decoupled = options.get("decoupled_weight_decay", True)
                decay = scaling.weight_decay * (1.0 if decoupled else scaling.eps)
            members.setdefault((parameter.group, (scaling.lr, decay, scaling.eps)), []).append(parameter)
        return [(group, times, parameters) for (group, times), parameters in members.items()]

    def grown(self) -> dict[str, Any]:
        """The state_dict of the grown model's optimizer, whole in memory."""
        state: dict[int, dict[str, Any]] = {}
        groups, index = [], 0
        for number, (lr, decay, eps), members in self.split:
            old, indices = self.groups[number], [*range(index, index + len(members))]
            index += len(members)
            rates = {key: old[key] * lr for key in ("lr", "initial_lr") if key in old}
            rates |= {"weight_decay": old["weight_decay"] * decay, "eps": old["eps"] * eps}
            names = [member.name for member in members]
            groups.append({**old, **rates, "params": indices, "param_names": names})
            state |= {i: self._moments(member) for i, member in zip(indices, members, strict=True) if member.state}
        return {"state": state, "param_groups": groups}

    def _moments(self, parameter: Parameter) -> dict[str, Any]:
        dimensions, constant = self.law.gradient(parameter.template), self.law.constant(parameter.template)
        return {
            key: grown_moment(value, dimensions, 1 / constant, 1 + (key in SECOND)) if key in FIRST + SECOND else value
            for key, value in parameter.state.items()
        }

    def reasons(self) -> dict[str, list[str]]:
        """{why training follows the trajectory only nearly: names of parameters}."""
        found: dict[str, list[str]] = {}
        for parameter in self.parameters:
            group, gain = self.groups[parameter.group], parameter.template.signature.normalises is not None
            for reason in parameter.scaling.reasons:
                found.setdefault(reason, []).append(parameter.name)
            if group["weight_decay"] and gain and self.law.architecture.offset and parameter.scaling.lr != 1:
                found.setdefault("a gain of the form (1 + w) decays to another one", []).append(parameter.name)
        return found

    def norms(self) -> tuple[float, float]:
        """(the least, the largest) factor by which growth changes the length of a tensor's gradient."""
        factors = [parameter.scaling.norm**0.5 for parameter in self.parameters]
        return min(factors), max(factors)


def grown_moment(moment: torch.Tensor, dimensions: tuple[Dimension, ...], constant: float, power: int) -> torch.Tensor:
    """A moment at the new size and in its own dtype: gathered, times (constant * factor) ** power.

    power  1 for the mean, 2 for the mean square
    """
    rows, *inner = (dimension.new_size for dimension in dimensions)
    result = torch.empty((rows, *inner), dtype=moment.dtype)
    fill = _fill(moment, dimensions, constant) if power == 2 else 0.0
    sources = [torch.from_numpy(np.where(d.source < d.size, d.source, -1)) for d in dimensions]  # means are no sources
    factors = [torch.from_numpy(dimension.factor**power) for dimension in dimensions]
    step = max(1, BLOCK // max(1, prod(inner)))
    for start in range(0, rows, step):
        block, own = moment, slice(start, start + step)
        parts = [(sources[0][own], factors[0][own]), *zip(sources[1:], factors[1:], strict=True)]
        for axis, (source, _) in enumerate(parts):
            block = block.index_select(axis, source.clamp(min=0))
        block = block.to(torch.float64) * constant**power
        for axis, (_, factor) in enumerate(parts):
            block *= factor.reshape([-1 if axis == other else 1 for other in range(len(parts))])
        for axis, (source, _) in enumerate(parts):
            block.index_fill_(axis, (source < 0).nonzero().flatten(), fill)
        result[own] = block
    return result


def _fill(moment: torch.Tensor, dimensions: tuple[Dimension, ...], constant: float) -> float:
    """The mean of a grown second moment over the numbers that are copies; 0 where all are, or none."""
    factors = [d.factor[(d.source >= 0) & (d.source < d.size)] for d in dimensions]
    if not all(map(len, factors)) or all(len(f) == d.new_size for f, d in zip(factors, dimensions, strict=True)):
        return 0.0
    return float(moment.mean(dtype=torch.float64)) * constant**2 * prod(float((f**2).mean()) for f in factors)


def read_state(path: Path) -> dict[str, Any]:
    """The dictionary that torch.save wrote. Raises SourceError for another file, or one that holds code to run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise SourceError(f"{path}: not there") from None
    except Exception as error:  # pickles fail in many ways
        raise SourceError(f"{path}: cannot be read as tensors alone ({shortened(first_line(error))})") from None
    if not isinstance(state, dict):
        raise SourceError(f"{path}: holds {type(state).__name__}, expected a dictionary")
    return state


def adam_state(
    path: Path, found: Mapping[str, Any], law: Trajectory, shapes: Mapping[str, tuple[int, ...]], orders: Orders
) -> AdamState:
    """The state that a file holds, each moment with the tensor that it belongs to.

    shapes  {name: shape} of the parameters of the model that was trained
    orders  {what people call an order: the names of each group}: the orders that groups without names may have
    Raises SourceError for another optimizer's state, or another model's.
    """
    groups, state = _checked(path, found)
    parameters = tuple(
        _parameter(path, law, name, number, state.get(index, {}), shapes[name])
        for number, (group, names) in enumerate(zip(groups, _names(path, groups, orders), strict=True))
        for index, name in zip(group["params"], names, strict=True)
    )
    options = tuple({k: v for k, v in group.items() if k not in ("params", "param_names")} for group in groups)
    return AdamState(law, options, parameters)


def _checked(path: Path, found: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[Any, dict[str, Any]]]:
    """(groups, state). Raises SourceError unless both are those of Adam or AdamW."""
    groups, state = found.get("param_groups"), found.get("state")
    if not isinstance(groups, list) or not groups or not isinstance(state, dict):
        raise SourceError(f"{path}: no state of an optimizer; expected param_groups and state")
    for group in groups:
        missing = [key for key in ("params", *OPTIONS) if not isinstance(group, dict) or key not in group]
        if missing:
            raise SourceError(f"{path}: a param group without {missing[0]!r}: not the state of AdamW or Adam")
    for own in state.values():
        keys = set(own) if isinstance(own, dict) else set()
        if not set(NEEDED) <= keys or not keys <= {*NEEDED, *SECOND}:
            held = ", ".join(sorted(map(str, keys))) or type(own).__name__
            raise SourceError(f"{path}: state of {shortened(held)}, expected AdamW's: {', '.join(NEEDED)}")
    indices = [index for group in groups for index in group["params"]]
    if len(set(indices)) != len(indices) or not set(state) <= set(indices):
        raise SourceError(f"{path}: state and param_groups name different parameters")
    return groups, state


def _names(path: Path, groups: list[dict[str, Any]], orders: Orders) -> tuple[tuple[str, ...], ...]:
    """The names of each group's parameters: on record, or those of the first order with groups of the same lengths."""
    counts = [len(group["params"]) for group in groups]
    if all("param_names" in group for group in groups):
        named = tuple(tuple(group["param_names"]) for group in groups)
        every = [name for names in named for name in names]
        known = {name for order in orders.values() for names in order for name in names}
        if len(set(every)) != len(every) or len(every) != sum(counts) or not set(every) <= known:
            raise SourceError(f"{path}: param_names are not those of this model; is it the state of another one?")
        return named
    fitting = [names for names in orders.values() if [*map(len, names)] == counts]
    if not fitting:
        expected = " or ".join(f"{[*map(len, names)]} ({what})" for what, names in orders.items())
        raise SourceError(f"{path}: groups of {counts} parameters, expected {expected}")
    return fitting[0]


def _parameter(
    path: Path, law: Trajectory, name: str, group: int, own: Mapping[str, Any], shape: tuple[int, ...]
) -> Parameter:
    for key in (key for key in FIRST + SECOND if key in own):
        moment, what = own[key], f"{path}: {key} of {name!r}"
        if not isinstance(moment, torch.Tensor) or not moment.is_floating_point():
            raise SourceError(f"{what} is no tensor of floats; 8-bit states are not read")
        if tuple(moment.shape) != shape:
            found = tuple(moment.shape)
            raise SourceError(f"{what} has shape {found}, expected {shape}; is it the state of another model?")
    template = law.architecture.template(name)
    if template is None:
        raise ArchitectureError(f"parameter {name!r} is trained, and no line of this model type's table grows it")
    grown = [axis for axis in law.architecture.spread(template) if not law.maps[axis].is_identity]
    if grown:
        raise PlanError(f"--optimizer: axis {grown[0]!r} grows, which makes further parameters; they have no state yet")
    dimensions = law.gradient(template)
    sizes = tuple(dimension.size for dimension in dimensions)
    if sizes != shape:
        raise ArchitectureError(f"parameter {name!r} has shape {shape}, and the table makes it {sizes}")
    return Parameter(name, group, template, law.scaling(template), own, tuple(d.new_size for d in dimensions))
