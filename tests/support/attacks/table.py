"""The README's table of the catalogue: entries by what is attacked and by record, what must see them, what is right."""

from __future__ import annotations

from collections.abc import Sequence

from support.attacks.attack import DIFFERENT, KINDS, LEVELS, NOT_DIFFERENT, PROVEN, RECORDS, REFUSED, RUN, Attack

VERDICTS = {REFUSED: "refused", DIFFERENT: "different", RUN: "not proven", NOT_DIFFERENT: "the same", PROVEN: "proven"}
ROW = "| {} |"


def summary(attacks: Sequence[Attack]) -> str:
    """One line for each kind, and one for all."""
    lines = [ROW.format(" | ".join(["attacked", "entries", *RECORDS, "must be seen by", *VERDICTS.values()]))]
    lines.append("|---" * (3 + len(RECORDS) + len(VERDICTS)) + "|")
    for kind, name in {**KINDS, "all": "all"}.items():
        chosen = [attack for attack in attacks if kind in (attack.kind, "all")]
        records = [sum(attack.record == record for attack in chosen) or "" for record in RECORDS]
        right = [sum(attack.verdict == verdict for attack in chosen) or "" for verdict in VERDICTS]
        counts = {level: sum(level in attack.levels for attack in chosen) for level in LEVELS}
        seen = ", ".join(f"{level} {count}" for level, count in counts.items() if count)
        lines.append(ROW.format(" | ".join(map(str, [name, len(chosen), *records, seen, *right]))))
    return "\n".join(lines)


def row(attack: Attack, seen: frozenset[str], verdict: str) -> str:
    """The line of one entry, with what came of it."""
    kind, made, record, what, _, _ = attack.line
    levels = ", ".join(level for level in LEVELS if level in seen)
    return ROW.format(" | ".join([kind, made, record, what, levels, verdict]))
