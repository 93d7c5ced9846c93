"""A checkpoint, planned or stored, straight into a model of `transformers`: nothing is written to a disk.

The library makes the model without memory, on torch's "meta" device, and puts one parameter after another in its place.
What it is handed is no tensor but a promise of one: asked for, it is computed piece by piece, in the dtype that the
parameter has. Beside the model there is one piece in memory; where a family's parameters are made of several tensors
(experts that the library fuses), those of one parameter.

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
from modelsurgeon.errors import ModelSurgeonError, SourceError
from modelsurgeon.running.reference import LOADING, bare_body, model_class, quiet, refuse_made_up
from modelsurgeon.tensors.arena import Arena
from modelsurgeon.tensors.budget import LARGEST
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, DTYPES
from modelsurgeon.tensors.lazy import LazyTensor

GENERATION = "generation_config.json"


def assemble(checkpoint: Checkpoint, dtype: str | None = None, device: str = "cpu") -> Any:
    """The model of the checkpoint's class, in evaluation mode; its state dict is what a saved folder would load.

    dtype   "float32", "bfloat16" ...; None: the config's, else that of its narrowest matrices
    device  cpu, cuda, cuda:1: its parameters go there one by one
    Raises SourceError where the library cannot build the model, or would make up some of its weights.
    """
    wanted = getattr(torch, dtype or _stored_dtype(checkpoint))
    chosen = model_class(checkpoint)
    promised = {name: Promise(tensor) for name, tensor in checkpoint.tensors.items()}
    one_by_one = {"HF_DEACTIVATE_ASYNC_LOAD": "1"}  # else four at once, each in memory of its own
    try:
        with quiet(), patch.dict(os.environ, one_by_one):
            config = chosen.config_class.from_dict(
                {k: v for k, v in checkpoint.config.items() if k not in LOADING and not k.startswith("_")}
            )
            model, found = chosen.from_pretrained(
                None,
                config=config,
                state_dict=promised,
                dtype=wanted,
                device_map={"": device},
                ignore_mismatched_sizes=True,  # it reports them, and they are refused below
                output_loading_info=True,
                **bare_body(checkpoint, chosen),
            )
    except ModelSurgeonError:
        raise
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise SourceError(
            f"{checkpoint.origin.id}: transformers cannot build it: {type(error).__name__}: {reason}"
        ) from error
    refuse_made_up(checkpoint.origin.id, model, found)
    if GENERATION in checkpoint.side_files and model.can_generate():
        model.generation_config = _generation_config(checkpoint)
    return model.eval()


def _generation_config(checkpoint: Checkpoint) -> Any:
    from transformers import GenerationConfig

    with TemporaryDirectory(prefix="modelsurgeon-") as name:
        (Path(name) / GENERATION).write_bytes(checkpoint.side_files[GENERATION].read())
        return GenerationConfig.from_pretrained(name)


def _stored_dtype(checkpoint: Checkpoint) -> str:
    named = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")).removeprefix("torch.")
    return named if named in DTYPE_NAMES else next(k for k, v in DTYPE_NAMES.items() if v == checkpoint.dtype)


class Promise:
    """A tensor that is computed when it is placed: the library asks for all of it, then where to and as what."""

    def __init__(self, tensor: LazyTensor) -> None:
        self._tensor = tensor
        self.shape, self.dtype = tensor.shape, DTYPES[tensor.dtype]

    def __getitem__(self, index: Any) -> Promise:
        if index is not Ellipsis:
            raise TypeError(f"only the whole of a tensor is promised, not {index!r}")
        return self

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor."""
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
