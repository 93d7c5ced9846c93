"""Safetensors files: headers read and checked, shards written front to back in blocks.

A file is 8 bytes of header length, a JSON header, then the data. The header fixes every offset before the first byte of
data, so a shard of any size is written from blocks of bounded size. Checking is the library's (`safe_open` refuses
holes, overlaps, wrong sizes, unknown dtypes); what it lets through and surgery must not is refused here.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open

from modelsurgeon.errors import SourceError
from modelsurgeon.files import File
from modelsurgeon.tensor import DTYPES, LazyTensor, Stored

ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "U8", "BOOL")  # the library's: dtypes first to last, then names


def read_header(file: File) -> dict[str, Stored]:
    """{tensor name: where it lies}. Raises SourceError, with the library's reason, for a file that is not sound."""
    try:
        with safe_open(file.path, framework="np") as checked:  # only its checks are wanted: no tensor is read
            checked.metadata()
        (length,) = struct.unpack("<Q", file.read(0, 8))
        header = json.loads(file.read(8, length), object_pairs_hook=_no_duplicates)
    except SafetensorError as error:
        raise SourceError(f"{file}: not a sound safetensors file ({error})") from None
    except (ValueError, struct.error, RecursionError) as error:
        raise SourceError(f"{file}: its header cannot be read ({error})") from None
    header.pop("__metadata__", None)
    return {name: _stored(file, name, entry, 8 + length) for name, entry in header.items()}


def _stored(file: File, name: str, entry: Mapping[str, Any], data: int) -> Stored:
    if not name.isprintable():
        raise SourceError(f"{file}: tensor {name!r} has control characters in its name")
    if entry["dtype"] not in DTYPES:
        raise SourceError(
            f"{file}: tensor {name!r} is stored as {entry['dtype']}: quantised checkpoints cannot be operated on; "
            "start from the one it was made from"
        )
    return Stored(file, entry["dtype"], tuple(entry["shape"]), data + entry["data_offsets"][0])


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands twice")
    return found


def layout(tensors: Mapping[str, LazyTensor]) -> tuple[bytes, dict[str, int]]:
    """(the bytes before the data, {name: where its data begins}), as the safetensors library lays files out."""
    order = sorted(tensors, key=lambda name: (ORDER.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, at = {}, 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        starts[name] = at
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    prefix = struct.pack("<Q", len(text)) + text
    return prefix, {name: len(prefix) + start for name, start in starts.items()}
