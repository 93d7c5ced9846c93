"""Widening: any axis to any size that its family allows; depth and vocabulary stay.

The choices that `auto` makes, with their reasons, are notes of the result:

    rule        orthogonal where the stored dtype holds square roots to 1e-7 and the config can scale every norm's eps
    attention   of a factor: head-dim (the article's: the head count stays) for 32 and 64 bits, heads (nothing rounds)
                for 16
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from modelsurgeon.checkpoints.changes import config_changes
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.families import rope as rotary_positions
from modelsurgeon.growth.growth import ROPES, RULES, Growth
from modelsurgeon.growth.planning import plan_maps
from modelsurgeon.growth.remap import Storage, remap
from modelsurgeon.growth.targets import ATTENTIONS, by_factor, target_config
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, HALF_ULP
from modelsurgeon.tensors.noise import Noise
from modelsurgeon.tensors.remapped import Remapped

WIDE = ("F32", "F64")


def widen(
    checkpoint: Checkpoint,
    factor: int | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    rule: str = "auto",
    attention: str = "auto",
    rope: str = "nested",
    dtype: str | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Checkpoint:
    """The checkpoint at other widths, lazily.

    factor    hidden, MLP and attention times so much (2 where `settings` say nothing, either)
    settings  {config key: size}, on top of the factor's
    dtype     the name of the dtype that every tensor is stored in ("float32"); None: as it was
    noise     how much what reads copies differs among them, from 0 (not at all: they stay copies in training) to 1
    seed      of the noise
    Raises PlanError where there is no such growth, and what `check` raises where the source does not fit its table.
    """
    _check_choices(rule, attention, rope, dtype, noise)
    remarks = [*check(checkpoint)]
    stored = DTYPE_NAMES[dtype] if dtype else checkpoint.dtype
    wanted: dict[str, Any] = {}
    if factor is not None or not settings:
        times = 2 if factor is None else factor
        attention, why = _choose_attention(attention, checkpoint, times, stored)
        remarks.insert(0, why)
        wanted = {**by_factor(checkpoint, times, attention)}
    target = target_config(checkpoint, {**wanted, **(settings or {})})

    def grown(rule: str) -> tuple[dict[str, AxisMap], Checkpoint]:
        maps = _maps(checkpoint, target, rule, rope, stored)
        disturbing = Noise(noise, f"seed {seed}") if noise else None
        how = Storage(DTYPE_NAMES[dtype] if dtype else None, promote=rule == "exact", noise=disturbing)
        return maps, remap(checkpoint, maps, how)

    chosen_rule, rule_note = _choose_rule(rule, stored, lambda: grown("orthogonal")[1].lossy)
    maps, result = grown(chosen_rule)
    lossy = [*result.lossy, *_rounding(result)]
    notes = [f"config: {config_changes(checkpoint, result)}", rule_note, *remarks]
    notes += [*_noise_notes(checkpoint, maps, noise, seed), *_position_notes(checkpoint, maps)]
    dropped = sum(checkpoint.architecture.is_recomputed(name) for name in checkpoint.tensors)
    if dropped:
        notes.append(f"{dropped} tensors left out: the library recomputes or ignores them")
    arguments: dict[str, Any] = {"factor": factor, "settings": dict(settings or {}), "rule": chosen_rule}
    arguments |= {"attention": attention, "rope": rope, "dtype": dtype, "noise": noise}
    grew = {axis: axis_map for axis, axis_map in maps.items() if not axis_map.is_identity}
    step = Step("widen", arguments, seed=seed if noise else None, lossy=tuple(lossy), maps=grew)
    return replace(result, steps=(*checkpoint.steps, step), notes=(*checkpoint.notes, *notes), lossy=tuple(lossy))


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


def _maps(checkpoint: Checkpoint, target: Mapping[str, Any], rule: str, rope: str, stored: str) -> dict[str, AxisMap]:
    tied, narrow = checkpoint.is_tied, stored not in WIDE
    return plan_maps(Growth(checkpoint.architecture, checkpoint.resolved, target, rule, rope, tied, narrow))


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


def _choose_attention(attention: str, checkpoint: Checkpoint, factor: int, stored: str) -> tuple[str, str]:
    if attention != "auto":
        return attention, f"attention {attention}: asked for"
    if stored not in WIDE:
        return "heads", f"attention heads: whole-head copies round nothing in {stored}"
    target = by_factor(checkpoint, factor, "head-dim")
    try:
        _maps(checkpoint, target_config(checkpoint, target), "exact", "nested", stored)
    except PlanError as error:
        return "heads", f"attention heads: {error}"
    return "head-dim", f"attention head-dim: the head count stays, {stored} holds the fourth root"


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
    rounded = {t.dtype for t in result.tensors.values() if isinstance(t, Remapped) and not t.is_exact}
    return [
        f"weights are rounded to {dtype}, by {HALF_ULP[dtype]:.0e} of each at most: "
        "--rule exact or --dtype float32 keeps them"
        for dtype in sorted(rounded - set(WIDE))
    ]
