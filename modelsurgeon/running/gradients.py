"""One backward pass: the gradient of every parameter.

A causal model predicts the next token, a masked one the hidden tokens, a decoder the second half. For any other model,
or one without a tokenizer, the loss is the mean squared distance of its outputs to random numbers. An output that grew
is folded back first, as a head that grew along would read it: a new random head alone would part that axis's copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell
from modelsurgeon.running.forward import compared_outputs, folded, forward, real_rows
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import token_losses


@dataclass(frozen=True)
class Backward:
    """What was differentiated.

    loss       nats a token, or the mean squared distance that `notes` name
    positions  the number of positions that are no padding; 0 where a model reads no ids
    """

    loss: float
    positions: int
    notes: tuple[str, ...]


def differentiate(
    model: Any, batches: Sequence[Batch], table: Architecture, maps: Mapping[str, AxisMap], seed: int, tell: Tell
) -> Backward:
    """Leave the gradient of the mean loss over all batches in the model's parameters.

    Raises ModelSurgeonError where the model returns neither logits nor a hidden state that its table names.
    """
    text = [batch for batch in batches if bool((batch.labels != UNLABELLED).any())]
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        return _predict(model, text, tell) or _approach(model, batches, table, maps, seed, tell)


def dropouts(model: Any) -> tuple[str, ...]:
    """A note that dropout was off, with a rate that training would use."""
    for name, rate in model.config.to_dict().items():
        if "drop" in name and isinstance(rate, float) and rate > 0:
            return (f"dropout off; trained with {name} = {rate:g}, its noise alone would part copies, too",)
    return ("dropout off",)


def prediction_loss(model: Any, batch: Batch) -> tuple[torch.Tensor, int] | None:
    """(cross entropy summed over a batch's labels, in nats; how many labels); None where a model predicts no tokens."""
    logits = token_logits(forward(model, batch), batch)
    if logits is None:
        return None
    losses = token_losses(logits.log_softmax(-1), batch.labels)
    return losses.sum(), len(losses)


def _predict(model: Any, text: Sequence[Batch], tell: Tell) -> Backward | None:
    """Differentiate the cross entropy; None where there are no labels, or the model predicts no tokens."""
    count, total = sum(int((batch.labels != UNLABELLED).sum()) for batch in text), 0.0
    for done, batch in enumerate(text):
        tell("backward", done, len(text))
        summed = prediction_loss(model, batch)
        if summed is None:
            return None
        (summed[0] / count).backward()  # type: ignore[no-untyped-call]
        total += summed[0].item()
    tell("backward", len(text), len(text))
    return Backward(total / count, _positions(text), ()) if text else None


def _approach(
    model: Any, batches: Sequence[Batch], table: Architecture, maps: Mapping[str, AxisMap], seed: int, tell: Tell
) -> Backward:
    """Differentiate the mean squared distance to random numbers."""
    generator, total, names = torch.Generator().manual_seed(seed), 0.0, dict[str, None]()
    for done, batch in enumerate(batches):
        tell("backward", done, len(batches))
        losses = []
        for name, value in compared_outputs(model, forward(model, batch), table).items():
            output = folded(value, maps.get(table.outputs.get(name, "")))
            target = torch.randn(output.shape, generator=generator, dtype=torch.float32).to(output)
            distance = real_rows(model, batch, name, (output - target).square())
            losses.append(distance.mean().double())
            names[name] = None
        loss = torch.stack(losses).sum() / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    tell("backward", len(batches), len(batches))
    note = f"loss: the mean square distance of {', '.join(names)} to random numbers, for there are no labels"
    return Backward(total, _positions(batches), (note,))


def token_logits(returned: Mapping[str, Any], batch: Batch) -> torch.Tensor | None:
    """[rows, positions, vocab]: the logits of a batch's labels; None where the model predicts no tokens."""
    outputs = [returned[name] for name in ("logits", "prediction_logits") if returned.get(name) is not None]
    for logits in outputs:
        if logits.shape[:-1] == batch.labels.shape and logits.shape[-1] > int(batch.labels.max()):
            return torch.as_tensor(logits)
    return None


def _positions(batches: Sequence[Batch]) -> int:
    """Positions that are read, or that are written, whichever are more."""
    return max(sum(int(batch.real.sum()) for batch in batches), sum(int(batch.read.sum()) for batch in batches))
