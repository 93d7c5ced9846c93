"""What an architecture allows to do to the coordinates of one place, beside reordering them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelsurgeon.architectures.config import lookup
from modelsurgeon.growth.growth import Growth
from modelsurgeon.growth.kinds.inner import is_clamped
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.proof.places.reordered import Seat

ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation", "dense_act_fn")
CHOSEN_GROUPS = "topk_group"  # the config key of how many groups of experts a token gets
HOMOGENEOUS = ("relu", "leaky_relu", "linear")  # f(s x) = s f(x) for every positive s


def scales(growth: Growth, group: Iterable[str], seats: Sequence[Seat]) -> str:
    """What the writers of a coordinate may be multiplied by, and its readers divided by: see `sketches.match`."""
    table, axes = growth.architecture, [growth.axis(name) for name in group]
    norms = [s for _, s in table.norms if {*group} & {*s.gains, *(s.normalises.axes() if s.normalises else ())}]
    kinds = [kind_of(axis) for axis in axes]
    if norms:
        return "sign" if table.norm == "rms" and not any(kind.unit_scale for kind in kinds) else "none"
    if all(not kind.unit_scale for kind in kinds):
        return "none" if is_clamped(growth) else "any"
    written = [seat for seat in seats if not seat.reads]
    gated = len({seat.name.rpartition(".")[0] for seat in written}) != 1 or any(len(seat.at) > 1 for seat in written)
    relu = all(name.endswith("mlp") for name in group) and _activation(growth) in HOMOGENEOUS
    return "positive" if relu and not gated else "none"


def _activation(growth: Growth) -> object:
    """The MLP's activation by the config; "" where it names none."""
    named = [lookup(growth.target, key) for key in (*ACTIVATIONS, "feed_forward_proj")]
    return next((name for name in named if name is not None), "")


def groups(growth: Growth, name: str) -> int:
    """How many groups of consecutive experts a router chooses among first; 1 where it takes all of them."""
    key = growth.axis(name).groups
    count = int(lookup(growth.target, key) or 1) if key else 1
    return 1 if growth.architecture.value(growth.target, CHOSEN_GROUPS) == count else count
