"""One forward pass of a batch, and which of a model's outputs are compared.

Outputs are compared in the source's coordinates. The m coordinates of a grown axis are folded into the source's n, as
a reader of the axis sees them: D y / gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.errors import ModelSurgeonError, first_line
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.running.reader import Batch
from modelsurgeon.running.reference import home


def forward(model: Any, batch: Batch, hidden_states: bool = False) -> Mapping[str, Any]:
    """What the model returns for a batch; signals are converted to the model's dtype.

    hidden_states  whether it also returns all hidden states
    """
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = 0  # as batches are padded: classifiers find the last token by it
    place, more = home(model), {"output_hidden_states": True} if hidden_states else {}
    arguments = {k: v.to(place, model.dtype if v.is_floating_point() else None) for k, v in batch.arguments.items()}
    returned: Mapping[str, Any] = model(**arguments, **more, return_dict=True)
    return returned


def run_batch(model: Any, batch: Batch, hidden_states: bool = False) -> Mapping[str, Any]:
    """`forward` without gradients. Raises ModelSurgeonError where the model cannot take the batch."""
    try:
        with torch.inference_mode():
            return forward(model, batch, hidden_states)
    except torch.OutOfMemoryError:  # the machine's fault, not the model's
        raise
    except (IndexError, RuntimeError) as error:
        raise ModelSurgeonError(f"{type(model).__name__} cannot run on {batch.inputs}: {first_line(error)}") from error


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


def folded(value: torch.Tensor, axis_map: AxisMap | None) -> torch.Tensor:
    """[..., m] -> [..., n] float64: an output on a grown axis, in the source's coordinates; others are unchanged."""
    if axis_map is None or axis_map.new_size != value.shape[-1]:
        return value
    copied = torch.from_numpy(axis_map.copied).to(value.device)
    share = torch.from_numpy(axis_map.share).to(value.device)[copied]
    source = torch.from_numpy(axis_map.source).to(value.device)[copied]
    sums = value.new_zeros(*value.shape[:-1], axis_map.size, dtype=torch.float64)
    return sums.index_add(-1, source, value[..., copied].double() * share) / axis_map.gain
