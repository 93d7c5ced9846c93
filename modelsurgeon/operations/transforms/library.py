"""What `transformers` would make of a config: the names of its tensors, their shapes, and how each one begins.

    >>> starts(checkpoint)["transformer.h.0.mlp.c_proj.weight"]
    Start(shape=(1024, 256), mean=0.0, deviation=0.0041, cut=None, zeros=(), table=None)

No rule of a family is written down here. The model's class is built without memory (torch's "meta" device), then asked
to initialise itself, and what it would have done to each tensor is noted: GPT-2's smaller projections, T5's deviation
for each kind of matrix, rows of padding that are zero, Whisper's sines. Tensors that are tied to others are left out.
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
from modelsurgeon.running.reference import loadable, model_class, quiet
from modelsurgeon.tensors.random.drawn import FAR


@dataclass(frozen=True)
class Start:
    """How one tensor begins.

    mean, deviation, cut, zeros  as `Drawn`
    table                        its numbers, where a formula gives them
    """

    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0
    cut: float | None = None
    zeros: tuple[int, ...] = ()
    table: torch.Tensor | None = None


def starts(checkpoint: Checkpoint) -> dict[str, Start]:
    """{name as the library's module has it: how it begins} for a checkpoint's config; its tensors are not looked at.

    Raises SourceError where the library cannot build the model, or leaves a tensor to chance that is not said.
    """
    model = _built(checkpoint)
    found = _noted(model)
    tied = {*model.all_tied_weights_keys}
    named = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    every = {name: found.get(id(named[name])) for name in model.state_dict() if name not in tied}
    table = checkpoint.architecture
    kept = {name: start for name, start in every.items() if not table.is_recomputed(name)}
    unsaid = next((name for name, start in kept.items() if start is None), None)
    if unsaid:
        raise SourceError(f"{type(model).__name__}: transformers does not say how {unsaid!r} begins")
    return {name: start for name, start in kept.items() if start is not None}


def _built(checkpoint: Checkpoint) -> Any:
    """The model without memory, its tied tensors apart."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers.initialization import no_tie_weights

    kind = model_class(checkpoint)
    try:
        with quiet(), warnings.catch_warnings(), no_tie_weights(), torch.device("meta"):
            warnings.simplefilter("ignore")
            return kind(kind.config_class.from_dict(loadable(checkpoint.config)))
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"transformers cannot build {kind.__name__}: {type(error).__name__}: {reason}") from error


def _noted(model: Any) -> dict[int, Start]:
    """{id of a parameter or buffer: how it begins}."""
    found: dict[int, Start] = {}
    with _noting(found):
        model.initialize_weights()
    return found


@contextmanager
def _noting(found: dict[int, Start]) -> Iterator[None]:
    """What the library's initialisation would do is noted, and nothing is done."""
    from transformers import initialization

    def noted(name: str, rule: Callable[..., Start]) -> Callable[..., torch.Tensor]:
        def note(tensor: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
            whole = tensor if tensor._base is None else tensor._base
            start = rule(Start(tuple(whole.shape)), *given, **named)
            if tensor is not whole:
                start = _zeroed(found, whole, tensor, name)
            found[id(whole)] = start
            return tensor

        return note

    functions: Mapping[str, Callable[..., torch.Tensor]] = {name: noted(name, rule) for name, rule in RULES.items()}
    known = initialization.TORCH_INIT_FUNCTIONS
    unknown = {name: _refused(name) for name in known if name not in RULES}
    with (
        patch.dict(known, {**unknown, **{name: rule for name, rule in functions.items() if name in known}}),
        patch.object(initialization, "copy_", functions["copy_"]),
    ):
        yield


def _zeroed(found: Mapping[int, Start], whole: torch.Tensor, part: torch.Tensor, name: str) -> Start:
    """What is known of a tensor, with some of its rows zero."""
    row = whole[0].numel()
    first, count = divmod(int(part.storage_offset()), row)[0], part.numel() // row
    if name != "zeros_" or id(whole) not in found or part.numel() % row:
        raise SourceError(f"transformers begins a part of a tensor by {name}, which init does not know")
    before = found[id(whole)]
    return replace(before, zeros=(*before.zeros, *range(first, first + count)))


def _refused(name: str) -> Callable[..., torch.Tensor]:
    def refuse(*given: Any, **named: Any) -> torch.Tensor:
        raise SourceError(f"transformers begins a tensor by {name}, which init does not know")

    return refuse


def _cut_normal(
    start: Start, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Start:
    """torch's bounds are numbers, no deviations: the usual -2 and 2 cut nothing of a deviation of 0.02."""
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
