"""Hidden states: how much they agree, how large they grow, and how many directions they use.

    describe("layer 0", 1, "", vectors)         one state, [N, d]: every position that is no padding
    final_state(vectors, eps)                   what the head reads, against all that N and d allow

Anisotropy is the mean cosine of two different positions (Ethayarajh 2019; arXiv 2404.07647, section 3). It needs no
pairs: for unit vectors u, the sum over all pairs of different ones is |sum u|^2 - N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from modelsurgeon.diagnosis.weights.spectrum import effective_rank, entropy, singular_values
from modelsurgeon.running.outputs import Kept
from modelsurgeon.running.reader import Batch

HEAD = "what the head reads"
SIDES = {"hidden_states": "", "encoder_hidden_states": "encoder", "decoder_hidden_states": "decoder"}


@dataclass(frozen=True)
class State:
    """One hidden state at all positions; schema.json describes the fields.

    largest  the largest |x|: massive activations are 1,000 medians (`median`: of |x|) and more (arXiv 2402.17762)
    """

    name: str
    layer: int
    side: str
    anisotropy: float | None
    norm_mean: float
    norm_max: float
    largest: float
    median: float
    effective_rank: float


@dataclass(frozen=True)
class FinalState:
    """How the last states spread; schema.json describes the fields."""

    anisotropy: float | None
    effective_rank: float
    rank: int | None
    possible: int
    entropy: float


def describe(name: str, layer: int, side: str, vectors: torch.Tensor) -> State:
    """One state from its [N, d] numbers; sums over numbers that are not all finite are NaN."""
    norms, magnitudes = vectors.double().norm(dim=-1), vectors.abs()
    sizes = float(norms.mean()), float(norms.max()), float(magnitudes.max()), float(magnitudes.median())
    return State(name, layer, side, mean_cosine(vectors), *sizes, effective_rank(singular_values(vectors.double())))


def final_state(vectors: torch.Tensor, eps: float) -> FinalState:
    """The spread of [N, d] states that were computed to a relative `eps`.

    Errors of eps times the root mean square have singular values of up to eps |H| (1/sqrt N + 1/sqrt d), |H| the
    Frobenius norm, as a random matrix has. The rank counts what is above.
    """
    values = singular_values(vectors.double())
    floor = eps * float(np.linalg.norm(values)) * sum(size**-0.5 for size in vectors.shape)
    rank = int((values > floor).sum()) if math.isfinite(floor) else None
    return FinalState(mean_cosine(vectors), effective_rank(values), rank, len(values), entropy(values))


def mean_cosine(vectors: torch.Tensor) -> float | None:
    """Exact mean cosine over all pairs of different rows; rows of zeros have no direction and are left out."""
    wide = vectors.double()
    norms = wide.norm(dim=-1, keepdim=True)
    units = (wide / norms)[norms.squeeze(-1) != 0]
    count = len(units)
    return float((units.sum(0).square().sum() - count) / (count * (count - 1))) if count > 1 else None


def real_positions(value: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[rows, positions, width] -> [N, width] on the CPU, float32 or float64: the positions that are no padding.

    A value with other positions than `real` (patches of a picture, frames of a sound) is taken whole.
    """
    vectors = value[real.to(value.device)] if value.shape[:2] == real.shape else value.flatten(0, -2)
    return vectors.to("cpu", torch.promote_types(vectors.dtype, torch.float32))


class States:
    """All hidden states of some batches, on disk until they are described, and then in memory one at a time.

    A model with a final norm returns its last layer's output only after the norm, so hooks catch it before. Another
    hook catches what the head reads.
    """

    def __init__(self, model: torch.nn.Module, head: torch.nn.Module | None, kept: Kept) -> None:
        self._head, self._kept = head, kept
        self._batches = 0
        self._names: dict[str, tuple[int, str]] = {}  # {name: (layer, side)}, in order
        modules = ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList))
        self._lists = {  # {path: layers}, of lists that are in no other list
            name: layers for name, layers in modules if len(layers) and not any(map(str.isdigit, name.split(".")))
        }
        self._returned: dict[str, torch.Tensor] = {}  # {path of a list: what its last layer returned}

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """A context for the forward pass of a batch, whose outputs are then added."""

        def see(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            self._kept.put(f"{self._batches} {HEAD}", real_positions(given[0], batch.real))

        self._returned.clear()
        with ExitStack() as stack:
            for name, layers in self._lists.items():
                stack.enter_context(layers[-1].register_forward_hook(partial(self._keep, name)))
            if self._head is not None:
                stack.enter_context(self._head.register_forward_pre_hook(see))
            yield

    def add(self, returned: Mapping[str, Any], batch: Batch) -> None:
        """Add what the watched pass returned."""
        for key, side in SIDES.items():
            if states := returned.get(key):
                real = batch.read if side == "encoder" else batch.real
                for name, layer, value in self._named(states, side):
                    self._names.setdefault(name, (layer, side))
                    self._kept.put(f"{self._batches} {name}", real_positions(value, real))
        self._returned.clear()
        self._batches += 1

    def described(self) -> tuple[State, ...]:
        """Every state over all batches, an encoder's before a decoder's."""
        return tuple(describe(name, *place, self._vectors(name)) for name, place in self._names.items())

    def final(self, eps: float) -> FinalState | None:
        """`final_state` of what the head reads, or else of the last hidden state (a decoder's before an encoder's)."""
        is_seen = all(f"{batch} {HEAD}" in self._kept for batch in range(self._batches))
        name = HEAD if is_seen else next(reversed(self._names), None)
        return final_state(self._vectors(name), eps) if name else None

    def _vectors(self, name: str) -> torch.Tensor:
        """[N, d] of one state."""
        return torch.cat([self._kept.get(f"{batch} {name}") for batch in range(self._batches)])

    def _named(self, states: tuple[torch.Tensor, ...], side: str) -> Iterator[tuple[str, int, torch.Tensor]]:
        """(name, layer, state), with the last layer's output before the norm."""
        depth, prefix = len(states) - 1, f"{side} ".lstrip()
        for layer, state in enumerate(states[:-1]):
            yield f"{prefix}layer {layer - 1}" if layer else f"{prefix}embedding", layer, state
        fits = (name for name, layers in self._lists.items() if len(layers) == depth and side in name)
        raw = next((self._returned[name] for name in fits if name in self._returned), None)
        if raw is not None and raw.shape[:-1] == states[-1].shape[:-1] and not torch.equal(raw, states[-1].to(raw)):
            yield f"{prefix}layer {depth - 1}", depth, raw
        yield f"{prefix}last", depth, states[-1]

    def _keep(self, name: str, module: Any, given: Any, returned: Any) -> None:
        state = returned[0] if isinstance(returned, tuple) else returned
        if isinstance(state, torch.Tensor) and state.ndim == 3:
            self._returned[name] = state
