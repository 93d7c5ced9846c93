"""Widening: hidden, MLP and attention width times a whole factor; depth and vocabulary stay.

The choices that `auto` makes, with their reasons, are notes of the result:

    rule        orthogonal where the stored dtype holds sqrt(k) to 1e-7 and the config can scale every norm's eps
    attention   head-dim (the article's: the head count stays) for 32 and 64 bits, heads (nothing rounds) for 16
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from modelsurgeon.axis_map import AxisMap
from modelsurgeon.check import check
from modelsurgeon.checkpoint import Checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import ATTENTIONS, NESTING_ROPE_TYPES, ROPES, RULES, Growth, rope_type
from modelsurgeon.history import Step
from modelsurgeon.remap import Storage, remap
from modelsurgeon.tensor import DTYPE_NAMES, Remapped

WIDE = ("F32", "F64")
GROWN = {
    "head-dim": ("residual", "pointwise", "inner", "linear", "normed", "angles"),
    "heads": ("residual", "pointwise", "heads"),
}


def widen(
    checkpoint: Checkpoint,
    factor: int,
    *,
    rule: str = "auto",
    attention: str = "auto",
    rope: str = "nested",
    dtype: str | None = None,
) -> Checkpoint:
    """The checkpoint `factor` times as wide, lazily.

    dtype  the name of the dtype that every tensor is stored in ("float32"); None: as it was
    Raises PlanError where there is no such growth, and what `check` raises where the source does not fit its table.
    """
    _check_choices(factor, rule, attention, rope, dtype)
    remarks = check(checkpoint)
    stored = DTYPE_NAMES[dtype] if dtype else checkpoint.dtype
    chosen_attention, attention_note = _choose_attention(attention, checkpoint, stored)

    def grown(rule: str) -> tuple[dict[str, AxisMap], Checkpoint]:
        maps = _maps(checkpoint, factor, rule, chosen_attention, rope, stored)
        return maps, remap(checkpoint, maps, Storage(DTYPE_NAMES[dtype] if dtype else None, promote=rule == "exact"))

    chosen_rule, rule_note = _choose_rule(rule, stored, lambda: grown("orthogonal")[1].lossy)
    maps, result = grown(chosen_rule)
    lossy = [*result.lossy, *_rounding(result)]
    notes = [rule_note, attention_note, *remarks]
    dropped = len(checkpoint.tensors) - len(result.tensors)
    if dropped:
        notes.append(f"{dropped} buffers left out: the library recomputes them")
    arguments: dict[str, Any] = {"factor": factor, "rule": chosen_rule, "attention": chosen_attention, "rope": rope}
    arguments["dtype"] = dtype
    step = Step("widen", arguments, lossy=tuple(lossy), maps={k: v for k, v in maps.items() if not v.is_identity})
    return replace(result, steps=(*checkpoint.steps, step), notes=(*checkpoint.notes, *notes), lossy=tuple(lossy))


def _check_choices(factor: int, rule: str, attention: str, rope: str, dtype: str | None) -> None:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 2:
        raise PlanError(f"factor is {factor!r}, expected a whole number of 2 or more")
    for name, value, known in (
        ("rule", rule, ("auto", *RULES)),
        ("attention", attention, ("auto", *ATTENTIONS)),
        ("rope", rope, ROPES),
        ("dtype", dtype, (None, *DTYPE_NAMES)),
    ):
        if value not in known:
            raise PlanError(f"{name} is {value!r}, expected one of {', '.join(str(k) for k in known if k)}")


def _maps(checkpoint: Checkpoint, factor: int, rule: str, attention: str, rope: str, stored: str) -> dict[str, AxisMap]:
    table, sizes = checkpoint.architecture, checkpoint.sizes
    grown = GROWN[attention]
    targets = {name: size * (factor if table.axes[name].through in grown else 1) for name, size in sizes.items()}
    tied, narrow = checkpoint.is_tied, stored not in WIDE
    return Growth(table, checkpoint.resolved, sizes, targets, rule, rope, tied, narrow).maps()


def _choose_rule(rule: str, stored: str, lossy: Callable[[], tuple[str, ...]]) -> tuple[str, str]:
    """(the rule, why); `lossy` tells what the orthogonal rule would lose."""
    if rule != "auto":
        return rule, f"rule {rule}: asked for"
    if stored not in WIDE:
        return "exact", f"rule exact: {stored} cannot hold a square root to 1e-7"
    reasons = lossy()
    if reasons:
        return "exact", f"rule exact: under the orthogonal rule {reasons[0]}"
    return "orthogonal", f"rule orthogonal: {stored} holds square roots, and the config can divide every norm's eps"


def _choose_attention(attention: str, checkpoint: Checkpoint, stored: str) -> tuple[str, str]:
    if attention != "auto":
        return attention, f"attention {attention}: asked for"
    if checkpoint.architecture.rotary and rope_type(checkpoint.resolved) not in NESTING_ROPE_TYPES:
        kind = rope_type(checkpoint.resolved)
        return "heads", f"attention heads: rotary positions of type {kind!r} change with the head's size"
    if stored not in WIDE:
        return "heads", f"attention heads: whole-head copies round nothing in {stored}"
    return "head-dim", f"attention head-dim: the head count stays, {stored} holds the fourth root"


def _rounding(result: Checkpoint) -> list[str]:
    """That 16 bits round some weights, if they do."""
    rounded = {t.dtype for t in result.tensors.values() if isinstance(t, Remapped) and not t.is_exact}
    narrow = sorted(rounded - set(WIDE))
    return (
        [f"weights are rounded to {' and '.join(narrow)}: --rule exact or --dtype float32 keeps them"] if narrow else []
    )
