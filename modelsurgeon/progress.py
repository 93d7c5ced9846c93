"""How a long computation reports its progress: `tell("proof", 3_000, 12_000)`, a quarter of the proof is done.

The unit is the computation's own (bytes, forward passes): whoever shows it computes a share and the time left.
"""

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""(what, done, total): `what` names one bar; it is finished when `done` is `total`."""


def silent(what: str, done: int, total: int) -> None:
    """A progress that is not shown."""
