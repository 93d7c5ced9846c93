"""Level 2 of verification: run both checkpoints in `transformers` on the same inputs, and compare what they return.

    >>> compare(open_checkpoint("demo"), open_checkpoint("demo-x2")).same
    True

One model at a time is in memory: the source runs, its outputs are kept on the CPU, and it is freed before the result is
loaded. An output whose last axis grew is folded back by that axis' map, as a reader of the axis sees it: D y / gain.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.axis_map import AxisMap
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.errors import ModelSurgeonError
from modelsurgeon.tensor import DTYPE_NAMES
from modelsurgeon.verification.batches import UNLABELLED, Batch, Sampling, batches
from modelsurgeon.verification.reference import load, quiet, saved_folder

# Float32 forward passes of one function in another order of summation differ by 2e-6 to 3e-5 of the outputs' deviation
# (46 families, design.md); a planted mistake (a share x 1.01, an eps left alone) moves them by more than 1e-3.
TOLERANCE = 1e-4
# Two 16-bit passes of one function each lie within the noise floor of its float32 pass: at most twice that far apart.
NOISE = 2.0
TOKENS = ("logits", "prediction_logits")  # outputs that are over the vocabulary, where they are as wide
NUMBERS = 2**22  # compared at a time: 32 MB of float64

Outputs = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Comparison:
    """One output for one kind of input.

    inputs       "text", "random ids, length 7", "padded batch"
    output       "logits", "prediction_logits", "last_hidden_state", "pooler_output" ...
    positions    how many positions were compared (rows, where an output has one for each row)
    max_abs      the largest difference
    max_rel      the same over the standard deviation of the source's output for all inputs
    kl           nats: the mean of KL(source || result), for logits over the vocabulary
    top1         the share of positions where both have their largest logit at the same token
    loss_before  nats: the source's mean cross entropy where the text has labels
    loss_after   nats: the result's
    """

    inputs: str
    output: str
    positions: int
    max_abs: float
    max_rel: float
    kl: float | None = None
    top1: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields; a number that JSON does not know is a string ("nan", "inf")."""
        return {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class LogitReport:
    """What two models return for the same inputs.

    dtype    what both computed in
    notes    what was not run, and why
    seconds  wall time
    noise    16 bits only: the source in 16 bits against itself in float32, in the order of `comparisons`
    """

    dtype: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    seconds: float
    noise: tuple[Comparison, ...] = ()

    @property
    def limits(self) -> tuple[float, ...]:
        """The largest `max_rel` that each comparison may show: TOLERANCE, or in 16 bits what its output's noise allows.

        Rounded weights hide in that noise: only float32 tells them from the same ones.
        """
        floors = [[NOISE * n.max_rel for n in self.noise if n.output == c.output] for c in self.comparisons]
        return tuple(max([TOLERANCE, *floor]) for floor in floors)

    @property
    def same(self) -> bool:
        """Whether something was compared, and every difference is finite and within its limit."""
        pairs = zip(self.comparisons, self.limits, strict=True)
        return bool(self.comparisons) and all(math.isfinite(c.max_rel) and c.max_rel <= limit for c, limit in pairs)

    def to_json(self) -> dict[str, Any]:
        """Its fields, with the verdict and the tolerance behind it."""
        return {
            "dtype": self.dtype,
            "same": self.same,
            "tolerance": TOLERANCE,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "noise": [comparison.to_json() for comparison in self.noise],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def compare(
    source: Checkpoint,
    result: Checkpoint,
    *,
    result_path: Path | None = None,
    maps: Mapping[str, AxisMap] | None = None,
    text: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    samples: int = 4,
    length: int = 128,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> LogitReport:
    """Compare what both checkpoints return, computed in `dtype`.

    result_path  the folder of a result that still lies in staging; None: the one that it was opened from
    maps         {axis: map} from source to result; an axis without one did not grow
    text         None: the sample that comes with the program, prose and code
    samples      how many windows of the text, of `length` tokens each
    trust_remote_code  run code that the checkpoints bring along
    Raises SourceError where `transformers` cannot load a checkpoint whole, ModelSurgeonError where the outputs differ
    in size and no map says how, or where there is nothing to run.
    """
    sampling = Sampling(text, samples, length, seed)
    running = partial(load, trust_remote_code=trust_remote_code)
    return _report(source, result, result_path or saved_folder(result), maps or {}, sampling, device, dtype, running)


def compare_stored(
    source: Checkpoint,
    result: Checkpoint,
    *,
    result_path: Path | None = None,
    maps: Mapping[str, AxisMap] | None = None,
    text: str | None = None,
    device: str = "cpu",
    samples: int = 4,
    length: int = 128,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> LogitReport | None:
    """Compare in the 16-bit dtype that the source is stored in, beside the noise floor; arguments and errors as above.

    None where the source is stored in 32 or 64 bits.
    """
    if source.dtype not in ("BF16", "F16"):
        return None
    dtype = next(name for name, stored in DTYPE_NAMES.items() if stored == source.dtype)
    sampling = Sampling(text, samples, length, seed)
    folder, running = result_path or saved_folder(result), partial(load, trust_remote_code=trust_remote_code)
    return _report(source, result, folder, maps or {}, sampling, device, dtype, running, floor=True)


def _report(
    source: Checkpoint,
    result: Checkpoint,
    folder: Path,
    maps: Mapping[str, AxisMap],
    sampling: Sampling,
    device: str,
    dtype: str,
    loaded: Callable[..., tuple[Any, tuple[str, ...]]],
    floor: bool = False,
) -> LogitReport:
    begin, home = time.perf_counter(), saved_folder(source)
    with quiet():
        model, unread = loaded(source, home, dtype, device)
        made, notes = batches(model, home, sampling)
        vocab, before = int(getattr(model.config, "vocab_size", 0)), outputs(source, model, made)
        del model
        noise: tuple[Comparison, ...] = ()
        if floor:
            wide = outputs(source, loaded(source, home, "float32", device)[0], made)
            noise = _comparisons(made, wide, before, vocab)
            del wide
        model, left = loaded(result, folder, dtype, device)
        after = outputs(source, model, made)
        del model
    folded = [
        {name: _fold(name, value, source, maps, there[name]) for name, value in here.items() if name in there}
        for here, there in zip(after, before, strict=True)
    ]
    notes = tuple(dict.fromkeys([*notes, *unread, *left]))
    return LogitReport(dtype, _comparisons(made, before, folded, vocab), notes, time.perf_counter() - begin, noise)


def outputs(source: Checkpoint, model: Any, made: list[Batch]) -> Outputs:
    """For each batch {output: [positions, ...] float32 or float64 on the CPU}, real positions only."""
    gc.collect()  # the model before this one
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = 0  # what batches are padded with: sequence classifiers find the last token by it
    found = []
    for batch in made:
        with torch.inference_mode():
            returned = model(**{k: _given(v, model) for k, v in batch.arguments.items()}, return_dict=True)
        numbers = {k: v for k, v in returned.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        wanted = {k: v for k, v in numbers.items() if k.endswith("logits")}
        wanted = wanted or {k: v for k, v in numbers.items() if k in source.architecture.outputs}
        if not wanted:
            raise ModelSurgeonError(
                f"{type(model).__name__} returns no logits, and no hidden state that its table names"
            )
        masks = {name: batch.read if name.startswith("encoder_") else batch.real for name in wanted}
        found.append({name: _real(value.cpu(), masks[name]) for name, value in wanted.items()})
    return found


def _given(argument: torch.Tensor, model: Any) -> torch.Tensor:
    """An argument where the model is; pictures and sounds in its dtype."""
    return argument.to(model.device, model.dtype if argument.is_floating_point() else None)


def _real(value: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[rows, positions, ...] -> [real positions, width]; an output of other positions, or of none, is taken whole."""
    kept = value[real] if value.shape[:2] == real.shape else value
    kept = kept.unsqueeze(-1) if kept.ndim == 1 else kept.flatten(0, -2)
    return kept.to(torch.promote_types(value.dtype, torch.float32))


def _fold(
    name: str, value: torch.Tensor, source: Checkpoint, maps: Mapping[str, AxisMap], like: torch.Tensor
) -> torch.Tensor:
    """A result's output in the source's coordinates."""
    axis_map = maps.get(source.architecture.outputs.get(name, ""))
    if axis_map and axis_map.new_size == value.shape[-1]:
        kept = torch.from_numpy(axis_map.copied)
        parts = value[:, kept].double() * torch.from_numpy(axis_map.share)[kept]
        folded = parts.new_zeros(len(value), axis_map.size)
        value = folded.index_add_(1, torch.from_numpy(axis_map.source)[kept], parts) / axis_map.gain
    if value.shape != like.shape:
        raise ModelSurgeonError(
            f"{name}: {like.shape[-1]} numbers a position before, {value.shape[-1]} after; a hidden state of another "
            "size can only be compared by the maps on record"
        )
    return value


def _comparisons(made: list[Batch], before: Outputs, after: Outputs, vocab: int) -> tuple[Comparison, ...]:
    """One for each kind of input and each output that both models have."""
    found = []
    deviations = {name: _deviation([outputs[name] for outputs in before if name in outputs]) for name in before[0]}
    for inputs in dict.fromkeys(batch.inputs for batch in made):
        at = [i for i, batch in enumerate(made) if batch.inputs == inputs]
        for name in (name for name in before[at[0]] if name in after[at[0]]):
            parts = ((before[i][name], after[i][name], made[i].labels[made[i].real]) for i in at)
            found.append(_comparison(inputs, name, parts, deviations[name], vocab if name in TOKENS else 0))
    if not found:
        raise ModelSurgeonError(f"the source returns {', '.join(before[0])}, the result none of them")
    return tuple(found)


def _deviation(values: list[torch.Tensor]) -> float:
    """The standard deviation of one output over all inputs; of a constant output, its size."""
    count = sum(value.numel() for value in values)
    mean = sum(float(value.sum(dtype=torch.float64)) for value in values) / count
    square = sum(float((part.double() - mean).square().sum()) for value in values for part in _pieces(value)) / count
    return math.sqrt(square) or abs(mean) or 1.0


def _pieces(value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.split(value, max(1, NUMBERS // max(1, value.shape[-1])))


def _comparison(
    inputs: str,
    output: str,
    parts: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    deviation: float,
    vocab: int,
) -> Comparison:
    """Of (before, after, labels) of each batch; outputs of another width than `vocab` are not over tokens."""
    largest, sums = torch.zeros((), dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    positions, tokens = 0, False
    for before, after, labels in parts:
        positions += len(before)
        tokens = before.shape[-1] == vocab
        at = 0
        for piece, other in zip(_pieces(before), _pieces(after), strict=True):
            old, new = piece.double(), other.double()
            largest = torch.maximum(largest, (old - new).abs().max())  # keeps a nan, as Python's max does not
            if tokens:
                sums += _token_sums(old, new, labels[at : at + len(old)])
            at += len(old)
    relative = float(largest) / deviation
    if not tokens:
        return Comparison(inputs, output, positions, float(largest), relative)
    kl, agreed, labelled, *losses = sums.tolist()
    loss_before, loss_after = (loss / labelled for loss in losses) if labelled else (None, None)
    mean_kl, top1 = kl / positions, agreed / positions
    return Comparison(inputs, output, positions, float(largest), relative, mean_kl, top1, loss_before, loss_after)


def _token_sums(old: torch.Tensor, new: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[5] float64: sums over positions of KL and of equal top tokens, the number of labels, both cross entropies."""
    before, after = old.log_softmax(-1), new.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1).clamp(min=0)  # rounding takes it below zero by 1e-17
    asked = labels != UNLABELLED
    goals = labels[asked].unsqueeze(-1)
    losses = [-(scores[asked].gather(-1, goals)).sum() for scores in (before, after)]
    agreed = (old.argmax(-1) == new.argmax(-1)).sum()
    return torch.stack([kl.sum(), agreed.double(), asked.sum().double(), *losses])
