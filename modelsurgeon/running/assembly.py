"""A planned or stored checkpoint as a model of `transformers`, with nothing written to a disk.

The library builds the model on torch's "meta" device, which takes no memory, then fills in one parameter after another.
It gets a `Promise` for each tensor, which computes the numbers piece by piece, in the parameter's dtype, when the
library asks for them. Besides the model, memory holds one piece, or all tensors of one parameter where the library
fuses several (experts).

Upstream: transformers/core_model_loading.py, which reads slices of safetensors files in the same way.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.running.reference import bare_body, loadable, loading_errors, model_class, quiet, refuse_made_up
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.budget import LARGEST
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, DTYPES
from modelsurgeon.tensors.lazy import LazyTensor

GENERATION = "generation_config.json"


def assemble(checkpoint: Checkpoint, dtype: str | None = None, device: str = "cpu") -> Any:
    """The model of the checkpoint's class, in evaluation mode, with the state dict that a saved folder would load.

    dtype   "float32", "bfloat16" ...; None: the config's, else that of its narrowest matrices
    device  cpu, cuda, cuda:1
    Raises SourceError where the library cannot load the model, or would invent some of its weights.
    """
    from transformers import GenerationConfig

    named = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")).removeprefix("torch.")
    stored = named if named in DTYPE_NAMES else next(k for k, v in DTYPE_NAMES.items() if v == checkpoint.dtype)
    chosen = model_class(checkpoint)
    promised = {name: Promise(tensor) for name, tensor in checkpoint.tensors.items()}
    one_by_one = {"HF_DEACTIVATE_ASYNC_LOAD": "1"}  # else four at once, each in memory of its own
    with loading_errors(checkpoint.origin.id), quiet(), patch.dict(os.environ, one_by_one):
        model, info = chosen.from_pretrained(
            None,
            config=chosen.config_class.from_dict(loadable(checkpoint.config)),
            state_dict=promised,
            dtype=getattr(torch, dtype or stored),
            device_map={"": device},
            ignore_mismatched_sizes=True,  # it reports them, and they are refused below
            output_loading_info=True,
            **bare_body(checkpoint, chosen),
        )
    refuse_made_up(checkpoint.origin.id, model, info)
    if GENERATION in checkpoint.side_files and model.can_generate():
        with TemporaryDirectory(prefix="modelsurgeon-") as name:
            (Path(name) / GENERATION).write_bytes(checkpoint.side_files[GENERATION].read())
            model.generation_config = GenerationConfig.from_pretrained(name)
    return model.eval()


class Promise:
    """A tensor that is computed when the library puts it in its place: by `promise[...].to(device, dtype)`."""

    def __init__(self, tensor: LazyTensor) -> None:
        self._tensor = tensor
        self.shape, self.dtype = tensor.shape, DTYPES[tensor.dtype]

    def __getitem__(self, index: Any) -> Promise:
        if index is not Ellipsis:
            raise TypeError(f"only the whole of a tensor is promised, not {index!r}")
        return self

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor's numbers, in `dtype` unless they are integers."""
        wanted = dtype if dtype and self.dtype.is_floating_point else self.dtype
        out = torch.empty(self.shape, dtype=wanted, device=device)
        arena = Arena()
        for piece in self._tensor.pieces(LARGEST):
            if piece.again is not None:
                out[piece.start : piece.stop] = out[piece.again : piece.again + piece.stop - piece.start]
            elif out.ndim < 2:
                target = out[piece.start : piece.stop] if out.ndim else out
                target.copy_(self._tensor.read(piece.start, piece.stop, arena.reset()).reshape(target.shape))
            else:
                block = self._tensor.read(piece.start, piece.stop, arena.reset(), piece.first, piece.last)
                out[piece.start : piece.stop, piece.first : piece.last].copy_(block)
        return out
