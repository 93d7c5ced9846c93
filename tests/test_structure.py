"""The rooms of the package and their order: read off the source, imports inside functions and for types counted too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from support.command import ROOT

_spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts" / "structure.py")
assert _spec and _spec.loader
structure: Any = sys.modules.setdefault("structure", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(structure)
Structure = structure.Structure

MOST_FILES = 15  # of a room, tables aside
MOST_AT_ROOT = 8


@pytest.fixture(scope="module")
def package() -> Any:
    return Structure(structure.PACKAGE)


def test_every_module_is_in_a_room_that_has_its_place_in_the_order(package: Any) -> None:
    assert {package.room(name) for name in package.modules} == set(structure.ROOMS)


def test_a_room_imports_only_rooms_before_it(package: Any) -> None:
    assert package.upward == []


def test_no_modules_import_each_other(package: Any) -> None:
    assert package.circles == []


def test_imports_in_functions_keep_large_libraries_out_of_start_up_and_do_nothing_else(package: Any) -> None:
    assert package.hidden == []


def test_rooms_can_be_seen_across(package: Any) -> None:
    assert max(package.files_by_room.values()) <= MOST_FILES
    assert (
        len([name for name in package.modules if "." not in name])
        == len(structure.BASE) + len(structure.TOP)
        <= MOST_AT_ROOT
    )


# --- planted mistakes ------------------------------------------------------------------------------------------------


def planted(folder: Path, **files: str) -> Any:
    """A package of a few modules: `maps__axis="import ..."` is maps/axis.py."""
    for name, text in {"model": "", **files}.items():
        path = folder / "modelsurgeon" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Structure(folder / "modelsurgeon")


def test_an_import_upwards_is_seen_even_in_a_function_and_for_types(tmp_path: Path) -> None:
    hidden = "def f():\n    from modelsurgeon.growth import plan"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from modelsurgeon.growth.plan import Plan"
    found = planted(tmp_path, growth__plan="", maps__one=hidden, maps__two=typed).upward
    assert [(arrow.source, arrow.module) for arrow in found] == [
        ("maps.one", "growth.plan"),
        ("maps.two", "growth.plan"),
    ]


def test_a_circle_is_seen_even_where_one_half_is_for_types(tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from modelsurgeon.maps.two import Two"
    assert planted(tmp_path, maps__one=typed, maps__two="import modelsurgeon.maps.one").circles == [
        ("maps.one", "maps.two")
    ]


def test_an_import_in_a_function_is_for_weight_or_it_is_seen(tmp_path: Path) -> None:
    light, late = "", "def f():\n    from modelsurgeon.maps import {}"
    package = planted(
        tmp_path,
        maps__light=light,
        maps__large="import torch",
        growth__for_weight=late.format("large"),
        growth__for_nothing=late.format("light"),
        growth__large_already="import numpy\n" + late.format("large"),
    )
    assert [arrow.source for arrow in package.hidden] == ["growth.for_nothing", "growth.large_already"]
