"""One forward pass of a batch, and which of a model's outputs are compared.

Outputs are compared in the source's coordinates. The m coordinates of a grown axis are folded into the source's n, as
a reader of the axis sees them: D y / gain.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.errors import ModelSurgeonError, first_line
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.running.reader import Batch, positions_of, settle
from modelsurgeon.running.reference import home

FAILED = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
OUTSIDE = "index out of range in self"  # what torch says of a row that a table does not have


def forward(model: Any, batch: Batch, hidden_states: bool = False) -> Mapping[str, Any]:
    """What the model returns for a batch; signals are converted to the model's dtype.

    hidden_states  whether it also returns all hidden states
    """
    settle(model, getattr(model.config, "vocab_size", None) or 1)
    place, more = home(model), {"output_hidden_states": True} if hidden_states else {}
    if "use_cache" in inspect.signature(model.forward).parameters:
        more["use_cache"] = False  # nothing goes on from here, and BART's decoder alone gets too short a one
    arguments = {k: v.to(place, model.dtype if v.is_floating_point() else None) for k, v in batch.arguments.items()}
    returned: Mapping[str, Any] = model(**arguments, **more, return_dict=True)
    return returned


def run_batch(model: Any, batch: Batch, hidden_states: bool = False) -> Mapping[str, Any]:
    """`forward` without gradients. Raises ModelSurgeonError where the model cannot take the batch."""
    refuse_unfit(model, batch)
    try:
        with torch.inference_mode():
            return forward(model, batch, hidden_states)
    except torch.OutOfMemoryError:  # the machine's fault, not the model's
        raise
    except FAILED as error:
        why = "it looks for a row that a table does not have" if OUTSIDE in str(error) else first_line(error)
        raise ModelSurgeonError(f"{type(model).__name__} cannot run on {batch.inputs}: {why}") from error


def refuse_unfit(model: Any, batch: Batch) -> None:
    """Raise ModelSurgeonError where a batch has arguments, tokens or positions that the model does not have."""
    cannot, config = f"{type(model).__name__} cannot run on {batch.inputs}", model.config
    takes, vocab = inspect.signature(model.forward).parameters, getattr(config, "vocab_size", None)
    longest, first = positions_of(model)
    for name, value in batch.arguments.items():
        if name not in takes:
            raise ModelSurgeonError(f"{cannot}: it takes no {name}")
        if not value.numel() or value.is_floating_point():
            continue
        largest = int(value.max())
        if name.endswith("input_ids") and isinstance(vocab, int) and largest >= vocab:
            raise ModelSurgeonError(f"{cannot}: token {largest:,}, where its vocabulary has {vocab:,}")
        reached = largest - first if name == "position_ids" else value.shape[-1] - 1
        if reached >= longest and not getattr(config, "rope_parameters", None):
            raise ModelSurgeonError(f"{cannot}: {reached + 1:,} positions, where it takes {longest:,}")


def compared_outputs(model: Any, returned: Mapping[str, Any], table: Architecture) -> dict[str, torch.Tensor]:
    """{output: value}: all logits, or else the hidden states that the table names.

    Raises ModelSurgeonError where the model returns neither.
    """
    numbers = {k: v for k, v in returned.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    found = {k: v for k, v in numbers.items() if k.endswith("logits")}
    found = found or {k: v for k, v in numbers.items() if k in table.outputs}
    if not found:
        raise ModelSurgeonError(f"{type(model).__name__} returns no logits, and no hidden state that its table names")
    return found


def real_rows(model: Any, batch: Batch, name: str, value: torch.Tensor) -> torch.Tensor:
    """An output's numbers at the positions that are no padding: [rows, positions, ...] -> [real positions, ...].

    An output of one value a row, or of other positions than the tokens (pictures), is returned whole.
    """
    real = (batch.read if name.startswith("encoder_") else batch.real).to(value.device)
    return value[real] if by_position(model, name, value.ndim) and value.shape[:2] == real.shape else value


def by_position(model: Any, name: str, ndim: int) -> bool:
    """Whether the second dimension of an output is positions: sizes do not tell, for a width may be equal to them.

    Outputs of two dimensions are [rows, width], but for a score for each position: where an answer starts and ends, and
    whether a token was replaced ("ForPreTraining").
    """
    scores = name in ("start_logits", "end_logits") or (name == "logits" and "ForPreTraining" in type(model).__name__)
    return scores if ndim == 2 else ndim > 2


def over_tokens(model: Any) -> bool:
    """Whether the model's logits are over its vocabulary: then it has an output embedding."""
    return model.get_output_embeddings() is not None


def folded(value: torch.Tensor, axis_map: AxisMap | None) -> torch.Tensor:
    """[..., m] -> [..., n] float64: an output on a grown axis, in the source's coordinates; others are unchanged."""
    if axis_map is None or axis_map.new_size != value.shape[-1]:
        return value
    copied = torch.from_numpy(axis_map.copied).to(value.device)
    share = torch.from_numpy(axis_map.share).to(value.device)[copied]
    source = torch.from_numpy(axis_map.source).to(value.device)[copied]
    sums = value.new_zeros(*value.shape[:-1], axis_map.size, dtype=torch.float64)
    return sums.index_add(-1, source, value[..., copied].double() * share) / axis_map.gain
