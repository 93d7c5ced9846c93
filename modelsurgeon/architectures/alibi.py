"""ALiBi: a head's slope is a function of how many heads there are, so old heads must find theirs among the new.

With 2 heads BLOOM's slopes are 2^-4 and 2^-8, with 4 they are 2^-2, 2^-4, 2^-6 and 2^-8: old head 0 goes to place 1,
old head 1 to place 3, and the heads between are new:

    >>> placed(bloom({}, 2), bloom({}, 4))
    array([-1,  0, -1,  1])

Slopes are float64 numbers that hold what the library computes in its own dtype, rounding and all.
Source: Press, Smith, Lewis, https://arxiv.org/abs/2108.12409.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, floor, log2
from typing import Any

import numpy as np

from modelsurgeon.maps.axis_map import GAP

Config = Mapping[str, Any]
SAME = 1e-6  # relative: powers of a float32 base drift by some 1e-7 from one head count to another


def bloom(config: Config, n: int) -> np.ndarray:
    """[n] float64: the slopes of `n` heads, computed in float32.

    The largest power of two takes a geometric series, the rest every other term of the series of twice as many.
    Upstream: transformers/models/bloom/modeling_bloom.py, _get_alibi_slopes.
    """
    whole = 2 ** floor(log2(n))
    series = _powers(whole, np.arange(1, 1 + whole))
    rest = _powers(2 * whole, np.arange(1, 1 + 2 * (n - whole), 2))
    return np.concatenate([series, rest]).astype(np.float64)


def mpt(config: Config, n: int) -> np.ndarray:
    """[n] float64: the slopes of `n` heads, computed in float32.

    The model neither reads `attn_config.alibi` nor `attn_config.alibi_bias_max`: it always adds them, up to 2^-8.
    Upstream: transformers/models/mpt/modeling_mpt.py, build_mpt_alibi_tensor.
    """
    whole = 2 ** ceil(log2(n))
    exponents = np.arange(1, whole + 1) * (8 / whole)
    slopes = np.float32(1) / (2.0**exponents).astype(np.float32)
    if whole != n:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:n]
    return np.asarray(slopes, dtype=np.float64)


def falcon(config: Config, n: int) -> np.ndarray:
    """[n] float64: the slopes of `n` heads, BLOOM's rounded to the nearest bfloat16, ties to even.

    Upstream: transformers/models/falcon/modeling_falcon.py, build_alibi_tensor.
    """
    bits = bloom(config, n).astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def placed(old_slopes: np.ndarray, new_slopes: np.ndarray) -> np.ndarray | None:
    """[m] int64: for each new head the old head with the same slope, GAP (-1) where there is none.

    Each old head is there once. None where some old slope is not among the new ones.
    """
    heads = np.full(len(new_slopes), GAP, dtype=np.int64)
    for head, slope in enumerate(old_slopes):
        distance = np.where(heads == GAP, np.abs(new_slopes / slope - 1), np.inf)
        place = int(distance.argmin()) if len(distance) else 0
        if not len(distance) or distance[place] > SAME:
            return None
        heads[place] = head
    return heads


def reachable(slopes: Callable[[int], np.ndarray], n: int, most: int) -> tuple[int, ...]:
    """The head counts above `n`, up to `most`, whose slopes contain all those of `n` heads."""
    old = slopes(n)
    return tuple(m for m in range(n + 1, most + 1) if placed(old, slopes(m)) is not None)


def _powers(heads: int, exponents: np.ndarray) -> np.ndarray:
    """[...] float32: powers of the base of so many heads, itself rounded to float32."""
    base = np.float64(np.float32(2.0 ** -(2.0 ** -(log2(heads) - 3))))
    return np.asarray((base**exponents).astype(np.float32))
