"""What config and headers show of any checkpoint; nothing that can be read is refused.

Tensors are grouped by template: the table's or, where none fits, their names with every number as {n}. The inspection
also names what `check` would refuse first, and what no table accounts for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from modelsurgeon.architectures.architecture import Architecture
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import INDEX, SINGLE, Checkpoint, read_config, read_tensors
from modelsurgeon.checkpoints.source import locate
from modelsurgeon.errors import ModelSurgeonError, SourceError
from modelsurgeon.files.file import Folder
from modelsurgeon.files.json_file import OF_CONFIGS, OF_INDICES, read_json
from modelsurgeon.files.safetensors_file import Entry, read_entries
from modelsurgeon.tensors.stored import Stored

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Group:
    """The tensors of one template.

    signature  the table's; empty where no table accounts for them, "recomputed" where the library computes them
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
    """One checkpoint.

    known       whether its model type has a table
    axes        {axis: {"size", "key", "through"}}, where a table fits
    numbers     {config key: whole number}, dotted where nested
    tied        whether the head is the embedding; None where that is unknown
    tensors     tensors that no table accounts for
    keys        config keys that no table accounts for
    refused     why it could not be operated on, the first reason; empty where `check` passes
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
    refused: str

    def to_json(self) -> dict[str, Any]:
        """The document of `inspect`."""
        return asdict(self)


def inspect(source: str | Path, revision: str | None = None) -> Inspection:
    """Read config and headers; of a Hub id only those. Raises SourceError where there is neither."""
    origin = locate(source, revision, weights=False)
    config = read_json(origin.folder.file("config.json"), OF_CONFIGS)
    headers, problem = _headers(origin.folder)
    stored = {name: Stored(header.file, header.dtype, header.shape, 0) for name, header in headers.items()}
    checkpoint = Checkpoint(config, stored, {}, origin)
    table = _table(checkpoint)
    groups = tuple(_groups(headers, table))
    kinds = config.get("architectures")
    return Inspection(
        source=origin.id,
        revision=origin.revision,
        model_type=config.get("model_type"),
        model=str(kinds[0]) if isinstance(kinds, list) and kinds else table.model if table else None,
        known=table is not None,
        axes=_axes(checkpoint) if table else {},
        numbers=dict(_numbers(config)),
        groups=groups,
        parameters=sum(group.parameters for group in groups),
        bytes=sum(group.bytes for group in groups),
        tied=_tied(checkpoint, table),
        tensors=tuple(name for name in headers if table and not _accounts_for(table, name)),
        keys=tuple(sorted(set(config) - table.accounted_keys)) if table else (),
        refused=problem or _refusal(checkpoint),
    )


def _table(checkpoint: Checkpoint) -> Architecture | None:
    try:
        return checkpoint.architecture
    except ModelSurgeonError:
        return None


def _refusal(checkpoint: Checkpoint) -> str:
    folder = checkpoint.origin.folder
    try:
        read_config(folder)
        if _weights(folder):
            read_tensors(folder)
        check(checkpoint)
    except ModelSurgeonError as error:
        return str(error)
    return ""


def _tied(checkpoint: Checkpoint, table: Architecture | None) -> bool | None:
    if table:
        return checkpoint.is_tied
    flag = checkpoint.config.get("tie_word_embeddings")
    return flag if isinstance(flag, bool) else None


def _axes(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """{axis: {"size", "key", "through"}}, with sizes as far as the config has them."""
    table, found = checkpoint.architecture, {}
    for name, axis in table.axes.items():
        try:
            size: int | None = table.size(checkpoint.resolved, name)
        except ModelSurgeonError:
            size = None
        found[name] = {"size": size, "key": axis.key, "through": axis.through}
    return found


def _numbers(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int) and not isinstance(value, bool) and not key.endswith("_token_id"):
            yield prefix + key, value


# --- tensors ---------------------------------------------------------------------------------------------------------


def _groups(headers: Mapping[str, Entry], table: Architecture | None) -> Iterator[Group]:
    names: dict[tuple[str, str], list[str]] = {}
    for name in headers:
        names.setdefault(_template(name, table), []).append(name)
    for (template, signature), members in names.items():
        found = [headers[name] for name in members]
        yield Group(
            template,
            signature,
            len(found),
            _distinct(header.shape for header in found),
            _distinct(header.dtype for header in found),
            sum(prod(header.shape) for header in found),
            sum(header.nbytes for header in found),
        )


def _distinct(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _template(name: str, table: Architecture | None) -> tuple[str, str]:
    """(template, signature): the table's, or the name with its numbers as {n}."""
    collapsed = NUMBER.sub("{n}", name)
    if table is None or not _accounts_for(table, name):
        return collapsed, ""
    template = table.template(name)
    return (template.name, template.signature.text) if template else (collapsed, "recomputed")


def _accounts_for(table: Architecture, name: str) -> bool:
    try:
        table.template(name)
    except ModelSurgeonError:
        return False
    return True


# --- headers ---------------------------------------------------------------------------------------------------------


def _headers(folder: Folder) -> tuple[dict[str, Entry], str]:
    """({tensor: header}, the first error in reading them)."""
    try:
        names = _weights(folder)
    except SourceError as error:  # of the index
        return {}, str(error)
    found: dict[str, Entry] = {}
    problem = "" if names else f"{folder}: no safetensors"
    for name in names:
        try:
            found |= read_entries(folder.file(name))
        except SourceError as error:
            problem = problem or str(error)
    return found, problem


def _weights(folder: Folder) -> list[str]:
    """The safetensors files: those of the index, the single one, or all."""
    names = [name for name in folder.names() if name.endswith(".safetensors")]
    if folder.holds(INDEX):
        named = read_json(folder.file(INDEX), OF_INDICES).get("weight_map")
        shards = {str(shard) for shard in named.values()} if isinstance(named, dict) else set()
        return [name for name in names if name in shards]
    return [name for name in names if name == SINGLE] or names
