"""modelsurgeon: operations on trained Transformer checkpoints that leave what they compute as it is.

>>> import modelsurgeon as ms
>>> wide = ms.open("demo").widen(factor=2)
>>> saved = wide.save("wide", verify=True)

`model.py` holds all of it, `errors.py` the tree of errors. Nothing heavy is imported before it is used.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from modelsurgeon.errors import (
    AmbiguousError,
    ArchitectureError,
    DifferentError,
    FieldError,
    ModelSurgeonError,
    OptionsError,
    OutputError,
    PlanError,
    SourceError,
)
from modelsurgeon.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsurgeon.delivery import Saved
    from modelsurgeon.model import Model, check_files, diagnose, families, inspect, verify
    from modelsurgeon.model import open_model as open
    from modelsurgeon.operations.catalogue import register
    from modelsurgeon.operations.operation import Operation, option

    init: Callable[..., Saved]

__all__ = [
    "AmbiguousError",
    "ArchitectureError",
    "DifferentError",
    "FieldError",
    "Model",
    "ModelSurgeonError",
    "Operation",
    "OptionsError",
    "OutputError",
    "PlanError",
    "Saved",
    "SourceError",
    "__version__",
    "check_files",
    "diagnose",
    "families",
    "init",
    "inspect",
    "open",
    "option",
    "register",
    "verify",
]

_HOMES = {  # name: the module that has it
    **dict.fromkeys(("Model", "check_files", "diagnose", "families", "inspect", "open", "verify"), "model"),
    **dict.fromkeys(("Operation", "option"), "operations.operation"),
    "Saved": "delivery",
    "register": "operations.catalogue",
}
_INNER = {"open": "open_model"}  # what they are called there, where a builtin has the name

if not TYPE_CHECKING:  # else a misspelt name would pass as anything

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), _INNER.get(name, name))
        if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}.model").of_config(name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
