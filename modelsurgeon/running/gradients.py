"""One backward pass: the gradient of every parameter, for text where there is some to predict.

A causal model predicts the next token, a masked one what was hidden, a decoder the second half. Any other model, or one
without a tokenizer, is pulled towards random numbers: the loss is the mean square of its outputs' distance to them. An
output that grew is folded back first, as a head that grows with it would read it: a new head, of random numbers, would
part the copies of that one axis by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.progress import Tell
from modelsurgeon.running.forward import compared_outputs, folded, forward
from modelsurgeon.running.reader import UNLABELLED, Batch
from modelsurgeon.running.token_losses import token_losses

TOKENS = ("logits", "prediction_logits")  # outputs that are over the vocabulary, where labels say what to predict


@dataclass(frozen=True)
class Backward:
    """What was differentiated.

    loss       nats a token, or the mean square of what `notes` say
    positions  how many positions of real input there were; 0 of a model that reads no ids
    """

    loss: float
    positions: int
    notes: tuple[str, ...]


def differentiate(
    model: Any, made: Sequence[Batch], table: Architecture, maps: Mapping[str, AxisMap], seed: int, tell: Tell
) -> Backward:
    """Leave the gradient of the mean loss over all batches in the model's parameters.

    Raises ModelSurgeonError where it returns nothing that a loss can be made of.
    """
    text = [batch for batch in made if bool((batch.labels != UNLABELLED).any())]
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        return _predicted(model, text, tell) or _pulled(model, made, table, maps, seed, tell)


def dropouts(model: Any) -> tuple[str, ...]:
    """That dropout was off, and whether training would have some."""
    config = model.config.to_dict()
    rates = {k: v for k, v in config.items() if "drop" in k and isinstance(v, float) and v > 0}
    if not rates:
        return ("dropout off",)
    name, rate = next(iter(rates.items()))
    return (f"dropout off; trained with {name} = {rate:g}, its noise alone would part copies, too",)


def prediction_loss(model: Any, batch: Batch) -> tuple[torch.Tensor, int] | None:
    """(cross entropy summed over a batch's labels, in nats; how many labels); None where it predicts no tokens."""
    logits = token_logits(forward(model, batch), batch)
    if logits is None:
        return None
    losses = token_losses(logits.log_softmax(-1), batch.labels)
    return losses.sum(), len(losses)


def _predicted(model: Any, text: Sequence[Batch], tell: Tell) -> Backward | None:
    """Cross entropy over all labels; None where there are none, or the model predicts no tokens."""
    count, total = sum(int((batch.labels != UNLABELLED).sum()) for batch in text), 0.0
    for done, batch in enumerate(text):
        tell("backward", done, len(text))
        found = prediction_loss(model, batch)
        if found is None:
            return None
        (found[0] / count).backward()  # type: ignore[no-untyped-call]
        total += found[0].item()
    tell("backward", len(text), len(text))
    return Backward(total / count, _positions(text), ()) if text else None


def _pulled(
    model: Any, made: Sequence[Batch], table: Architecture, maps: Mapping[str, AxisMap], seed: int, tell: Tell
) -> Backward:
    """The mean squared distance to random numbers."""
    generator, total, names = torch.Generator().manual_seed(seed), 0.0, dict[str, None]()
    for done, batch in enumerate(made):
        tell("backward", done, len(made))
        losses = []
        for name, value in compared_outputs(model, forward(model, batch), table).items():
            output = folded(value, maps.get(table.outputs.get(name, "")))
            target = torch.randn(output.shape, generator=generator, dtype=torch.float32).to(output)
            real = batch.real if name not in table.outputs or not name.startswith("encoder_") else batch.read
            distance = (output - target).square()
            kept = distance[real.to(distance.device)] if real.shape == distance.shape[:2] else distance
            losses.append(kept.mean().double())
            names[name] = None
        loss = torch.stack(losses).sum() / len(made)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    tell("backward", len(made), len(made))
    note = f"loss: the mean square distance of {', '.join(names)} to random numbers, for there are no labels"
    return Backward(total, _positions(made), (note,))


def token_logits(returned: Mapping[str, Any], batch: Batch) -> torch.Tensor | None:
    """[rows, positions, vocab]: what a batch's labels are for; None where the model predicts no tokens."""
    return next((found for name in TOKENS if (found := _over_tokens(returned.get(name), batch)) is not None), None)


def _over_tokens(logits: Any, batch: Batch) -> torch.Tensor | None:
    """An output that the labels are for, or None."""
    fits = logits is not None and logits.ndim == 3 and logits.shape[:2] == batch.labels.shape
    return torch.as_tensor(logits) if fits and logits.shape[-1] > int(batch.labels.max()) else None


def _positions(made: Sequence[Batch]) -> int:
    """Positions that are read, or that are written, whichever are more."""
    return max(sum(int(batch.real.sum()) for batch in made), sum(int(batch.read.sum()) for batch in made))
