"""Attention logits: the input of every softmax of attention, whatever the family calls its modules.

    with Attention(model) as attention:         for any number of forward passes
        model(**inputs)
    attention.rows()                            one for each module that calls softmax, in the order in which they ran

A softmax over [batch, heads, queries, keys] is attention (a router's has fewer dimensions); it belongs to the innermost
module that is running. Training diverges where logits exceed 10,000 (arXiv 2309.14322).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from modelsurgeon.verification.layers import place

SOFTMAXES = frozenset({torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax})


@dataclass(frozen=True)
class Softmax:
    """One module's attention over all heads and queries of all forward passes; schema.json describes the fields.

    name  the module's path, with "(call 2)" where one pass runs it a second time; `layer`: the first number in it
    """

    name: str
    layer: int | None
    largest: float
    deviation: float
    entropy: float


class _LogitSums:
    """Sums over one module's logits."""

    def __init__(self) -> None:
        self.largest, self.entropy = torch.zeros((), dtype=torch.float64), 0.0
        self.count = self.queries = 0
        self.total = self.square = 0.0
        self.shifted = True  # whether every query's largest logit is 0

    def add(self, logits: torch.Tensor, probabilities: torch.Tensor, masked: float) -> None:
        """Add [heads, queries, keys] of one row of a batch; logits up to `masked` are hidden by a mask."""
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
        self._sums: defaultdict[str, _LogitSums] = defaultdict(_LogitSums)
        self._hooks = ExitStack()

    def rows(self) -> tuple[Softmax, ...]:
        """The attention of every module that called softmax."""
        return tuple(sums.row(name) for name, sums in self._sums.items() if sums.count)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the rows cannot show: how large the logits were of a model that subtracts the largest one."""
        name = next((name for name, sums in self._sums.items() if sums.count and sums.shifted), None)
        return (f"attention logits: {name} counts them from the largest of each query",) if name else ()

    def __enter__(self) -> Attention:
        for name, module in self._model.named_modules():
            enter = module.register_forward_pre_hook(lambda *given, name=name: self._running.append(name))
            self._hooks.enter_context(enter)
            self._hooks.enter_context(module.register_forward_hook(partial(self._left, name), always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.close()
        self._calls.clear()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        if func in SOFTMAXES:
            logits = args[0] if args else (kwargs or {})["input"]
            if logits.ndim == 4:
                self._see(logits, returned)
        return returned

    def _see(self, logits: torch.Tensor, probabilities: torch.Tensor) -> None:
        name = self._running[-1] if self._running else ""
        self._calls[name] += 1
        called = name if self._calls[name] == 1 else f"{name} (call {self._calls[name]})"
        for row, shares in zip(logits, probabilities, strict=True):  # one row at a time is copied in float64
            self._sums[called].add(row, shares, self._masked)

    def _left(self, name: str, module: Any, given: Any, returned: Any) -> None:
        assert self._running.pop() == name
