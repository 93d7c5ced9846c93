"""What the proof asks of tensors that copy none of the source's: zero, or finite (`Demand`)."""

from __future__ import annotations

from dataclasses import replace

from modelsurgeon.maps import dimension
from modelsurgeon.operations.operation import Demand
from modelsurgeon.proof.fold import Verdict, fold
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.remapped import Remapped
from modelsurgeon.tensors.stored import count_unusual


def verdict(name: str, tensor: LazyTensor, shape: tuple[int, ...], demand: Demand) -> Verdict:
    """Whether a tensor of the result has the shape that it must have, and meets what is asked of it."""
    if tensor.shape != shape:
        return Verdict(name, "wrong", detail=f"shape: expected {list(shape)}, found {list(tensor.shape)}")
    if demand.zero:
        zeros = Remapped(tensor, tuple(dimension.ungrown(size).emptied for size in shape), tensor.dtype)
        found = fold(name, zeros, tensor)
        said = f"{found.detail}: {demand.unmet}" if found.verdict == "wrong" else demand.met
        return replace(found, detail=said)
    if tensor.verbatim and any(count_unusual(tensor.verbatim)):
        return Verdict(name, "wrong", detail=demand.unmet)
    return Verdict(name, "exact", detail=demand.met)
