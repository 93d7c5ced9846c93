"""How the package hangs together, read off its source: rooms, arrows between modules, imports inside of functions.

python scripts/structure.py                     this tree
python scripts/structure.py OTHER/modelsurgeon  another one, without the order of rooms where it has none of them

depth       modules on the longest chain of imports (circles counted as one)
upward      imports of a room that comes later (`ROOMS`)
circles     groups of modules that import each other, imports for types and inside functions counted too
in functions  imports of own modules inside of functions, and those of them that are not for weight: a light module
            may put off what loads torch or another large library, and nothing else may be put off
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "modelsurgeon"
# Each room imports only from rooms before it; modules at the root are rooms of their own.
ROOMS = (
    "errors units progress text maps architectures files tensors checkpoints running growth training operations saving "
    "proof verification diagnosis reports delivery model cli __main__"
).split()
HEAVY = {
    "accelerate",
    "fsspec",
    "huggingface_hub",
    "jinja2",
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

    module    full name of what is imported
    inside    whether it stands in a function
    for_types whether it is for type checkers alone
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
        """Those from module to module of the package."""
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
        """A module of the package by its full name; a folder is its `__init__`."""
        short = name.removeprefix(f"{self.root.name}.") if name != self.root.name else "__init__"
        if name != self.root.name and short == name:
            return None
        return next((found for found in (short, f"{short}.__init__") if found in self.modules), None)

    # --- what is measured ---

    def room(self, name: str) -> str:
        return name.partition(".")[0]

    @cached_property
    def upward(self) -> list[Arrow]:
        order = {room: at for at, room in enumerate(ROOMS)}
        known = (arrow for arrow in self.inner if {self.room(arrow.source), self.room(arrow.module)} <= order.keys())
        return [arrow for arrow in known if order[self.room(arrow.source)] < order[self.room(arrow.module)]]

    @cached_property
    def circles(self) -> list[tuple[str, ...]]:
        return [group for group in self._groups({(a.source, a.module) for a in self.inner}) if len(group) > 1]

    @cached_property
    def depth(self) -> int:
        pairs = {(a.source, a.module) for a in self.inner if not a.for_types}
        groups = self._groups(pairs)
        home = {name: number for number, group in enumerate(groups) for name in group}
        below: dict[int, int] = {}

        def levels(number: int) -> int:
            if number not in below:
                next_ones = {home[b] for a, b in pairs if home[a] == number} - {number}
                below[number] = 1 + max(map(levels, next_ones), default=0)
            return below[number]

        return max(map(levels, range(len(groups))))

    def _groups(self, pairs: set[tuple[str, str]]) -> list[tuple[str, ...]]:
        """Modules that reach each other, together (Tarjan's algorithm)."""
        after: dict[str, list[str]] = {name: [] for name in self.modules}
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

        for name in self.modules:
            if name not in order:
                visit(name)
        return groups

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
        """Imports of own modules inside of functions."""
        return [arrow for arrow in self.inner if arrow.inside]

    @cached_property
    def hidden(self) -> list[Arrow]:
        """Those of them that keep nothing large out of start-up."""
        return [arrow for arrow in self.put_off if arrow.source in self.heavy or arrow.module not in self.heavy]

    @cached_property
    def files_by_room(self) -> Counter[str]:
        """Files a folder, its own `__init__` and the tables left out."""
        own = [name for name in self.modules if "." in name and not name.endswith("__init__")]
        return Counter(
            name.rpartition(".")[0] for name in own if ".tables." not in name and name[:14] != "architectures."
        )

    @property
    def lines(self) -> int:
        return sum(path.read_text(encoding="utf-8").count("\n") for path in self.modules.values())


def report(structure: Structure) -> Iterator[str]:
    root = [name for name in structure.modules if "." not in name]
    rooms = structure.files_by_room
    largest = rooms.most_common(1)[0] if rooms else ("", 0)
    yield f"modules at the root      {len(root)}"
    yield f"import depth             {structure.depth}"
    yield f"upward arrows            {len(structure.upward)}"
    yield f"circles                  {len(structure.circles)}"
    yield f"imports in functions     {len(structure.put_off)}, of them not for weight {len(structure.hidden)}"
    yield f"files in a room, at most {largest[1]} ({largest[0]})"
    yield f"lines                    {structure.lines:,} in {len(structure.modules)} files"
    for kind, arrows in (("upward", structure.upward), ("not for weight", structure.hidden)):
        yield from (f"{kind}: {arrow.source}:{arrow.line} imports {arrow.module}" for arrow in arrows)
    yield from (f"circle: {' '.join(group)}" for group in structure.circles)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    print("\n".join(report(Structure(parser.parse_args().package.resolve()))))


if __name__ == "__main__":
    main()
