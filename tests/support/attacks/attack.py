"""Attack: one way to fool `verify`, with what must come of it.

    llama = widened("llama-tied")                       # how the result is made, before it is attacked
    llama.differs("map", "swapped key heads", swapped(K, 0, S[0:8], S[8:16]), "proof outputs")

An entry says what is attacked (KINDS), on which result and with which record, what is changed in the folder of the
result, the levels that must see it, and the right verdict. Entries that are no attack belong to it, too: what must not
be called different.

    files    the files that make the model, as transformers reads them
    record   modelsurgeon.json
    config   both configs, key by key
    proof    the weights do not fold back into the source's
    outputs  outputs or written text differ, or the models do not return the same things
    stored   outputs differ in the 16 bits that the source is stored in
    beside   tokenizer, templates, labels, dropout: what is not the function
    family   the model types differ
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.operations.operation import Operation
from modelsurgeon.operations.transforms.replay import applied
from modelsurgeon.operations.widen import Widen
from support import tiny
from support.variants import Variant

KINDS = {
    "map": "copies, heads, layouts",
    "scale": "factors, biases, noise",
    "weight": "single tensors and numbers",
    "lookup": "rows of tables",
    "tie": "tied heads",
    "config": "keys of the config",
    "16 bits": "what 16 bits hold",
    "file": "files that make the model",
    "record": "records",
    "beside": "files and keys beside the function",
    "pair": "models that are no pair",
    "nothing": "nothing: the same in other words",
}
LEVELS = ("files", "record", "config", "proof", "outputs", "stored", "beside", "family")
RECORDS = ("honest", "absent", "forged")
DIFFERENT, RUN, PROVEN = "different", "same on what was run, not proven", "same function, proven for all inputs"
REFUSED, NOT_DIFFERENT = "refused", "the same, proven or not"
VERDICTS = (REFUSED, DIFFERENT, RUN, NOT_DIFFERENT, PROVEN)
Plant = Callable[[Path], None]


@dataclass(frozen=True)
class Attack:
    """One entry of the catalogue.

    kind     what is attacked: one of KINDS
    what     what was changed, in words
    made     the pair that it is changed in
    plant    a function that changes the folder of the result
    levels   the levels that must see it; others may
    verdict  the right one
    record   of the result: honest, absent or forged
    says     what the report or the error must name; empty: nothing in particular
    options  further options of `verify`
    """

    kind: str
    what: str
    made: Made
    plant: Plant
    levels: frozenset[str]
    verdict: str
    record: str
    says: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.made}: {self.what}"

    def given(self, **options: Any) -> Attack:
        """The same with options of `verify`."""
        return replace(self, options={**self.options, **options})

    @property
    def line(self) -> tuple[str, ...]:
        """What a table shows of it: attacked, model, record, change, levels, verdict."""
        seen = ", ".join(level for level in LEVELS if level in self.levels)
        return self.kind, str(self.made), self.record, self.what, seen, self.verdict


@dataclass(frozen=True)
class Made:
    """A source, and the result that is attacked.

    family      the tiny variant; "demo" is the bundled checkpoint
    operations  what makes the result of it; none: a copy
    dtype       that the source is stored in
    config      keys in which source and result are to differ from the variant
    before      a function that changes the folder of the source
    recorded    whether the result keeps its record
    other       the tiny variant that is the result, of a pair that is none
    """

    family: str
    operations: tuple[Operation, ...] = ()
    dtype: str = "float32"
    config: Mapping[str, Any] = field(default_factory=dict)
    before: Plant | None = None
    recorded: bool = True
    other: str = ""

    def __str__(self) -> str:
        return f"{self.family}, {self.other}" if self.other else self.family

    @property
    def variant(self) -> Variant:
        return self.changed(tiny.named(self.family))

    def changed(self, variant: Variant) -> Variant:
        """A variant under these keys; under another name, because its parameters are other ones."""
        if not self.config:
            return variant
        name = f"{variant.name} {sorted(self.config.items())}"
        return replace(variant, name=name, config={**variant.config, **self.config})

    @property
    def source_key(self) -> str:
        """What the source depends on."""
        return repr((self.family, self.dtype, dict(self.config), self.before))

    @property
    def record(self) -> str:
        """Of the result, before it is attacked."""
        return "honest" if self.recorded and self.operations else "absent"

    @property
    def unrecorded(self) -> Made:
        """The same result without its record."""
        return replace(self, recorded=False)

    def prepared(self, before: Plant) -> Made:
        return replace(self, before=before)

    def make(self, source: Checkpoint) -> Checkpoint:
        """The result of the operations, lazily."""
        for operation in self.operations:
            source = applied(operation, source)
        return source

    def differs(self, kind: str, what: str, plant: Plant, by: str, says: str = "") -> Attack:
        return self._attack(kind, what, plant, by, DIFFERENT, says)

    def refused(self, kind: str, what: str, plant: Plant, by: str, says: str = "") -> Attack:
        return self._attack(kind, what, plant, by, REFUSED, says)

    def proven(self, kind: str, what: str, plant: Plant, by: str = "", says: str = "") -> Attack:
        return self._attack(kind, what, plant, by, PROVEN, says)

    def runs_alike(self, kind: str, what: str, plant: Plant, by: str = "", says: str = "") -> Attack:
        return self._attack(kind, what, plant, by, RUN, says)

    def passes(self, kind: str, what: str, plant: Plant, by: str = "", says: str = "") -> Attack:
        return self._attack(kind, what, plant, by, NOT_DIFFERENT, says)

    def _attack(self, kind: str, what: str, plant: Plant, by: str, verdict: str, says: str) -> Attack:
        record = "forged" if getattr(plant, "forges", False) else self.record
        return Attack(kind, what, self, plant, frozenset(by.split()), verdict, record, says)


def widened(family: str, *operations: Operation, dtype: str = "float32", **options: Any) -> Made:
    """A result of `widen`: twice as wide without noise, unless options say otherwise; then of further operations."""
    sizes = options.pop("settings", {})
    growth = {"rule": "exact", "noise": 0.0, **({"set": sizes} if sizes else {"factor": 2, "attention": "heads"})}
    return Made(family, (Widen(**{**growth, **options}), *operations), dtype)


def copied(family: str, dtype: str = "float32", **config: Any) -> Made:
    """A copy of the source, which has no record; `config` is that of both."""
    return Made(family, dtype=dtype, config=config)


def pair(family: str, other: str) -> Made:
    """Two models of which none became the other."""
    return Made(family, other=other)
