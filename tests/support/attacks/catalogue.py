"""The catalogue of attacks on `verify`: every entry, in the order of the files.

Each file yields the entries of one kind; `attack.py` says what an entry is, `tried.py` runs one.
"""

from __future__ import annotations

from support.attacks import (
    beside,
    configs,
    grown,
    harmless,
    lookups,
    pairs,
    records,
    sixteen_bits,
    stray_files,
    weights,
)
from support.attacks.attack import Attack

SOURCES = (
    *(grown.every_mistake, grown.every_noisy_mistake),
    *(weights.tensors, lookups.rows, lookups.positions, lookups.kinds_and_distances, lookups.windows),
    *(configs.keys, configs.with_records, configs.absent_keys, configs.refused, configs.inert),
    *(records.chains, records.maps, records.fields, records.documents, records.other_results),
    *(stray_files.two_readings, stray_files.one_reading, stray_files.broken),
    *(sixteen_bits.overflow, sixteen_bits.numbers, beside.files, beside.keys),
    *(pairs.families, pairs.classes, pairs.others, pairs.vocabularies),
    *(harmless.permuted, harmless.scaled_back, harmless.added, harmless.operations, harmless.other_words),
)


def every_attack() -> list[Attack]:
    """All entries."""
    return [attack for source in SOURCES for attack in source()]
