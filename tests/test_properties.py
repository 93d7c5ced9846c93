"""Any family, any form and sizes of it, any wish: refused while planning for a reason, or the same function.

    MODELSURGEON_EXAMPLES=500 MODELSURGEON_SEED=$RANDOM pytest -n 0 tests/test_properties.py

tries so many examples, other ones each time; without the seed those of the commit.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.growth.growth import RULES
from modelsurgeon.growth.targets import ATTENTIONS, settable
from modelsurgeon.operations.transforms.untying import untie_embeddings
from modelsurgeon.proof.proof import prove
from modelsurgeon.saving.save import save
from support import draws, tiny
from support.growths import LOSSLESS, Growth, Source

EXAMPLES = int(os.environ.get("MODELSURGEON_EXAMPLES", "0"))
# In bf16 the rule `exact` stores in float32 what would round: as in tests/operations/test_transforms.py.
FLOAT32 = 5e-5

FORMS = {kind: [v for v in tiny.variants() if v.model_type == kind] for kind in registry.known()}


@dataclass(frozen=True)
class Wish:
    """A tiny model of its own, and what is asked of it. Its `repr` makes it again."""

    variant: tiny.Variant
    dtype: str
    growth: Growth
    rule: str
    untied: bool


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    form = draw(st.sampled_from(FORMS[draw(st.sampled_from(registry.known()))]))
    sizes = draw(sizes_of(form))
    variant = replace(form, config={**form.config, **sizes})
    dtype, rule = draw(st.sampled_from([("float64", RULES[0]), ("float64", RULES[1]), ("bfloat16", "exact")]))
    config = {**tiny.sizes(form.model_type), **variant.config}
    growth = draw(st.one_of(by_factor(), by_settings(form, config), by_settings(form, config)))
    return Wish(variant, dtype, growth, rule, draw(st.booleans()))


@st.composite
def sizes_of(draw: st.DrawFn, form: tiny.Variant) -> dict[str, int]:
    """{config key: size}: other sizes of a form, such as its config class accepts."""
    table, old = form.table, {**tiny.sizes(form.model_type), **form.config}
    axes = {name: axis for name, axis in table.axes.items() if axis.through != "fixed" and axis.key in old}
    found: dict[str, int] = {}
    for name, axis in axes.items():
        if axis.key in found or axis.key in form.config:
            continue
        if name in ("heads", "encoder_heads", "decoder_heads"):
            found[axis.key] = draw(st.sampled_from([2, 3, 4, 6]))
        elif axis.through == "pointwise" and name.endswith("mlp"):
            found[axis.key] = draw(st.integers(5, 40))
        elif name in ("q_rank", "kv_rank"):
            found[axis.key] = draw(st.sampled_from([6, 8, 14]))
        elif name in ("nope", "value", "rope") or name == "head":
            found[axis.key] = draw(st.sampled_from([4, 6, 8, 12]))
    if "rope_parameters" in form.config:  # its lists are as long as the heads have pairs
        return {key: size for key, size in found.items() if key == axes["mlp"].key}
    counts = [found.get(axis.key, old[axis.key]) for name, axis in axes.items() if name.endswith("heads")]
    if "kv" in axes and axes["kv"].key not in form.config:
        every = counts[0]
        found[axes["kv"].key] = draw(st.sampled_from([n for n in range(1, every + 1) if every % n == 0]))
    width = axes.get("stream") or axes["hidden"]
    if width.key not in form.config:
        rotated = table.rotary and not any(axes[name].key for name in ("head", "nope") if name in axes)
        each = [16] if rotated and table.rotary.partial else [4, 8, 12] if rotated else [3, 5, 8]
        found[width.key] = lcm(*counts) * draw(st.sampled_from(each))
    derived = {k: found[of] for k, of in table.equal.items() if isinstance(of, str) and of in found and k in old}
    return {**found, **{key: size for key, size in derived.items() if key not in form.config}}


@st.composite
def by_factor(draw: st.DrawFn) -> Growth:
    factor, attention = draw(st.sampled_from([2, 3])), draw(st.sampled_from(["auto", *ATTENTIONS]))
    return Growth("", f"x{factor} {attention}", factor=factor, attention=attention)


@st.composite
def by_settings(draw: st.DrawFn, form: tiny.Variant, config: dict[str, Any]) -> Growth:
    """Some of the keys that can grow: to whole multiples mostly, else to any size."""
    table = form.table
    keys = [key for key in settable(table) if isinstance(lookup(table.resolve(config), key), int)]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, unique=True))
    times = draw(st.sampled_from([2, 2, 3]))
    wanted = {}
    for key in chosen:
        size = lookup(config, key)
        wanted[key] = draw(st.one_of(st.just(times * size), st.just(times * size), st.integers(size, 3 * size)))
    return Growth("", str(wanted), wanted)


@given(wishes())
@settings(
    max_examples=EXAMPLES or draws.examples(50),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_what_is_wished_is_refused_for_a_reason_or_changes_nothing(wish: Wish) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = tiny.save(wish.variant, Path(folder) / "small", wish.dtype)
        except (ValueError, IndexError, KeyError, RuntimeError) as error:  # the library knows no such model
            event(f"no such model: {type(error).__name__}")
            assume(False)
        small = Source(wish.variant, path)
        before = untie_embeddings(small.checkpoint) if wish.untied and not _refuses(small) else small.checkpoint
        try:
            wide = wish.growth.of(before, wish.rule)
        except (PlanError, SourceError) as error:
            event(f"refused: {type(error).__name__}")
            assert len(str(error).split()) >= 6 and "\n" not in str(error)
            return
        if wide.lossy:
            event("lossy")
            assert all(wide.lossy)
            return
        event(f"grown in {wish.dtype}")
        save(wide, Path(folder) / "wide")
        proof = prove(small.checkpoint, open_checkpoint(Path(folder) / "wide"))
        assert proof is not None and proof.summary in ("exact", "rounded"), proof.wrong[:2] if proof else None
        promoted = wish.dtype == "bfloat16" and any(t.dtype == "F32" for t in wide.tensors.values())
        assert small.error(Path(folder) / "wide") <= (FLOAT32 if promoted else LOSSLESS)


def _refuses(small: Source) -> bool:
    tie = small.checkpoint.architecture.tie
    return bool(tie and tie.refused)
