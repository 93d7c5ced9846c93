"""How much of its numbers a tensor may have lost in the steps on record.

    growing by powers of two, and copying       rounds nothing, in any dtype
    a factor of sqrt(2) in bfloat16             rounds each number by 2**-8 of it at most
    three such steps                            3 * 2**-8

Each tensor is followed through every step, with the factors and the dtype that it had there, so that steps which
cannot round it give its numbers no room to differ. What the steps together may round is bounded, too (`CHAIN`): a row
times 1.5 is no rounding, however many steps there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelsurgeon.tensors.arithmetic import is_power_of_two, nearest_power_of_two
from modelsurgeon.tensors.dtypes import FLOATS, HALF_ULP
from modelsurgeon.tensors.lazy import LazyTensor

# Eight roundings to bfloat16, whose numbers have eight bits: from there on the sum is no rounding but a loss, and the
# result is not proven. Real roundings go either way: of a million numbers the worst comes there after some fourteen.
CHAIN = 2.0**-5
# Below this factor a weight of 2**-4 has fewer than eight bits left in float16, whose smallest number is 2**-24.
LEAST_IN_F16 = 2.0**-12
IN_FLOAT64 = 2.0**-51  # growing multiplies in float64 a few times, and each rounds by 2**-53


@dataclass(frozen=True)
class Rounding:
    """What one tensor may have lost.

    total   the sum of the largest relative roundings of its steps
    hidden  a dtype that it was stored in on the way, and that holds less than source and result do; None: none
    faint   whether it was multiplied by so small a factor that its dtype holds little of it
    """

    total: float
    hidden: str | None = None
    faint: bool = False

    @property
    def bound(self) -> float:
        """The relative difference that rounding explains."""
        return min(self.total, CHAIN)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why a difference within the bound is no proof that only rounding made it."""
        found = []
        if self.total >= CHAIN:
            found.append(f"the steps on record may have rounded weights by {CHAIN:.2g} of themselves or more: too much")
        if self.hidden:
            lost = f"rounded by {HALF_ULP[self.hidden]:.0e}"
            found.append(f"weights were {lost} in {self.hidden} on the way, of which their own dtype shows nothing")
        if self.faint:
            found.append("weights were multiplied by so small a factor that F16 holds little of them")
        return tuple(found)


def rounding_of(tensor: LazyTensor, found: LazyTensor) -> Rounding:
    """What a tensor may have lost: `tensor` as the steps made it one after another, `found` as the result stores it."""
    grown = list(_growths(tensor))
    first = grown[-1].base if grown else tensor
    total, dtypes = 0.0, [tensor.dtype, found.dtype]
    if not first.verbatim:  # its numbers were drawn or turned, and rounded then
        total += HALF_ULP[first.dtype]
    for one in grown:
        if loses(one):
            total += HALF_ULP[one.dtype] + IN_FLOAT64
    if not _holds(found.dtype, tensor.dtype):  # somebody stored it again
        total += HALF_ULP[found.dtype]
    ends = max(HALF_ULP[first.dtype], HALF_ULP[found.dtype], HALF_ULP["F32"])
    narrow = [one.dtype for one in grown if HALF_ULP[one.dtype] > ends and loses(one)]
    factor = 1.0
    for one in grown:
        factor *= min((abs(f) for f in one.factors if f), default=1.0)
    faint = "F16" in [*dtypes, *(one.dtype for one in grown)] and factor < LEAST_IN_F16
    return Rounding(total, max(narrow, key=HALF_ULP.__getitem__, default=None), faint)


def loses(tensor: LazyTensor) -> bool:
    """Whether growing a tensor rounds its numbers; factors that are powers of two but for a float64 rounding do not."""
    if callable(tensor.fill) and not all(dimension.is_identity for dimension in tensor.dimensions):
        return True  # new entries are computed in float64, and stored once
    if tensor.is_exact:
        return False
    if any(dimension.means for dimension in tensor.dimensions) or not _holds(tensor.dtype, tensor.base.dtype):
        return True
    factors = [tensor.constant, *(factor for dimension in tensor.dimensions for factor in dimension.factors)]
    factors = [nearest_power_of_two(factor) for factor in factors if factor]
    return not all(factor == 1 if tensor.offset else is_power_of_two(factor) for factor in factors)


def _growths(tensor: LazyTensor) -> Iterator[LazyTensor]:
    """The growths that a tensor went through, the last one first."""
    while tensor.base is not tensor:
        yield tensor
        tensor = tensor.base


def _holds(wide: str, narrow: str) -> bool:
    """Whether a dtype holds every number of another one."""
    return FLOATS.index(wide) >= FLOATS.index(narrow) and (wide, narrow) != ("F16", "BF16")
