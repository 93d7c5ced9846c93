"""The normal quantile by +, -, *, / and square roots alone: the same bits on every machine.

    normal_quantile(np.array([0.5]))        [0.67448975]: half of all normal numbers lie within so many deviations

Libraries' erfinv, log and exp differ in their last bits from processor to processor, and from version to version. What
IEEE 754 rounds correctly does not: each operation here is one NumPy call on float64, so none is fused with another.

Wichura, "Algorithm AS 241: the percentage points of the normal distribution" (1988), its PPND16: a ratio of polynomials
of q**2 inside of |q| = 0.425, beyond it one of sqrt(-log p); correct to about 1e-15, and then rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Quantile = Callable[[np.ndarray], np.ndarray]

AT_ONCE = 1 << 14  # numbers: what they take stays in the processor's cache
INNER, CENTRE, SHIFT = 0.425, 0.180625, 1.6  # Wichura's split1, const1 (its square) and const2
LOG_2 = 0.6931471805599453
TERMS = 11  # of the series of the logarithm: 0.1716**22 / 23 is below the last bit

# Wichura's coefficients: of the ratio inside (a over b), and outside (c over d)
A = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
B = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
C = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
D = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip


def normal_quantile(uniform: np.ndarray) -> np.ndarray:
    """[n] float32, of numbers in (-1, 1): x, such that a normal number lies between 0 and x with probability |u| / 2.

    Odd: u and -u have x and -x. For |u| up to 1 - 2 exp(-25): Wichura's third ratio, beyond it, is left out, since
    numbers of 24 bits are never that close to 1.
    """
    found = np.empty(len(uniform), np.float32)
    for at in range(0, len(uniform), AT_ONCE):
        found[at : at + AT_ONCE] = _quantile(uniform[at : at + AT_ONCE].astype(np.float64) / 2)
    return found


def _quantile(q: np.ndarray) -> np.ndarray:
    """Of numbers in (-0.5, 0.5): probabilities less a half."""
    inside = CENTRE - q * q
    found: np.ndarray = q * polynomial(A, inside) / polynomial(B, inside)
    far = np.flatnonzero(np.abs(q) > INNER)
    outside = np.sqrt(-logarithm(0.5 - np.abs(q[far]))) - SHIFT
    found[far] = np.copysign(polynomial(C, outside) / polynomial(D, outside), q[far])
    return found


def logarithm(x: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive numbers: x = m 2**e, and log m = 2 (s + s**3 / 3 + ...), s = (m - 1) / (m + 1)
    with m between the roots of 1/2 and 2."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(low, 2 * mantissa, mantissa), exponent - low
    s = (mantissa - 1) / (mantissa + 1)
    series = polynomial([1 / (2 * n + 1) for n in range(TERMS)], s * s)
    result: np.ndarray = exponent * LOG_2 + 2 * s * series
    return result


def polynomial(coefficients: Sequence[float], x: np.ndarray) -> np.ndarray:
    """By Horner's rule, the constant first."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= x
        total += coefficient
    return total
