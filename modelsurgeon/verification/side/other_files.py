"""Files that no other row compares: code, adapters, whatever else a folder holds; and what nobody compares.

Code is compared by its bytes and never run. Weights in other formats, sub-folders, licences and the README are named,
and it is said that they were not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from modelsurgeon.checkpoints.checkpoint import Checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.text import shown
from modelsurgeon.verification.side import chat_templates, settings_files
from modelsurgeon.verification.side.finding import (
    NEITHER,
    NOT_COMPARED,
    SAME,
    Beside,
    Pair,
    by_bytes,
    document,
    listed,
    present,
    soft,
    verdict,
)
from modelsurgeon.verification.side.vocabularies import is_tokenizer_file

CODE, ADAPTERS = "remote code", re.compile(r"adapter_(config|model)\.\w+")
PAPERS = re.compile(r"(README|LICEN[CS]E|NOTICE|USE_POLICY)[\w.-]*", re.IGNORECASE)
WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|onnx_data|gguf|ggml|ot|npz|tflite|mlmodel|pdparams)"
    r"|.*\.(safetensors|bin|msgpack|h5)\.index(\.[\w-]+)?\.json"
)
READ = frozenset({"config.json", RECORD})  # by other levels


def compare_other_files(pair: Pair) -> Iterator[Beside]:
    """Rows for code, adapters and each further file; then what is not compared."""
    yield soft(CODE, lambda: _code(pair))
    adapters = [name for name in pair.all_names if ADAPTERS.fullmatch(name)]
    yield from [by_bytes(name, pair) for name in adapters] or [Beside("adapters", SAME, NEITHER)]
    yield from (by_bytes(name, pair) for name in pair.all_names if _is_other(name))
    used = [_weights(side) for side in pair.sides]
    weights = [{n for n in names if WEIGHTS.fullmatch(n) and not ADAPTERS.fullmatch(n)} for names in pair.names]
    yield from _not_compared("other weights", [found - own for found, own in zip(weights, used, strict=True)])
    yield from _not_compared("sub-folders", [_folders(side) for side in pair.sides])
    yield from _not_compared("licence and README", [{n for n in names if PAPERS.fullmatch(n)} for names in pair.names])


def _is_other(name: str) -> bool:
    has_a_row = is_tokenizer_file(name) or name in settings_files.FILES | chat_templates.FILES | READ
    is_code = name.endswith(".py")
    known = has_a_row or is_code or any(kind.fullmatch(name) for kind in (ADAPTERS, PAPERS, WEIGHTS))
    return not known and not name.startswith((".", "__"))


def _code(pair: Pair) -> Beside:
    """Code, and the keys `auto_map` that name it, in config.json and in tokenizer_config.json."""
    maps = [_auto_maps(side) for side in pair.sides]
    modules = [{name for name in names if name.endswith(".py")} for names in pair.names]
    named = [[*(f"auto_map of {file}" for file in maps[at]), *sorted(modules[at])] for at in (0, 1)]
    if missing := present(CODE, named[0], named[1], listed(list(map(shown, named[0] or named[1])))):
        return missing
    found = [by_bytes(name, pair) for name in sorted(modules[0] | modules[1])]
    differences = [f"{row.what} {row.finding}" for row in found if row.finding != SAME]
    files = dict.fromkeys([*maps[0], *maps[1]])
    differences += [f"auto_map of {file}" for file in files if maps[0].get(file) != maps[1].get(file)]
    if differences and all(row.finding in (SAME, NOT_COMPARED) for row in found) and maps[0] == maps[1]:
        return Beside(CODE, NOT_COMPARED, listed(differences))
    return verdict(CODE, differences, f"{listed(list(map(shown, named[0])))}; the same, and not run by this comparison")


def _auto_maps(side: Checkpoint) -> dict[str, Any]:
    settings = "tokenizer_config.json"
    found = {"config.json": side.config.get("auto_map")}
    if side.origin.folder.holds(settings):
        found[settings] = document(side.origin.folder.file(settings)).get("auto_map")
    return {file: value for file, value in found.items() if value}


def _weights(side: Checkpoint) -> set[str | None]:
    """The files that its tensors are read from, and the index that names them."""
    return {*side.weights.names, side.weights.index} if side.weights else set()


def _folders(side: Checkpoint) -> set[str]:
    names = (name for name in side.origin.folder.folders() if not name.startswith((".", "__")))
    return {f"{name}/" for name in names if name != chat_templates.FOLDER}


def _not_compared(what: str, sides: Iterable[set[str]]) -> Iterator[Beside]:
    """A row that names what lies where; none where nothing does."""
    before, after = sides
    places = {(True, True): "both", (True, False): "source", (False, True): "result"}
    parts = [f"{shown(name)} ({places[name in before, name in after]})" for name in sorted(before | after)]
    if parts:
        yield Beside(what, NOT_COMPARED, listed(parts))
