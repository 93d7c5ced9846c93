"""The rooms of the package and their order: read off the source, imports inside functions and for types counted too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import structure
from structure import Structure
from support.command import ROOT

MOST_FILES = 15  # of a room, tables aside
MOST_AT_ROOT = 8
MOST_LINES = 400  # of a file of tests or scripts
SHARED = {"support", "support/golden_data", "support/attacks"}  # folders of tests that are no room of the package


def tree(folder: str) -> list[Path]:
    """The Python files of a folder of the repository."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def repeated(paths: Iterable[Path]) -> list[str]:
    """Names that more than one file has; every package has its own `__init__` and may have a `__main__`."""
    names = Counter(path.name for path in paths if not path.name.startswith("__"))
    return sorted(name for name, times in names.items() if times > 1)


def not_on(page: Path) -> list[str]:
    """Files below a page's folder that the page does not name, and names of files that are not there."""
    named = re.findall(r"`(\w+\.py)`: ", page.read_text(encoding="utf-8"))
    there = [path.name for path in tree(str(page.parent.relative_to(ROOT)))]
    return sorted((Counter(named) - Counter(there)) + (Counter(there) - Counter(named)))


@pytest.fixture(scope="module")
def package() -> Structure:
    return Structure(structure.PACKAGE)


def test_every_module_is_in_a_room_that_has_its_place_in_the_order(package: Structure) -> None:
    assert {package.room(name) for name in package.modules} == set(structure.ROOMS)


def test_a_room_imports_only_rooms_before_it(package: Structure) -> None:
    assert package.upward == []


def test_no_modules_import_each_other(package: Structure) -> None:
    assert package.circles == []


def test_imports_in_functions_keep_large_libraries_out_of_start_up_and_do_nothing_else(package: Structure) -> None:
    assert package.hidden == []


def test_no_file_needs_its_room_to_be_told_from_another() -> None:
    assert repeated(path for path in tree("modelsurgeon") if path.parent.name != "tables") == []


def test_rooms_can_be_seen_across(package: Structure) -> None:
    assert max(package.files_by_room.values()) <= MOST_FILES
    assert (
        len([name for name in package.modules if "." not in name])
        == len(structure.BASE) + len(structure.TOP)
        <= MOST_AT_ROOT
    )


# --- tests and scripts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["tests", "scripts"])
def test_no_file_is_too_long_to_read_in_one_go(folder: str) -> None:
    lengths = {path.name: path.read_text(encoding="utf-8").count("\n") for path in tree(folder)}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_file_of_tests_or_scripts_needs_its_folder_to_be_told_from_another() -> None:
    assert repeated(tree("tests") + tree("scripts")) == []


def test_every_folder_of_tests_is_a_room_of_the_package() -> None:
    folders = {str(path.parent.relative_to(ROOT / "tests")) for path in tree("tests")}
    assert folders - {"."} - SHARED <= set(structure.ROOMS)


@pytest.mark.parametrize("page", ["tests/support/README.md", "scripts/README.md"])
def test_a_page_says_what_each_file_is_for(page: str) -> None:
    assert not_on(ROOT / page) == []


def test_a_test_imports_what_it_shares_from_support() -> None:
    tests = {path.stem for path in tree("tests") if path.stem.startswith("test_")}
    imports = {
        (path.name, arrow)
        for path in tree("tests")
        for arrow in re.findall(r"^(?:from|import) (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    assert {(name, arrow) for name, arrow in imports if arrow in tests} == set()


# --- planted mistakes ------------------------------------------------------------------------------------------------


def planted(folder: Path, **files: str) -> Structure:
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


def test_a_name_that_two_files_have_is_seen() -> None:
    assert repeated([Path("a/one.py"), Path("b/one.py"), Path("b/two.py"), Path("a/__init__.py")]) == ["one.py"]


def test_a_file_that_its_page_does_not_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "rooms").mkdir()
    for name in ("one.py", "two.py"):
        (tmp_path / "rooms" / name).write_text("")
    (tmp_path / "rooms" / "README.md").write_text("- `one.py`: the first.\n- `three.py`: gone.\n")
    assert not_on(tmp_path / "rooms" / "README.md") == ["three.py", "two.py"]
