"""Headers of safetensors files, one by one: what is refused and why, what is read, and what that costs."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import safetensors

from modelsurgeon.errors import SourceError
from modelsurgeon.files import safetensors_file
from modelsurgeon.files.file import LocalFile
from modelsurgeon.files.safetensors_file import BITS, Entry, layout, read_entries
from modelsurgeon.tensors.dtypes import DTYPES
from modelsurgeon.tensors.stored import Stored, read_header
from support.header_bytes import Bytes, entry, file_of

# What is refused, by name

HUGE = "which no memory holds"
REFUSED = {
    "nothing": (Bytes(b""), "0 bytes, expected the 8 of a header's length"),
    "seven bytes": (Bytes(b"abcdefg"), "7 bytes, expected the 8"),
    "a length of 2**63": (file_of(b"{}", length=2**63), f"a header of {2**63} bytes, expected 100000000 at most"),
    "a length of 2**64 - 1": (file_of(b"{}", length=2**64 - 1), "at most"),
    "a length beyond the file": (file_of(b"{}", length=3), "a header of 3 bytes in a file of 10"),
    "no header": (Bytes(bytes(8)), "a header that begins with b''"),
    "zeros": (Bytes(bytes(4096)), "a header that begins with b''"),
    "a list": (file_of([]), "a header that begins with b'['"),
    "a mark of byte order": (file_of(b"\xef\xbb\xbf{}"), "begins with"),
    "UTF-16": (file_of('{"a": 1}'.encode("utf-16-le")), "begins no entry"),
    "no UTF-8": (file_of(b'{"\xff": {}}'), "can't decode"),
    "deep objects": (file_of(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "begins no entry"),
    "deep lists": (file_of(b'{"a": {"shape": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}"), "an entry of 100011"),
    "lists as deep as an entry can be": (file_of(b'{"a": {"shape": ' + b"[" * 2000 + b"]" * 2000 + b"}}"), "recursion"),
    "an endless name": (file_of({"x" * 5000: entry()}), "a name of 5002 bytes, expected 4096 at most"),
    "an endless number": (file_of({"x": entry(shape=[10**4200])}), "expected 4096 at most"),
    "a key that appears twice": (file_of(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "appears twice, 'dtype'"),
    "a tensor that appears twice, escaped": (
        file_of(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\\u0061":{}}', bytes(4)),
        "a name that appears twice, 'a'",
    ),
    "metadata that appear twice": (file_of(b'{"__metadata__": {}, "__metadata__": {}}'), "appears twice"),
    "a key of the metadata twice": (file_of(b'{"__metadata__": {"a": "", "a": ""}}'), "appears twice, 'a'"),
    "metadata that are no strings": (file_of({"__metadata__": {"a": 1}}), "__metadata__ holds a int, expected strings"),
    "no entry": (file_of({"a": 1}), "byte 1 of the header begins no entry"),
    "a comma too many": (file_of(b'{"__metadata__": {},}'), "byte 20 of the header begins no entry"),
    "more behind the header": (file_of(b"{}{}"), "goes on behind its end, at byte 2"),
    "a key too few": (file_of({"a": {"dtype": "F32", "shape": [2]}}), "its keys are ['dtype', 'shape'], expected"),
    "a key too many": (file_of({"a": entry(strides=[1])}, bytes(8)), "'strides'"),
    "a dtype that nobody knows": (file_of({"a": entry("F7")}, bytes(8)), "unknown dtype 'F7'"),
    "a dtype that is a list": (file_of({"a": entry(["F32"])}, bytes(8)), "unknown dtype ['F32']"),
    "a shape that is none": (file_of({"a": entry(shape="2")}, bytes(8)), "shape '2', expected whole numbers"),
    "a negative size": (file_of({"a": entry(shape=[-2])}, bytes(8)), "shape [-2], expected whole numbers of 0 or more"),
    "two negative sizes": (file_of({"a": entry(shape=[-2, -1])}, bytes(8)), "expected whole numbers of 0 or more"),
    "a size that is true": (file_of({"a": entry(shape=[2, True])}, bytes(8)), "shape [2, True]"),
    "a size with a point": (file_of({"a": entry(shape=[2.0])}, bytes(8)), "shape [2.0]"),
    "a size of 2e0": (file_of(b'{"a":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}', bytes(8)), "shape [2.0]"),
    "a size of NaN": (file_of({"a": entry(shape=[float("nan")])}, bytes(8)), "shape [nan]"),
    "an infinite size": (file_of({"a": entry(shape=[float("inf")])}, bytes(8)), "shape [inf]"),
    "a huge size": (file_of({"a": entry(shape=[2**62])}, bytes(8)), HUGE),
    "sizes that overflow to those of the file": (file_of({"a": entry(shape=[2**32, 2**32, 2])}, bytes(8)), HUGE),
    "a huge size beside a zero": (file_of({"a": entry(shape=[0, 2**62], offsets=[0, 0])}), HUGE),
    "a size that is not the data's": (file_of({"a": entry(shape=[3])}, bytes(8)), "8 bytes, but F32 of shape [3]"),
    "half a byte": (file_of({"a": entry("F4", [3], [0, 1])}, bytes(1)), "F4 of shape [3] ends inside of a byte"),
    "one offset": (file_of({"a": entry(offsets=[8])}, bytes(8)), "data_offsets [8], expected a begin and an end"),
    "three offsets": (file_of({"a": entry(offsets=[0, 8, 8])}, bytes(8)), "expected a begin and an end"),
    "negative offsets": (file_of({"a": entry(offsets=[-8, 0])}, bytes(8)), "data_offsets [-8, 0]"),
    "reversed offsets": (file_of({"a": entry(offsets=[8, 0])}, bytes(8)), "-8 bytes, but F32 of shape [2] takes 8"),
    "a gap before": (file_of({"a": entry(offsets=[4, 12])}, bytes(12)), "'a' leaves a gap before it: it begins at"),
    "a gap between": (
        file_of({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
        "tensor 'b' leaves a gap before it: it begins at byte 12 of the data, not at 8",
    ),
    "an overlap": (
        file_of({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        "tensor 'b' overlaps the one before: it begins at byte 4 of the data, not at 8",
    ),
    "the same bytes twice": (file_of({"a": entry(), "b": entry()}, bytes(8)), "tensor 'b' overlaps"),
    "a file cut short": (file_of({"a": entry()}, bytes(7)), "8 bytes of tensors, but 7 bytes of data"),
    "bytes behind": (file_of({"a": entry()}, bytes(9)), "8 bytes of tensors, but 9 bytes of data"),
    "bytes behind nothing": (file_of({}, bytes(1)), "0 bytes of tensors, but 1 bytes of data"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_sound_is_refused_with_the_reason(file, said):
    with pytest.raises(SourceError) as refused:
        read_header(file)
    assert str(refused.value).startswith("model.safetensors: not a sound safetensors file: ")
    assert said in str(refused.value)
    assert len(file.reads) <= 2


@pytest.mark.parametrize("dtype", sorted(set(BITS) - set(DTYPES)))
def test_dtypes_that_surgery_cannot_work_on_are_refused_by_name_with_the_way_out(dtype):
    file = file_of({"x.weight": entry(dtype, [8], [0, BITS[dtype]])}, bytes(BITS[dtype]))
    assert read_entries(file) == {"x.weight": Entry(file, dtype, (8,), file.size - BITS[dtype], BITS[dtype])}
    with pytest.raises(
        SourceError, match=rf"tensor 'x.weight' is stored as {dtype} \(.*dtype=bfloat16.*save_pretrained"
    ):
        read_header(file)


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202eright to left", "\x7f"])
def test_names_that_would_move_a_cursor_are_refused(name):
    with pytest.raises(SourceError, match="has control characters in its name"):
        read_header(file_of({name: entry()}, bytes(8)))


# What is accepted


def test_every_dtype_of_the_library_is_known(tmp_path):
    """Its own message lists them."""
    raw = file_of({"a": entry("F7")}, bytes(8)).data
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(safetensors.SafetensorError) as refused, safetensors.safe_open(tmp_path / "x", "pt"):
        pass
    assert set(str(refused.value).split("expected one of")[1].split(" at line")[0].replace("`", "").split(", ")) == {
        *BITS, " BOOL"
    } - {"BOOL"}  # fmt: skip


def test_what_layout_writes_is_read_again(tmp_path):
    tensors = {"b": Stored(Bytes(b""), "BF16", (3, 2), 0), "a": Stored(Bytes(b""), "F32", (2,), 0)}
    prefix, starts = layout(tensors)
    (tmp_path / "x").write_bytes(prefix + bytes(sum(tensor.nbytes for tensor in tensors.values())))
    file = LocalFile(tmp_path / "x")
    assert read_header(file) == {
        name: Stored(file, tensors[name].dtype, tensors[name].shape, starts[name]) for name in ("a", "b")
    }


@pytest.mark.parametrize("count", [1, 5000])
def test_a_header_takes_one_read_or_two_and_no_tensor_is_read(count):
    header = {f"model.layers.{i}.weight": entry(offsets=[8 * i, 8 * i + 8]) for i in range(count)}
    file = file_of(header, bytes(8 * count))
    assert len(read_header(file)) == count
    assert len(file.reads) == (1 if count == 1 else 2)
    assert sum(length for _, length in file.reads) <= max(len(json.dumps(header)) + 8, safetensors_file.FIRST_READ)


# What it costs

HOSTILE = {
    "lists": b'{"a":{"shape":[' + b"[]," * 3_000_000,
    "objects": b'{"a":{' + b'"b":{},' * 1_400_000,
    "nested": b'{"a":' * 2_000_000,
    "metadata": b'{"__metadata__":{' + b",".join(b'"%x":""' % i for i in range(900_000)) + b"}}",
    "strings": b'{"__metadata__":{"' + b'","":"' * 1_600_000,
    "tensors": b"{"
    + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(20_000))
    + b"}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_takes_memory_in_proportion(text):
    file = file_of(text)
    tracemalloc.start()
    try:
        read_entries(file)
    except SourceError as refused:
        assert len(str(refused)) < 300
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30 * len(text)
