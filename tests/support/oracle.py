"""A float64 oracle: the library's models compute in float64 from end to end.

They cast to float32 in norms, softmaxes, rotary angles, routers and ALiBi slopes, so that a model of float64 weights
is right to 1e-7 only. Inside `in_float64()` these casts go to float64:

    with in_float64():
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        logits = model(ids).logits

Load the model inside, for its rotary frequencies are computed then. Experts need `experts_implementation="eager"`:
the grouped kernel that is the default knows no float64.

`narrow()` lists what still has a narrower type. It watches torch's dispatcher, below every Python call, and so does not
rely on the means of `in_float64()`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.gpt2 import modeling_gpt2

WIDER = {
    torch.bfloat16: torch.float64,
    torch.float16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
_CASTS = {
    torch.Tensor.bfloat16: torch.Tensor.double,
    torch.Tensor.half: torch.Tensor.double,
    torch.Tensor.float: torch.Tensor.double,
    torch.Tensor.cfloat: torch.Tensor.cdouble,
}


@contextmanager
def in_float64() -> Iterator[None]:
    """Make every cast to a narrower floating type go to float64, and every new tensor float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch, "FloatTensor", torch.DoubleTensor),  # the mode does not see a type's constructor
            mock.patch.object(modeling_gpt2, "torch", _Torch()),
            _Wide(),
        ):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def narrow() -> Iterator[list[str]]:
    """Yields a list that fills with every operation inside that takes or returns a narrower type, and its place."""
    record = _Record()
    with record:
        yield record.found


class _Wide(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.view:  # view(dtype) is no cast: safetensors reads files so
            return func(*args, **kwargs)
        return _CASTS.get(func, func)(*map(_wider, args), **{key: _wider(value) for key, value in kwargs.items()})


def _wider(argument: Any) -> Any:
    return WIDER.get(argument, argument) if isinstance(argument, torch.dtype) else argument


class _Torch:
    """Replaces `torch` in GPT-2's module, which with reorder_and_upcast_attn asks whether a type *is* float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, dict(kwargs), result)) if isinstance(leaf, torch.Tensor)]
        for dtype in {tensor.dtype for tensor in tensors} & WIDER.keys():
            self.found.append(f"{func} {dtype} {_place()}")
        return result


def _place() -> str:
    """The innermost line that is neither of torch nor of this file."""
    torch_folder = str(Path(torch.__file__).parent)
    for frame in reversed(traceback.extract_stack()):
        if frame.filename != __file__ and not frame.filename.startswith(torch_folder):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "?"
