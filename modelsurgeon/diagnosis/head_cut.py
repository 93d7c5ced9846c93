"""The loss with the head cut to rank r: how many of its directions a model uses.

    cut = HeadCut(head, directions(head))    the output embedding, W of shape [vocab, d]
    with cut.to(64):
        model(**inputs)                      as with the best W of rank 64

The best approximation of rank r is W V V^T with V the first r right singular vectors (Eckart, Young 1936). So what the
head reads is projected to h V V^T, and biases, scales and soft caps stay the model's own. Figure 6 of arXiv 2404.07647
trains heads of rank r, and they lose below 1,000; here nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from modelsurgeon.diagnosis.weights.rows import BLOCK
from modelsurgeon.diagnosis.weights.spectrum import gram
from modelsurgeon.tensors.arithmetic import is_finite

SHARES = (1, 7 / 8, 3 / 4, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of the full rank


def find_head(model: Any) -> torch.nn.Module | None:
    """The module whose weight [vocab, d] turns hidden states into logits; None where there is none."""
    try:
        head = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    shape = tuple(getattr(getattr(head, "weight", None), "shape", ()))
    is_head = len(shape) == 2 and shape[0] == getattr(model.config, "vocab_size", None)
    return head if is_head and isinstance(head, torch.nn.Module) else None


def directions(head: torch.nn.Module) -> torch.Tensor | None:
    """[d, d] float64: the right singular vectors of a head [vocab, d] as columns, that of the largest value first.

    None for a head whose numbers are not all finite.
    """
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]

    with align_module_device(head), torch.no_grad():  # loads weights that wait on the disk
        weight: Any = head.weight
        width = weight.shape[1]
        squares = gram(weight.split(max(1, BLOCK // width)), width, str(weight.device))
    return torch.linalg.eigh(squares).eigenvectors.flip(1) if is_finite(squares) else None


@dataclass(frozen=True, eq=False)
class HeadCut:
    """A head that can be cut, and its `directions`."""

    head: torch.nn.Module
    directions: torch.Tensor

    @property
    def ranks(self) -> list[int]:
        """The ranks to cut to, descending from the width."""
        width = len(self.directions)
        return sorted({max(1, round(share * width)) for share in SHARES}, reverse=True)

    def to(self, rank: int) -> RemovableHandle:
        """A context in which the head has this rank."""
        basis = self.directions[:, :rank]

        def project(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            state, *others = given
            local = basis.to(state.device)
            return (state.double() @ local @ local.T).to(state.dtype), *others

        return self.head.register_forward_pre_hook(project)


class BodyReplay:
    """Records what a model's body returned, and returns it again: only the head differs from rank to rank.

    The body is every child that is a pretrained model itself: an encoder, a decoder, or both in one. A model without
    such a child is run whole.
    """

    def __init__(self, model: torch.nn.Module, head: torch.nn.Module) -> None:
        from transformers import PreTrainedModel

        children = [child for child in model.children() if isinstance(child, PreTrainedModel)]
        self._bodies = [child for child in children if head not in child.modules()]
        self._returned: list[list[Any]] = [[] for _ in self._bodies]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A context in which the bodies run; what they return stays in memory until the next recording."""

        def record(forward: Callable[..., Any], outputs: list[Any]) -> Callable[..., Any]:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                outputs.append(forward(*args, **kwargs))
                return outputs[-1]

            return recorded

        with ExitStack() as stack:
            for body, outputs in zip(self._bodies, self._returned, strict=True):
                outputs.clear()
                stack.enter_context(_forward(body, record(body.forward, outputs)))
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """A context in which one forward pass gets what was recorded last."""
        with ExitStack() as stack:
            for body, outputs in zip(self._bodies, self._returned, strict=True):
                answers = iter(outputs)
                stack.enter_context(_forward(body, lambda *args, answers=answers, **kwargs: next(answers)))
            yield


@contextmanager
def _forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A context in which the module runs another function; accelerate may have replaced `forward` already."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
