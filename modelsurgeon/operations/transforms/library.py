"""The tensors that `transformers` would make of a config: their names, their shapes, and how each one begins.

    >>> starts(checkpoint)["transformer.h.0.mlp.c_proj.weight"]
    Start(shape=(1024, 256), mean=0.0, deviation=0.0041, cut=None, zeros=(), table=None)

No family has rules here. The model's class is built without memory (torch's "meta" device), and its own initialisation
is recorded instead of carried out: GPT-2's smaller projections, T5's deviation for each kind of matrix, rows of padding
that are zero, Whisper's sines. Tensors that are tied to others are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError
from modelsurgeon.running.reference import UNBUILDABLE, loadable, model_class, quiet
from modelsurgeon.tensors.random.drawn import FAR

BUILDING = (*UNBUILDABLE, RuntimeError)  # errors of a bad config


@dataclass(frozen=True)
class Start:
    """How one tensor begins: `mean`, `deviation`, `cut` and `zeros` are those of `Drawn`."""

    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0
    cut: float | None = None
    zeros: tuple[int, ...] = ()
    table: torch.Tensor | None = None  # its numbers, where a formula gives them


def starts(checkpoint: Checkpoint) -> dict[str, Start]:
    """{name in the library's module: how it begins} for a checkpoint's config; its tensors are ignored.

    Raises SourceError where the library cannot build the model, or does not initialise a tensor.
    """
    model, recorded = _built(checkpoint), dict[int, Start]()
    with _recording(recorded):
        model.initialize_weights()
    tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    found: dict[str, Start] = {}
    for name in model.state_dict():
        if name in model.all_tied_weights_keys or checkpoint.architecture.is_recomputed(name):
            continue
        if id(tensors[name]) not in recorded:
            raise SourceError(f"{type(model).__name__}: transformers does not say how {name!r} begins")
        found[name] = recorded[id(tensors[name])]
    return found


def _built(checkpoint: Checkpoint) -> Any:
    """The model without memory, and without ties."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers.initialization import no_tie_weights

    kind = model_class(checkpoint)
    try:
        with quiet(), warnings.catch_warnings(), no_tie_weights(), torch.device("meta"):
            warnings.simplefilter("ignore")
            return kind(kind.config_class.from_dict(loadable(checkpoint.config)))
    except (*BUILDING, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"transformers cannot build {kind.__name__}: {type(error).__name__}: {reason}") from error


@contextmanager
def _recording(recorded: dict[int, Start]) -> Iterator[None]:
    """Record {id of a parameter or buffer: how it begins} in the place of the library's initialisation."""
    from transformers import initialization

    def recorder(name: str) -> Callable[..., torch.Tensor]:
        def record(tensor: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
            if name not in RULES:
                raise SourceError(f"transformers begins a tensor by {name}, which init does not know")
            whole = tensor if tensor._base is None else tensor._base
            start = RULES[name](Start(tuple(whole.shape)), *given, **named)
            recorded[id(whole)] = start if tensor is whole else _zeroed(recorded, whole, tensor, name)
            return tensor

        return record

    functions = initialization.TORCH_INIT_FUNCTIONS
    replaced = patch.dict(functions, {name: recorder(name) for name in functions})
    with replaced, patch.object(initialization, "copy_", recorder("copy_")):
        yield


def _zeroed(recorded: Mapping[int, Start], whole: torch.Tensor, part: torch.Tensor, name: str) -> Start:
    """The start of a tensor, with the rows of a part zero."""
    row = whole[0].numel()
    first, count = int(part.storage_offset()) // row, part.numel() // row
    if name != "zeros_" or id(whole) not in recorded or part.numel() % row:
        raise SourceError(f"transformers begins a part of a tensor by {name}, which init does not know")
    before = recorded[id(whole)]
    return replace(before, zeros=(*before.zeros, *range(first, first + count)))


def _cut_normal(
    start: Start, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Start:
    """torch's bounds are numbers, not deviations: at a deviation of 0.02 the usual -2 and 2 cut nothing."""
    if b - mean != mean - a:
        raise SourceError("transformers begins a tensor by a normal cut unevenly, which init does not know")
    cut = (b - mean) / std if std else FAR
    return replace(start, mean=mean, deviation=std, cut=cut if cut < FAR else None)


RULES: Mapping[str, Callable[..., Start]] = {
    "normal_": lambda start, mean=0.0, std=1.0, generator=None: replace(start, mean=mean, deviation=std),
    "trunc_normal_": _cut_normal,
    "zeros_": lambda start: start,
    "ones_": lambda start: replace(start, mean=1.0),
    "constant_": lambda start, val: replace(start, mean=float(val)),
    "copy_": lambda start, other: replace(start, table=other.detach().clone().expand(start.shape)),
}
