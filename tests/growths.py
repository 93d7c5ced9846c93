"""Every growth that is tried on the tiny models, and what comes of it: for tests/test_matrix.py and scripts/matrix.py.

    source = Source(variant, tiny.save(variant, folder, "float64"))
    for growth in growths(source.checkpoint):
        trial = source.try_out(growth, "exact", folder_of_the_result)

Source and result are read back from disk and run under the float64 oracle, whatever they are stored in: in bf16 nothing
may move that the plan does not store in float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import tiny
from modelsurgeon.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.config_keys import lookup
from modelsurgeon.errors import PlanError
from modelsurgeon.growth import RULES
from modelsurgeon.proof import composed_maps, prove
from modelsurgeon.save import save
from modelsurgeon.targets import ATTENTIONS
from modelsurgeon.untie import untie_embeddings
from modelsurgeon.widen import widen

# Float64 passes that sum in another order: at most 2e-13 of the outputs' deviation in all that is tried here. One
# rounding to float32 anywhere moves them by 5e-8.
LOSSLESS = 1e-9

# {column: the axes whose config keys it is about, the telling one first}
AXES: Mapping[str, tuple[str, ...]] = {
    "hidden": ("stream", "hidden"),
    "mlp": ("mlp", "encoder_mlp", "decoder_mlp"),
    "heads": ("heads", "encoder_heads", "decoder_heads"),
    "kv heads": ("kv",),
    "head size": ("head", "nope", "rope", "value"),
    "experts": ("experts",),
    "expert mlp": ("expert_mlp",),
    "shared mlp": ("shared_mlp",),
    "embedding": ("embedded",),
    "low ranks": ("q_rank", "kv_rank"),
}
ODD = {"hidden": "hidden, no multiple", "mlp": "mlp, no multiple"}  # the columns that keep such sizes apart
ALL = {attention: f"all ({attention})" for attention in ATTENTIONS}
UNTIE, NARROW = "untie", "bf16 exact"
COLUMNS = (
    *("hidden", ODD["hidden"], "mlp", ODD["mlp"]),
    *(column for column in AXES if column not in ODD),
    *(*ALL.values(), UNTIE, NARROW),
)


@dataclass(frozen=True)
class Growth:
    """One growth: `settings`, or `factor` with `attention`, or untying. `name` tells it from its source's others."""

    column: str
    name: str
    settings: Mapping[str, int] = field(default_factory=dict)
    factor: int | None = None
    attention: str = "auto"

    def __str__(self) -> str:
        return self.name

    def of(self, checkpoint: Checkpoint, rule: str) -> Checkpoint:
        """The grown checkpoint, lazily. Raises PlanError where there is none."""
        if self.column == UNTIE:
            return untie_embeddings(checkpoint)
        return widen(checkpoint, self.factor, self.settings, rule=rule, attention=self.attention)


def growths(checkpoint: Checkpoint) -> Iterator[Growth]:
    """Every growing key to twice its size and to no multiple of it, all of them together, and untying."""
    for column, key, size in _keys(checkpoint):
        for target, where in ((2 * size, column), (_odd(column, size), ODD.get(column, column))):
            settings = {key: target, **_with(checkpoint, column, target, size)}
            yield Growth(where, " ".join(f"{k}={v}" for k, v in settings.items()), settings)
        if column == "experts" and any(axis.through == "choice" for axis in checkpoint.architecture.axes.values()):
            yield Growth(column, f"{key}={2 * size}, never chosen", {key: 2 * size})
    for attention, column in ALL.items():
        yield Growth(column, f"x2 {attention}", factor=2, attention=attention)
    if checkpoint.is_tied:
        yield Growth(UNTIE, UNTIE)


def _keys(checkpoint: Checkpoint) -> Iterator[tuple[str, str, int]]:
    """(column, config key, size) of every key that sizes an axis which can grow, each once."""
    seen: set[str] = set()
    for column, names in AXES.items():
        for name in names:
            axis = checkpoint.architecture.axes.get(name)
            if axis and axis.key and axis.through != "fixed" and axis.key not in seen:
                seen.add(axis.key)
                yield column, axis.key, checkpoint.sizes[name]


def _odd(column: str, size: int) -> int:
    """A size that is no multiple: half as many more heads or experts, three eighths of any width (hidden: by fours)."""
    if "heads" in column or column == "experts":
        return size + size // 2
    return size + size * 3 // 8 // 4 * 4 if column == "hidden" else size + max(1, size * 3 // 8)


def _with(checkpoint: Checkpoint, column: str, target: int, size: int) -> dict[str, int]:
    """What has to grow with a key: the width where heads have no size of their own, the chosen with the experts ..."""
    table, sizes = checkpoint.architecture, checkpoint.sizes
    found: dict[str, int] = {}
    hidden = table.axes.get("stream", table.axes["hidden"])
    heads, kv = table.axes.get("heads"), table.axes.get("kv")
    coupled = not any(table.axes[name].key for name in ("head", "nope") if name in table.axes)
    if column == "heads":
        if coupled and hidden.key:
            found[hidden.key] = checkpoint.sizes["stream" if "stream" in table.axes else "hidden"] * target // size
        if kv and kv.key and sizes["kv"] == sizes["heads"]:
            found[kv.key] = target
    if column == "kv heads" and heads and heads.key:  # all queries of a kv head with it; or more kv heads for the same
        found |= _with(checkpoint, "heads", target, size) if target % size else {}
        found |= {heads.key: sizes["heads"] * target // size} if target % size or sizes["heads"] == size else {}
    active = table.axes["experts"].active if column == "experts" else None
    if active:
        found[active] = lookup(checkpoint.resolved, active) * target // size
    return found


@dataclass(frozen=True)
class Trial:
    """What came of one growth.

    error    the largest difference of any output, in units of that output's deviation; None where nothing was made
    proof    what the proof on the weights says: exact, rounded or wrong
    refused  why there is no such growth
    lossy    why the plan says that it is approximate
    """

    growth: Growth
    rule: str
    dtype: str
    error: float | None = None
    proof: str = ""
    refused: str = ""
    lossy: tuple[str, ...] = ()

    @property
    def wrong(self) -> str:
        """What should not be: a loss that no plan told, a refusal that says nothing. Empty where all is well."""
        if self.refused:
            return "" if len(self.refused.split()) >= 6 and "\n" not in self.refused else f"refused: {self.refused!r}"
        if self.lossy:
            return "" if all(self.lossy) else "lossy, and no reason"
        if self.proof not in ("exact", "rounded"):
            return f"the proof says {self.proof!r}"
        return "" if self.error is not None and self.error <= LOSSLESS else f"error {self.error}"

    def __str__(self) -> str:
        return f"{self.growth} {self.rule} {self.dtype}"


@dataclass(frozen=True)
class Source:
    """A tiny model on disk, and what it computes."""

    variant: tiny.Variant
    folder: Path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.folder)

    @cached_property
    def outputs(self) -> dict[str, torch.Tensor]:
        return tiny.run64(self.folder, self.variant.kind)

    def error(self, folder: Path) -> float:
        """How far what a result on disk computes is from what its source computes."""
        maps: Mapping[str, Any] = composed_maps(open_checkpoint(folder).steps)
        return tiny.error(self.outputs, tiny.run64(folder, self.variant.kind), self.variant, maps)

    def try_out(self, growth: Growth, rule: str, folder: Path) -> Trial:
        """Plan, save, read back, run, prove. Only a PlanError counts as a refusal; all else is raised."""
        said = (growth, rule, self.checkpoint.dtype)
        try:
            grown = growth.of(self.checkpoint, rule)
        except PlanError as error:
            return Trial(*said, refused=str(error))
        if grown.lossy:
            return Trial(*said, lossy=grown.lossy)
        shutil.rmtree(folder, ignore_errors=True)
        save(grown, folder)
        proof = prove(self.checkpoint, open_checkpoint(folder))
        return Trial(*said, self.error(folder), proof.summary if proof else "nothing")


def is_narrow(checkpoint: Checkpoint) -> bool:
    """Whether everything is stored in bf16, so that a plan of the rule `exact` rounds nothing."""
    return {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}


__all__ = [
    "AXES",
    "COLUMNS",
    "LOSSLESS",
    "NARROW",
    "RULES",
    "UNTIE",
    "Growth",
    "Source",
    "Trial",
    "growths",
    "is_narrow",
]
