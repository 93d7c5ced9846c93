"""Counts in the source of a package: lengths, docstrings, dispatches, names that are used twice.

counts = Counts(Path("modelsurgeon"))
counts.functions    {"maps.axis_map.AxisMap.then": 12, ...}
counts.ladders      ["growth.remap:41 AxisMap", ...]
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from statistics import median

TABLES = ("tables", "architectures")  # a file for each family: the folder now, and the folder of older trees
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Defined:
    """A function or a class.

    name    with the module's, dotted
    nested  whether it is inside a function
    """

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    nested: bool

    @property
    def is_public(self) -> bool:
        """Whether users of the package can call it by a name without underscores (those of modules do not count)."""
        return not (self.nested or any(part.startswith("_") for part in self.path))

    @property
    def path(self) -> tuple[str, ...]:
        """The names of the classes around it, and its own."""
        return tuple(self.name.partition(":")[2].split("."))


@dataclass(frozen=True)
class Counts:
    """The source of one package; `root` is its folder."""

    root: Path

    @cached_property
    def texts(self) -> dict[str, str]:
        """{module: its source}."""
        files = sorted(self.root.rglob("*.py"))
        return {".".join(p.relative_to(self.root).with_suffix("").parts): p.read_text(encoding="utf-8") for p in files}

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {module: ast.parse(text) for module, text in self.texts.items()}

    @cached_property
    def defined(self) -> list[Defined]:
        return [found for module, tree in self.trees.items() for found in _defined(tree, f"{module}:", False)]

    @cached_property
    def functions(self) -> dict[str, int]:
        """{name: lines, from `def` to the last one}; methods and inner functions too."""
        found = [one for one in self.defined if isinstance(one.node, FUNCTIONS)]
        return {f"{one.name}, line {one.node.lineno}": _lines(one.node) for one in found}

    @cached_property
    def files(self) -> dict[str, int]:
        return {module: text.count("\n") for module, text in self.texts.items()}

    @property
    def lines(self) -> int:
        return sum(self.files.values())

    @cached_property
    def documented(self) -> tuple[int, int]:
        """(public functions and methods with a docstring, all of them)."""
        public = [one.node for one in self.defined if one.is_public and isinstance(one.node, FUNCTIONS)]
        return sum(ast.get_docstring(node) is not None for node in public), len(public)

    @cached_property
    def through(self) -> list[str]:
        """Lines that mention `.through` outside the tables: each may be a dispatch on kinds of axes."""
        tables = {module for module in self.texts if set(module.split(".")[-2:-1]) & set(self._tables)}
        return [line for line in self._lines_with(r"\.through\b") if line.partition(":")[0] not in tables]

    @cached_property
    def _tables(self) -> tuple[str, ...]:
        """The folder of the tables: `tables`, or `architectures` in a tree that has no such folder."""
        folders = {module.rpartition(".")[0].rpartition(".")[2] for module in self.texts}
        return next(((name,) for name in TABLES if name in folders), ())

    @cached_property
    def isinstance_lines(self) -> list[str]:
        return self._lines_with(r"\bisinstance\(")

    def _lines_with(self, pattern: str) -> list[str]:
        return [
            f"{module}:{number}"
            for module, text in self.texts.items()
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(pattern, line)
        ]

    @cached_property
    def ladders(self) -> list[str]:
        """Calls of `isinstance`, and cases of `match`, with a class of the package."""
        own = {one.path[-1] for one in self.defined if isinstance(one.node, ast.ClassDef)}
        return [
            f"{module}:{line} {' '.join(sorted(names & own))}"
            for module, tree in self.trees.items()
            for line, names in _asked_for(tree)
            if names & own
        ]

    @cached_property
    def homonyms(self) -> list[str]:
        """Names that several classes have, and file names that several modules have; not `__init__` and `__main__`."""
        classes = Counter(one.path[-1] for one in self.defined if isinstance(one.node, ast.ClassDef))
        names = (module.rpartition(".")[2] for module in self.texts)
        files = Counter(f"{name}.py" for name in names if not name.startswith("__"))
        return sorted(f"{name} ({times})" for name, times in [*classes.items(), *files.items()] if times > 1)


def _defined(node: ast.AST, prefix: str, nested: bool) -> Iterator[Defined]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            yield Defined(prefix + child.name, child, nested)
            yield from _defined(child, f"{prefix}{child.name}.", nested or isinstance(child, FUNCTIONS))
        else:
            yield from _defined(child, prefix, nested)


def _lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1  # type: ignore[attr-defined]


def _asked_for(tree: ast.Module) -> Iterator[tuple[int, set[str]]]:
    """(line, names of classes) of each `isinstance`, and of each class in a `case`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and len(node.args) == 2:
            yield node.lineno, _names(node.args[1])
        if isinstance(node, ast.MatchClass):
            yield node.lineno, _names(node.cls)


def _names(node: ast.AST) -> set[str]:
    """The last part of every dotted name in an expression."""
    found = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return found | {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def spread(lengths: Mapping[str, int]) -> str:
    """Median, 90th percentile and the largest with its name."""
    ordered = sorted(lengths.values())
    if not ordered:
        return "none"
    name = max(lengths, key=lambda key: lengths[key])
    return f"median {median(ordered):g}, p90 {ordered[ceil(0.9 * len(ordered)) - 1]}, max {lengths[name]} ({name})"


def report(counts: Counts) -> Iterator[str]:
    documented, public = counts.documented
    yield f"lines                    {counts.lines:,} in {len(counts.files)} files"
    yield f"lines of a function      {spread(counts.functions)}"
    yield f"lines of a file          {spread(counts.files)}"
    share = f"{documented / (public or 1):.0%}"
    yield f"docstrings               {documented} of {public} public functions and methods ({share})"
    yield f"lines with .through      {len(counts.through)} outside the tables"
    yield f"lines with isinstance    {len(counts.isinstance_lines)}"
    yield f"ladders                  {len(counts.ladders)} questions for a class of the package"
    yield f"homonyms                 {len(counts.homonyms)}: {', '.join(counts.homonyms)}"
