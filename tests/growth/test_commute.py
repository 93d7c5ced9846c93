"""What an axis passes through lets lawful maps pass and refuses every other one, by the name of the axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelsurgeon.architectures import alibi
from modelsurgeon.architectures.architecture import Architecture, Axis, Rotary
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import PlanError
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.inner import rotation
from modelsurgeon.growth.planning import clipped_factors, plan_maps, reasons_against
from modelsurgeon.growth.remap import remap
from modelsurgeon.maps import orders
from modelsurgeon.maps.axis_map import GAP, MEAN, AxisMap
from modelsurgeon.saving.save import save
from support import tiny
from support.grow import widen

TABLE = Architecture(
    model="None",
    norm="rms",
    eps="eps",
    rotary=Rotary("half"),
    axes={
        "vocab": Axis("vocab"),
        "stream": Axis("width", through="residual"),
        "encoder": Axis("encoder", through="pointwise residual"),
        "rank": Axis("rank", through="rank"),
        "mlp": Axis("mlp", through="pointwise"),
        "experts": Axis("experts", through="experts", active="active", groups="groups"),
        "choice": Axis("experts", through="choice", follows="experts"),
        "heads": Axis("heads", through="heads"),
        "kv": Axis("kv", through="heads", follows="heads"),
        "head": Axis("head", through="inner", scaled=-0.5),
        "prehead": Axis("head", through="normed", follows="head"),
        "angles": Axis(default=lambda c: c["head"], through="angles", follows="head"),
        "value": Axis("value", through="linear"),
    },
    tensors={"norm.weight": "stream => stream", "q_norm.weight": "prehead => head~"},
    clip="clip",
)
CONFIG: dict[str, Any] = {
    "vocab": 5, "width": 6, "encoder": 6, "rank": 3, "mlp": 7, "experts": 4, "active": 2, "groups": 2,
    "heads": 4, "kv": 2, "head": 8, "value": 5, "eps": 1e-5,
}  # fmt: skip
PLAIN = replace(TABLE, rotary=None)


def reasons(table: Architecture = TABLE, config: Mapping[str, Any] = CONFIG, **maps: AxisMap) -> tuple[str, ...]:
    """What is said against these maps, where every other axis stays."""
    same = {name: orders.identity(size) for name, size in table.sizes(config).items()}
    return reasons_against(table, config, {**same, **maps})


def copied(source: Any, size: int, scale: Any = 1.0, gain: float = 1.0) -> AxisMap:
    """Copies in these places, each written with `scale` and read evenly."""
    source = np.asarray(source)
    factor = np.broadcast_to(np.asarray(scale, dtype=np.float64), source.shape)
    return orders.gathered(size, source, factor, gain / orders.ranks(source)[1] / factor, gain)


def twice(name: str, scale: float = 1.0, gain: float = 1.0) -> AxisMap:
    size = TABLE.sizes(CONFIG)[name]
    return copied(np.tile(np.arange(size), 2), size, scale, gain)


PAIRS = orders.nested_pairs(8, 2, "half")
NESTED = copied(PAIRS, 8, gain=2**0.5)
LAWFUL: dict[str, dict[str, AxisMap]] = {
    "nothing": {},
    "residual": {"stream": twice("stream", 0.5)},
    "pointwise residual": {"encoder": twice("encoder")},
    "rank": {"rank": copied([0, 1, 2, MEAN], 3)},
    "pointwise": {"mlp": copied(np.arange(9) % 7, 7)},
    "linear": {"value": copied([0, 1, 2, 3, 4, 4], 5, [1, 1, 1, 1, 2, 3])},
    "heads": {"heads": twice("heads"), "kv": twice("kv")},
    "heads of the same keys": {"heads": copied([0, 1, 0, 1, 2, 3, 2, 3], 4)},
    "keys for every head": {"kv": copied([0, 0, 1, 1], 2)},
    "inner": {"head": NESTED, "angles": copied(PAIRS, 8), "prehead": copied(PAIRS, 8)},
    "experts": {"experts": copied([0, 0, 1, 1, 2, 2, 3, 3], 4), "choice": copied([0, 0, 1, 1, 2, 2, 3, 3], 4)},
    "experts that sleep": {
        "experts": copied([0, 1, 0, 2, 3, 2], 4), "choice": copied([0, 1, GAP, 2, 3, GAP], 4)},
}  # fmt: skip


@pytest.mark.parametrize("through", LAWFUL)
def test_a_lawful_map_passes(through: str) -> None:
    assert reasons(**LAWFUL[through]) == ()


def test_every_kind_of_axis_is_tried() -> None:
    tried = {axis.through for axis in TABLE.axes.values()}
    assert tried == {TABLE.axes[name].through for maps in LAWFUL.values() for name in maps} | {"fixed"}
    assert tried == {TABLE.axes[name].through for maps in UNLAWFUL.values() for name in maps[1]}


UNLAWFUL: dict[str, tuple[str, dict[str, AxisMap]]] = {
    "a fixed axis twice": ("axis 'vocab' does not grow", {"vocab": twice("vocab")}),
    "a fixed axis in another order": ("axis 'vocab' does not grow", {"vocab": copied([1, 0, 2, 3, 4], 5)}),
    "a residual with a gain": (
        "axis 'stream': D E is 2 I, and must be 1 I at this width", {"stream": twice("stream", 1.0, 2.0)}),
    "an inner product that its scale shrinks": (
        r"axis 'head': D E is 1 I, and must be 1\.41421 I at this width", {"head": copied(PAIRS, 8)}),
    "an inner product that is made up for though its size stays": (
        "axis 'head': D E is 2 I, and must be 1 I", {"head": copied(np.arange(8), 8, gain=2.0)}),
    "an activation scaled": ("axis 'mlp': only copies of scale 1 pass through pointwise", {"mlp": twice("mlp", 0.5)}),
    "an activation scaled in place": (
        "axis 'mlp': only copies of scale 1 pass through pointwise", {"mlp": copied(np.arange(7), 7, 2.0)}),
    "an activation's residual scaled": (
        "axis 'encoder': only copies of scale 1 pass", {"encoder": twice("encoder", 0.5)}),
    "heads scaled": ("axis 'heads': only copies of scale 1 pass", {"heads": twice("heads", 2.0), "kv": twice("kv")}),
    "keys scaled": ("axis 'kv': only copies of scale 1 pass", {"heads": twice("heads"), "kv": twice("kv", 2.0)}),
    "experts scaled": ("axis 'experts': only copies of scale 1", {"experts": copied([0, 0, 1, 1, 2, 2, 3, 3], 4, 2.0)}),
    "a choice scaled": ("axis 'choice': only copies of scale 1", {"choice": copied(np.arange(4), 4, 2.0)}),
    **{
        f"a mean through {TABLE.axes[name].through}": (
            f"axis '{name}': a mean does not pass through {TABLE.axes[name].through}",
            {name: copied(np.r_[np.arange(TABLE.sizes(CONFIG)[name]), MEAN], TABLE.sizes(CONFIG)[name],
                          gain=(8 / 9) ** -0.5 if name == "head" else 1.0)},
        )
        for name in ("encoder", "mlp", "value", "heads", "kv", "head", "angles", "experts", "choice")
    },
    "a query head with other keys": (
        "axis 'heads': a copy of a query head uses another key-value head", {"heads": twice("heads")}),
    "keys in another order": (
        "axis 'heads': a copy of a query head uses another key-value head", {"kv": copied([1, 0], 2)}),
    "keys repeated where heads are tiled": (
        "axis 'heads': a copy of a query head uses another key-value head",
        {"heads": twice("heads"), "kv": copied([0, 0, 1, 1], 2)}),
    "heads that no keys divide": (
        "axis 'kv': 6 query heads cannot share 4", {"heads": copied([0, 1, 2, 3, 0, 1], 4), "kv": twice("kv")}),
    "experts tiled": (
        "axis 'experts': experts are copied as often as each other, side by side",
        {"experts": twice("experts"), "choice": twice("choice")}),
    "some experts more often": (
        "axis 'experts': experts are copied as often as each other, side by side",
        {"experts": copied([0, 0, 1, 2, 3], 4), "choice": copied([0, 0, 1, 2, 3], 4)}),
    "experts in another order": (
        "axis 'experts'", {"experts": copied([1, 0, 2, 3], 4), "choice": copied([1, 0, 2, 3], 4)}),
    "an expert that could be chosen twice beside one that sleeps": (
        "axis 'experts': experts are copied as often as each other, side by side and in order",
        {"experts": copied([0, 1, 2, 2, 3, 0], 4), "choice": copied([0, 1, 2, 2, 3, GAP], 4)}),
    "experts beside those that sleep in another order": (
        "axis 'experts': experts are copied as often as each other, side by side and in order",
        {"experts": copied([1, 0, 2, 3, 0, 2], 4), "choice": copied([1, 0, 2, 3, GAP, GAP], 4)}),
    "experts that sleep in a group that was another's": (
        "axis 'experts': an expert is in a group that was another",
        {"experts": copied([0, 1, 2, 3, 0, 0], 4), "choice": copied([0, 1, 2, 3, GAP, GAP], 4)}),
    "groups of different sizes": (
        "axis 'experts': 5 experts in 2 groups",
        {"experts": copied([0, 1, 0, 2, 3], 4), "choice": copied([0, 1, GAP, 2, 3], 4)}),
    "biases of other experts": (
        "axis 'choice': the router's biases are those of other experts",
        {"experts": copied([0, 0, 1, 1, 2, 2, 3, 3], 4), "choice": copied([3, 3, 2, 2, 1, 1, 0, 0], 4)}),
    "biases of other experts in place": (
        "axis 'choice': the router's biases are those of other experts", {"choice": copied([1, 0, 2, 3], 4)}),
    "biases of other experts beside those that sleep": (
        "axis 'choice': the router's biases are those of other experts",
        {"experts": copied([0, 1, 0, 3, 2, 2], 4), "choice": copied([0, 1, GAP, 2, 3, GAP], 4)}),
    "a table of angles that is tiled": (
        "axis 'angles': the table's columns do not follow the rotary pairs", {"angles": twice("angles")}),
    "a table of angles that is stretched": ("axis 'angles'", {"angles": copied(PAIRS, 8, 2.0)}),
    "a table of angles that is stretched in place": ("axis 'angles'", {"angles": copied(np.arange(8), 8, 2.0)}),
    "rotary pairs tiled": (
        "axis 'head': rotary pairs are neither nested nor repeated", {"head": twice("head", 2**0.25, 2**0.5)}),
    "rotary pairs of another layout": (
        "axis 'head': rotary pairs are neither nested nor repeated",
        {"head": copied(orders.nested_pairs(8, 2, "interleaved"), 8, gain=2**0.5)}),
    "one coordinate of a pair stretched": (
        "axis 'head': the two coordinates of a rotary pair are multiplied by different factors",
        {"head": copied(PAIRS, 8, np.r_[2.0, np.ones(15)], gain=2**0.5)}),
    "plain coordinates where all are rotated": (
        "axis 'head': this family rotates the whole of it, and plain coordinates were added",
        {"head": copied(np.r_[np.arange(8), np.full(4, GAP)], 8, gain=(12 / 8) ** 0.5)}),
    "a normed axis in another order than what it writes": (
        "prehead|norm", {"prehead": copied(np.arange(8)[::-1], 8)}),
    "a normed axis with a gain": ("axis 'prehead': D E is 2 I", {"prehead": copied(np.arange(8), 8, gain=2.0)}),
    "a rank with a gain": ("axis 'rank': D E is 2 I", {"rank": copied(np.arange(3), 3, gain=2.0)}),
}  # fmt: skip
IN_NORMS = "a normed axis in another order than what it writes"  # norms.py says no: see test_norms.py


@pytest.mark.parametrize("mistake", [name for name in UNLAWFUL if name != IN_NORMS])
def test_an_unlawful_map_is_refused_by_name(mistake: str) -> None:
    message, maps = UNLAWFUL[mistake]
    with pytest.raises(PlanError, match=message):
        reasons(**maps)


# --- positions -------------------------------------------------------------------------------------------------------


def test_repeated_pairs_are_said_to_be_approximate() -> None:
    repeated = copied(orders.repeated_pairs(8, 2, "half"), 8, 2**0.25, gain=2**0.5)
    (said,) = reasons(head=repeated)
    assert said.startswith("approximate: repeated rotary pairs")
    assert reasons(PLAIN, head=repeated) == ()


def test_a_rope_type_that_nobody_knows_is_refused_where_pairs_would_be_nested_and_nowhere_else() -> None:
    config = {**CONFIG, "rope_scaling": {"rope_type": "spiral", "factor": 2.0}}
    with pytest.raises(PlanError, match="axis 'head': rope type 'spiral' is not known"):
        reasons(config=config, head=NESTED, angles=copied(PAIRS, 8))
    assert reasons(config=config, heads=twice("heads"), kv=twice("kv")) == ()


@pytest.mark.parametrize(("source", "kind", "times"), [
    (np.arange(8), "kept", 1), (PAIRS, "nested", 2), (orders.repeated_pairs(8, 2, "half"), "repeated", 2),
    (orders.nested_pairs(8, 3, "half"), "nested", 3),
])  # fmt: skip
def test_a_rotation_says_how_its_pairs_grew(source: np.ndarray, kind: str, times: int) -> None:
    found = rotation(TABLE, CONFIG, {"head": copied(source, 8)}, "head")
    assert found is not None
    assert (found.kind, found.rotated, found.times) == (kind, 8, times)


def test_where_a_part_is_rotated_plain_coordinates_may_be_added_and_copied() -> None:
    partly = replace(TABLE, rotary=Rotary("half", partial=0.5))
    grown = copied([0, 1, 2, 3, 4, 5, 6, 7, 4, 5, GAP, GAP], 8, gain=1.5**0.5)
    assert reasons(partly, head=grown) == ()
    found = rotation(partly, CONFIG, {"head": grown}, "head")
    assert found is not None and (found.kind, found.rotated) == ("kept", 4)
    mixed = copied([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, GAP, GAP], 8, gain=1.5**0.5)
    with pytest.raises(PlanError, match="neither nested nor repeated"):
        reasons(partly, head=mixed)


@pytest.mark.parametrize("through", ["tiled", "placed"])
def test_heads_with_slopes_go_where_their_slope_is(through: str) -> None:
    sloped = replace(PLAIN, axes={"heads": Axis("heads", through="heads", slopes=alibi.bloom)}, tensors={})
    source = np.tile(np.arange(4), 2) if through == "tiled" else alibi.placed(alibi.bloom({}, 4), alibi.bloom({}, 8))
    assert source is not None
    if through == "placed":
        assert reasons(sloped, heads=copied(source, 4)) == ()
        return
    with pytest.raises(PlanError, match="axis 'heads': copies of a head would have other ALiBi slopes"):
        reasons(sloped, heads=copied(source, 4))


# --- clamps and experts ----------------------------------------------------------------------------------------------


def clipped(inner: float, linear: float) -> dict[str, AxisMap]:
    """Heads of twice the size: queries and keys times `inner`, values times `linear`."""
    share = inner if inner == 2**0.25 else 2**0.5 / inner  # the same to the last bit
    head = orders.gathered(8, PAIRS, np.full(16, inner), np.full(16, share), 2**0.5)
    return {"head": head, "angles": copied(PAIRS, 8), "value": copied(np.tile(np.arange(5), 2), 5, linear)}


def test_a_clamp_passes_queries_keys_and_values_that_are_multiplied_alike() -> None:
    config = {**CONFIG, "clip": 1.0}
    even = clipped(2**0.25, 2**0.25)
    same = {name: orders.identity(size) for name, size in TABLE.sizes(config).items()}
    assert reasons(config=config, **even) == ()
    assert clipped_factors(TABLE, {**same, **even}) == pytest.approx(2**0.25)


@pytest.mark.parametrize(("inner", "linear"), [(2**0.25, 1.0), (1.0, 1.0), (2**0.5, 2**0.5)])
def test_a_clamp_refuses_what_is_multiplied_differently(inner: float, linear: float) -> None:
    with pytest.raises(PlanError, match="clip clamps queries, keys and values: all must be multiplied by one factor"):
        reasons(config={**CONFIG, "clip": 1.0}, **clipped(inner, linear))
    assert reasons(config={**CONFIG, "clip": None}, **clipped(inner, linear)) == ()


def expert_maps(experts: int, active: int, choice: bool = True, groups: int = 2) -> dict[str, AxisMap]:
    axes = {name: axis for name, axis in TABLE.axes.items() if choice or name != "choice"}
    config = {**CONFIG, "groups": groups}
    table = replace(PLAIN, axes=axes, tensors={})
    return plan_maps(Growth(table, config, {**config, "experts": experts, "active": active}, "exact"))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("choice", [True, False])
def test_copies_of_experts_stand_side_by_side_and_stay_in_their_group(choice: bool, count: int, groups: int) -> None:
    maps = expert_maps(4 * count, 2 * count, choice, groups)
    source = maps["experts"].source
    assert source.tolist() == [i for i in range(4) for _ in range(count)]
    before, after = 4 // groups, 4 * count // groups
    assert [i // before for i in source] == [j // after for j in range(4 * count)]
    assert not choice or maps["choice"].source.tolist() == source.tolist()


@pytest.mark.parametrize(("groups", "experts"), [(1, 5), (1, 8), (2, 6), (2, 8), (4, 8)])
def test_further_experts_sleep_at_the_end_of_each_group(groups: int, experts: int) -> None:
    maps = expert_maps(experts, 2, groups=groups)
    source, choice = maps["experts"].source, maps["choice"]
    before, after = 4 // groups, experts // groups
    assert [i // before for i in source] == [j // after for j in range(experts)]
    assert [j for j in range(experts) if choice.source[j] >= 0] == [
        group * after + j for group in range(groups) for j in range(before)
    ]
    assert maps["experts"].share.tolist() == choice.copied.astype(float).tolist()
    assert choice.source[choice.copied].tolist() == list(range(4))


@pytest.mark.parametrize(
    ("experts", "active", "choice", "words"),
    [
        (6, 2, False, "experts are copied as often as each other; sizes that work: 4 or 8"),
        (6, 3, True, "experts are copied as often as each other; sizes that work: 4 or 8"),
        (8, 2, False, "2 copies of every expert are the same function where active is 4, not 2"),
        (8, 3, True, "2 copies of every expert are the same function where active is 4, not 3"),
        (4, 3, True, "1 copies of every expert are the same function where active is 2, not 3"),
        (5, 2, True, "the 2 groups of experts must stay equal; sizes that work: 4 or 6"),
    ],
)
def test_experts_that_cannot_be_are_refused(experts: int, active: int, choice: bool, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        expert_maps(experts, active, choice)


# --- whatever passes is the same function ----------------------------------------------------------------------------


DISTURBED: tuple[tuple[str, dict[str, int]], ...] = (
    ("llama-untied", {"hidden_size": 48}),
    ("gpt2-untied", {"n_embd": 40}),
    ("gpt_oss-untied", {"num_local_experts": 8}),
    ("deepseek_v3-untied", {"n_routed_experts": 12}),
    ("mixtral-untied", {"num_local_experts": 12, "num_experts_per_tok": 4}),
    ("olmo2-untied", {"num_attention_heads": 8, "num_key_value_heads": 4}),
    ("falcon-grouped", {"num_attention_heads": 8, "hidden_size": 64}),
    ("bloom-untied", {"n_head": 8, "hidden_size": 64}),
    ("olmo-clipped", {"head_dim": 16}),
    ("roformer-untied", {"hidden_size": 64}),
)
TRIES = 24


def disturbed(rng: np.random.Generator, grown: AxisMap) -> AxisMap:
    """The map with one thing changed at random. Raises PlanError where no map is left."""
    source, scale, at = grown.source.copy(), np.where(grown.gaps, 1.0, grown.scale), rng.integers(grown.new_size)
    kind = rng.integers(6)
    if kind == 0:
        order = rng.permutation(grown.new_size)
        source, scale = source[order], scale[order]
    elif kind < 4:
        source[at] = [GAP, MEAN, rng.integers(grown.size)][kind - 1]
    else:
        scale = scale * (2.0 if kind == 4 else rng.choice([0.5, 1.0, 2.0], grown.new_size))
    share = grown.gain / orders.ranks(source)[1] / np.where(scale == 0, 1.0, scale)
    return orders.gathered(grown.size, source, scale, share, grown.gain, grown.split)


@pytest.mark.parametrize(("name", "settings"), DISTURBED, ids=lambda part: part if isinstance(part, str) else "")
def test_maps_disturbed_at_random_are_refused_or_leave_what_the_model_computes(
    name: str, settings: dict[str, int], source: Callable[..., Path], tmp_path: Path
) -> None:
    variant, rng = tiny.named(name), np.random.default_rng(0)
    folder = source(variant, "float64")
    before, checkpoint = tiny.run64(folder, variant.kind), open_checkpoint(folder)
    planned = widen(checkpoint, None, settings, rule="exact").steps[-1].maps
    refused = ran = 0
    for number in range(TRIES):
        maps = {axis: planned.get(axis) or orders.identity(size) for axis, size in checkpoint.sizes.items()}
        first = maps[rng.choice(list(planned))]
        alike = [axis for axis in planned if np.array_equal(maps[axis].source, first.source)]
        try:
            other = disturbed(rng, first)
            for axis in alike if rng.integers(2) else alike[:1]:
                maps[axis] = replace(other, split=maps[axis].split)
            result = remap(checkpoint, maps)
        except PlanError:
            refused += 1
            continue
        if not result.lossy:
            ran += 1
            after = tiny.run64(save(result, tmp_path / str(number)), variant.kind)
            assert tiny.error(before, after, variant, maps) < 1e-9, f"{alike}: {other}"  # float64, in another order
    assert ran and refused
