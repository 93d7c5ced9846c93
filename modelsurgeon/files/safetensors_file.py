"""Safetensors files: headers read and checked; headers laid out for writing.

A file is 8 bytes of header length, a JSON header, then the data. The header fixes every offset before the first byte of
data, so a shard of any size is written from blocks of bounded size.

A stranger wrote the header, and the file may be behind a network. So its length is compared with the file's before
memory is allocated, two reads fetch it, and it is parsed one entry at a time: nested or endless values are never built.
The law: what the library (`safe_open`) refuses is refused, and what is accepted is read from the same bytes as the
library's. Also refused: repeated names and keys, sizes that overflow beside a zero, entries with further keys.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import File
from modelsurgeon.files.json_file import no_duplicates, shortened

ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "U8", "BOOL")  # the library's: dtypes first to last, then names
BITS = {  # bits of one number, for every dtype that the library knows
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
FIELDS = {"dtype", "shape", "data_offsets"}
METADATA = "__metadata__"

FIRST_READ = 100_000  # bytes: as long as most headers
LARGEST_HEADER = 100_000_000  # bytes, as in the library
LARGEST_METADATA = 10_000_000  # bytes
LONGEST = 4096  # bytes of an entry or a name
MOST_TENSORS = 1_000_000  # the largest models have a tenth of it, in hundreds of files

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT_OBJECT = rb"\{(?:[^\"{}]++|" + _STRING + rb")*+\}"
_SPACES = re.compile(_SPACE)
_NOTHING = re.compile(rb"\{" + _SPACE + rb"\}")
_MEMBER = re.compile(
    _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(" + _FLAT_OBJECT + rb")" + _SPACE + rb"([,}])",
    re.DOTALL,
)


class Described(Protocol):
    """What a header says of a tensor: its dtype as the library names it ("BF16"), its shape, the bytes of its data."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor's entry in a header, of any dtype.

    start   bytes from the file's beginning
    nbytes  bytes that it takes
    """

    file: File
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_entries(file: File) -> dict[str, Entry]:
    """{tensor name: entry}, in the header's order; nothing but the header is read.

    Raises SourceError for a file that is not sound.
    """
    try:
        header = _read(file)
        data = 8 + len(header)
        entries: dict[str, Entry] = {}
        for name, text in _members(header):
            if name == METADATA:
                _check_metadata(text)
            else:
                entries[name] = _entry(file, name, text, data)
        _check_places(entries, data, file.size)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}: not a sound safetensors file: {error}; fetch it or save it again") from None
    return entries


def _read(file: File) -> bytes:
    """The header's text. Its length is trusted once the file is long enough for it."""
    first = file.read(0, min(file.size, FIRST_READ))
    if len(first) < 8:
        raise ValueError(f"{len(first)} bytes, expected the 8 of a header's length first")
    (length,) = struct.unpack_from("<Q", first)
    if length > LARGEST_HEADER:
        raise ValueError(f"a header of {length} bytes, expected {LARGEST_HEADER} at most")
    if length > file.size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {file.size}")
    have = first[8 : 8 + length]
    return have if len(have) == length else have + file.read(8 + len(have), length - len(have))


def _members(header: bytes) -> Iterator[tuple[str, str]]:
    """(name, JSON of its flat object) of every tensor and of the metadata; one is built at a time."""
    if not header.startswith(b"{"):
        raise ValueError(f"a header that begins with {header[:1]!r}, expected a JSON object")
    at, names, closed = 1, set[str](), _NOTHING.match(header)
    while not closed:
        found = _MEMBER.match(header, at, at + LARGEST_METADATA)
        if not found:
            raise ValueError(f"byte {at} of the header begins no entry of a tensor")
        name = _name(found[1])
        if name in names:
            raise ValueError(f"a name that appears twice, {name!r}")
        names.add(name)
        if len(names) > MOST_TENSORS:
            raise ValueError(f"more than {MOST_TENSORS} tensors")
        yield name, found[2].decode()
        at, closed = found.end(), found if found[3] == b"}" else None
    if not _SPACES.fullmatch(header, closed.end()):
        raise ValueError(f"a header that goes on behind its end, at byte {closed.end()}")


def _name(text: bytes) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"a name of {len(text)} bytes, expected {LONGEST} at most")
    name = str(json.loads(text.decode()))
    name.encode()  # raises for half of a pair of surrogates, which is no text
    return name


def _check_metadata(text: str) -> None:
    """Raise ValueError unless the metadata are strings by name; nothing reads them."""
    for key, value in json.loads(text, object_pairs_hook=no_duplicates).items():
        if not isinstance(value, str):
            raise ValueError(f"{METADATA} holds a {type(value).__name__}, expected strings")
        (key + value).encode()


def _entry(file: File, name: str, text: str, data: int) -> Entry:
    """The entry of one tensor, checked, in a file whose data begins at byte `data`."""
    if len(text) > LONGEST:
        raise ValueError(f"tensor {name!r}: an entry of {len(text)} characters, expected {LONGEST} at most")
    fields = _DECODER.decode(text)
    if fields.keys() != FIELDS:
        raise ValueError(
            f"tensor {name!r}: its keys are {shortened(sorted(fields))}, expected dtype, shape, data_offsets"
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {name!r}: unknown dtype {shortened(dtype)}")
    if not _are_whole(shape):
        raise ValueError(f"tensor {name!r}: shape {shortened(shape)}, expected whole numbers of 0 or more")
    if not _are_whole(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r}: data_offsets {shortened(offsets)}, expected a begin and an end")
    wanted, found = _nbytes(name, dtype, shape), offsets[1] - offsets[0]
    if wanted != found:
        raise ValueError(f"tensor {name!r}: {found} bytes, but {dtype} of shape {shortened(shape)} takes {wanted}")
    return Entry(file, dtype, tuple(shape), data + offsets[0], wanted)


def _nbytes(name: str, dtype: str, shape: list[int]) -> int:
    if BITS[dtype] * math.prod(size or 1 for size in shape) >= 1 << 63:  # readers multiply some sizes, without a zero
        raise ValueError(f"tensor {name!r}: a shape of {shortened(shape)}, which no memory holds")
    nbytes, rest = divmod(BITS[dtype] * math.prod(shape), 8)
    if rest:
        raise ValueError(f"tensor {name!r}: {dtype} of shape {shortened(shape)} ends inside of a byte")
    return nbytes


def _check_places(entries: Mapping[str, Entry], data: int, size: int) -> None:
    """Raise ValueError unless the tensors fill the file's data without gaps or overlaps."""
    at = data
    for start, nbytes, name in sorted((entry.start, entry.nbytes, name) for name, entry in entries.items()):
        if start != at:
            how = "overlaps the one before" if start < at else "leaves a gap before it"
            raise ValueError(f"tensor {name!r} {how}: it begins at byte {start - data} of the data, not at {at - data}")
        at += nbytes
    if at != size:
        raise ValueError(f"{at - data} bytes of tensors, but {size - data} bytes of data")


def _are_whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


_DECODER = json.JSONDecoder(  # to the library, -0 is a float
    object_pairs_hook=no_duplicates, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits)
)


def layout(tensors: Mapping[str, Described]) -> tuple[bytes, dict[str, int]]:
    """(the bytes before the data, {name: where its data begins}), as the safetensors library lays files out."""
    order = sorted(tensors, key=lambda name: (ORDER.index(tensors[name].dtype), name))
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    starts, at = {}, 0
    for name in order:
        tensor = tensors[name]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        starts[name] = at
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    prefix = struct.pack("<Q", len(text)) + text
    return prefix, {name: len(prefix) + start for name, start in starts.items()}
