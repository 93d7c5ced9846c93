"""The loss with the head cut to rank r: how many of its directions a model uses.

    cut = HeadCut(head, directions(head))    the output embedding, W of shape [vocab, d]
    with cut.to(64):
        model(**inputs)                      as with the best W of rank 64

The best approximation of rank r is W V V^T, V the r first right singular vectors (Eckart, Young 1936), so it is what
the head reads that is projected: h V V^T, and biases, scales and soft caps stay the model's own. It is the form without
training of figure 6 of arXiv 2404.07647, where heads of rank r are trained and lose below 1,000.
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
    """The module whose weight [vocab, d] makes logits of hidden states; None where there is none."""
    try:
        head = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    shape = tuple(getattr(getattr(head, "weight", None), "shape", ()))
    is_head = len(shape) == 2 and shape[0] == getattr(model.config, "vocab_size", None)
    return head if is_head and isinstance(head, torch.nn.Module) else None


def directions(head: torch.nn.Module) -> torch.Tensor | None:
    """[d, d] float64: orthonormal columns, the right singular vectors of a head [vocab, d], the largest value's first.

    None of a head whose numbers are not all finite.
    """
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]

    with align_module_device(head), torch.no_grad():  # weights that wait on the disk come in
        weight: Any = head.weight
        width = weight.shape[1]
        squares = gram(weight.split(max(1, BLOCK // width)), width, str(weight.device))
    return torch.linalg.eigh(squares).eigenvectors.flip(1) if is_finite(squares) else None


@dataclass(frozen=True, eq=False)
class HeadCut:
    """A head that can be cut: its module, and its `directions`."""

    head: torch.nn.Module
    directions: torch.Tensor

    @property
    def ranks(self) -> list[int]:
        """Those to cut to, descending from the width."""
        width = len(self.directions)
        return sorted({max(1, round(share * width)) for share in SHARES}, reverse=True)

    def to(self, rank: int) -> RemovableHandle:
        """While it is entered, the head is of this rank."""
        kept = self.directions[:, :rank]

        def project(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            state, *others = given
            basis = kept.to(state.device)
            return (state.double() @ basis @ basis.T).to(state.dtype), *others

        return self.head.register_forward_pre_hook(project)


class BodyReplay:
    """What the body of a model returned, again: of a forward pass, all but the head is the same at every rank.

    The body is what the model calls that is a pretrained model itself: an encoder, a decoder, or both in one. A model
    that calls none is run whole.
    """

    def __init__(self, model: torch.nn.Module, head: torch.nn.Module) -> None:
        from transformers import PreTrainedModel

        children = [child for child in model.children() if isinstance(child, PreTrainedModel)]
        self._bodies = [child for child in children if head not in child.modules()]
        self._returned: list[list[Any]] = [[] for _ in self._bodies]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While it is entered, the bodies run, and what they return stays in memory until the next time."""

        def record(forward: Callable[..., Any], kept: list[Any]) -> Callable[..., Any]:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                kept.append(forward(*args, **kwargs))
                return kept[-1]

            return recorded

        for kept in self._returned:
            kept.clear()
        with ExitStack() as stack:
            for body, kept in zip(self._bodies, self._returned, strict=True):
                stack.enter_context(_forward(body, record(body.forward, kept)))
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """While it is entered, one forward pass gets what the last one recorded."""
        with ExitStack() as stack:
            for body, kept in zip(self._bodies, self._returned, strict=True):
                answers = iter(kept)
                stack.enter_context(_forward(body, lambda *args, answers=answers, **kwargs: next(answers)))
            yield


@contextmanager
def _forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While it is entered, the module runs another function; accelerate may have replaced it, too."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
