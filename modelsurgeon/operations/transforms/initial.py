"""A new checkpoint from a config: every tensor lazy, drawn when it is written.

    blank("config.json") -> begin(..., Choices(std=0.02)) -> save

Which tensors there are, and how each begins, is what `transformers` itself would make (`library.py`); names and shapes
must be those of the family's table. `Choices` puts other numbers in the place of the library's.

    deviation   --std 0.02: of all that is random. log-n-over-d: of the tied embedding, (log n) / d, with which a model
                starts near the loss log n (Su Jianlin, https://spaces.ac.cn/archives/9698)
    truncated   cut at two deviations, as BERT's: 0.02 is really 0.0176 (https://spaces.ac.cn/archives/8747)
    residual    of matrices that write to the residual stream of L layers of width d:
                gpt2  std / sqrt(2 L)  Radford et al. 2019, section 2.3
                wang  2 / (L sqrt d)   Wang and Komatsuzaki's GPT-J; Black et al. 2022, arXiv 2204.06745
                none  std, where the library has another
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.config import INERT
from modelsurgeon.architectures.template import Template
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.head_path import find_path
from modelsurgeon.checkpoints.record import Origin, Step
from modelsurgeon.checkpoints.source import read_config_of
from modelsurgeon.errors import PlanError, SourceError
from modelsurgeon.files.file import File, Folder
from modelsurgeon.growth.kinds.kind import kind_of
from modelsurgeon.growth.remap import dtype_key
from modelsurgeon.operations.transforms.fresh_heads import configured_deviation
from modelsurgeon.operations.transforms.library import Start, starts
from modelsurgeon.running.settings import as_read
from modelsurgeon.tensors import quantised
from modelsurgeon.tensors.dtypes import DTYPE_NAMES
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.random.drawn import TRUNCATED, Drawn, Formula

LOG_N_OVER_D = "log-n-over-d"
DISTRIBUTIONS: Mapping[str, float | None] = {"normal": None, "truncated": TRUNCATED}
RESIDUAL: Mapping[str, Callable[[float, int, int], float]] = {  # (deviation, layers, width) -> deviation
    "none": lambda std, layers, width: std,
    "gpt2": lambda std, layers, width: std / math.sqrt(2 * layers),
    "wang": lambda std, layers, width: 2 / (layers * math.sqrt(width)),
}


@dataclass(frozen=True)
class Choices:
    """What is asked for; None: as the library has it.

    std           a number, or "log-n-over-d"
    distribution  normal or truncated
    residual      none, gpt2 or wang
    dtype         what tensors are stored in; None: the config's, else float32
    """

    std: str | None = None
    distribution: str | None = None
    residual: str | None = None
    dtype: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise PlanError for a value that is not among the known ones."""
        if self.std not in (None, LOG_N_OVER_D) and self.number is None:
            raise PlanError(f"std {self.std!r}, expected a number above 0, or {LOG_N_OVER_D}")
        for what, value, known in (
            ("distribution", self.distribution, DISTRIBUTIONS),
            ("residual", self.residual, RESIDUAL),
            ("dtype", self.dtype, DTYPE_NAMES),
        ):
            if value is not None and value not in known:
                raise PlanError(f"{what} {value!r}, expected one of {', '.join(known)}")

    @property
    def number(self) -> float | None:
        """The deviation asked for, where it is a number above 0."""
        try:
            value = float(self.std or "nan")
        except ValueError:
            return None
        return value if 0 < value < math.inf else None

    def to_json(self) -> dict[str, Any]:
        return {"std": self.std, "distribution": self.distribution, "residual": self.residual}


class Nowhere(Folder):
    """The folder of a checkpoint of which there is only a config: it has no files."""

    path: Path | None = None

    def names(self) -> list[str]:
        return []

    def file(self, name: str, why: str = "") -> File:
        raise SourceError(f"no {name}{why}")

    def fetch(self, names: list[str]) -> None:
        """There are none."""

    def __str__(self) -> str:
        return "a config"


def blank(source: str | Path | Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a config.json, a folder or a Hub id with no tensor yet. What the config leaves out, and the
    table needs, is the library's default. Raises SourceError, ArchitectureError as opening a checkpoint does."""
    config = dict(source) if isinstance(source, Mapping) else read_config_of(source)
    name = "a config" if isinstance(source, Mapping) else str(source)
    if quantised.in_config(config):
        raise SourceError(f"{name}: {quantised.refusal(config, set())}")
    table = registry.find(config.get("model_type"))
    known, given = as_read(config) or {}, {*config, *(table.aliases[key] for key in config if key in table.aliases)}
    wanted = table.accounted_keys - INERT - given
    missing = {key: value for key, value in known.items() if key in wanted and value is not None}
    named = {} if config.get("architectures") else {"architectures": [table.model]}
    return Checkpoint({**config, **missing, **named}, {}, {}, Origin(name, Nowhere()))


def begin(checkpoint: Checkpoint, choices: Choices) -> Checkpoint:
    """The blank checkpoint with all its tensors, lazily.

    Raises PlanError for choices that make no sense here, SourceError where the library cannot build the model,
    ArchitectureError where the family's table has other tensors.
    """
    choices.check()
    config, key = checkpoint.config, dtype_key(checkpoint.config)
    config = {**config, key: choices.dtype or config.get(key) or "float32"}
    dtype, text = _stored_dtype(config), json.dumps(checkpoint.config, sort_keys=True)
    identity = {"id": checkpoint.origin.id, "config": blake3(text.encode()).hexdigest()}
    step = Step("init", choices.to_json(), identity, choices.seed)
    found = starts(checkpoint)
    empty = {name: Drawn(start.shape, dtype, 0.0) for name, start in found.items()}
    shaped = replace(checkpoint, config=config, tensors=empty, steps=(step,))
    notes = check(shaped)
    changed = _changed(shaped, found, choices)
    tensors = {name: _drawn(shaped, name, start, dtype, choices.seed) for name, start in changed.items()}
    return replace(shaped, tensors=tensors, notes=(*notes, *_notes(choices)))


def _drawn(checkpoint: Checkpoint, name: str, start: Start, dtype: str, seed: int) -> LazyTensor:
    if start.table is not None:
        return Formula(start.table.float(), dtype)
    key = f"{seed}/{checkpoint.architecture.canonical(name)}"
    return Drawn(start.shape, dtype, start.deviation, key, start.cut, start.mean, start.zeros)


def _changed(checkpoint: Checkpoint, found: Mapping[str, Start], choices: Choices) -> dict[str, Start]:
    """How each tensor begins with the choices in the place of what the library does."""
    table, made = checkpoint.architecture, dict(found)
    base = choices.number or configured_deviation(checkpoint.resolved)
    for name, start in found.items():
        if not start.deviation:
            continue
        template = table.template(name)
        assert template is not None  # `check` would have refused it
        if choices.number is not None:
            start = replace(start, deviation=choices.number)
        if choices.residual is not None and (layers := layers_behind(checkpoint, template)):
            width = checkpoint.sizes[_streams(table, template)[0]]
            start = replace(start, deviation=RESIDUAL[choices.residual](base, layers, width))
        if choices.distribution is not None:
            start = replace(start, cut=DISTRIBUTIONS[choices.distribution])
        made[name] = start
    if choices.std == LOG_N_OVER_D:
        name, deviation = _for_uniform(checkpoint)
        made[name] = replace(made[name], deviation=deviation)
    return made


def _for_uniform(checkpoint: Checkpoint) -> tuple[str, float]:
    """(the tied embedding, the deviation that makes the loss start near log n). Raises PlanError where none is tied."""
    path = find_path(checkpoint)
    if path is None or not path.tied:
        raise PlanError(f"--std {LOG_N_OVER_D} is for an embedding that is the head too; this config ties none")
    vocab, width = checkpoint.tensors[path.embedding].shape
    return path.embedding, deviation_for_uniform(vocab, width, path.factor)


def layers_behind(checkpoint: Checkpoint, template: Template) -> int:
    """How many layers write to the residual stream with such a matrix; 0 where it writes to none."""
    table = checkpoint.architecture
    counters = [counter for counter in template.placeholders if counter in table.counters]
    if not counters or not _streams(table, template):
        return 0
    return int(table.value(checkpoint.resolved, table.counters[counters[0]]))


def _streams(table: Architecture, template: Template) -> list[str]:
    """The residual axes that a matrix writes to."""
    signature = template.signature
    if signature.normalises or len(signature.written) == len(signature.dimensions):
        return []
    kinds = {axis: kind_of(table.axes[axis]) for part, _ in signature.written for axis in part.axes()}
    return [axis for axis, kind in kinds.items() if kind.spans_layers and not kind.unit_scale]


def _stored_dtype(config: Mapping[str, Any]) -> str:
    named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    if named not in DTYPE_NAMES:
        raise SourceError(f"config.json: dtype is {named!r}, expected one of {', '.join(DTYPE_NAMES)}; or give --dtype")
    return DTYPE_NAMES[named]


def _notes(choices: Choices) -> tuple[str, ...]:
    chosen = [f"{what} {value}" for what, value in choices.to_json().items() if value is not None]
    how = f"{', '.join(chosen)}; all else as transformers" if chosen else "as transformers"
    return (f"random numbers: {how} (seed {choices.seed})", "no tokenizer is written: put one beside it to use text")


def deviation_for_uniform(vocab: int, width: int, factor: float = 1.0) -> float:
    """The standard deviation (log n) / (d f), at which a tied model starts near log n."""
    return math.log(vocab) / (width * factor)
