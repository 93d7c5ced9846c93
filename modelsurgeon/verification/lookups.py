"""Which rows of its tables a model reads while it runs, and to which experts its routers send tokens.

    with Lookups(source, model) as seen:
        ...                                   forward passes
    seen.coverage(batches, trained)

Tables are the `nn.Embedding`s that the family's table knows. While one of them runs, the indices that it looks up are
noted: those that arrive there, for some shift what they are given (BART's positions), and some make them themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.template import Template
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import ArchitectureError
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.running.coverage import Coverage, Share, positions_in
from modelsurgeon.running.reader import Batch

ROWS = {"vocab": "tokens", "positions": "position_rows", "types": "token_types"}  # {axis: field of the coverage}


class Lookups:
    """Counts while it is entered.

    rows     {path of a table: [rows] bool, which were read}
    axes     {path of a table: the axis of its rows}
    experts  {path of a layer's experts: [experts] bool, which were sent a token}
    whole    {axis: rows} of tables that are no embeddings: every forward pass reads all of them (ViT's positions)
    """

    def __init__(self, source: Checkpoint, model: Any) -> None:
        self.rows: dict[str, torch.Tensor] = {}
        self.axes: dict[str, str] = {}
        self.experts: dict[str, torch.Tensor] = {}
        self.whole: dict[str, int] = {}
        self._model, self._hooks = model, ExitStack()
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]  # tied tables are several
        self._table = registry.find(source.config["model_type"]).fitted(source.resolved, names)
        for name in names:
            self._note(name)

    def __enter__(self) -> Lookups:
        for path, rows in self.rows.items():
            module, noted = self._model.get_submodule(path), list[_Noted]()
            before = partial(_begin, rows, noted)
            self._hooks.enter_context(module.register_forward_pre_hook(before))
            self._hooks.enter_context(module.register_forward_hook(partial(_end, noted), always_call=True))
        for path, chosen in self.experts.items():
            module = self._model.get_submodule(path)
            self._hooks.enter_context(module.register_forward_pre_hook(partial(_route, chosen), with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def coverage(self, batches: Iterable[Batch], trained: int | None, reach: int) -> Coverage:
        """What was read so far, of these batches.

        trained  the most positions that the config names
        reach    rows of a position table that some input reads: BART's first two are read by none
        """
        shares = {name: self._share(axis) for axis, name in ROWS.items()}
        found: dict[str, Any] = {name: share for name, share in shares.items() if share}
        if (rows := shares["position_rows"]) and "positions" not in self.whole:
            found["position_rows"] = (min(rows[0], reach), min(rows[1], reach))
        if self.experts:
            every = torch.cat(list(self.experts.values()))
            found["experts"] = (int(every.sum()), len(every))
        positions, longest = positions_in(batches)
        return Coverage(positions, **found, longest=longest, trained=trained)

    def unread(self) -> tuple[str, ...]:
        """A note of each further table (relative positions, tasks) that was not read whole, but for one row.

        T5's encoder has a bucket for a distance of 0 in the direction that begins with 1.
        """
        others = {path: share for path, share in self._shares().items() if self.axes[path] not in ROWS}
        return tuple(
            f"{path}: {read:,} of {of:,} rows were read" for path, (read, of) in others.items() if read < of - 1
        )

    def _note(self, name: str) -> None:
        """Note what a parameter is, if it is a table or experts."""
        template = self._template(name)
        if template is None:
            return
        path, parameter = name.rpartition(".")[0], self._model.get_parameter(name)
        axes = template.signature.axes
        if isinstance(self._model.get_submodule(path), torch.nn.Embedding):
            self.rows[path] = torch.zeros(len(parameter), dtype=torch.bool)
            self.axes[path] = template.signature.dimensions[0][0].alone
        elif "positions" in axes and parameter.ndim == 3:
            self.whole["positions"] = parameter.shape[1]
        elif parameter.ndim == 3 and any(kind_of(self._table.axes[a]).is_expert for a in axes if a in self._table.axes):
            self.experts[path] = torch.zeros(len(parameter), dtype=torch.bool)

    def _template(self, name: str) -> Template | None:
        try:
            return self._table.template(name)
        except ArchitectureError:  # a body's own copy, say, under a name that no file has
            return None

    def _shares(self) -> dict[str, Share]:
        """{path: (read, of)} of the tables that were looked up; what takes a table whole never calls it (DeBERTa)."""
        return {path: (int(rows.sum()), len(rows)) for path, rows in self.rows.items() if rows.any()}

    def _share(self, axis: str) -> Share | None:
        """(read, of) of the table over an axis of which the least was read; None where there is none."""
        shares = [share for path, share in self._shares().items() if self.axes[path] == axis]
        shares += [(self.whole[axis], self.whole[axis])] if axis in self.whole else []
        return min(shares, key=lambda share: share[0] / share[1], default=None)


class _Noted(TorchFunctionMode):
    """Notes the rows that are looked up while it is entered."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(self, function: Any, types: Any, given: Any = (), more: Any = None) -> Any:
        if function is torch.nn.functional.embedding:
            self._rows[given[0].detach().reshape(-1).cpu()] = True
        elif function is torch.Tensor.__getitem__ and isinstance(given[0], torch.nn.Parameter):
            index = given[1].cpu() if isinstance(given[1], torch.Tensor) else given[1]
            self._rows[index] = True
        return function(*given, **(more or {}))


def _begin(rows: torch.Tensor, noted: list[_Noted], module: Any, given: Any) -> None:
    noted.append(_Noted(rows))
    noted[-1].__enter__()  # type: ignore[no-untyped-call]


def _end(noted: list[_Noted], module: Any, given: Any, returned: Any) -> None:
    noted.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]


def _route(chosen: torch.Tensor, module: Any, given: Any, named: Any) -> None:
    """Note the experts that a layer's experts are called for: the indices among what they are given."""
    for value in (*given, *named.values()):
        if isinstance(value, torch.Tensor) and not value.is_floating_point():
            index = value.detach().reshape(-1).cpu()
            chosen[index[index < len(chosen)]] = True  # one more stands for no expert at all
