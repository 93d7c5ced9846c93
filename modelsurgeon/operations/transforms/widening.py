"""Widening: any axis to any size that its family allows; depth and vocabulary stay.

The choices that `auto` makes, with their reasons, are notes of the result:

    rule        orthogonal where the stored dtype holds square roots to 1e-7 and the config can scale every norm's eps
    attention   of a factor: head-dim (the article's: the head count stays) for 32 and 64 bits, heads (nothing rounds)
                for 16
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelsurgeon.architectures import rope as rotary_positions
from modelsurgeon.checkpoints.changes import config_changes
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import ROPES, RULES, Growth
from modelsurgeon.growth.planning import plan_maps
from modelsurgeon.growth.remap import Storage, losses, remap
from modelsurgeon.growth.targets import ATTENTIONS, by_factor, target_config
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, HALF_ULP
from modelsurgeon.tensors.noise import Noise

WIDE = ("F32", "F64")


def widen(
    checkpoint: Checkpoint,
    factor: int | None,
    settings: Mapping[str, Any],
    *,
    rule: str,
    attention: str,
    rope: str,
    dtype: str | None,
    noise: float,
    seed: int,
) -> Checkpoint:
    """The checkpoint at other widths, lazily.

    factor    hidden, MLP and attention times so much (2 where `settings` say nothing, either)
    settings  {config key: size}, on top of the factor's
    dtype     the name of the dtype that every tensor is stored in ("float32"); None: as it was
    noise     how much what reads copies differs among them, from 0 (not at all: they stay copies in training) to 1
    seed      for the noise
    Raises PlanError where there is no such growth, and what `check` raises where the source does not fit its table.
    """
    _check_choices(rule, attention, rope, dtype, noise)
    remarks = check(checkpoint)
    planned = _planned(checkpoint, factor, settings, _Choice(rule, attention, rope, dtype))
    disturbing = Noise(noise, f"seed {seed}") if noise else None
    promote = planned.rule == "exact"
    result = remap(checkpoint, planned.maps, Storage(DTYPE_NAMES[dtype] if dtype else None, promote, disturbing))
    lossy = (*result.lossy, *_rounding(result))
    rule_note, *attention_note = planned.notes
    notes = [f"config: {config_changes(checkpoint, result)}", rule_note, *attention_note, *remarks]
    notes += [*_noise_notes(checkpoint, planned.maps, noise, seed), *_position_notes(checkpoint, planned.maps)]
    dropped = sum(checkpoint.architecture.is_recomputed(name) for name in checkpoint.tensors)
    if dropped:
        notes.append(f"{dropped} tensors left out: the library recomputes or ignores them")
    arguments: dict[str, Any] = {"factor": factor, "settings": dict(settings), "rule": planned.rule}
    arguments |= {"attention": planned.attention, "rope": rope, "dtype": dtype, "noise": noise}
    grew = {axis: axis_map for axis, axis_map in planned.maps.items() if not axis_map.is_identity}
    step = Step("widen", arguments, seed=seed if noise else None, lossy=lossy, maps=grew)
    return replace(result, steps=(*checkpoint.steps, step), notes=(*checkpoint.notes, *notes), lossy=lossy)


@dataclass(frozen=True)
class _Choice:
    """What was asked for: `auto`, or one of what there is."""

    rule: str
    attention: str
    rope: str
    dtype: str | None

    def stored(self, checkpoint: Checkpoint) -> str:
        """The narrowest dtype that the result is stored in."""
        return DTYPE_NAMES[self.dtype] if self.dtype else checkpoint.dtype


@dataclass(frozen=True)
class _Planned:
    """The maps, the rule and the kind of attention's growth that they follow, and why these."""

    maps: dict[str, AxisMap]
    rule: str
    attention: str
    notes: tuple[str, ...]


def _planned(checkpoint: Checkpoint, factor: int | None, settings: Mapping[str, Any], asked: _Choice) -> _Planned:
    """The maps, planned once where the first choice holds.

    Only where it does not are they planned again: heads for a head size that cannot grow, the rule `exact` for a norm
    whose eps cannot follow. Raises PlanError where there are none.
    """
    if factor is None and settings:
        return _by_rule(checkpoint, settings, asked, asked.attention, ())
    times = 2 if factor is None else factor
    if asked.attention != "auto":
        sizes, note = _sizes(checkpoint, times, asked.attention, settings), f"attention {asked.attention}: asked for"
        return _by_rule(checkpoint, sizes, asked, asked.attention, (note,))
    stored = asked.stored(checkpoint)
    heads = "heads"
    if stored not in WIDE:
        note = f"attention heads: whole-head copies round nothing in {stored}"
        return _by_rule(checkpoint, _sizes(checkpoint, times, heads, settings), asked, heads, (note,))
    note = f"attention head-dim: the head count stays, {stored} holds the fourth root"
    try:
        return _by_rule(checkpoint, _sizes(checkpoint, times, "head-dim", settings), asked, "head-dim", (note,))
    except PlanError as error:
        reason = _against_head_dim(checkpoint, times, asked, error if not settings else None)
        if reason is None:
            raise
    note = f"attention heads: {reason}"
    return _by_rule(checkpoint, _sizes(checkpoint, times, heads, settings), asked, heads, (note,))


def _sizes(checkpoint: Checkpoint, factor: int, attention: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**by_factor(checkpoint, factor, attention), **settings}


def _against_head_dim(checkpoint: Checkpoint, factor: int, asked: _Choice, known: PlanError | None) -> PlanError | None:
    """Why the factor alone cannot grow the head size; None where it can, so that something else is at fault."""
    if known:
        return known
    try:
        _maps(checkpoint, target_config(checkpoint, by_factor(checkpoint, factor, "head-dim")), "exact", asked)
    except PlanError as error:
        return error
    return None


def _by_rule(
    checkpoint: Checkpoint, sizes: Mapping[str, Any], asked: _Choice, attention: str, notes: tuple[str, ...]
) -> _Planned:
    """The maps to these sizes, by the rule that was asked for or that loses nothing."""
    target, stored = target_config(checkpoint, sizes), asked.stored(checkpoint)
    if asked.rule != "auto":
        why = f"rule {asked.rule}: asked for"
        return _Planned(_maps(checkpoint, target, asked.rule, asked), asked.rule, attention, (why, *notes))
    if stored not in WIDE:
        why = f"rule exact: {stored} cannot hold a square root to 1e-7"
        return _Planned(_maps(checkpoint, target, "exact", asked), "exact", attention, (why, *notes))
    maps = _maps(checkpoint, target, "orthogonal", asked)
    reasons = losses(checkpoint, maps)
    if reasons:
        why = f"rule exact: under the orthogonal rule {reasons[0]}"
        return _Planned(_maps(checkpoint, target, "exact", asked), "exact", attention, (why, *notes))
    why = f"rule orthogonal: {stored} holds square roots, and the config can divide every norm's eps"
    return _Planned(maps, "orthogonal", attention, (why, *notes))


def _maps(checkpoint: Checkpoint, target: Mapping[str, Any], rule: str, asked: _Choice) -> dict[str, AxisMap]:
    tied, narrow = checkpoint.is_tied, asked.stored(checkpoint) not in WIDE
    return plan_maps(Growth(checkpoint.architecture, checkpoint.resolved, target, rule, asked.rope, tied, narrow))


def _check_choices(rule: str, attention: str, rope: str, dtype: str | None, noise: float) -> None:
    if not 0 <= noise <= 1:
        raise PlanError(f"noise is {noise}, expected 0 (none) to 1 (a part may be twice what it would be, or nothing)")
    for name, value, known in (
        ("rule", rule, ("auto", *RULES)),
        ("attention", attention, ("auto", *ATTENTIONS)),
        ("rope", rope, ROPES),
        ("dtype", dtype, (None, *DTYPE_NAMES)),
    ):
        if value not in known:
            raise PlanError(f"{name} is {value!r}, expected one of {', '.join(str(k) for k in known if k)}")


def _position_notes(checkpoint: Checkpoint, maps: Mapping[str, AxisMap]) -> list[str]:
    """What holds only within the trained length."""
    rotary = checkpoint.architecture.rotary
    if rotary is None or "dynamic" not in rotary_positions.kinds(checkpoint.resolved):
        return []
    if maps[rotary.axis].new_size == maps[rotary.axis].size:
        return []
    return ["rope type 'dynamic': the same function up to max_position_embeddings, another one beyond"]


def _noise_notes(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], noise: float, seed: int) -> list[str]:
    """What tells copies apart in training, and which copies nothing does."""
    copied = [name for name, axis_map in maps.items() if axis_map.counts.max(initial=1) > 1]
    gaps = [name for name, axis_map in maps.items() if axis_map.gaps.any() or axis_map.means.any()]
    if not noise:
        notes = ["noise 0: copies that are read alike get equal gradients, and stay copies in training"]
        return [*(notes if copied else []), *(["noise 0: new coordinates stay unread"] if gaps else [])]
    if not copied and not gaps:
        return []
    told = f"noise {noise:g} (seed {seed}): copies are read differently, to the same sums, so training parts them"
    alone = [name for name in copied if checkpoint.architecture.axes[name].through == "experts"]
    if copied and alone == copied:
        return [f"{name}: copies of an expert stay copies: noise needs a width inside of them" for name in alone]
    return [told]


def _rounding(result: Checkpoint) -> list[str]:
    """That 16 bits round some weights, if they do."""
    rounded = {t.dtype for t in result.tensors.values() if not t.is_exact}
    return [
        f"weights are rounded to {dtype}, by {HALF_ULP[dtype]:.0e} of each at most: "
        "--rule exact or --dtype float32 keeps them"
        for dtype in sorted(rounded - set(WIDE))
    ]
