"""A checkpoint: a config, tensors that are not read yet, side files, and the operations so far.

    open_checkpoint(source) -> transform -> ... -> save

A transform takes a checkpoint and returns another, lazily: the result *is* the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.architectures.values import check_settings
from modelsurgeon.checkpoints.prefixes import refuse_prefix
from modelsurgeon.checkpoints.record import RECORD, Origin, Step, read_record
from modelsurgeon.checkpoints.source import locate
from modelsurgeon.checkpoints.weight_files import (
    CONFIG,
    INDEX,
    SINGLE,
    WeightFiles,
    config_file,
    unread,
    weight_files,
    without_paths,
)
from modelsurgeon.errors import FieldError, ModelSurgeonError, SourceError
from modelsurgeon.files.file import File, Folder
from modelsurgeon.files.json_file import OF_CONFIGS, read_json, shortened
from modelsurgeon.files.safetensors_file import read_entries
from modelsurgeon.tensors import quantised
from modelsurgeon.tensors.dtypes import FLOATS
from modelsurgeon.tensors.lazy import LazyTensor
from modelsurgeon.tensors.stored import Stored, read_header
from modelsurgeon.text import shown

__all__ = ["INDEX", "SINGLE", "Checkpoint", "open_checkpoint", "open_folder", "read_config", "read_tensors"]

CARRIED = re.compile(
    r"(tokenizer|vocab|merges|spiece|sentencepiece|special_tokens_map|added_tokens|generation_config|chat_template"
    r"|preprocessor_config|processor_config|LICEN[CS]E|NOTICE|USE_POLICY)[\w.-]*"
    r"|[\w.-]+\.(jinja|tiktoken|model|spm)",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One checkpoint, on disk or planned.

    config       config.json as it is, unknown keys included; without the key that names weights
    tensors      {name on disk: lazy tensor}
    side_files   {name: file}: tokenizer, generation config, templates, licence ...
    origin       where it was read from
    steps        the operations since its root, oldest first
    notes        what a user should know about this plan: choices, and what is not exact
    lossy        the reasons why the last operation's result is not the same function
    config_file  the file that the config was read from, as it was then
    weights      the files that its tensors, or those of its source, were read from; None for a new model
    misrecorded  what cannot be right in its record, which then tells no steps; empty where nothing is
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]
    side_files: Mapping[str, File]
    origin: Origin
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()
    config_file: File | None = None
    weights: WeightFiles | None = None
    misrecorded: str = ""

    def __repr__(self) -> str:
        return f"Checkpoint({self.origin.id!r}, {self.config.get('model_type')}, {len(self.tensors)} tensors)"

    @cached_property
    def architecture(self) -> Architecture:
        """The table of its model type. Raises ArchitectureError for an unknown one."""
        table = registry.find(self.config.get("model_type"))
        return table.fitted(table.resolve(self.config), self.tensors)

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The config as the library reads it."""
        return self.architecture.resolve(self.config)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """{axis: size}."""
        return self.architecture.sizes(self.resolved)

    @property
    def dtype(self) -> str:
        """The narrowest dtype that matrices are stored in: it decides which rule loses nothing."""
        dtypes = [t.dtype for t in self.tensors.values() if t.dtype in FLOATS and len(t.shape) > 1]
        return min(dtypes or ["F32"], key=FLOATS.index)

    @property
    def parameters(self) -> int:
        """How many numbers it stores."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes that its tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def without_record(self) -> Checkpoint:
        """The checkpoint as if nothing were on record."""
        return replace(self, steps=(), misrecorded="")

    def on_disk(self, template: str) -> str:
        """The name on disk of a tensor (in the table's spelling); that spelling where the tensor does not exist yet."""
        return next((name for name in self.tensors if self.architecture.canonical(name) == template), template)

    @property
    def files(self) -> list[File]:
        """The files that are read: config.json, those of its tensors, and the side files."""
        stored = [tensor.stored for tensor in self.tensors.values() if tensor.stored]
        weights = {tensor.file.name: tensor.file for tensor in stored}
        return [*filter(None, [self.config_file]), *weights.values(), *self.side_files.values()]

    def fetch(self) -> bool:
        """Download it, unless it is streamed; returns whether it is on a local disk now."""
        self.origin.folder.fetch([file.name for file in self.files])
        return self.origin.folder.path is not None

    def has(self, template: str) -> bool:
        """Whether it has a tensor of this name (in the table's spelling)."""
        return template in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(map(self.architecture.canonical, self.tensors))

    @cached_property
    def templates(self) -> frozenset[str]:
        """The templates of its tensors."""
        return frozenset(found.name for found in map(self.architecture.template, self.tensors) if found)

    @property
    def has_head(self) -> bool:
        """Whether the model has an output head that can be tied to its embedding."""
        tie = self.architecture.tie
        if tie is None:
            return False
        if self.has(tie.head):
            return True
        if tie.requires:
            return self.has(tie.requires)
        model_class = (self.config.get("architectures") or [self.architecture.model])[0]
        heads = ("CausalLM", "MaskedLM", "LMHead", "ConditionalGeneration", "PreTraining")
        return any(head in str(model_class) for head in heads)

    @property
    def is_tied(self) -> bool:
        """Whether one tensor serves, or may serve when loaded, as embedding and as head."""
        tie = self.architecture.tie
        if tie is None or not self.has_head:
            return False
        return bool(tie.forced or tie.refused or self.architecture.value(self.resolved, "tie_word_embeddings"))

    @property
    def not_judged(self) -> tuple[str, ...]:
        """A note on weights in its folder that `from_pretrained` does not read by default, if there are any."""
        names = unread(self.origin.folder, self.weights) if self.weights else ()
        return (f"not judged, for transformers reads them by no default: {', '.join(names)}",) if names else ()

    def summary(self) -> dict[str, Any]:
        """Its revision, model, dtype and sizes, by its headers: what documents of commands hold."""
        return {
            "revision": self.origin.revision,
            "model_type": self.config.get("model_type"),
            "model": (self.config.get("architectures") or [None])[0],
            "dtype": self.dtype,
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "sizes": dict(self.sizes),
        }


def open_checkpoint(source: str | Path, revision: str | None = None, *, stream: bool = False) -> Checkpoint:
    """Open a folder, a Hub id or `demo`, reading headers only. Raises SourceError where it cannot be read."""
    return open_folder(locate(source, revision, stream=stream))


def open_folder(origin: Origin) -> Checkpoint:
    """Open a folder that was located. Raises SourceError where it cannot be read, or is two models."""
    folder = origin.folder
    steps, misrecorded = _steps(folder)
    opened = config_file(folder)  # its stamp is taken before it is read
    config = read_config(folder)
    weights = weight_files(folder, config)
    tensors = read_tensors(folder, weights)
    side_files = {name: folder.file(name) for name in folder.names() if is_carried(name)}
    config = without_paths(opened, config)
    found = Checkpoint(
        config, tensors, side_files, origin, steps, config_file=opened, weights=weights, misrecorded=misrecorded
    )
    check_names(found)
    return found


def check_names(checkpoint: Checkpoint) -> None:
    """Raise SourceError where tensors have names of a wrapper around the model (`prefixes.py`)."""
    fit: Callable[[Iterable[str]], Architecture] | None = None
    with suppress(ModelSurgeonError):  # an unknown family, or a config that makes no sense to its table
        checkpoint.architecture  # noqa: B018
        table = registry.find(checkpoint.config.get("model_type"))
        fit = partial(table.fitted, table.resolve(checkpoint.config))
    refuse_prefix(checkpoint.origin.folder, checkpoint.tensors, fit)


def _steps(folder: Folder) -> tuple[tuple[Step, ...], str]:
    """(the steps on record, what cannot be right in the record)."""
    try:
        return read_record(folder.file(RECORD)) if folder.holds(RECORD) else (), ""
    except FieldError as error:
        return (), str(error)


def read_config(folder: Folder) -> dict[str, Any]:
    """config.json.

    Raises SourceError where it is absent, no JSON object, or that of a quantised checkpoint, and for a value that its
    key cannot have.
    """
    config = read_json(config_file(folder), OF_CONFIGS)
    if quantised.in_config(config):
        raise SourceError(f"{folder}: {quantised.refusal(config, _dtypes(folder))}")
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        found = shortened(classes)
        raise SourceError(f"{folder}: config.json: architectures is {found}, expected a list of class names")
    if config.get("model_type") in registry.known():
        check_settings(config, registry.find(config["model_type"]))
    return config


def _dtypes(folder: Folder) -> set[str]:
    """The dtypes of the first file, as far as it can be read."""
    names = [name for name in folder.names() if name.endswith(".safetensors")]
    try:
        return {entry.dtype for entry in read_entries(folder.file(names[0])).values()} if names else set()
    except SourceError:
        return set()


def read_tensors(folder: Folder, weights: WeightFiles) -> dict[str, Stored]:
    """{name: tensor} of the files that make a folder's model. Raises SourceError where they contradict their index."""
    if not weights.index:
        return read_header(folder.file(weights.names[0]))
    index, weight_map = folder.file(weights.index), weights.weight_map
    tensors: dict[str, Stored] = {}
    for shard in map(folder.file, weights.names):
        for name, stored in read_header(shard).items():
            if weight_map.get(name) != shard.name:
                place = repr(weight_map[name]) if name in weight_map else "no file"
                raise SourceError(f"{index}: tensor {name!r} lies in {shard.name}, and the index names {place}")
            tensors[name] = stored
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise SourceError(f"{index}: tensor {missing[0]!r} is not in {weight_map[missing[0]]}, which the index names")
    return tensors


def is_carried(name: str) -> bool:
    """Whether a file is copied unchanged; code never is."""
    return bool(CARRIED.fullmatch(name)) and not name.endswith(".py")


def left_behind(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The files of a checkpoint's folder that are neither read nor copied, other weights among them."""
    weights = checkpoint.weights
    read = {*weights.names, weights.index} if weights else {file.name for file in checkpoint.files}
    known = {*read, CONFIG, "README.md", RECORD}
    others = (name for name in checkpoint.origin.folder.names() if name not in known and not is_carried(name))
    return tuple(shown(name) for name in others if not name.startswith((".", "__")))
