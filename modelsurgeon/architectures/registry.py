"""Tables by model type: one module in `tables/` for each, found by its name; it holds one `ARCHITECTURE`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from modelsurgeon.architectures import tables
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.errors import ArchitectureError


@cache
def known() -> tuple[str, ...]:
    """The model types that have a table, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(tables.__path__)))


def find(model_type: Any) -> Architecture:
    """The table of a model type. Raises ArchitectureError, with the list of known ones, when there is none."""
    if model_type not in known():
        raise ArchitectureError(f"unknown model_type {model_type!r}; known: {', '.join(known())}")
    return _load(model_type)


@cache
def _load(model_type: str) -> Architecture:
    architecture: Architecture = importlib.import_module(f"{tables.__name__}.{model_type}").ARCHITECTURE
    return architecture
