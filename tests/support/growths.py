"""Every growth of the tiny models that is tried, and its outcome: for test_matrix.py and scripts/tables/matrix.py.

    for trial in trials(tiny.named("llama-tied"), source, folder):
        print(trial, trial.error, trial.wrong)

Source and result are read back from disk and run under the float64 oracle, whatever their dtype: in bf16 nothing may
change but what the plan stores in float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm
from pathlib import Path
from typing import Any

import torch

from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint, open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.operations.transforms.replay import composed_maps
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.operations.widen import NOISE
from modelsurgeon.proof.proof import prove
from modelsurgeon.saving.save import save
from support import draws, tiny
from support.grow import widen

# Float64 passes that sum in another order: some 1e-14 of the outputs' deviation in all that is tried here, and 1e-11 in
# ALBERT, whose masked-LM head shares an eps of 1e-12 with norms that want another. One rounding to float32 anywhere
# moves them by 5e-8. BLOOM's slopes, too, are of float64 here: in the library's float32 those of twice as many heads
# differ by 1e-7 (tests/architectures/test_alibi.py).
LOSSLESS = 1e-9

# {column: the axes whose config keys belong to it, the main one first}
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
OF_FACTORS = ("hidden", "mlp", "heads", "kv heads", "head size")  # the axes that a factor grows
HEADS = ("num_attention_heads",)  # numbers of which some configs need the width to be a multiple
ODD = {"hidden": "hidden, no multiple", "mlp": "mlp, no multiple"}  # the columns that keep such sizes apart
ALL = {attention: f"all ({attention})" for attention in ("heads", "head-dim")}
UNTIE, NARROW = "untie", "bf16 exact"
COLUMNS = (
    *("hidden", ODD["hidden"], "mlp", ODD["mlp"]),
    *(column for column in AXES if column not in ODD),
    *(*ALL.values(), UNTIE, NARROW),
)


@dataclass(frozen=True)
class Growth:
    """One growth: `settings`, or `factor` with `attention`, or untying. `name` is unique for its source.

    also  the column that takes its result if it has none of its own: a width with as many more heads
    seen  whether a growth by a factor also grows these axes as much
    """

    column: str
    name: str
    settings: Mapping[str, int] = field(default_factory=dict)
    factor: int | None = None
    attention: str = "auto"
    also: str = ""
    seen: bool = False

    def __str__(self) -> str:
        return self.name

    def of(self, checkpoint: Checkpoint, rule: str, noise: float = 0.0) -> Checkpoint:
        """The grown checkpoint, lazily. Raises PlanError where there is none."""
        if self.column == UNTIE:
            return untie_embeddings(checkpoint)
        return widen(checkpoint, self.factor, self.settings, rule=rule, attention=self.attention, noise=noise)


def growths(checkpoint: Checkpoint, tied: bool) -> tuple[Growth, ...]:
    """Each key to twice its size and to no multiple of it, all keys together; untying where the head is tied."""
    return (*_one_by_one(checkpoint), *_together(), *([Growth(UNTIE, UNTIE)] if tied else []))


def _one_by_one(checkpoint: Checkpoint) -> Iterator[Growth]:
    for column, key, size in _keys(checkpoint):
        odd = _odd(checkpoint, column, size)
        for target, where in ((2 * size, column), (odd, ODD.get(column, column))):
            settings = {key: target, **_with(checkpoint, column, target, size)}
            also = ODD["hidden"] if column == "heads" and target % size else ""
            name, seen = " ".join(f"{k}={v}" for k, v in settings.items()), target == 2 * size and column in OF_FACTORS
            yield Growth(where, name, settings, also=also, seen=seen)
        biased = any(a.through == "choice" and a.key == key for a in checkpoint.architecture.axes.values())
        if biased and _with(checkpoint, column, 2 * size, size):
            yield Growth(column, f"{key}={2 * size}", {key: 2 * size})  # as many chosen as before


def _together(factor: int = 2) -> Iterator[Growth]:
    for attention, column in ALL.items():
        yield Growth(column, f"x{factor} {attention}", factor=factor, attention=attention)


def _keys(checkpoint: Checkpoint) -> Iterator[tuple[str, str, int]]:
    """(column, config key, size) of every key of an axis that can grow."""
    seen: set[str] = set()
    for column, names in AXES.items():
        for name in names:
            axis = checkpoint.architecture.axes.get(name)
            if axis and axis.key and axis.through != "fixed" and axis.key not in seen:
                seen.add(axis.key)
                yield column, axis.key, checkpoint.sizes[name]


def _odd(checkpoint: Checkpoint, column: str, size: int) -> int:
    """A size that is no multiple: half as many more heads or experts, some three eighths of any width."""
    if "heads" in column or column == "experts":
        return size + size // 2
    counts = [checkpoint.sizes[name] for name in AXES["heads"] if name in checkpoint.sizes]
    step = lcm(*counts) if column == "hidden" else 1
    return size + max(1, size * 3 // 8 // step) * step


def _with(checkpoint: Checkpoint, column: str, target: int, size: int) -> dict[str, int]:
    """Further keys that must grow along: the width where heads have no size of their own, active experts ..."""
    table, sizes, found = checkpoint.architecture, checkpoint.sizes, {}
    heads, kv = table.axes.get("heads"), table.axes.get("kv")
    if column == "heads":
        stream = "stream" if "stream" in table.axes else "hidden"
        width, key = sizes[stream], str(table.axes[stream].key)
        if not any(table.axes[name].key for name in ("head", "nope") if name in table.axes):
            found[key] = width * target // size
        elif table.multiples.get(key) in HEADS and width % target:
            found[key] = width + target - width % target
        found |= {kv.key: target} if kv and kv.key and sizes["kv"] == size else {}
    if column == "kv heads" and heads and heads.key and (target % size or sizes["heads"] == size):
        more = sizes["heads"] * target // size
        found |= {**_with(checkpoint, "heads", more, sizes["heads"]), heads.key: more}
    active = table.axes["experts"].active if column == "experts" else None
    return {**found, active: lookup(checkpoint.resolved, active) * target // size} if active else found


@dataclass(frozen=True)
class Trial:
    """The outcome of one growth.

    error    the largest difference of any output, in units of that output's deviation; None for a refusal
    proof    the verdict of the proof on the weights: exact, rounded or wrong
    refused  the reason why there is no such growth
    lossy    the plan's reasons why the growth is approximate
    """

    growth: Growth
    rule: str
    dtype: str
    noise: float = 0.0
    error: float | None = None
    proof: str = ""
    refused: str = ""
    lossy: tuple[str, ...] = ()

    @property
    def wrong(self) -> str:
        """What is wrong: a loss that the plan does not mention, or a refusal without a reason; else empty."""
        if self.refused:
            return "" if len(self.refused.split()) >= 6 and "\n" not in self.refused else f"refused: {self.refused!r}"
        if self.lossy:
            return "" if all(self.lossy) else "lossy, and no reason"
        if self.proof not in ("exact", "rounded"):
            return f"the proof says {self.proof!r}"
        return "" if self.error is not None and self.error <= LOSSLESS else f"error {self.error}"

    def __str__(self) -> str:
        return f"{self.growth} {self.rule} {self.dtype}{' noise' if self.noise else ''}"


@dataclass(frozen=True)
class Source:
    """A tiny model on disk, and its outputs."""

    variant: tiny.Variant
    folder: Path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.folder)

    @cached_property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        return tiny.run64(self.folder, self.variant.kind)

    def error(self, folder: Path) -> float:
        """The error of a result on disk against its source."""
        maps: Mapping[str, Any] = composed_maps(open_checkpoint(folder).steps)
        return tiny.error(self.outputs, tiny.run64(folder, self.variant.kind), self.variant, maps)

    def try_narrow(self, growth: Growth, folder: Path) -> Iterator[Trial]:
        """The trial by the rule `exact` in bf16, if no tensor must be stored in float32 for it."""
        try:
            stored = {tensor.dtype for tensor in growth.of(self.checkpoint, "exact").tensors.values()}
        except PlanError:
            return
        if stored == {"BF16"}:
            yield self.try_out(growth, "exact", folder, NOISE)

    def try_out(self, growth: Growth, rule: str, folder: Path, noise: float = 0.0) -> Trial:
        """Plan, save, read back, run, prove. Only a PlanError counts as a refusal."""
        said = (growth, rule, self.checkpoint.dtype, noise)
        try:
            grown = growth.of(self.checkpoint, rule, noise)
        except PlanError as error:
            return Trial(*said, refused=str(error))
        if grown.lossy:
            return Trial(*said, lossy=grown.lossy)
        shutil.rmtree(folder, ignore_errors=True)
        save(grown, folder)
        proof = prove(self.checkpoint, open_checkpoint(folder))
        return Trial(*said, self.error(folder), proof.summary if proof else "nothing")


def trials(variant: tiny.Variant, source: Callable[[tiny.Variant, str], Path], folder: Path) -> Iterator[Trial]:
    """The outcomes of all growths of a variant, under both rules, with noise and without in turn.

    source  (variant, dtype) -> the folder of the saved model
    folder  for a result
    """
    wide = Source(variant, source(variant, "float64"))
    for index, growth in enumerate(growths(wide.checkpoint, variant.tied)):
        for turn, rule in enumerate(RULES if growth.column != UNTIE else ("exact",)):
            yield wide.try_out(growth, rule, folder, NOISE * ((index + turn) % 2))
    narrow = Source(variant, source(variant, "bfloat16"))
    for growth in (*growths(narrow.checkpoint, variant.tied), *_together(4)):
        yield from narrow.try_narrow(growth, folder)


def some_trials(variant: tiny.Variant, source: Callable[[tiny.Variant, str], Path], folder: Path) -> Iterator[Trial]:
    """The outcomes of some growths, drawn by the commit so that everything occurs somewhere; or of all.

    The two main forms of a family, tied and untied, have between them all axes grown at once by either attention and
    rule (heads by `exact` in bf16), with noise by either rule; and each width alone to a size that is no multiple, and
    to its double where those before had no such. Any other form has one growth.
    """
    if draws.EXHAUSTIVE:
        yield from trials(variant, source, folder)
        return
    wide = Source(variant, source(variant, "float64"))
    turn = draws.chance(f"turns of {variant.model_type}").getrandbits(32) + variant.tied
    for growth, rule, noise in _chosen(variant, wide.checkpoint, turn):
        yield wide.try_out(growth, rule, folder, noise)
    if variant.main:
        narrow = Source(variant, source(variant, "bfloat16"))
        heads, head_dim = _together(4)
        offered = (next(_together()), heads) if turn % 2 else (head_dim, heads)
        yield from next(filter(None, (list(narrow.try_narrow(growth, folder)) for growth in offered)), ())


def _chosen(variant: tiny.Variant, checkpoint: Checkpoint, turn: int) -> Iterator[tuple[Growth, str, float]]:
    """(growth, rule, noise)"""
    offered = growths(checkpoint, variant.tied)
    if not variant.main:
        number = draws.chance(f"growth of {variant}").getrandbits(32)
        growth = offered[number % len(offered)]
        yield growth, RULES[(turn + number // len(offered)) % 2], NOISE * (number // len(offered) // 2 % 2)
        return
    heads, head_dim = _together()
    twin = variant.table.tie is not None
    if variant.tied or not twin:
        yield from ((heads, "orthogonal", NOISE), (head_dim, "exact", NOISE))
    if not variant.tied:
        yield head_dim, "orthogonal", 0.0
    alone = [growth for growth in offered if growth.column not in (*ALL.values(), UNTIE) and not growth.seen]
    for index, growth in enumerate(alone):
        if not twin or index % 2 == turn % 2:
            yield growth, RULES[(index // 2 + turn // 4) % 2], NOISE * ((index // 4 + turn // 16) % 2)
    if variant.tied:
        yield offered[-1], "exact", 0.0
