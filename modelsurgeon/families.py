"""What is supported, axis by axis, as the tables themselves say it.

One row a family, and one more for a form that changes a cell:

    any           every size from the present one on
    xk            whole multiples
    grouped       heads that the key-value heads divide, and that the old groups fit into
    slopes        heads whose ALiBi slopes hold the present ones
    ... with key  as that key, which it shares or is made of
    fixed         stays
    -             the family has none
"""

from __future__ import annotations
