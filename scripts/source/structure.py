"""The structure of the package, from its source: rooms, imports between modules, imports inside functions.

    python scripts/source/structure.py                     this tree
    python scripts/source/structure.py OTHER/modelsurgeon  another one

A room is a folder; modules at the root are one room at the bottom (`BASE`) and one at the top (`TOP`). In a tree
without rooms every module at the root counts as one.

    depth         rooms on the longest chain of imports, circles counted as one; modules on it
    upward        imports of a room that comes later (`ROOMS`)
    circles       groups of modules that import each other; imports for types and inside functions count
    in functions  imports of own modules inside functions, and those that keep no large library out of start-up: only
                  for that may a module put an import off

Then follow the counts of `source_counts.py`: lengths, docstrings, dispatches on kinds, ladders of isinstance, homonyms.
`--list` shows each place that is counted.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from source_counts import TABLES, Counts
from source_counts import report as counted

PACKAGE = Path(__file__).parents[2] / "modelsurgeon"
BASE, TOP = ("errors", "progress", "text", "version"), ("__init__", "__main__", "delivery", "model")
# Each room imports only from rooms before it.
ROOMS = (
    "base maps architectures files tensors checkpoints running growth training operations saving proof verification "
    "diagnosis reports top cli"
).split()
HEAVY = {
    "accelerate",
    "fsspec",
    "huggingface_hub",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "numpy",
    "rich",
    "safetensors",
    "torch",
    "transformers",
}


@dataclass(frozen=True)
class Arrow:
    """One import.

    module     full name of the imported module
    inside     whether it is inside a function
    for_types  whether it is only for type checkers
    """

    source: str
    module: str
    line: int
    inside: bool
    for_types: bool


@dataclass(frozen=True)
class Structure:
    """All modules of a package, {name without the package's: file}."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        files = sorted(self.root.rglob("*.py"))
        return {".".join(path.relative_to(self.root).with_suffix("").parts): path for path in files}

    @cached_property
    def arrows(self) -> tuple[Arrow, ...]:
        return tuple(arrow for name in self.modules for arrow in self._imports(name))

    @cached_property
    def inner(self) -> tuple[Arrow, ...]:
        """The imports from module to module of the package."""
        return tuple(arrow for arrow in self.arrows if arrow.module in self.modules)

    def _imports(self, name: str) -> Iterator[Arrow]:
        tree = ast.parse(self.modules[name].read_text(encoding="utf-8"))
        yield from self._in(tree, name, False, False)

    def _in(self, node: ast.AST, name: str, inside: bool, for_types: bool) -> Iterator[Arrow]:
        for child in ast.iter_child_nodes(node):
            types = for_types or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
            for module in self._named(child):
                yield Arrow(name, module, getattr(child, "lineno", 0), inside, types)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from self._in(child, name, inside or function, types)

    def _named(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (self._own(alias.name) or alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield self._own(f"{node.module}.{alias.name}") or self._own(str(node.module)) or str(node.module)

    def _own(self, name: str) -> str | None:
        """The package's module of this full name; a folder is its `__init__`."""
        short = name.removeprefix(f"{self.root.name}.") if name != self.root.name else "__init__"
        if name != self.root.name and short == name:
            return None
        return next((found for found in (short, f"{short}.__init__") if found in self.modules), None)

    # --- what is measured ---

    def room(self, name: str) -> str:
        first = name.partition(".")[0]
        if not self.has_rooms:
            return first
        return "base" if first in BASE else "top" if first in TOP else first

    @cached_property
    def has_rooms(self) -> bool:
        return "model" in self.modules

    @cached_property
    def upward(self) -> list[Arrow]:
        """Imports against the order of rooms; only `__main__` may import the command line."""
        order = {room: at for at, room in enumerate(ROOMS)}
        between = [(a, order.get(self.room(a.source), -1), order.get(self.room(a.module), -1)) for a in self.inner]
        found = [a for a, here, there in between if -1 < here < there and a.source != "__main__"]
        return found if self.has_rooms else []

    @cached_property
    def circles(self) -> list[tuple[str, ...]]:
        groups = _groups(list(self.modules), {(a.source, a.module) for a in self.inner})
        return [group for group in groups if len(group) > 1]

    @cached_property
    def depth(self) -> tuple[int, int]:
        """(rooms, modules) on the longest chain."""
        pairs = {(a.source, a.module) for a in self.inner if a.source != "__main__"}
        rooms = {(self.room(a), self.room(b)) for a, b in pairs}
        return _levels({self.room(name) for name in self.modules}, rooms), _levels(set(self.modules), pairs)

    @cached_property
    def heavy(self) -> frozenset[str]:
        """The modules that load a large library when they are imported."""
        eager = [arrow for arrow in self.arrows if not (arrow.inside or arrow.for_types)]
        found = {arrow.source for arrow in eager if arrow.module.partition(".")[0] in HEAVY}
        while more := {arrow.source for arrow in eager if arrow.module in found} - found:
            found |= more
        return frozenset(found)

    @cached_property
    def put_off(self) -> list[Arrow]:
        """Imports of own modules inside functions."""
        return [arrow for arrow in self.inner if arrow.inside]

    @cached_property
    def hidden(self) -> list[Arrow]:
        """The imports inside functions that keep no large library out of start-up."""
        return [arrow for arrow in self.put_off if arrow.source in self.heavy or arrow.module not in self.heavy]

    @cached_property
    def files_by_room(self) -> Counter[str]:
        """{folder: number of files}, its `__init__` and the tables left out."""
        folders = [name.rpartition(".")[0] for name in self.modules if not name.endswith("__init__")]
        return Counter(folder for folder in folders if folder and folder.rpartition(".")[2] not in TABLES)


def _levels(names: set[str], pairs: set[tuple[str, str]]) -> int:
    """The number of names on the longest chain; names that reach each other count as one."""
    groups = _groups(sorted(names), pairs)
    home = {name: number for number, group in enumerate(groups) for name in group}
    below: dict[int, int] = {}
    for number in range(len(groups)):  # Tarjan's algorithm yields a group after those that it reaches
        below[number] = 1 + max((below[home[b]] for a, b in pairs if home[a] == number != home[b]), default=0)
    return max(below.values())


def _groups(names: list[str], pairs: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Names that reach each other, together (Tarjan's algorithm)."""
    after: dict[str, list[str]] = {name: [] for name in names}
    for a, b in sorted(pairs):
        after[a].append(b)
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in after[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            at = stack.index(name)
            groups.append(tuple(sorted(stack[at:])))
            del stack[at:]

    for name in names:
        if name not in order:
            visit(name)
    return groups


def report(structure: Structure) -> Iterator[str]:
    root = [name for name in structure.modules if "." not in name]
    rooms = structure.files_by_room
    largest = rooms.most_common(1)[0] if rooms else ("", 0)
    yield f"modules at the root      {len(root)}"
    yield "depth                    {} rooms, {} modules".format(*structure.depth)
    yield f"upward arrows            {len(structure.upward) if structure.has_rooms else 'no order'}"
    yield f"circles                  {len(structure.circles)}"
    yield f"imports in functions     {len(structure.put_off)}, of them not for weight {len(structure.hidden)}"
    yield f"files in a room, at most {largest[1]} ({largest[0]})"
    for kind, arrows in (("upward", structure.upward), ("not for weight", structure.hidden)):
        yield from (f"{kind}: {arrow.source}:{arrow.line} imports {arrow.module}" for arrow in arrows)
    yield from (f"circle: {' '.join(group)}" for group in structure.circles)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--list", action="store_true", help="show each place that is counted")
    arguments = parser.parse_args()
    package = arguments.package.resolve()
    counts = Counts(package)
    print("\n".join([*report(Structure(package)), *counted(counts)]))
    if arguments.list:
        places = {"through": counts.through, "ladder": counts.ladders}
        print("\n".join(f"{kind}: {place}" for kind, found in places.items() for place in found))


if __name__ == "__main__":
    main()
