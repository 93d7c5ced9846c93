"""What 16 bits hold: overflow, rounding that hides a mistake, and numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterator

from support.attacks.attack import Attack, Plant, copied, widened
from support.planting import S, nothing, number, rows_times, scaled, times

UP, DOWN = "model.layers.{}.mlp.up_proj.weight", "model.layers.{}.mlp.down_proj.weight"
NARROW = ("float16", "bfloat16")
NAN, INF = float("nan"), float("inf")


def stretched(by: float, layers: tuple[int, ...] = (0, 1)) -> Plant:
    """Up times a factor, down divided by it: the same function, as long as every number can be held."""
    return scaled({UP.format(n): by for n in layers} | {DOWN.format(n): 1 / by for n in layers})


def overflow() -> Iterator[Attack]:
    half = copied("llama-tied", "float16")
    yield half.differs("16 bits", "up x 2^16, down x 2^-16 in float16", stretched(2.0**16), "stored")
    yield half.differs("16 bits", "up x 2^17, down x 2^-17 in one layer", stretched(2.0**17, (1,)), "stored")
    yield widened("llama-tied", dtype="float16").differs(
        "16 bits", "up x 2^16, down x 2^-16 beside a record", stretched(2.0**16), "stored"
    )
    yield copied("llama-tied", "bfloat16").passes("16 bits", "up x 2^16, down x 2^-16 in bfloat16", stretched(2.0**16))
    yield copied("llama-tied").passes("16 bits", "up x 2^16, down x 2^-16 in float32", stretched(2.0**16))
    yield half.passes("16 bits", "up x 2, down x 1/2 in float16", stretched(2.0))
    queries, keys = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    yield half.differs("16 bits", "scores that overflow", scaled({queries: 2.0**14, keys: 2.0**2}), "outputs")


def numbers() -> Iterator[Attack]:
    for dtype in NARROW:
        copy, wide = copied("llama-untied", dtype), widened("llama-untied", dtype=dtype)
        yield copy.differs("16 bits", f"a NaN in {dtype}", number("lm_head.weight", NAN, 40), "outputs stored")
        yield copy.differs("16 bits", f"an infinity in {dtype}", number("model.norm.weight", INF, 4), "outputs stored")
        yield copy.differs(
            "16 bits", f"a token x -3 in {dtype}", rows_times("model.embed_tokens.weight", -3, 50), "outputs"
        )
        yield copy.differs(
            "16 bits", f"a matrix x 1.05 in {dtype}", times("model.layers.1.mlp.up_proj.weight", 1.05), "outputs"
        )
        yield wide.differs(
            "16 bits", f"a neuron of zeros in {dtype}, with a record", rows_times(UP.format(1), 0, 7), "proof outputs"
        )
        yield wide.proven("nothing", f"a wider model in {dtype}", nothing)
        yield wide.unrecorded.proven("nothing", f"a wider model in {dtype}, its record gone", nothing)
        yield wide.proven("nothing", f"a wider model run in {dtype}", nothing).given(dtype=dtype)
    wrong = times("model.layers.1.self_attn.o_proj.weight", 1.002, S[0:16])
    yield (
        copied("llama-tied")
        .runs_alike("16 bits", "a matrix by 0.2%, run in bfloat16 alone", wrong)
        .given(dtype="bfloat16")
    )
    yield copied("llama-tied").differs("16 bits", "a matrix by 0.2%, run in float32", wrong, "outputs")
    yield (
        copied("llama-tied")
        .differs("16 bits", "a NaN, run in bfloat16 alone", number("model.norm.weight", NAN, 1), "outputs")
        .given(dtype="bfloat16")
    )
