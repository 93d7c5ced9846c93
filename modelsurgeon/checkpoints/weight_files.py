"""Which files make the model: those that `from_pretrained` loads, where no other reading lies beside them.

    config.json, "transformers_weights"   the file or the index that it names
    model.safetensors                     if it names none
    model.safetensors.index.json          if there is no such file: the shards that it names

>>> weight_files(LocalFolder(Path("demo")), {}).names
('model.safetensors',)

Every command asks here, so that none judges other numbers than those that are run later. Refused is a folder of which
tools, or versions of one tool, read different models: shards beside a stray model.safetensors, an adapter beside the
weights. What nobody reads by default is no second reading: variants (model.fp16.safetensors), consolidated.safetensors,
pickles, GGUF, shards that no index names. It is left behind, and named.

Sources: `_get_resolved_checkpoint_files` of transformers/modeling_utils.py, `get_checkpoint_shard_files` of
utils/hub.py, `maybe_load_adapters` of integrations/peft.py, `is_sharded_checkpoint` of distributed/checkpoint.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsurgeon.errors import AmbiguousError, SourceError
from modelsurgeon.files.file import File, Folder
from modelsurgeon.files.json_file import OF_CONFIGS, OF_INDICES, read_json, shortened
from modelsurgeon.text import shown

SINGLE = "model.safetensors"
SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
INDEX = f"model{INDEX_SUFFIX}"
CONFIG, ADAPTER = "config.json", "adapter_config.json"
NAMED = "transformers_weights"  # the key of config.json that names the weights
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
DEFAULT_PICKLE = "pytorch_model.bin"  # loaded where there are no safetensors
PICKLED_MODEL = re.compile(r"(pytorch_|adapter_)?model|consolidated")
OF_A_CLUSTER = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # loaded before all others
VARIANT = re.compile(r"model\.(?:safetensors\.index\.)?(?P<variant>[\w-]+)(?:-\d{5}-of-\d{5})?\.(?:safetensors|json)")
MERGE = "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(...)"


@dataclass(frozen=True)
class WeightFiles:
    """The files that make one model.

    names       the safetensors files, sorted
    index       the index that names them; None where one file is the model
    weight_map  {tensor: file} of that index
    """

    names: tuple[str, ...]
    index: str | None = None
    weight_map: Mapping[str, str] = field(default_factory=dict)

    @property
    def standard(self) -> dict[str, str]:
        """{the name that every loader knows: the file}, of the files and of the index."""
        if self.index:
            return {name: name for name in self.names} | {INDEX: self.index}
        return {SINGLE: self.names[0]}


def weight_files(folder: Folder, config: Mapping[str, Any] | None = None) -> WeightFiles:
    """The files that `from_pretrained` loads.

    config  config.json, where the caller has read it
    Raises AmbiguousError where there is another reading, SourceError where nothing is loaded, or only pickles are.
    """
    named = _named(folder, read_json(config_file(folder), OF_CONFIGS) if config is None else config)
    _refuse_others(folder)
    first = next((name for name in (SINGLE, INDEX) if folder.holds(name)), None)
    if named and first and named != first and _is_another(folder, named, first):
        raise AmbiguousError(
            f"{folder}: two models: config.json names {named} in {NAMED}, which transformers loads, and {first} is "
            f"what other tools load; remove the key, or {first}"
        )
    if named and named not in folder.names():
        folder.file(named, f", though {NAMED} in config.json names it")
    if not (found := named or first):
        raise SourceError(f"{folder}: {_nothing(folder.names())}")
    if found.endswith(INDEX_SUFFIX):
        return _shards(folder, found)
    return _beside_index(folder) if found == SINGLE and folder.holds(INDEX) else WeightFiles((found,))


def config_file(folder: Folder) -> File:
    """config.json. Raises SourceError where there is none."""
    if not folder.holds(CONFIG) and folder.holds(ADAPTER):
        raise SourceError(f"{folder}: an adapter, and no {CONFIG}; merge it into its base model first: {MERGE}")
    return folder.file(CONFIG)


def without_paths(where: object, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the key that names weights: an output names its own as all do.

    Raises SourceError where the library would read another file in place of config.json.
    """
    others = config.get("configuration_files")
    listed = others if isinstance(others, list) else [others] if others else []
    if found := [name for name in listed if name != CONFIG]:
        raise SourceError(
            f"{where}: configuration_files names {shortened(found[0])}, which transformers may read in place of "
            f"{CONFIG}; keep one: rename it to {CONFIG}, or remove the key"
        )
    return {key: value for key, value in config.items() if key != NAMED}


def unread(folder: Folder, weights: WeightFiles) -> tuple[str, ...]:
    """The weights of a folder that are not read, though some loader or some option would read them."""
    read = {*weights.names, weights.index}
    return tuple(shown(name) for name in folder.names() if is_of_weights(name) and name not in read)


def is_of_weights(name: str) -> bool:
    """Whether a file of that name holds weights, or lists the files that do; not the pickles of an optimizer."""
    if name.endswith(PICKLES):
        return bool(PICKLED_MODEL.match(name))
    return Path(name).suffix in (SUFFIX, ".gguf", ".h5", ".msgpack") or (".index." in name and name.endswith(".json"))


def is_part(name: str) -> bool:
    """Whether a file of that name may change what is loaded: weights, config, an adapter, code."""
    return is_of_weights(name) or name in (CONFIG, ADAPTER) or name.endswith((".bin", ".py"))


# --- one reading -----------------------------------------------------------------------------------------------------


def _named(folder: Folder, config: Mapping[str, Any]) -> str | None:
    """What `transformers_weights` names. Raises SourceError for what the library, or this program, does not load."""
    named = config.get(NAMED)
    if named is None:
        return None
    if not isinstance(named, str) or not named.endswith((SUFFIX, INDEX_SUFFIX)):
        raise SourceError(
            f"{folder}: config.json: {NAMED} is {shortened(named)}, expected the name of a safetensors file or index"
        )
    return named


def _is_another(folder: Folder, named: str, first: str) -> bool:
    """Whether `first` is a model, and not the one that `named` is: an index may name that file alone, or none here."""
    if first == INDEX:
        return bool(_here(folder, _listed(folder.file(INDEX))))
    is_index = named.endswith(INDEX_SUFFIX) and named in folder.names()
    return not is_index or set(_listed(folder.file(named)).values()) != {first}


def _refuse_others(folder: Folder) -> None:
    """Raise AmbiguousError for files that are loaded in place of the usual ones, or on top of them."""
    if folder.holds(ADAPTER):
        raise AmbiguousError(
            f"{folder}: two models: {ADAPTER} lies beside the weights, so transformers loads an adapter on top where "
            f"peft is installed; move it away, or merge it: {MERGE}"
        )
    if part := next(filter(OF_A_CLUSTER.fullmatch, folder.names()), None):
        raise AmbiguousError(
            f"{folder}: two models: {part} is part of a distributed checkpoint, which transformers loads in place of "
            f"{SINGLE}; move these parts away, or load the folder and save_pretrained(...) it elsewhere"
        )


def _shards(folder: Folder, index: str) -> WeightFiles:
    file = folder.file(index)
    found = read_json(file, OF_INDICES)
    weight_map = _weight_map(file, found)
    shards = tuple(sorted(set(weight_map.values())))
    for shard in shards:
        folder.file(shard, ", though its index names it")
        if not shard.endswith(SUFFIX):
            raise SourceError(f"{file}: names {shown(shard)!r}, expected safetensors files alone")
    if not isinstance(found.get("metadata"), dict):
        raise SourceError(f'{file}: no metadata, without which transformers does not load it; add "metadata": {{}}')
    return WeightFiles(shards, index, weight_map)


def _beside_index(folder: Folder) -> WeightFiles:
    """model.safetensors, where an index lies beside it that names this file alone, or only files that are gone.

    A `save_pretrained` that needs fewer files leaves the old index there, without its shards.
    """
    weight_map = _listed(folder.file(INDEX))
    if set(weight_map.values()) == {SINGLE}:
        return WeightFiles((SINGLE,), INDEX, weight_map)
    if here := _here(folder, weight_map):
        raise AmbiguousError(
            f"{folder}: two models: transformers loads {SINGLE}, and {INDEX} names {shown(here)}, which other tools "
            f"load; remove {SINGLE}, or the index and its files"
        )
    return WeightFiles((SINGLE,))


def _here(folder: Folder, weight_map: Mapping[str, str]) -> str | None:
    """The first file of an index that is in the folder, or may be in another one."""
    names = set(folder.names())
    return min((shard for shard in weight_map.values() if shard in names or Path(shard).name != shard), default=None)


def _listed(file: File) -> dict[str, str]:
    """{tensor: file} of an index. Raises SourceError where it is none, or empty."""
    return _weight_map(file, read_json(file, OF_INDICES))


def _weight_map(file: File, index: Mapping[str, Any]) -> dict[str, str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise SourceError(f"{file}: no weight_map of tensor names to file names")
    if not weight_map:
        raise SourceError(f"{file}: its weight_map names no tensor")
    return weight_map


# --- none ------------------------------------------------------------------------------------------------------------


def _nothing(names: list[str]) -> str:
    """What lies there in place of weights that are loaded by default, and the way out."""
    lacks = f"no {SINGLE} and no {INDEX}"
    held = [name for name in names if is_of_weights(name) or _is_pickle(name)]
    found = sorted(held, key=lambda name: (not _is_default(name), _is_pickle(name), name))
    if not found:
        return lacks
    if _is_pickle(found[0]):
        lacks = lacks if any(name.endswith(SUFFIX) for name in names) else "no safetensors"
    return f"{lacks}, only {shown(found[0])}; {_way_out(found[0])}"


def _is_pickle(name: str) -> bool:
    return name.endswith(PICKLES) or name == f"{DEFAULT_PICKLE}.index.json"


def _is_default(name: str) -> bool:
    """Whether transformers loads it where there are no safetensors."""
    return name in (DEFAULT_PICKLE, f"{DEFAULT_PICKLE}.index.json")


def _way_out(name: str) -> str:
    if _is_pickle(name):
        return (
            "pickles are never opened: convert it with save_pretrained(..., safe_serialization=True) where you trust it"
        )
    if name.startswith("consolidated"):
        return "it has the names of the original code, which transformers does not load; take the converted checkpoint"
    if name.endswith((".h5", ".msgpack")):
        return "transformers loads weights of TensorFlow and Flax no more; convert it with transformers 4"
    if name.endswith(".gguf"):
        return "it is loaded with gguf_file=... alone; load it so and save_pretrained(...) it elsewhere"
    if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name):
        return f"it is a shard, and transformers needs the index that names it; fetch {INDEX}"
    if variant := VARIANT.fullmatch(name):
        said = variant["variant"].partition("-0")[0]
        return f"it is loaded with variant={said!r} alone; load it so and save_pretrained(...) it elsewhere"
    return f"transformers loads no file of that name; rename it to {SINGLE} if it is the model"
