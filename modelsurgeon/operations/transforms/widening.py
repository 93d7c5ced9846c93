"""Widening: any axis to any size that its family allows; depth and vocabulary stay.

Notes of the result name the choices of `auto`, with their reasons:

    rule        orthogonal where the stored dtype holds square roots to 1e-7 and the config can scale every norm's eps
    attention   what a factor grows: head-dim (as in the article) for 32 and 64 bits, heads (no rounding) for 16
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelsurgeon.architectures import rope
from modelsurgeon.checkpoints.changes import config_changes
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import Step
from modelsurgeon.errors import PlanError
from modelsurgeon.files.fields import refuse
from modelsurgeon.growth.growth import ROPES, RULES, Growth
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.growth.planning import plan_maps
from modelsurgeon.growth.remap import Storage, effects, remap
from modelsurgeon.growth.targets import ATTENTIONS, by_factor, target_config
from modelsurgeon.maps.axis_map import AxisMap
from modelsurgeon.tensors.dtypes import DTYPE_NAMES, HALF_ULP
from modelsurgeon.tensors.noise import Noise

WIDE = ("F32", "F64")


@dataclass(frozen=True)
class Widening:
    """How to widen; "auto" leaves the choice to this program."""

    rule: str = "auto"
    attention: str = "auto"
    rope: str = "nested"
    dtype: str | None = None  # the name of the dtype of every stored tensor ("float32"); None: as it was
    noise: float = 0.0  # how much the weights that read copies differ, from 0 (copies stay equal in training) to 1
    seed: int = 0  # seed for the noise

    def check(self) -> None:
        """Raise PlanError for an unknown value."""
        if not 0 <= self.noise <= 1:
            most = "1 (a part may be twice what it would be, or nothing)"
            raise PlanError(f"noise is {self.noise}, expected 0 (none) to {most}")
        for name, value, known in (
            ("rule", self.rule, ("auto", *RULES)),
            ("attention", self.attention, ("auto", *ATTENTIONS)),
            ("rope", self.rope, ROPES),
            ("dtype", self.dtype, (None, *DTYPE_NAMES)),
        ):
            if value not in known:
                raise PlanError(f"{name} is {value!r}, expected one of {', '.join(str(k) for k in known if k)}")

    def stored(self, checkpoint: Checkpoint) -> str:
        """The narrowest dtype of the result's tensors."""
        return DTYPE_NAMES[self.dtype] if self.dtype else checkpoint.dtype


def check_arguments(arguments: Mapping[str, Any], where: str) -> None:
    """Raise FieldError, with the place, for arguments on record that no widening has."""
    known = {"rule": RULES, "attention": ("auto", *ATTENTIONS), "rope": ROPES, "dtype": (None, *DTYPE_NAMES)}
    for name, values in known.items():
        if arguments[name] not in values:
            refuse(f"{where}.{name}", f"one of {', '.join(map(str, values))}", arguments[name])
    if arguments["factor"] is not None and arguments["factor"] < 2:
        refuse(f"{where}.factor", "2 or more, or null", arguments["factor"])
    if not 0 <= arguments.get("noise", 0) <= 1:
        refuse(f"{where}.noise", "0 to 1", arguments["noise"])
    for key, size in arguments.get("settings", {}).items():
        if size < 1:
            refuse(f"{where}.settings.{key}", "a size of 1 or more", size)


def widen(checkpoint: Checkpoint, factor: int | None, settings: Mapping[str, Any], how: Widening) -> Checkpoint:
    """The checkpoint at other widths, lazily.

    factor    for hidden, MLP and attention (None: 2 if there are no settings)
    settings  {config key: size}; they override the factor
    Raises PlanError where there is no such growth, and what `check` raises where the source does not fit its table.
    """
    how.check()
    remarks = check(checkpoint)
    planned = _planned(checkpoint, factor, settings, how)
    noise = Noise(how.noise, f"seed {how.seed}") if how.noise else None
    storage = Storage(DTYPE_NAMES[how.dtype] if how.dtype else None, planned.rule == "exact", noise)
    result = remap(checkpoint, planned.maps, storage)
    lossy = (*result.lossy, *_rounding(result))
    notes = [f"config: {config_changes(checkpoint, result)}", *planned.notes, *remarks]
    notes += _noise_notes(checkpoint, planned.maps, how)
    turned = planned.maps[checkpoint.architecture.rotary.axis] if checkpoint.architecture.rotary else None
    if turned and turned.new_size != turned.size and "dynamic" in rope.kinds(checkpoint.resolved):
        notes.append("rope type 'dynamic': the same function up to max_position_embeddings, another one beyond")
    dropped = sum(checkpoint.architecture.is_recomputed(name) for name in checkpoint.tensors)
    if dropped:
        notes.append(f"{dropped} tensors left out: the library recomputes or ignores them")
    arguments: dict[str, Any] = {"factor": factor, "settings": dict(settings), "rule": planned.rule}
    arguments |= {"attention": planned.attention, "rope": how.rope, "dtype": how.dtype, "noise": how.noise}
    grown = {axis: axis_map for axis, axis_map in planned.maps.items() if not axis_map.is_identity}
    step = Step("widen", arguments, seed=how.seed if how.noise else None, lossy=lossy, maps=grown)
    return replace(result, steps=(*checkpoint.steps, step), notes=(*checkpoint.notes, *notes), lossy=lossy)


@dataclass(frozen=True)
class _Planned:
    """The maps, with the rule and the growth of attention that they follow, and the reasons for both."""

    maps: dict[str, AxisMap]
    rule: str
    attention: str
    notes: tuple[str, ...]


def _planned(checkpoint: Checkpoint, factor: int | None, settings: Mapping[str, Any], how: Widening) -> _Planned:
    """The maps, planned once where the first choice holds.

    They are planned again for heads where the head size cannot grow, and by the rule `exact` where a norm's eps cannot
    follow. Raises PlanError where there are none.
    """
    if factor is None and settings:
        return _by_rule(checkpoint, settings, how, how.attention, ())
    factor, stored = 2 if factor is None else factor, how.stored(checkpoint)

    def by(attention: str, why: object) -> _Planned:
        sizes = {**by_factor(checkpoint, factor, attention), **settings}
        return _by_rule(checkpoint, sizes, how, attention, (f"attention {attention}: {why}",))

    if how.attention != "auto":
        return by(how.attention, "asked for")
    if stored not in WIDE:
        return by("heads", f"whole-head copies round nothing in {stored}")
    try:
        return by("head-dim", f"the head count stays, {stored} holds the fourth root")
    except PlanError as error:
        reason = error
        if settings:  # where the factor alone can grow the head size, the settings are at fault
            try:
                _maps(checkpoint, target_config(checkpoint, by_factor(checkpoint, factor, "head-dim")), "exact", how)
            except PlanError as alone:
                reason = alone
            else:
                raise
    return by("heads", reason)


def _by_rule(
    checkpoint: Checkpoint, sizes: Mapping[str, Any], how: Widening, attention: str, notes: tuple[str, ...]
) -> _Planned:
    """The maps to these sizes, by the given rule or by one that loses nothing."""
    target, stored = target_config(checkpoint, sizes), how.stored(checkpoint)

    def by(rule: str, why: str, maps: dict[str, AxisMap] | None = None) -> _Planned:
        maps = maps or _maps(checkpoint, target, rule, how)
        return _Planned(maps, rule, attention, (f"rule {rule}: {why}", *notes))

    if how.rule != "auto":
        return by(how.rule, "asked for")
    if stored not in WIDE:
        return by("exact", f"{stored} cannot hold a square root to 1e-7")
    maps = _maps(checkpoint, target, "orthogonal", how)
    if reasons := effects(checkpoint, maps)[1]:
        return by("exact", f"under the orthogonal rule {reasons[0]}")
    return by("orthogonal", f"{stored} holds square roots, and the config can divide every norm's eps", maps)


def _maps(checkpoint: Checkpoint, target: Mapping[str, Any], rule: str, how: Widening) -> dict[str, AxisMap]:
    tied, narrow = checkpoint.is_tied, how.stored(checkpoint) not in WIDE
    return plan_maps(Growth(checkpoint.architecture, checkpoint.resolved, target, rule, how.rope, tied, narrow))


def _noise_notes(checkpoint: Checkpoint, maps: Mapping[str, AxisMap], how: Widening) -> list[str]:
    copied = [name for name, axis_map in maps.items() if axis_map.counts.max(initial=1) > 1]
    gaps = [name for name, axis_map in maps.items() if axis_map.gaps.any() or axis_map.means.any()]
    if not how.noise:
        notes = ["noise 0: copies that are read alike get equal gradients, and stay copies in training"]
        return [*(notes if copied else []), *(["noise 0: new coordinates stay unread"] if gaps else [])]
    if not copied and not gaps:
        return []
    if copied and all(kind_of(checkpoint.architecture.axes[name]).is_expert for name in copied):
        return [f"{name}: copies of an expert stay copies: noise needs a width inside of them" for name in copied]
    parted = "copies are read differently, to the same sums, so training parts them"
    return [f"noise {how.noise:g} (seed {how.seed}): {parted}"]


def _rounding(result: Checkpoint) -> list[str]:
    rounded = {t.dtype for t in result.tensors.values() if not t.is_exact}
    exact, narrow = "--rule exact or --dtype float32 keeps them", sorted(rounded - {*WIDE})
    return [f"weights are rounded to {dtype}, by {HALF_ULP[dtype]:.0e} of each at most: {exact}" for dtype in narrow]
