"""The state of AdamW, grown along with the weights: moments, and the param groups that follow the source's trajectory.

    state     {index: {"step", "exp_avg", "exp_avg_sq"}}         exp_avg c, exp_avg_sq c^2      (`trajectory.py`)
    groups    [{"params": [index ...], "lr", "eps" ...}]         lr f, eps c, weight_decay / f

A group of the source becomes as many as its tensors have different factors. Each names its parameters
("param_names", as torch writes it), so that a model finds its own again, and a grown state can be grown once more.
Where nothing is copied the second moment is the mean of the tensor's: a zero there would let the first gradient make a
step of several times the learning rate.
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
from modelsurgeon.errors import ArchitectureError, PlanError, SourceError
from modelsurgeon.files.json_file import shortened
from modelsurgeon.maps.dimension import Dimension
from modelsurgeon.training.trajectory import Scaling, Trajectory

FIRST, SECOND = ("exp_avg",), ("exp_avg_sq", "max_exp_avg_sq")  # moments
NEEDED = ("step", *FIRST, "exp_avg_sq")
OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad")  # what Adam and AdamW have, and no other has all of
BLOCK = 1 << 14  # numbers of a moment that are computed at a time, in float64: larger blocks leave holes in the heap

Orders = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Parameter:
    """One trained tensor.

    group  which of the source's groups it is in
    state  what the source's optimizer knows of it; empty where it never had a gradient
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

    @property
    def nbytes(self) -> int:
        """Bytes of the grown moments."""
        return sum(prod(self.new_shape) * moment.element_size() for moment in self.moments)


@dataclass(frozen=True, eq=False)
class AdamState:
    """A state that was read, and what will become of it.

    groups      the source's options, without parameters
    parameters  in the source's order
    """

    law: Trajectory
    groups: tuple[Mapping[str, Any], ...]
    parameters: tuple[Parameter, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the grown moments."""
        return sum(parameter.nbytes for parameter in self.parameters)

    @property
    def old_nbytes(self) -> int:
        """Bytes of the moments that were read."""
        return sum(moment.nbytes for parameter in self.parameters for moment in parameter.moments)

    @property
    def split(self) -> list[tuple[int, tuple[float, float, float], list[Parameter]]]:
        """[(the source's group, (lr, weight_decay, eps) multipliers, its parameters)], in the new order."""
        found: dict[tuple[int, tuple[float, float, float]], list[Parameter]] = {}
        for parameter in self.parameters:
            times = _multipliers(self.groups[parameter.group], parameter.scaling)
            found.setdefault((parameter.group, times), []).append(parameter)
        return [
            (group, times, members) for (group, times), members in sorted(found.items(), key=lambda item: item[0][0])
        ]

    def grown(self) -> dict[str, Any]:
        """The state_dict of the grown model's optimizer, whole in memory."""
        state: dict[int, dict[str, Any]] = {}
        groups, index = [], 0
        for number, (lr, decay, eps), members in self.split:
            old, indices = self.groups[number], range(index, index + len(members))
            index += len(members)
            groups.append(
                {
                    **old,
                    **{key: old[key] * lr for key in ("lr", "initial_lr") if key in old},
                    "weight_decay": old["weight_decay"] * decay,
                    "eps": old["eps"] * eps,
                    "params": [*indices],
                    "param_names": [member.name for member in members],
                }
            )
            state |= {i: self._moments(member) for i, member in zip(indices, members, strict=True) if member.state}
        return {"state": state, "param_groups": groups}

    def _moments(self, parameter: Parameter) -> dict[str, Any]:
        dimensions, constant = self.law.gradient(parameter.template), self.law.constant(parameter.template)
        return {
            key: grown_moment(value, dimensions, 1 / constant, 1 + (key in SECOND)) if key in FIRST + SECOND else value
            for key, value in parameter.state.items()
        }

    def reasons(self) -> dict[str, list[str]]:
        """{why the trajectory is not followed to the last digit: names of parameters}."""
        found: dict[str, list[str]] = {}
        for parameter in self.parameters:
            group, gain = self.groups[parameter.group], parameter.template.signature.normalises is not None
            for reason in parameter.scaling.reasons:
                found.setdefault(reason, []).append(parameter.name)
            if group["weight_decay"] and gain and self.law.architecture.offset and parameter.scaling.lr != 1:
                found.setdefault("a gain of the form (1 + w) decays to another one", []).append(parameter.name)
        return found

    def norms(self) -> tuple[float, float]:
        """By how much, at least and at most, the length of the gradient changes, tensor by tensor."""
        found = [parameter.scaling.norm**0.5 for parameter in self.parameters]
        return min(found), max(found)


def _multipliers(group: Mapping[str, Any], scaling: Scaling) -> tuple[float, float, float]:
    """(lr, weight_decay, eps); decay within the gradient (Adam) must shrink as the gradient does."""
    if not group["weight_decay"]:
        return scaling.lr, 1.0, scaling.eps
    apart = group.get("decoupled_weight_decay", True)
    return scaling.lr, scaling.weight_decay * (1.0 if apart else scaling.eps), scaling.eps


def grown_moment(moment: torch.Tensor, dimensions: tuple[Dimension, ...], constant: float, power: int) -> torch.Tensor:
    """A moment at the new size and in its own dtype: gathered, times (constant * factor) ** power.

    power  1 of the mean, 2 of the mean square
    """
    rows, *inner = (dimension.new_size for dimension in dimensions)
    result = torch.empty((rows, *inner), dtype=moment.dtype)
    fill = _fill(moment, dimensions, constant) if power == 2 else 0.0
    step = max(1, BLOCK // max(1, prod(inner)))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        parts = [_part(dimensions[0], start, stop), *(_part(d, 0, d.new_size) for d in dimensions[1:])]
        block = moment
        for axis, (source, _) in enumerate(parts):
            block = block.index_select(axis, torch.from_numpy(np.maximum(source, 0)))
        block = block.to(torch.float64) * constant**power
        for axis, (_, factor) in enumerate(parts):
            shape = [-1 if axis == other else 1 for other in range(len(parts))]
            block *= torch.from_numpy(factor**power).reshape(shape)
        for axis, (source, _) in enumerate(parts):
            block.index_fill_(axis, torch.from_numpy(np.flatnonzero(source < 0)), fill)
        result[start:stop] = block
    return result


def _part(dimension: Dimension, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, factors) of some coordinates; means of coordinates are no sources of a moment."""
    source = dimension.source[start:stop]
    return np.where(source < dimension.size, source, -1), dimension.factor[start:stop]


def _fill(moment: torch.Tensor, dimensions: tuple[Dimension, ...], constant: float) -> float:
    """The mean of a second moment at the new size, over what is copied."""
    factors = [dimension.factor[_part(dimension, 0, dimension.new_size)[0] >= 0] for dimension in dimensions]
    if not all(map(len, factors)) or all(len(f) == d.new_size for f, d in zip(factors, dimensions, strict=True)):
        return 0.0
    return float(moment.mean(dtype=torch.float64)) * constant**2 * prod(float((f**2).mean()) for f in factors)


def read_state(path: Path) -> dict[str, Any]:
    """What torch.save wrote, without running any code in it. Raises SourceError for what cannot be read so."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise SourceError(f"{path}: not there") from None
    except Exception as error:  # pickles fail in many ways
        reason = shortened(str(error).split("\n")[0])
        raise SourceError(f"{path}: cannot be read as tensors alone ({reason})") from None
    if not isinstance(found, dict):
        raise SourceError(f"{path}: holds {type(found).__name__}, expected a dictionary")
    return found


def adam_state(
    path: Path, found: Mapping[str, Any], law: Trajectory, shapes: Mapping[str, tuple[int, ...]], orders: Orders
) -> AdamState:
    """The state that a file holds, each moment with the tensor that it belongs to.

    shapes  {name: shape} of the parameters of the model that was trained
    orders  {what it is called: the names of each group, in order}: what groups without names may be
    Raises SourceError for another optimizer's state, or another model's.
    """
    groups, state = _checked(path, found)
    named = _names(path, groups, orders)
    parameters = []
    for number, (group, names) in enumerate(zip(groups, named, strict=True)):
        for index, name in zip(group["params"], names, strict=True):
            own = state.get(index, {})
            _check_shapes(path, name, own, shapes)
            template = _template(law, name)
            parameters.append(_parameter(law, name, number, template, own, shapes[name]))
    options = tuple({k: v for k, v in group.items() if k not in ("params", "param_names")} for group in groups)
    return AdamState(law, options, tuple(parameters))


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
            said = ", ".join(map(str, sorted(keys, key=str))) or type(own).__name__
            raise SourceError(f"{path}: state of {shortened(said)}, expected AdamW's: {', '.join(NEEDED)}")
    indices = [index for group in groups for index in group["params"]]
    if len(set(indices)) != len(indices) or not set(state) <= set(indices):
        raise SourceError(f"{path}: state and param_groups name different parameters")
    return groups, state


def _names(path: Path, groups: list[dict[str, Any]], orders: Orders) -> tuple[tuple[str, ...], ...]:
    """The names of each group's parameters: as recorded, or those of the one order with as many."""
    if all("param_names" in group for group in groups):
        named = tuple(tuple(group["param_names"]) for group in groups)
        every = [name for names in named for name in names]
        known = {name for order in orders.values() for names in order for name in names}
        if (
            len(set(every)) == len(every) == len([i for group in groups for i in group["params"]])
            and set(every) <= known
        ):
            return named
        raise SourceError(f"{path}: param_names are not those of this model; is it the state of another one?")
    counts = [len(group["params"]) for group in groups]
    fitting = [names for names in orders.values() if [*map(len, names)] == counts]
    if not fitting:
        expected = " or ".join(f"{[*map(len, names)]} ({what})" for what, names in orders.items())
        raise SourceError(f"{path}: groups of {counts} parameters, expected {expected}")
    return fitting[0]


def _check_shapes(path: Path, name: str, own: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for key in (*FIRST, *SECOND):
        moment = own.get(key)
        if moment is None:
            continue
        if not isinstance(moment, torch.Tensor) or not moment.is_floating_point():
            raise SourceError(f"{path}: {key} of {name!r} is no tensor of floats; 8-bit states are not read")
        if tuple(moment.shape) != shapes[name]:
            raise SourceError(
                f"{path}: {key} of {name!r} has shape {tuple(moment.shape)}, expected {shapes[name]}; "
                "is it the state of another model?"
            )


def _template(law: Trajectory, name: str) -> Template:
    template = law.architecture.template(name)
    if template is None:
        raise ArchitectureError(f"parameter {name!r} is trained, and no line of this model type's table grows it")
    grown = [axis for axis in law.architecture.spread(template) if not law.maps[axis].is_identity]
    if grown:
        raise PlanError(f"--optimizer: axis {grown[0]!r} grows, which makes further parameters; they have no state yet")
    return template


def _parameter(
    law: Trajectory, name: str, group: int, template: Template, own: Mapping[str, Any], shape: tuple[int, ...]
) -> Parameter:
    dimensions = law.gradient(template)
    if tuple(dimension.size for dimension in dimensions) != shape:
        sizes = tuple(dimension.size for dimension in dimensions)
        raise ArchitectureError(f"parameter {name!r} has shape {shape}, and the table makes it {sizes}")
    return Parameter(name, group, template, law.scaling(template), own, tuple(d.new_size for d in dimensions))
