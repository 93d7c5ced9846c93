"""A new checkpoint from a config: every tensor lazy, drawn when it is written.

    blank("config.json") -> begin(..., Choices(std=0.02)) -> save

The tensors and their initial numbers are those of `transformers` (`library.py`); names and shapes must fit the family's
table. `Choices` replaces the library's numbers:

    std         0.02: the standard deviation of all random tensors. log-n-over-d: that of the tied embedding is
                (log n) / d, so that the first loss is near log n (Su Jianlin, https://spaces.ac.cn/archives/9698)
    truncated   cut at two deviations, as BERT's: 0.02 is really 0.0176 (https://spaces.ac.cn/archives/8747)
    residual    the deviation of matrices that write to the residual stream of L layers of width d:
                gpt2  std / sqrt(2 L)  Radford et al. 2019, section 2.3
                wang  2 / (L sqrt d)   Wang and Komatsuzaki's GPT-J; Black et al. 2022, arXiv 2204.06745
                none  std, even where the library has another
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
from modelsurgeon.architectures.config import INERT
from modelsurgeon.architectures.template import Template
from modelsurgeon.architectures.values import check_settings
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
    """How tensors begin; None: as in the library."""

    std: str | None = None  # a number, or "log-n-over-d"
    distribution: str | None = None  # normal or truncated
    residual: str | None = None  # none, gpt2 or wang
    dtype: str | None = None  # the dtype of stored tensors; None: the config's, else float32
    seed: int = 0

    def check(self) -> None:
        """Raise PlanError for an unknown value."""
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
        """`std` where it is a number above 0."""
        try:
            value = float(self.std or "nan")
        except ValueError:
            return None
        return value if 0 < value < math.inf else None

    def to_json(self) -> dict[str, Any]:
        return {"std": self.std, "distribution": self.distribution, "residual": self.residual}


class Nowhere(Folder):
    """The folder of a checkpoint that is only a config: it has no files."""

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
    """A checkpoint without tensors from a config, a config.json, a folder or a Hub id.

    Keys that the table needs and the config leaves out get the library's defaults. Raises SourceError,
    ArchitectureError as opening a checkpoint does.
    """
    config = dict(source) if isinstance(source, Mapping) else read_config_of(source)
    name = "a config" if isinstance(source, Mapping) else str(source)
    if quantised.in_config(config):
        raise SourceError(f"{name}: {quantised.refusal(config, set())}")
    table = registry.find(config.get("model_type"))
    check_settings(config, table)
    known, given = as_read(config) or {}, {*config, *(table.aliases[key] for key in config if key in table.aliases)}
    wanted = table.accounted_keys - INERT - given
    missing = {key: value for key, value in known.items() if key in wanted and value is not None}
    model = {} if config.get("architectures") else {"architectures": [table.model]}
    return Checkpoint({**config, **missing, **model}, {}, {}, Origin(name, Nowhere()))


def begin(checkpoint: Checkpoint, choices: Choices) -> Checkpoint:
    """The blank checkpoint with all its tensors, lazily.

    Raises PlanError for choices that this model does not allow, SourceError where the library cannot build the model,
    ArchitectureError where the family's table has other tensors.
    """
    choices.check()
    config, key = checkpoint.config, dtype_key(checkpoint.config)
    config = {**config, key: choices.dtype or config.get(key) or "float32"}
    named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    if named not in DTYPE_NAMES:
        raise SourceError(f"config.json: dtype is {named!r}, expected one of {', '.join(DTYPE_NAMES)}; or give --dtype")
    dtype, text = DTYPE_NAMES[named], json.dumps(checkpoint.config, sort_keys=True)
    identity = {"id": checkpoint.origin.id, "config": blake3(text.encode()).hexdigest()}
    step = Step("init", choices.to_json(), identity, choices.seed)
    library = starts(checkpoint)
    empty = {name: Drawn(start.shape, dtype, 0.0) for name, start in library.items()}
    shaped = replace(checkpoint, config=config, tensors=empty, steps=(step,))
    notes = check(shaped)
    changed = _changed(shaped, library, choices)
    tensors = {name: _drawn(shaped, name, start, dtype, choices.seed) for name, start in changed.items()}
    chosen = [f"{option} {value}" for option, value in choices.to_json().items() if value is not None]
    origin = f"{', '.join(chosen)}; all else as transformers" if chosen else "as transformers"
    random = f"random numbers: {origin} (seed {choices.seed})"
    notes = (*notes, random, "no tokenizer is written: put one beside it to use text")
    return replace(shaped, tensors=tensors, notes=notes)


def _drawn(checkpoint: Checkpoint, name: str, start: Start, dtype: str, seed: int) -> LazyTensor:
    if start.table is not None:
        return Formula(start.table.float(), dtype)
    key = f"{seed}/{checkpoint.architecture.canonical(name)}"
    return Drawn(start.shape, dtype, start.deviation, key, start.cut, start.mean, start.zeros)


def _changed(checkpoint: Checkpoint, library: Mapping[str, Start], choices: Choices) -> dict[str, Start]:
    """How each tensor begins with the choices in the place of the library's numbers."""
    changed, base = dict(library), choices.number or configured_deviation(checkpoint.resolved)
    for name, start in library.items():
        if not start.deviation:
            continue
        template = checkpoint.architecture.template(name)
        assert template is not None  # `check` would have refused it
        if choices.number is not None:
            start = replace(start, deviation=choices.number)
        if choices.residual is not None and (stream := _residual_stream(checkpoint, template)):
            start = replace(start, deviation=RESIDUAL[choices.residual](base, *stream))
        if choices.distribution is not None:
            start = replace(start, cut=DISTRIBUTIONS[choices.distribution])
        changed[name] = start
    if choices.std == LOG_N_OVER_D:
        path = find_path(checkpoint)
        if path is None or not path.tied:
            raise PlanError(f"--std {LOG_N_OVER_D} is for an embedding that is the head too; this config ties none")
        vocab, width = checkpoint.tensors[path.embedding].shape
        deviation = deviation_for_uniform(vocab, width, path.factor)
        changed[path.embedding] = replace(changed[path.embedding], deviation=deviation)
    return changed


def _residual_stream(checkpoint: Checkpoint, template: Template) -> tuple[int, int] | None:
    """(layers, width) of the residual stream that a layer's matrix writes to; None where it writes to none."""
    table, signature = checkpoint.architecture, template.signature
    counters = [table.counters[name] for name in template.placeholders if name in table.counters]
    if not counters or signature.normalises or len(signature.written) == len(signature.dimensions):
        return None
    for axis in (axis for part, _ in signature.written for axis in part.axes()):
        kind = kind_of(table.axes[axis])
        if kind.spans_layers and not kind.unit_scale:
            return int(table.value(checkpoint.resolved, counters[0])), checkpoint.sizes[axis]
    return None


def deviation_for_uniform(vocab: int, width: int, factor: float = 1.0) -> float:
    """The standard deviation (log n) / (d f) of a tied embedding, from which the loss starts near log n."""
    return math.log(vocab) / (width * factor)
