"""Every operation by its name: each module of this folder registers one.

    >>> find_operation("widen").name, method(find_operation("untie-embeddings"))
    ('widen', 'untie_embeddings')

The command line, the Python API, records, proofs, plans and model cards look here; none of them names an operation.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from typing import TypeVar

from modelsurgeon import operations
from modelsurgeon.errors import PlanError
from modelsurgeon.operations.operation import Operation

Kind = TypeVar("Kind", bound=type[Operation])
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TAKEN = frozenset(
    """
    apply check-files checkpoint diagnose errors families inspect load model open operations option plan register save
    source verify version
    """.split()
)

_registered: dict[str, type[Operation]] = {}


def register(operation: Kind) -> Kind:
    """Add an operation: a decorator.

    Raises ValueError where its name is malformed or taken, TypeError where the class is no dataclass itself.
    """
    if not NAME.fullmatch(operation.name) or operation.name in TAKEN:
        raise ValueError(f"an operation cannot be called {operation.name!r}; expected a name like untie-embeddings")
    if "__dataclass_params__" not in vars(operation):
        raise TypeError(f"{operation.__name__}: put @dataclass(frozen=True) under @register")
    if _registered.setdefault(operation.name, operation) is not operation:
        raise ValueError(f"two operations are called {operation.name!r}")
    return operation


def forget(operation: type[Operation]) -> None:
    """Undo `register`: for tests that define operations of their own."""
    _registered.pop(operation.name, None)


def all_operations() -> dict[str, type[Operation]]:
    """{name: operation}, in alphabetical order."""
    _load()
    return dict(sorted(_registered.items()))


def offered() -> tuple[type[Operation], ...]:
    """The operations that users can call."""
    return tuple(operation for operation in all_operations().values() if operation.offered)


def find_operation(name: str) -> type[Operation]:
    """The operation of this name. Raises PlanError, with the list of known ones, where there is none."""
    if name not in all_operations():
        raise PlanError(f"a step {name!r} on record, expected one of {', '.join(all_operations())}")
    return all_operations()[name]


def that_grows() -> type[Operation]:
    """The operation whose steps are maps of axes, and nothing else."""
    return next(operation for operation in all_operations().values() if operation.grows)


def method(operation: type[Operation]) -> str:
    """The name of its Python method."""
    return operation.name.replace("-", "_")


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(operations.__path__):
        if not module.ispkg:
            importlib.import_module(f"{operations.__name__}.{module.name}")
