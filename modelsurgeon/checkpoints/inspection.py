"""What config and headers show of any checkpoint; nothing that can be read is refused.

Tensors are grouped by template: the table's or, where none fits, their names with every number as {n}. The inspection
also names what `check` would refuse first, and what no table accounts for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.checkpoints.changes import flat
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import Checkpoint, check_names, read_config, read_tensors
from modelsurgeon.checkpoints.source import locate
from modelsurgeon.checkpoints.weight_files import INDEX, config_file, unread, weight_files, without_paths
from modelsurgeon.errors import AmbiguousError, ModelSurgeonError, SourceError
from modelsurgeon.files.file import Folder
from modelsurgeon.files.json_file import OF_CONFIGS, read_json
from modelsurgeon.files.safetensors_file import Entry, read_entries
from modelsurgeon.tensors.stored import Stored

T = TypeVar("T")
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Group:
    """The tensors of one template.

    signature  the table's; "recomputed" where the library computes them; empty where no table accounts for them
    """

    template: str
    signature: str
    count: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """What can be seen of one checkpoint.

    known    whether its model type has a table
    axes     {axis: {"size", "key", "through"}}, where a table fits
    numbers  {config key: whole number}, dotted where nested
    tied     whether the head is the embedding; None where that is unknown
    tensors  those that no table accounts for
    keys     config keys that no table accounts for
    unread   weights in the folder that transformers does not read by default
    refused  the first reason why `check` refuses it; empty where it passes
    """

    source: str
    revision: str | None
    model_type: str | None
    model: str | None
    known: bool
    axes: Mapping[str, Mapping[str, Any]]
    numbers: Mapping[str, int]
    groups: tuple[Group, ...]
    parameters: int
    bytes: int
    tied: bool | None
    tensors: tuple[str, ...]
    keys: tuple[str, ...]
    unread: tuple[str, ...]
    refused: str

    def to_json(self) -> dict[str, Any]:
        """The document of `inspect`."""
        return asdict(self)


def inspect(source: str | Path, revision: str | None = None) -> Inspection:
    """Read config and headers; of a Hub id only those.

    Raises SourceError without a config, AmbiguousError where the files are two models.
    """
    origin = locate(source, revision, weights=False)
    config = read_json(config_file(origin.folder), OF_CONFIGS)
    headers, left, problem = _headers(origin.folder, config)
    stored = {name: Stored(header.file, header.dtype, header.shape, 0) for name, header in headers.items()}
    checkpoint = Checkpoint(config, stored, {}, origin)
    table = _known(lambda: checkpoint.architecture)
    templates = {name: _template(name, table) for name in headers}
    groups = tuple(_groups(headers, templates))
    classes = config.get("architectures")
    numbers = {key: value for key, value in flat(config) if type(value) is int and not key.endswith("_token_id")}
    flag = checkpoint.is_tied if table else config.get("tie_word_embeddings")
    return Inspection(
        source=origin.id,
        revision=origin.revision,
        model_type=config.get("model_type"),
        model=str(classes[0]) if isinstance(classes, list) and classes else table.model if table else None,
        known=table is not None,
        axes=_axes(checkpoint) if table else {},
        numbers=numbers,
        groups=groups,
        parameters=sum(group.parameters for group in groups),
        bytes=sum(group.bytes for group in groups),
        tied=flag if isinstance(flag, bool) else None,
        tensors=tuple(name for name, (_, signature) in templates.items() if table and not signature),
        keys=tuple(sorted(set(config) - table.accounted_keys)) if table else (),
        unread=left,
        refused=problem or _refusal(checkpoint),
    )


def _known(value: Callable[[], T]) -> T | None:
    """A value; None where it cannot be known."""
    try:
        return value()
    except ModelSurgeonError:
        return None


def _refusal(checkpoint: Checkpoint) -> str:
    folder = checkpoint.origin.folder
    try:
        config = read_config(folder)
        without_paths(folder, config)
        if checkpoint.tensors:
            read_tensors(folder, weight_files(folder, config))
            check_names(checkpoint)
        check(checkpoint)
    except ModelSurgeonError as error:
        return str(error)
    return ""


def _axes(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """{axis: {"size", "key", "through"}}, with sizes as far as the config has them."""
    table = checkpoint.architecture
    sizes = {name: _known(partial(table.size, checkpoint.resolved, name)) for name in table.axes}
    return {name: {"size": sizes[name], "key": axis.key, "through": axis.through} for name, axis in table.axes.items()}


# --- tensors ---------------------------------------------------------------------------------------------------------


def _groups(headers: Mapping[str, Entry], templates: Mapping[str, tuple[str, str]]) -> Iterator[Group]:
    members: dict[tuple[str, str], list[Entry]] = {}
    for name, key in templates.items():
        members.setdefault(key, []).append(headers[name])
    for (template, signature), entries in members.items():
        shapes = dict.fromkeys(entry.shape for entry in entries)
        dtypes = dict.fromkeys(entry.dtype for entry in entries)
        parameters = sum(prod(entry.shape) for entry in entries)
        nbytes = sum(entry.nbytes for entry in entries)
        yield Group(template, signature, len(entries), tuple(shapes), tuple(dtypes), parameters, nbytes)


def _template(name: str, table: Architecture | None) -> tuple[str, str]:
    """(template, signature): the table's, or the name with its numbers as {n}."""
    collapsed = NUMBER.sub("{n}", name)
    try:
        template = table.template(name) if table else None
    except ModelSurgeonError:
        return collapsed, ""
    if template is None:
        return collapsed, "recomputed" if table else ""
    return template.name, template.signature.text


# --- headers ---------------------------------------------------------------------------------------------------------


def _headers(folder: Folder, config: Mapping[str, Any]) -> tuple[dict[str, Entry], tuple[str, ...], str]:
    """({tensor: header}, weights that are not read, the first error in reading them).

    Raises AmbiguousError where the files are two models.
    """
    names: Iterable[str]
    left, problem = tuple[str, ...](), ""
    try:
        weights = weight_files(folder, config)
        names, left = weights.names, unread(folder, weights)
    except AmbiguousError:
        raise
    except SourceError as error:  # transformers loads none: all are shown
        problem, names = str(error), _others(folder)
    headers: dict[str, Entry] = {}
    for name in names:
        try:
            headers |= read_entries(folder.file(name))
        except SourceError as error:
            problem = problem or str(error)
    return headers, left, problem


def _others(folder: Folder) -> list[str]:
    """Every safetensors file, unless an index says which of them are meant."""
    return [] if folder.holds(INDEX) else [name for name in folder.names() if name.endswith(".safetensors")]
