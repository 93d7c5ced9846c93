"""The mean loss of independent normal logits, exactly: what a head that knows nothing of its input starts from.

    >>> round(expected(4096, spread=1.0), 3), round(math.log(4096) + 1 / 2, 3)
    (8.818, 8.818)

With n logits N(0, s^2) the loss is E log(sum of e^x), which is log n + s^2 / 2 while s^2 is well below 2 log n; above,
a few tokens make up the sum, and it grows as s sqrt(2 log n) does (the random energy model: Derrida 1981, doi
10.1103/PhysRevB.24.2613). For a head of deviation sigma after a norm of gain 1, s = sqrt(d) sigma f. One further token
with the logit a, the token itself where the head is the embedding, is counted with a = d sigma f.

Of Z, the sum: e^(-e^u Z) falls from 1 to 0 around u = -log Z, so that its integral from far below, L, is
-log Z - gamma - L (Gumbel's mean); and the mean of e^(-e^u Z) is a product over tokens.
"""

from __future__ import annotations

import math

import numpy as np

NODES = 200  # of the quadrature over one logit: Gauss and Hermite's, exact far beyond what is shown
STEP = 0.05  # of the integral, whose integrand is smooth on the scale of 1
FAR = 40.0  # where e^(-e^u Z) is 1 to the last bit, and 0


def expected(vocab: int, spread: float, own: float | None = None) -> float:
    """Nats: E log sum e^x over `vocab` independent x of N(0, spread^2); `own`: the logit of one of them, known."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    top = max(own or 0.0, spread * math.sqrt(2 * math.log(max(2, vocab)))) + math.log(vocab)
    u = np.arange(-top - 4 * spread - FAR, FAR / 8 + 4 * spread, STEP)
    one = np.exp(-np.exp(np.minimum(u[:, None] + spread * nodes, FAR))) @ weights
    others = (vocab - (own is not None)) * np.log(np.maximum(one, np.finfo(float).tiny))
    left = np.exp(others - (0.0 if own is None else np.exp(np.minimum(u + own, FAR))))
    return float(-u[0] - STEP * (left.sum() - 1 / 2) - np.euler_gamma)
