"""Attention logits: what every softmax of attention gets, whatever the family calls its modules.

    with Attention(model) as attention:         for any number of forward passes
        model(**inputs)
    attention.rows()                            one a module that calls softmax, in the order in which they ran

A softmax over [batch, heads, queries, keys] is attention (a router's has fewer dimensions); it belongs to the innermost
module that is being run. Training diverges where logits exceed 10,000 (arXiv 2309.14322).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from modelsurgeon.verification.layers import place

SOFTMAXES = frozenset({torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax})


@dataclass(frozen=True)
class Softmax:
    """One module's attention, of all heads and queries of all forward passes.

    name       the module's path; "(call 2)" after it where one pass runs it more than once
    layer      the first number in the path
    largest    the largest |logit| before the softmax that no mask hides
    deviation  their standard deviation
    entropy    nats: the mean entropy of the probabilities of a query
    """

    name: str
    layer: int | None
    largest: float
    deviation: float
    entropy: float


@dataclass
class _LogitSums:
    """Sums over one module's logits."""

    largest: torch.Tensor
    count: int = 0
    total: float = 0.0
    square: float = 0.0
    queries: int = 0
    entropy: float = 0.0
    shifted: bool = True  # every query's largest logit is 0

    def add(self, logits: torch.Tensor, probabilities: torch.Tensor, masked: float) -> None:
        """[heads, queries, keys] twice: those of one row of a batch."""
        hidden = logits <= masked
        seen = logits[~hidden].double()
        if not seen.numel():
            return
        self.largest = torch.maximum(self.largest, seen.abs().max().cpu())  # keeps a nan, as Python's max does not
        self.count += seen.numel()
        self.total += float(seen.sum())
        self.square += float(seen.square().sum())
        self.queries += logits.shape[:-1].numel()
        self.entropy += float(torch.special.entr(probabilities.double()).sum())
        self.shifted = self.shifted and not bool(logits.amax(-1).any())

    def row(self, name: str) -> Softmax:
        mean = self.total / self.count
        variance = self.square / self.count - mean**2
        deviation = math.sqrt(max(0.0, variance)) if math.isfinite(variance) else math.nan
        layer, _ = place(name.partition(" ")[0])
        return Softmax(name, layer, float(self.largest), deviation, self.entropy / self.queries)


class Attention(TorchFunctionMode):
    """Watches a model's softmaxes while it is entered."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model
        self._masked = torch.finfo(next(model.parameters()).dtype).min / 2  # masks add the least number of the dtype
        self._running: list[str] = []  # the modules that are being run, innermost last
        self._calls = Counter[str]()  # in this forward pass
        self._sums: dict[str, _LogitSums] = {}
        self._hooks = ExitStack()

    def rows(self) -> tuple[Softmax, ...]:
        """Every module that called softmax."""
        return tuple(sums.row(name) for name, sums in self._sums.items() if sums.count)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the rows hide: a model that subtracts the largest logit does not show how large it was."""
        name = next((name for name, sums in self._sums.items() if sums.count and sums.shifted), None)
        return (f"attention logits: {name} counts them from the largest of each query",) if name else ()

    def __enter__(self) -> Attention:
        for name, module in self._model.named_modules():
            self._hooks.enter_context(module.register_forward_pre_hook(self._entered(name)))
            self._hooks.enter_context(module.register_forward_hook(self._left(name), always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.close()
        self._calls.clear()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        returned = func(*args, **given)
        if func in SOFTMAXES:
            logits = args[0] if args else given["input"]
            if logits.ndim == 4:
                self._see(logits, returned)
        return returned

    def _see(self, logits: torch.Tensor, probabilities: torch.Tensor) -> None:
        name = self._running[-1] if self._running else ""
        self._calls[name] += 1
        called = name if self._calls[name] == 1 else f"{name} (call {self._calls[name]})"
        sums = self._sums.setdefault(called, _LogitSums(torch.zeros((), dtype=torch.float64)))
        for row, shares in zip(logits, probabilities, strict=True):  # a copy in float64 is of one row at a time
            sums.add(row, shares, self._masked)

    def _entered(self, name: str) -> Any:
        return lambda module, given: self._running.append(name)

    def _left(self, name: str) -> Any:
        def left(module: Any, given: Any, returned: Any) -> None:
            assert self._running.pop() == name

        return left
