"""What is supported, axis by axis, from the families' tables and the kinds of their axes.

A family has one row for its table, and one for each form that changes a cell, applied alone: "falcon" has a key and a
value for each head, "falcon (grouped)" for groups of them. Where several forms hold, so do the cells of each. A cell
names the sizes to which a width can grow:

    any       every size from the present one on (of those that the library allows)
    xk        whole multiples
    grouped   heads: multiples of the number of key-value heads into which the old groups fit
    slopes    heads whose ALiBi slopes include the present ones
    xKEY      multiples of another key's value
    with KEY  the width has no key of its own and follows this one; experts: this number grows as much as theirs
    untied    only where the head is not, or no longer, the embedding
    fixed     it does not grow
    -         the family has no such width
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.words import Multiple, Quotient
from modelsurgeon.growth.kinds.kind import kind_of

# {column: the axes that it is about}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden", "stream", "encoder"),
    "mlp": ("mlp", "encoder_mlp", "decoder_mlp"),
    "heads": ("heads", "encoder_heads", "decoder_heads"),
    "kv heads": ("kv",),
    "head size": tuple("head nope rope value encoder_head encoder_value decoder_head decoder_value".split()),
    "experts": ("experts",),
    "expert mlp": ("expert_mlp",),
    "shared mlp": ("shared_mlp",),
    "embedding": ("embedded",),
    "low ranks": ("pre_q_rank", "q_rank", "pre_kv_rank", "kv_rank"),
}
NONE = "-"
AXIS_FIELDS = ("key", "through", "follows", "active")
ORDER = ("any", "grouped", "slopes", "xk", "fixed")  # the strictest last


@dataclass(frozen=True)
class Width:
    """One width."""

    axes: tuple[str, ...]
    key: str | None  # its config key; None: it follows others
    rule: str  # the sizes to which it grows
    others: tuple[str, ...] = ()  # the keys that change with it
    untied: bool = False  # whether it grows only where the head is no longer the embedding

    @property
    def cell(self) -> str:
        """Its text in the table."""
        if self.untied or self.rule == "fixed" or not self.others:
            return f"{self.rule} if untied" if self.untied else self.rule
        return f"{'' if self.rule == 'any' else f'{self.rule} '}with {', '.join(self.others)}"


@dataclass(frozen=True)
class FamilyRow:
    """One family in one layout."""

    model_type: str
    layout: str  # the form's name; empty for the table without forms
    widths: Mapping[str, tuple[Width, ...]]  # {column: the widths that its cell shows}
    untie: str

    @property
    def name(self) -> str:
        """The family, and its layout."""
        return f"{self.model_type} ({self.layout})" if self.layout else self.model_type

    @property
    def cells(self) -> dict[str, str]:
        """{column: cell}: what all its widths have in common, or each by the shortest name of its axes."""
        found = {}
        for column, widths in self.widths.items():
            distinct = {width.cell for width in widths}
            named = ", ".join(f"{min(width.axes, key=len)} {width.cell}" for width in widths)
            found[column] = named if len(distinct) > 1 else "".join(distinct) or NONE
        return {**found, "untie": self.untie}


def families() -> tuple[FamilyRow, ...]:
    """Every family that has a table, in alphabetical order."""
    return tuple(row for model_type in registry.known() for row in family(model_type))


def family(model_type: str) -> tuple[FamilyRow, ...]:
    """The rows of one family. Raises ArchitectureError for an unknown one."""
    table = registry.find(model_type)
    plain = make_row(model_type, table)
    others = (make_row(model_type, form.of(table), form.name) for form in table.forms)
    return (plain, *(row for row in others if row.cells != plain.cells))


def make_row(model_type: str, table: Architecture, layout: str = "") -> FamilyRow:
    """The row of one layout's table."""
    tie = table.tie
    untie = "yes" if tie and not tie.refused else "refused" if tie else NONE
    return FamilyRow(model_type, layout, {column: tuple(_widths(table, column)) for column in COLUMNS}, untie)


def as_markdown(rows: tuple[FamilyRow, ...]) -> str:
    """The table as README.md has it."""
    headings = ("family", *COLUMNS, "untie")
    lines = [headings, ("---",) * len(headings), *((row.name, *row.cells.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def details(model_type: str) -> dict[str, Any]:
    """One family: its axes, its signatures by template, what is refused."""
    table = registry.find(model_type)
    return {
        "model_type": model_type,
        "rows": [{"layout": row.layout, **row.cells} for row in family(model_type)],
        "axes": {
            name: {key: value for key in AXIS_FIELDS if (value := getattr(axis, key)) is not None}
            for name, axis in table.axes.items()
        },
        "tensors": dict(table.tensors),
        "forms": {form.name: dict(form.tensors) for form in table.forms if form.tensors},
        "requires": {key: list(accepted) for key, accepted in table.requires.items()},
        "multiples": dict(table.multiples),
        "fixed": {axis.key: axis.why for axis in table.axes.values() if axis.key and not axis.grows and axis.why},
        "untie": table.tie.refused if table.tie and table.tie.refused else "",
    }


def _widths(table: Architecture, column: str) -> Iterator[Width]:
    """One width for every key, or axis without one, of a column."""
    used = {axis for template in table.templates for axis in template.signature.axes}
    main = next((table.axes[n].key for n in COLUMNS["hidden"] if n in table.axes), None)
    keyed: dict[str | tuple[str, ...], tuple[str, ...]] = {}
    for name in COLUMNS[column]:
        if name in used and not (column == "embedding" and table.axes[name].key == main):
            axis = table.axes[name]
            key = axis.key or (axis.default.keys if isinstance(axis.default, Quotient | Multiple) else ())
            keyed[key] = (*keyed.get(key, ()), name)
    for key, axes in keyed.items():
        if isinstance(key, tuple):  # the config keys that an axis without one of its own follows
            yield Width(axes, None, _strictest(table, axes), key[:1]) if key else Width(axes, None, "fixed")
            continue
        sharing = tuple(name for name, axis in table.axes.items() if axis.key == key)
        rule = _strictest(table, sharing)
        active = table.axes[axes[0]].active if rule == "xk" else None
        # a norm without weights that writes what a tied head reads cannot take a factor
        written = {axis for name, norm in table.norms if name in table.weightless for axis in norm.gains}
        untied = table.tie is not None and table.tie.axis in written and table.tie.axis in sharing
        yield Width(axes, key, rule, (active,) if active else (), untied)


def _strictest(table: Architecture, axes: tuple[str, ...]) -> str:
    """The strictest rule of these axes."""
    rules = [kind_of(table.axes[name]).reach(table, name) for name in axes]
    return max(rules, key=lambda rule: ORDER.index(rule) if rule in ORDER else 1)
