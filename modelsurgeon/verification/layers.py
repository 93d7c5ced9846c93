"""Hidden states: where in the model the result first differs from the source, sub-layer by sub-layer.

One row is run through both models. Compared are the outputs of the modules whose tensors write a residual axis by the
table (embeddings, norms, the last part of attention and MLP) and of the layers around them, in the order in which the
source runs them:

    model.embed_tokens                        stream
    model.layers.0.input_layernorm            hidden
    model.layers.0.self_attn.o_proj           stream
    ...
    model.layers.0                            the axis that its last part writes

Each state of the result is folded by its axis' map and compared with the source's, which is kept on disk. In 16 bits
every state has a noise floor of its own: the source's state against the same state computed in float32.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ArchitectureError
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.running.forward import folded
from modelsurgeon.running.outputs import Kept
from modelsurgeon.text import printable
from modelsurgeon.verification.comparison import errors
from modelsurgeon.verification.deviation import Deviation
from modelsurgeon.verification.limits import floor

# Float32 states of one function differ by up to 1.6e-5 of their deviation (ten trained families of four layers, both
# rules); an eps that the code fixes where it should have shrunk moves the first norm by 2e-3 (OPT).
TOLERANCE = 3e-4
# Of a state's own noise: an output of two passes is apart by less than twice (limits.py), but states are many, and one
# row has few positions. Measured over all families, both rules: up to 2.01 and 1.95 times.
NOISE = 3.0
# Of eps: the source may hold numbers that 16 bits have, without any noise, where the result rounds them. A number of
# HUGE deviations is moved by so much of one, on both sides.
ROUNDINGS = 8


@dataclass(frozen=True)
class ComparedState:
    """One state, of every position of one row.

    A *deviation* is that of the source's state at the position (deviation.py).

    name     the module's path; "(call 2)" after it where it runs more than once
    layer    the first number in the path; None outside of the layers
    part     the path inside of the layer; "" for the layer itself, and the whole path outside of the layers
    max_abs  the largest difference; nan where one side alone is not finite
    max_rel  the largest difference in deviations; nan where one side alone is not finite
    typical  deviations: the root mean square of the differences at a position, the median over positions
    noise    16 bits only: `max_rel` of the source's state against its own in float32
    limit    what `max_rel` may be; `typical_limit` is that of `typical`
    """

    name: str
    layer: int | None
    part: str
    max_abs: float
    max_rel: float
    typical: float = 0.0
    noise: float | None = None
    limit: float = TOLERANCE
    typical_limit: float = TOLERANCE

    @property
    def differs(self) -> bool:
        """Whether it differs by more than rounding explains."""
        return not (self.max_rel <= self.limit and self.typical <= self.typical_limit)


@dataclass(frozen=True)
class Layers:
    """The states that were compared, in the order of the source's forward pass."""

    inputs: str
    rows: tuple[ComparedState, ...]
    tolerance: float = TOLERANCE

    @property
    def first(self) -> ComparedState | None:
        """The first state that differs by more than rounding explains."""
        return next((row for row in self.rows if row.differs), None)

    def to_json(self) -> dict[str, Any]:
        """Its fields, and the name of the first state that differs."""
        first = self.first.name if self.first else None
        return {"inputs": self.inputs, "rows": printable(self.rows), "first": first, "tolerance": self.tolerance}


def keep_states(source: Checkpoint, model: Any, run: Callable[[], object], kept: Kept) -> None:
    """Run the source, and keep every state on disk that is to be compared."""

    def keep(name: str, axis: str, state: torch.Tensor) -> None:
        if state.shape[-1] == source.sizes[axis]:
            kept.put(name, state)

    with _watched(source, model, keep):
        run()


@dataclass(frozen=True)
class States:
    """The source's states, on disk.

    kept   computed in `dtype`
    wider  the same in float32, if `dtype` has 16 bits: what noise is measured from
    """

    dtype: str
    kept: Kept
    wider: Kept | None = None

    def compared(self, name: str, after: torch.Tensor) -> ComparedState | None:
        """Compare a state of the result, in the source's coordinates; None where the shapes differ."""
        before = self.kept.get(name)
        if before.shape != after.shape or not before.numel():
            return None
        found = ComparedState(name, *place(name), *_apart(before, after))
        if self.wider is None or name not in self.wider or self.wider.get(name).shape != before.shape:
            return found
        _, noise, typical = _apart(self.wider.get(name), before, noise=True)
        largest = floor(self.dtype, [noise], NOISE, TOLERANCE, ROUNDINGS)
        return replace(found, noise=noise, limit=largest, typical_limit=floor(self.dtype, [typical], NOISE, TOLERANCE))


def _apart(before: torch.Tensor, after: torch.Tensor, noise: bool = False) -> tuple[float, float, float]:
    """(largest difference, the same in deviations, typical one); nan where numbers of one side alone are not finite.

    noise  leave out numbers that are not finite
    """
    old, new = (state.flatten(0, -2).double() for state in (before, after))
    deviation = Deviation()
    deviation.add(old)
    found = errors(old, new, deviation.units(old))
    if bool(found.nonfinite.any()) and not noise:
        return math.nan, math.nan, math.nan
    return found.largest, float(found.worst.max()), float(found.typical.median())


def compare_states(
    source: Checkpoint, model: Any, run: Callable[[], object], states: States, maps: Mapping[str, AxisMap], inputs: str
) -> tuple[Layers | None, tuple[str, ...]]:
    """Run the result, and compare its states with the source's: (None if there are none, notes on those left out)."""
    compared: dict[str, ComparedState] = {}

    def compare(name: str, axis: str, state: torch.Tensor) -> None:
        if name in states.kept and (found := states.compared(name, folded(state, maps.get(axis)))):
            compared[name] = found

    with _watched(source, model, compare):
        run()
    kept = states.kept
    left_out = [name for name in kept.numbers if name not in compared]
    more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    notes = [f"hidden states not compared: {name}{more}: no map says how it grew" for name in left_out[:1]]
    rows = tuple(compared[name] for name in kept.numbers if name in compared)
    return (Layers(inputs, rows) if rows else None), tuple(notes)


@contextmanager
def _watched(source: Checkpoint, model: Any, see: Callable[[str, str, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(name, axis, state)` for every state of the forward passes inside, float32 or float64 on the CPU."""
    axes, calls = written_axes(source, model), Counter[str]()
    last: dict[str, str] = {}  # {layer: the axis of its last part}

    def hook(name: str, module: Any, given: Any, returned: Any) -> None:
        state = returned[0] if isinstance(returned, tuple | list) and returned else returned
        axis = axes.get(name) or last.get(name)
        last[_layer(name)] = axis or ""
        if axis and isinstance(state, torch.Tensor) and state.ndim > 1:
            calls[name] += 1
            call = name if calls[name] == 1 else f"{name} (call {calls[name]})"
            see(call, axis, state.detach().to("cpu", torch.promote_types(state.dtype, torch.float32)))

    with ExitStack() as stack:
        for name in sorted({*axes, *map(_layer, axes)} - {""}):
            stack.enter_context(model.get_submodule(name).register_forward_hook(partial(hook, name)))
        yield


def written_axes(source: Checkpoint, model: Any) -> dict[str, str]:
    """{path of a module: the residual axis that its parameters write}, where a map can fold its output.

    Left out: what the model multiplies by a power of an axis' size, and convolutions, whose channels come first.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]  # a tied tensor has several modules
    # Parameters may be laid out otherwise than the file's tensors (all experts in one): another form of the table.
    table = registry.find(source.config["model_type"]).fitted(source.resolved, names)
    found = {}
    for name in names:
        path = name.rpartition(".")[0]
        try:
            template = table.template(name)
        except ArchitectureError:  # a body's own copy, say, under a name that no file has
            continue
        if template is None or template.name in table.multiplied:
            continue
        written = (expression.alone for expression, _ in template.signature.written)
        residual = [axis for axis in written if axis in table.axes and kind_of(table.axes[axis]).spans_layers]
        if residual and not isinstance(model.get_submodule(path), torch.nn.modules.conv._ConvNd):
            found[path] = residual[0]
    return found


def _layer(name: str) -> str:
    """The path of the layer that holds a module: up to its first number; "" outside of the layers."""
    found = re.search(r"(?:^|\.)\d+(?=\.|$)", name)
    return name[: found.end()] if found else ""


def place(name: str) -> tuple[int | None, str]:
    """(number of the layer that a module is part of, path inside of it)."""
    path = name.partition(" ")[0]
    layer = _layer(path)
    return (int(layer.rpartition(".")[2]), path[len(layer) + 1 :]) if layer else (None, path)
