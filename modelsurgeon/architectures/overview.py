"""What is supported, axis by axis, as the tables themselves say it.

One row a family, for its table as it stands, and one for each form that changes a cell, applied alone: "falcon" has a
key and a value for each head, "falcon (grouped)" for groups of them. Where several forms hold, so do the cells of each.
Cells say to which sizes a width can grow:

    any       every size from the present one on (where the library wants a multiple, of those)
    xk        whole multiples
    grouped   heads: what the key-value heads divide, and the old groups fit into
    slopes    heads whose ALiBi slopes hold the present ones
    xKEY      multiples of what another key says
    with KEY  it has no key of its own and is made of this one; of experts: their number, and this one as much
    untied    where the head is not, or no longer, the embedding
    fixed     it stays
    -         the family has none
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.norms import is_normalised, whole_multiples_only
from modelsurgeon.architectures.words import Axis, Multiple, Quotient

# {column: the axes that it is about}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden", "stream", "encoder"),
    "mlp": ("mlp", "encoder_mlp", "decoder_mlp"),
    "heads": ("heads", "encoder_heads", "decoder_heads"),
    "kv heads": ("kv",),
    "head size": (
        "head",
        "nope",
        "rope",
        "value",
        "encoder_head",
        "encoder_value",
        "decoder_head",
        "decoder_value",
    ),
    "experts": ("experts",),
    "expert mlp": ("expert_mlp",),
    "shared mlp": ("shared_mlp",),
    "embedding": ("embedded",),
    "low ranks": ("pre_q_rank", "q_rank", "pre_kv_rank", "kv_rank"),
}
NONE = "-"


@dataclass(frozen=True)
class Width:
    """One width.

    key     its config key; None: it is made of others
    rule    to which sizes it grows
    others  the keys that go with it
    untied  whether it grows only where the head is no longer the embedding
    """

    axes: tuple[str, ...]
    key: str | None
    rule: str
    others: tuple[str, ...] = ()
    untied: bool = False

    @property
    def said(self) -> str:
        """The cell."""
        if self.untied:
            return f"{self.rule} if untied"
        if self.rule == "fixed" or not self.others:
            return self.rule
        rule = "" if self.rule == "any" else f"{self.rule} "
        return f"{rule}with {', '.join(self.others)}"

    @property
    def name(self) -> str:
        """The shortest of its axes' names."""
        return min(self.axes, key=len)


@dataclass(frozen=True)
class Row:
    """One family in one layout: {column: cell}, with the widths that the cells are made of.

    layout  the form's name; empty for the table as it stands
    """

    model_type: str
    layout: str
    widths: Mapping[str, tuple[Width, ...]]
    untie: str

    @property
    def name(self) -> str:
        """The family, and which layout of it."""
        return f"{self.model_type} ({self.layout})" if self.layout else self.model_type

    @property
    def cells(self) -> dict[str, str]:
        return {**{column: _cell(widths) for column, widths in self.widths.items()}, "untie": self.untie}


def families() -> tuple[Row, ...]:
    """Every family that has a table, in alphabetical order."""
    return tuple(row for model_type in registry.known() for row in family(model_type))


def family(model_type: str) -> tuple[Row, ...]:
    """The rows of one family. Raises ArchitectureError for an unknown one."""
    table = registry.find(model_type)
    usual = make_row(model_type, table)
    others = (make_row(model_type, form.of(table), form.name) for form in table.forms)
    return (usual, *(row for row in others if row.cells != usual.cells))


def make_row(model_type: str, table: Architecture, layout: str = "") -> Row:
    """The row of one layout's table."""
    tie = table.tie
    untie = "yes" if tie and not tie.refused else "refused" if tie else NONE
    return Row(model_type, layout, {column: tuple(_widths(table, column)) for column in COLUMNS}, untie)


def as_markdown(rows: tuple[Row, ...]) -> str:
    """The table as README.md has it."""
    headings = ("family", *COLUMNS, "untie")
    lines = [headings, ("---",) * len(headings), *((row.name, *row.cells.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def details(model_type: str) -> dict[str, Any]:
    """One family: its axes, its signatures by template, what is refused."""
    table = registry.find(model_type)
    fixed = {axis.key: axis.why for axis in table.axes.values() if axis.key and axis.through == "fixed" and axis.why}
    return {
        "model_type": model_type,
        "rows": [{"layout": row.layout, **row.cells} for row in family(model_type)],
        "axes": {name: _described(axis) for name, axis in table.axes.items()},
        "tensors": dict(table.tensors),
        "forms": {form.name: dict(form.tensors) for form in table.forms if form.tensors},
        "requires": {key: list(accepted) for key, accepted in table.requires.items()},
        "multiples": dict(table.multiples),
        "fixed": fixed,
        "untie": table.tie.refused if table.tie and table.tie.refused else "",
    }


def _described(axis: Axis) -> dict[str, Any]:
    found = {"key": axis.key, "through": axis.through, "follows": axis.follows, "active": axis.active}
    return {name: value for name, value in found.items() if value is not None}


def _cell(widths: tuple[Width, ...]) -> str:
    """What all widths of a column have in common, or each by its name."""
    said = {width.said for width in widths}
    if len(said) <= 1:
        return said.pop() if said else NONE
    return ", ".join(f"{width.name} {width.said}" for width in widths)


def _widths(table: Architecture, column: str) -> Iterator[Width]:
    """One width for every key, or axis without one, of a column."""
    used = {axis for template in table.templates for axis in template.signature.axes}
    present = [name for name in COLUMNS[column] if name in used]
    main = next((table.axes[n].key for n in COLUMNS["hidden"] if n in table.axes), None)
    if column == "embedding":
        present = [name for name in present if table.axes[name].key != main]
    keyed: dict[str | tuple[str, ...], tuple[str, ...]] = {}
    for name in present:
        key = table.axes[name].key or _made_of(table.axes[name])
        keyed[key] = (*keyed.get(key, ()), name)
    for key, axes in keyed.items():
        if isinstance(key, tuple):
            yield Width(axes, None, *_following(table, axes))
        else:
            sharing = tuple(name for name, axis in table.axes.items() if axis.key == key)
            rule = _strictest(_rule(table, name) for name in sharing)
            active = table.axes[axes[0]].active if rule == "xk" else None
            yield Width(axes, key, rule, (active,) if active else (), _has_no_gain_to_change(table, sharing))


def _has_no_gain_to_change(table: Architecture, sharing: tuple[str, ...]) -> bool:
    """Whether a norm without weights writes what a tied head reads, so that nothing can take a factor."""
    written = {axis for name, signature in table.norms if name in table.weightless for axis in signature.gains}
    return table.tie is not None and table.tie.axis in written and table.tie.axis in sharing


def _made_of(axis: Axis) -> tuple[str, ...]:
    """The config keys that an axis without one of its own is made of."""
    return axis.default.keys if isinstance(axis.default, Quotient | Multiple) else ()


def _following(table: Architecture, axes: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """(rule, keys) of a width that is made of other keys: heads of their number, all else of the first."""
    rule, keys = _strictest(_rule(table, name) for name in axes), _made_of(table.axes[axes[0]])
    return (rule, keys[:1]) if keys else ("fixed", ())


def _rule(table: Architecture, name: str) -> str:
    """To which sizes one axis can grow."""
    axis, rotary = table.axes[name], table.rotary
    if axis.through in ("residual", "pointwise residual", "rank"):
        return "xk" if whole_multiples_only(table, name) else "any"
    if axis.through == "pointwise":
        return "xk" if is_normalised(table, name) else "any"
    if axis.through == "heads":
        return _heads(table, name)
    if axis.through == "inner":
        wholly = rotary and rotary.axis == name and rotary.partial is None and rotary.size_key is None
        return "xk" if wholly else "any"
    if axis.through == "experts":
        choice = any(other.through == "choice" for other in table.axes.values())
        return (f"x{axis.groups}" if axis.groups else "any") if choice else "xk" if axis.active else "fixed"
    return "xk" if axis.through == "angles" else "fixed" if axis.through == "fixed" else "any"


def _heads(table: Architecture, name: str) -> str:
    axis = table.axes[name]
    grouped = axis.follows or any(a.follows == name and a.through == "heads" for a in table.axes.values())
    return " ".join(rule for rule, holds in (("grouped", grouped), ("slopes", axis.slopes)) if holds) or "any"


ORDER = ("any", "grouped", "slopes", "xk", "fixed")


def _strictest(rules: Iterator[str]) -> str:
    """The rule that holds where all of these must."""
    return max(rules, key=lambda rule: ORDER.index(rule) if rule in ORDER else 1)
