"""What scripts/source/structure.py counts in a package: seen in planted examples, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from source_counts import Counts, report, spread

ONE = """
class Kind:
    \"\"\"A class's docstring is not a function's.\"\"\"

    def plain(self):
        \"\"\"Said.\"\"\"

        def inner():
            return isinstance(self, int)

        return inner

    def unsaid(self): ...

    def _hidden(self): ...


class _Private:
    def method(self): ...
"""
TWO = """
import shapes.one
from shapes.one import Kind


class Kind: ...


async def ladder(value):
    \"\"\"Ask what a value is.\"\"\"
    if isinstance(value, Kind) or isinstance(value, int | shapes.one.Kind):
        return value.through
    match value:
        case Kind():
            return "value.through"
        case int():
            return value.throughput
"""


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    files = {"one": ONE, "rooms/two": TWO, "rooms/one": "", "architectures/tables/llama": "A.through\n", "__init__": ""}
    for name, text in files.items():
        path = tmp_path / "shapes" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
    return Counts(tmp_path / "shapes")


def test_lengths_are_lines_from_the_first_to_the_last(counts: Counts) -> None:
    assert counts.functions == {
        "one:Kind.plain, line 4": 7,
        "one:Kind.plain.inner, line 7": 2,
        "one:Kind.unsaid, line 12": 1,
        "one:Kind._hidden, line 14": 1,
        "one:_Private.method, line 18": 1,
        "rooms.two:ladder, line 8": 9,
    }
    assert counts.files["one"] == 18 and counts.lines == 18 + 16 + 1


def test_docstrings_are_those_of_public_functions(counts: Counts) -> None:
    assert counts.documented == (2, 3)  # plain and ladder, not unsaid


def test_dispatches_on_kinds_are_lines_outside_the_tables(counts: Counts) -> None:
    assert counts.through == ["rooms.two:11", "rooms.two:14"]


def test_in_a_tree_without_a_folder_of_that_name_the_architectures_are_the_tables(tmp_path: Path) -> None:
    for name in ("architectures/llama", "growth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("a.through")
    assert Counts(tmp_path).through == ["growth:1"]


def test_ladders_ask_for_classes_of_the_package(counts: Counts) -> None:
    assert counts.ladders == ["rooms.two:10 Kind", "rooms.two:10 Kind", "rooms.two:13 Kind"]
    assert counts.isinstance_lines == ["one:8", "rooms.two:10"]


def test_homonyms_are_classes_and_files_of_one_name(counts: Counts) -> None:
    assert counts.homonyms == ["Kind (2)", "one.py (2)"]


def test_a_spread_is_the_median_the_ninetieth_percentile_and_the_largest() -> None:
    assert spread({f"f{n}": n for n in range(1, 11)}) == "median 5.5, p90 9, max 10 (f10)"
    assert spread({}) == "none"


def test_the_report_has_a_line_for_each(counts: Counts) -> None:
    assert [line.split("  ")[0] for line in report(counts)] == [
        "lines",
        "lines of a function",
        "lines of a file",
        "docstrings",
        "lines with .through",
        "lines with isinstance",
        "ladders",
        "homonyms",
    ]
