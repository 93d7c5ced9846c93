"""How a long computation tells how far it is: `tell("proof", 3_000, 12_000)`, a quarter of the proof is done.

The unit is the teller's own (bytes, forward passes): whoever shows it makes a share and a time left of it.
"""

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""(what, done, total): `what` names one bar; it is finished when `done` is `total`."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""
