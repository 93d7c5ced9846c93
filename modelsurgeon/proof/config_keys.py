"""Two configs, key by key, as the library reads them: the part of a proof that no tensor shows.

    >>> compare_configs(source, result).different
    (Difference(key='sliding_window', source=4096, result=None, expected=4096),)

Each key of the library's config class, after all defaults are filled in, is one of these:

    equal      both read the same
    mapped     the source's value has changed as the growth on record says
    inert      it differs, and nothing that a model computes depends on it: `inert_keys.toml` says why
    undecided  without maps: a growth could have changed it so; or the vocabularies have other sizes
    different  anything else
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelsurgeon.architectures import rope
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.config import ABSENT, EFFECTIVE, READ_BESIDE, SCALINGS, SYNONYMS, lookup
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.errors import SourceError
from modelsurgeon.operations.transforms.insertion import LISTS
from modelsurgeon.proof.inert import Side, reason
from modelsurgeon.running.reference import model_class
from modelsurgeon.running.settings import as_read, class_defaults, flat, same

WHOLE = frozenset({"id2label", "label2id"})  # objects that are one value
ROPE = ("rope_parameters", "rope_scaling")
UNKNOWN = "no key of this model type: the library keeps it, and nothing reads it"
RAW = "compared as the files have it, key by key: the library cannot build a config from one of them"
EMPTY = "absent, null, false and empty mean the same"
SYNONYM = "another name of the same function"
YARN: Mapping[str, float] = {"beta_fast": 32, "beta_slow": 1}  # what the library takes where a record has none
VOCABULARY = "vocab_size"


@dataclass(frozen=True)
class Inert:
    """A key that differs without an effect."""

    key: str
    source: Any
    result: Any
    reason: str


@dataclass(frozen=True)
class Difference:
    """A key that makes another function; `expected`: the source's value as the growth changes it."""

    key: str
    source: Any
    result: Any
    expected: Any


@dataclass(frozen=True)
class ConfigComparison:
    """What became of every key.

    equal     how many keys are equal
    raw       whether the files were compared as they are: the library cannot build a config from one of them
    """

    equal: int = 0
    mapped: tuple[str, ...] = ()
    inert: tuple[Inert, ...] = ()
    different: tuple[Difference, ...] = ()
    undecided: tuple[str, ...] = ()
    raw: bool = False

    @property
    def note(self) -> str:
        """What a reader should know of how the files were compared; empty where there is nothing."""
        return f"config.json: {RAW}" if self.raw else ""

    def to_json(self) -> dict[str, Any]:
        """Its part of a report."""
        return {
            "equal": self.equal,
            "mapped": list(self.mapped),
            "inert": [{"key": i.key, "source": i.source, "result": i.result, "reason": i.reason} for i in self.inert],
            "different": [{"key": d.key, "source": d.source, "result": d.result} for d in self.different],
            "undecided": list(self.undecided),
        }


def compare_configs(source: Checkpoint, result: Checkpoint, expected: Checkpoint | None = None) -> ConfigComparison:
    """Compare what the library reads of both config.json files.

    expected  the source after the growth on record, or after the inferred one; None: there are no maps
    Raises ArchitectureError where a model type has no table.
    """
    kinds = source.config.get("model_type"), result.config.get("model_type")
    if kinds[0] != kinds[1]:
        return ConfigComparison(different=(Difference("model_type", kinds[0], kinds[1], kinds[0]),))
    three = (source, expected or source, result)
    reads = [as_read(checkpoint.config) for checkpoint in three]
    raw = any(read is None for read in reads)
    before, wanted, found = (_side(c, None if raw else read) for c, read in zip(three, reads, strict=True))
    grown = None if expected else _growable(source.architecture) if _resized(source, result) else frozenset()
    equal, mapped, inert, different, undecided = 0, list[str](), list[Inert](), list[Difference](), list[str]()
    for key in sorted(before.settings.keys() | wanted.settings.keys() | found.settings.keys()):
        old, want, new = (side.value(key) for side in (before, wanted, found))
        if same(want, new):
            equal, mapped = (equal + 1, mapped) if same(old, new) else (equal, [*mapped, key])
        elif why := _reason(key, want, new, (wanted, found)):
            inert.append(Inert(key, old, new, why))
        elif key == VOCABULARY or (grown is not None and key.split(".")[0] in {*grown, "tie_word_embeddings"}):
            undecided.append(key)
        else:
            different.append(Difference(key, old, new, want))
    return ConfigComparison(equal, tuple(mapped), tuple(inert), tuple(different), tuple(undecided), raw)


def _side(checkpoint: Checkpoint, read: Mapping[str, Any] | None) -> Side:
    """One config: as the library reads it, or where that is None as its file has it."""
    table, given = checkpoint.architecture, checkpoint.resolved if read is None else read
    kind = str(checkpoint.config["model_type"])
    settings = flat({key: value for key, value in given.items() if not (table.rotary and key in ROPE)}, whole=WHOLE)
    # A null means what absence does only where the library's own default is null, too.
    nulls = given.keys() if read is None else {k for k, v in class_defaults(kind).items() if v is not None}
    settings |= {key: value for key, value in _filled(table, given) if key not in nulls}
    settings |= dict(_rope(table, given))
    settings["architectures"] = _class(checkpoint, kind)
    names = given.get("id2label")
    settings["num_labels"] = len(names) if isinstance(names, Mapping) else given.get("num_labels", 2)
    partial = table.rotary is not None and table.rotary.partial is not None
    return Side(kind, settings["architectures"], settings, checkpoint.has_head, partial)


def _filled(table: Architecture, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of what absent keys mean: sizes, and what the table has a default for."""
    for name, axis in table.axes.items():
        if axis.key and lookup(given, axis.key) is None:
            try:
                yield axis.key, table.size(given, name)
            except SourceError:  # then it stays absent
                continue
    for key in table.absent:
        if lookup(given, key) is None:
            try:
                yield key, table.value(given, key)
            except SourceError:
                continue


def _rope(table: Architecture, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of the completed rotary records, under one spelling."""
    if not table.rotary:
        return
    try:
        records = rope.records(given)
    except SourceError:
        yield from flat({key: given[key] for key in ROPE if key in given}).items()
        return
    for layer, record in records.items():
        at = ROPE[0] if layer is None else f"{ROPE[0]}.{layer}"
        yield from flat(_completed(record, given.get("max_position_embeddings")), f"{at}.").items()


def _completed(record: Mapping[str, Any], longest: Any) -> dict[str, Any]:
    """A record with what the library takes for what it lacks. Upstream: transformers/modeling_rope_utils.py."""
    absent = dict(YARN) if record["rope_type"] == "yarn" else {}
    original = record.get("original_max_position_embeddings")
    if record["rope_type"] in ("yarn", "longrope") and isinstance(original, int) and original and longest:
        absent["factor"] = longest / original
    return {**record, **{key: value for key, value in absent.items() if not record.get(key)}}


def _class(checkpoint: Checkpoint, kind: str) -> str:
    """The name of the transformers class that a checkpoint is run as."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = str(model_class(checkpoint).__name__)
    return str(MODEL_MAPPING_NAMES.get(kind, name)) if name == "AutoModel" else name


def _reason(key: str, want: Any, new: Any, sides: tuple[Side, Side]) -> str | None:
    """Why this key changes nothing; None where it may."""
    if isinstance(want, str) and isinstance(new, str) and any({want, new} <= names for names in SYNONYMS):
        return SYNONYM
    if why := reason(key, sides):
        return why
    first, read = key.split(".")[0], class_defaults(sides[0].model_type)
    if first in read or first in READ_BESIDE:
        return None
    if first in EFFECTIVE:
        return EMPTY if not any(value not in (ABSENT, None, False, {}, []) for value in (want, new)) else None
    return UNKNOWN


def _growable(table: Architecture) -> frozenset[str]:
    """The keys that a growth, by this program or by another, may change while sizes differ."""
    sized = [key for axis in table.axes.values() for key in (axis.key, axis.active, axis.groups, axis.when)]
    rotary = [*ROPE, table.rotary.size_key] if table.rotary else []
    factors = [key for key, _ in table.factors.values()] if table.factors else []
    keys = [*sized, *rotary, *factors, *table.factors, *table.equal]
    keys += [*table.counters.values(), *LISTS, "mlp_only_layers"]  # other layers have lists of their own
    keys += [table.eps, table.clip, table.softcap and table.softcap[0], *SCALINGS]
    return frozenset(key.split(".")[0] for key in keys if isinstance(key, str))


def _resized(source: Checkpoint, result: Checkpoint) -> bool:
    """Whether any size or number of layers differs, the vocabulary's aside."""
    counts = [
        {
            key: checkpoint.architecture.value(checkpoint.resolved, key)
            for key in checkpoint.architecture.counters.values()
        }
        for checkpoint in (source, result)
    ]
    (before, after), ignored = (source.sizes, result.sizes), {"vocab", "labels"}
    return counts[0] != counts[1] or any(after.get(axis) != before[axis] for axis in before.keys() - ignored)
