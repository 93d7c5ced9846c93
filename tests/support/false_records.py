"""Ways to forge the record of a result."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.version import __version__

Plant = Callable[[Path], None]
Document = dict[str, Any]
WIDEN = {"factor": None, "settings": {}, "rule": "orthogonal", "attention": "heads", "rope": "nested", "dtype": None}


def forged(change: Callable[[Document], object]) -> Plant:
    """A record that a function has changed."""

    def plant(folder: Path) -> None:
        document = json.loads((folder / RECORD).read_text())
        before = copy.deepcopy(document)
        change(document)
        assert document != before, "the record is as it was"
        (folder / RECORD).write_text(json.dumps(document))

    return _forging(plant)


def record(text: str) -> Plant:
    """Another text in the place of the record."""
    return _forging(lambda folder: (folder / RECORD).write_text(text))


def top(**values: Any) -> Plant:
    """Keys of the record itself."""
    return forged(lambda document: document.update(values))


def step(number: int = -1, **values: Any) -> Plant:
    """Fields of one step."""
    return forged(lambda document: document["steps"][number].update(values))


def step_without(key: str) -> Plant:
    return forged(lambda document: document["steps"][-1].pop(key))


def arguments(**values: Any) -> Plant:
    """Arguments of the last step."""
    return forged(lambda document: document["steps"][-1]["arguments"].update(values))


def axis(name: str, **values: Any) -> Plant:
    """Fields of one axis' map in the last step."""
    return forged(lambda document: document["steps"][-1]["maps"][name].update(values))


def axis_without(name: str, key: str | None = None) -> Plant:
    """A map that is left out, or one field of it."""

    def change(document: Document) -> None:
        maps = document["steps"][-1]["maps"]
        (maps if key is None else maps[name]).pop(name if key is None else key)

    return forged(change)


def claimed(*steps: Document, first: bool = False) -> Plant:
    """Further steps that never were, behind those on record or before them; a record where there is none.

    A step needs an operation; its other fields are as a step without effect has them.
    """

    def plant(folder: Path) -> None:
        path = folder / RECORD
        document = json.loads(path.read_text()) if path.exists() else {"format": 1, "tool": "modelsurgeon", "files": {}}
        usual = {
            "arguments": {},
            "seed": None,
            "version": __version__,
            "source": {"id": "somewhere", "revision": "0" * 40},
            "lossless": True,
            "lossy": [],
            "maps": {},
        }
        new, old = [{**usual, **each} for each in steps], document.get("steps", [])
        path.write_text(json.dumps({**document, "steps": [*new, *old] if first else [*old, *new]}))

    return _forging(plant)


def identity(size: int) -> Document:
    """The map of an axis that stays as it is."""
    return {
        **{"size": size, "new_size": size, "gain": 1.0, "split": "readers", "source": [[0, 1, size]]},
        **{"scale": [[1.0, size]], "share": [[1.0, size]]},
    }


def widening(maps: Document, dtype: str | None = None) -> Document:
    """A step that says that it grew axes."""
    return {"operation": "widen", "arguments": {**WIDEN, "dtype": dtype}, "maps": maps}


def rounding(count: int, size: int = 40, name: str = "mlp", dtype: str | None = None) -> Plant:
    """So many steps before the first that change nothing, and may have rounded."""
    return claimed(*[widening({name: identity(size)}, dtype)] * count, first=True)


def forgery(*plants: Plant) -> Plant:
    """Changes of record and weights that go together."""

    def plant(folder: Path) -> None:
        for each in plants:
            each(folder)

    return _forging(plant)


def _forging(plant: Callable[[Path], object]) -> Plant:
    plant.forges = True  # type: ignore[attr-defined]
    return plant  # type: ignore[return-value]
